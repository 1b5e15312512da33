// The reordering around cuFFT's transforms, with a Fourier transform by its definition in between,
// compared with the serial backend.
#include "../support/memory.hpp"

#include <deltadct/backend/cufft/reorder.hpp>
#include <deltadct/backend/serial/serial.hpp>

#include <cmath>
#include <complex>
#include <random>

#include <doctest/doctest.h>

using namespace deltadct;
using test::Memory;

namespace {

template <class T>
using Spectrum = Memory<detail::Complex<T>>;

std::complex<double> root(int n, int p) {
  return {cos_pi(2L * n, p), -cos_pi(2L * n - p / 2, p)};
}

template <int P, class T>
Spectrum<T> transformed(const Memory<T>& v, std::size_t count) {
  constexpr int half = P / 2 + 1;
  Spectrum<T> spectrum(count * P * half);
  for (std::size_t s = 0; s < spectrum.size(); ++s) {
    const std::size_t patch = s / (P * half);
    const int k = static_cast<int>(s % (P * half)) / half;
    const int l = static_cast<int>(s % half);
    std::complex<double> sum;
    for (int a = 0; a < P; ++a) {
      for (int b = 0; b < P; ++b) {
        const auto at = patch * P * P + static_cast<std::size_t>(a * P + b);
        sum += static_cast<double>(v[at]) * root(k * a + l * b, P);
      }
    }
    spectrum[s] = {static_cast<T>(sum.real()), static_cast<T>(sum.imag())};
  }
  return spectrum;
}

template <int P, class T>
Memory<T> transformed_back(const Spectrum<T>& spectrum, std::size_t count) {
  constexpr int half = P / 2 + 1;
  Memory<T> v(count * P * P);
  for (std::size_t s = 0; s < v.size(); ++s) {
    const std::size_t patch = s / (P * P);
    const int a = static_cast<int>(s % (P * P)) / P;
    const int b = static_cast<int>(s % P);
    double sum = 0;
    for (int k = 0; k < P; ++k) {
      for (int l = 0; l < half; ++l) {
        const auto x = spectrum[patch * P * half + static_cast<std::size_t>(k * half + l)];
        const std::complex<double> value(static_cast<double>(x.re), static_cast<double>(x.im));
        // The signal is real, so the other half of the spectrum contributes the same again.
        const double times = l == 0 || l == P / 2 ? 1 : 2;
        sum += times * (value * std::conj(root(k * a + l * b, P))).real();
      }
    }
    v[s] = static_cast<T>(sum);
  }
  return v;
}

template <int P, class T>
void check() {
  CAPTURE(P);
  constexpr double tolerance = sizeof(T) == 4 ? 2e-6 : 1e-14;
  const std::size_t count = 3;
  std::mt19937 bits(7);
  Memory<T> x(count * P * P);
  for (T& value : x) value = static_cast<T>(static_cast<double>(bits()) * 0x1p-31 - 1);
  Memory<T> expected(x.size());
  forward_dct<Serial, P>(x.data(), expected.data(), count);

  Memory<T> v(x.size());
  test::run_kernel(detail::Shuffle<P, T, true>(x.data(), v.data(), count), false);
  const Spectrum<T> spectrum = transformed<P>(v, count);
  Memory<T> found(x.size());
  test::run_kernel(detail::SpectrumToCoefficients<P, T>(spectrum.data(), found.data(), count),
                   false);

  Spectrum<T> again(spectrum.size());
  test::run_kernel(detail::CoefficientsToSpectrum<P, T>(expected.data(), again.data(), count),
                   false);
  v = transformed_back<P, T>(again, count);
  Memory<T> back(x.size());
  test::run_kernel(detail::Shuffle<P, T, false>(v.data(), back.data(), count), false);

  for (std::size_t s = 0; s < x.size(); ++s) {
    REQUIRE(std::abs(static_cast<double>(found[s] - expected[s])) <= tolerance * P);
    REQUIRE(std::abs(static_cast<double>(back[s] - x[s])) <= tolerance * P);
  }
}

}  // namespace

TEST_CASE("cufft: reordering, a Fourier transform and a turn are the DCT") {
  check<2, double>();
  check<4, float>();
  check<8, float>();
  check<12, double>();
  check<16, float>();
  check<32, double>();
}
