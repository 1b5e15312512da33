// The 2-D DCT through a real FFT of the same size (J. Makhoul, "A fast cosine transform in one and
// two dimensions", 1980): take the even samples, then the odd ones backwards; transform; rotate
// every coefficient.
//
//     v[a, b] = x[s(a), s(b)],   s(n) = 2 n below P/2, else 2 (P - n) - 1;   V is the FFT of v
//     S[k, l] = Re(w(k) w(l) V[k, l] + w(k) w*(l) V[k, P - l]) / 2
//     V[k, l] = w*(k) w*(l) (S[k, l] - S[P - k, P - l] - i (S[P - k, l] + S[k, P - l]))
//
// Here w(k) = exp(-i pi k / (2 P)). S is the DCT without its norms, and 0 if an index is P. P is
// even.
#pragma once

#include <deltadct/backend/cuda/phases.hpp>
#include <deltadct/core/arithmetic.hpp>
#include <deltadct/dct/cosine.hpp>

#include <cstddef>
#include <numbers>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// The layout of cufftComplex and cufftDoubleComplex.
template <class T>
struct alignas(2 * sizeof(T)) Complex {
  T re;
  T im;
};

/// The rotations w(k) and the norms of P points, for k = 0 ... P - 1.
template <int P, class T>
struct Twiddles {
  T cosine[P];
  T sine[P];  // of the angle, not of its negative
  T norm[P];

  constexpr Twiddles() noexcept : cosine{}, sine{}, norm{} {
    for (int k = 0; k < P; ++k) {
      cosine[k] = static_cast<T>(cos_pi(k, 2 * P));
      sine[k] = static_cast<T>(cos_pi(P - k, 2 * P));
      norm[k] = static_cast<T>((k == 0 ? 1 : std::numbers::sqrt2) / square_root(P));
    }
  }
};

/// A kernel of one phase, with one thread for each of the PerPatch elements of each patch.
template <int PerPatch>
struct ElementKernel {
  static constexpr int threads = 256;
  static constexpr int phases = 1;
  static constexpr bool is_warp_wide = true;
  struct Thread {};
  struct Shared {};

  std::size_t count;  ///< patches

  unsigned blocks() const noexcept {
    return static_cast<unsigned>(ceil_div(count * PerPatch, std::size_t{threads}));
  }

  /// Calls fn(patch, element) for the thread's element, if it has one.
  template <class Fn>
  DELTADCT_HD void with_element(unsigned block, int thread, const Fn& fn) const noexcept {
    const std::size_t s = std::size_t{block} * threads + static_cast<unsigned>(thread);
    if (s < count * PerPatch) fn(s / PerPatch, static_cast<int>(s % PerPatch));
  }
};

template <int P>
DELTADCT_HD constexpr int shuffled(int n) noexcept {
  return n < P / 2 ? 2 * n : 2 * (P - n) - 1;
}

/// Reorders every patch x into v, or back.
template <int P, class T, bool Forward>
struct Shuffle : ElementKernel<P * P> {
  const T* from;
  T* to;

  Shuffle(const T* from_, T* to_, std::size_t count_)
      : ElementKernel<P * P>{count_}, from(from_), to(to_) {}

  template <int>
  DELTADCT_HD void run(unsigned block, int thread, typename Shuffle::Thread&,
                       typename Shuffle::Shared&) const noexcept {
    this->with_element(block, thread, [&](std::size_t patch, int s) {
      const int shuffled_s = shuffled<P>(s / P) * P + shuffled<P>(s % P);
      const auto at = [&](int i) { return patch * (P * P) + static_cast<unsigned>(i); };
      if constexpr (Forward)
        to[at(s)] = from[at(shuffled_s)];
      else
        to[at(shuffled_s)] = from[at(s)];
    });
  }
};

/// Computes the orthonormal coefficients, transposed, from every half spectrum V.
template <int P, class T>
struct SpectrumToCoefficients : ElementKernel<P * P> {
  static constexpr int half = P / 2 + 1;
  const Complex<T>* from;
  T* to;
  Twiddles<P, T> twiddles;

  SpectrumToCoefficients(const Complex<T>* from_, T* to_, std::size_t count_)
      : ElementKernel<P * P>{count_}, from(from_), to(to_) {}

  template <int>
  DELTADCT_HD void run(unsigned block, int thread, typename SpectrumToCoefficients::Thread&,
                       typename SpectrumToCoefficients::Shared&) const noexcept {
    this->with_element(block, thread, [&](std::size_t patch, int s) {
      const int l = s / P;  // k_column; k is k_row
      const int k = s % P;
      const Complex<T>* spectrum = from + patch * (P * half);
      const auto value = [&](int a, int b) {
        if (b < half) return spectrum[a * half + b];
        const Complex<T> mirrored = spectrum[(P - a) % P * half + P - b];
        return Complex<T>{mirrored.re, -mirrored.im};
      };
      const Complex<T> x = value(k, l);
      const Complex<T> y = value(k, (P - l) % P);
      // w*(l) y + w(l) x, then Re(w(k) ...).
      const T c = twiddles.cosine[l];
      const T d = twiddles.sine[l];
      const T re = c * (x.re + y.re) + d * (x.im - y.im);
      const T im = c * (x.im + y.im) - d * (x.re - y.re);
      const T sum = twiddles.cosine[k] * re + twiddles.sine[k] * im;
      to[patch * (P * P) + static_cast<unsigned>(s)] =
          T(0.5) * sum * twiddles.norm[k] * twiddles.norm[l];
    });
  }
};

/// Computes the half spectrum V of every patch, divided by P^2, from such coefficients.
template <int P, class T>
struct CoefficientsToSpectrum : ElementKernel<P*(P / 2 + 1)> {
  static constexpr int half = P / 2 + 1;
  const T* from;
  Complex<T>* to;
  Twiddles<P, T> twiddles;

  CoefficientsToSpectrum(const T* from_, Complex<T>* to_, std::size_t count_)
      : ElementKernel<P * half>{count_}, from(from_), to(to_) {}

  template <int>
  DELTADCT_HD void run(unsigned block, int thread, typename CoefficientsToSpectrum::Thread&,
                       typename CoefficientsToSpectrum::Shared&) const noexcept {
    this->with_element(block, thread, [&](std::size_t patch, int s) {
      const int k = s / half;
      const int l = s % half;
      const T* coefficients = from + patch * (P * P);
      const auto value = [&](int a, int b) {
        if (a == P || b == P) return T(0);
        // 1 / (P norm[k]) is norm[k] for k = 0, and norm[k] / 2 otherwise.
        const T norms = (a == 0 ? T(2) : T(1)) * (b == 0 ? T(2) : T(1)) * twiddles.norm[a] *
                        twiddles.norm[b] / T(4);
        return coefficients[b * P + a] * norms;
      };
      const T re = value(k, l) - value(P - k, P - l);
      const T im = -(value(P - k, l) + value(k, P - l));
      const T c = twiddles.cosine[k] * twiddles.cosine[l] - twiddles.sine[k] * twiddles.sine[l];
      const T d = twiddles.sine[k] * twiddles.cosine[l] + twiddles.cosine[k] * twiddles.sine[l];
      to[patch * (P * half) + static_cast<unsigned>(s)] = {c * re - d * im, c * im + d * re};
    });
  }
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
