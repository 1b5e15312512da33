// Levels for the normal distribution: where they lie, how much noise they leave, and unit gain.
#include "../support/vectors.hpp"

#include <cmath>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

using namespace deltadct;
using namespace test;

namespace {

/// The values that n coefficients decode to.
template <int Bits, class V, class T>
std::vector<double> rounded(const T* x, int n, T& step) {
  T side[1];
  const auto fitted = Gaussian<Bits>::template fit<V>(x, n, side);
  step = side[0];
  const typename Gaussian<Bits>::template Encoder<V> encoder(side, fitted, T(1));
  const typename Gaussian<Bits>::template Decoder<V> decoder(side, T(1));
  std::vector<double> out;
  for (int s = 0; s < n; s += Lanes<V>::count) {
    alignas(64) T code[Lanes<V>::count];
    alignas(64) T value[Lanes<V>::count];
    const V codes = encoder(Lanes<V>::load(x + s));
    Lanes<V>::store(code, codes);
    Lanes<V>::store(value, decoder(codes));
    for (int l = 0; l < Lanes<V>::count; ++l) {
      CHECK(code[l] == std::floor(code[l]));
      CHECK(code[l] >= 0);
      CHECK(code[l] < (1 << Bits));
      out.push_back(static_cast<double>(value[l]));
    }
  }
  return out;
}

/// <x, y> / <x, x>, and |y - x|^2 / |x|^2.
template <class T>
std::pair<double, double> gain_and_noise(const T* x, const std::vector<double>& y) {
  double square = 0;
  double product = 0;
  double noise = 0;
  double peak = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    peak = std::max(peak, std::abs(static_cast<double>(x[i])));
  }
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double a = static_cast<double>(x[i]) / peak;
    const double b = y[i] / peak;
    square += a * a;
    product += a * b;
    noise += (a - b) * (a - b);
  }
  return {product / square, noise / square};
}

template <class Fn>
void for_each_width(Fn fn) {
  fn.template operator()<1>();
  fn.template operator()<2>();
  fn.template operator()<3>();
  fn.template operator()<4>();
}

}  // namespace

TEST_CASE_TEMPLATE("gaussian: levels are symmetric and ascend, edges lie between them", T, float,
                   double) {
  for_each_width([]<int Bits>() {
    using Q = Gaussian<Bits>;
    const T side[] = {T(1)};
    const typename Q::template Decoder<T> decoder(side, T(1));
    for (int c = 0; c < Q::codes; ++c) {
      CHECK(decoder(T(c)) == -decoder(T(Q::codes - 1 - c)));
      if (c > 0) CHECK(decoder(T(c)) > decoder(T(c - 1)));
    }
    CHECK(Q::largest(side) == decoder(T(Q::codes - 1)));
    // An edge lies half way between its two levels; the unit is left open.
    double unit = 0;
    for (int i = 1; i < Q::codes / 2; ++i) {
      const double below = static_cast<double>(decoder(T(Q::codes / 2 + i - 1)));
      const double above = static_cast<double>(decoder(T(Q::codes / 2 + i)));
      const double here = Q::Levels::edge(i - 1) / ((below + above) / 2);
      if (i > 1) CHECK(here == doctest::Approx(unit).epsilon(1e-6));
      unit = here;
    }
  });
}

TEST_CASE("gaussian: one and two bits have Lloyd and Max's levels") {
  const double side[] = {1.0};
  CHECK(Gaussian<1>::Decoder<double>(side, 1.0)(1) == 1);
  const Gaussian<2>::Decoder<double> four(side, 1.0);
  CHECK(four(3) / four(2) == doctest::Approx(1.51041761 / 0.45278003).epsilon(1e-7));
}

TEST_CASE_TEMPLATE("gaussian: unit gain, and the noise that theory promises", V, VECTORS) {
  using T = typename Lanes<V>::scalar;
  // pi / 2 - 1 for one bit; results of numerical integration for the others.
  constexpr double kNoise[] = {0, 0.570796, 0.133121, 0.035865, 0.009783};
  for_each_width([&]<int Bits>() {
    double noise = 0;
    for (std::uint32_t seed = 1; seed <= 20; ++seed) {
      const auto values = normal<T>(0.003, seed);
      T step;
      const auto [gain, one] =
          gain_and_noise(values.x, rounded<Bits, V>(values.x, Values<T>::size, step));
      CHECK(gain == doctest::Approx(1).epsilon(1e-5));
      noise += one / 20;
    }
    CHECK(noise == doctest::Approx(kNoise[Bits]).epsilon(0.02));
  });
}

TEST_CASE_TEMPLATE("gaussian: unit gain whatever the patch holds, and however large it is", V,
                   VECTORS) {
  using T = typename Lanes<V>::scalar;
  using Limits = std::numeric_limits<T>;
  const double tiny = static_cast<double>(Limits::min());
  for_each_width([&]<int Bits>() {
    const auto check = [](const T* x, int n) {
      T step;
      const auto y = rounded<Bits, V>(x, n, step);
      CHECK(std::isfinite(step));
      CHECK(step > 0);
      CHECK(gain_and_noise(x, y).first == doctest::Approx(1).epsilon(1e-5));
    };
    for (const double spread :
         {1e-30, 1e30, tiny * 1e3, static_cast<double>(Limits::max()) / 1e3}) {
      CAPTURE(spread);
      check(normal<T>(spread).x, 64);
    }
    Values<T> one;
    one.x[17] = T(-3e-5);
    check(one.x, 64);
    Values<T> constant;
    for (T& x : constant.x) x = T(7);
    check(constant.x, 64);
    auto outlier = normal<T>(1e-9);
    outlier.x[5] = T(1e9);
    check(outlier.x, 256);
  });
}

TEST_CASE_TEMPLATE("gaussian: a patch of zeros has the step 0", V, VECTORS) {
  using T = typename Lanes<V>::scalar;
  for_each_width([]<int Bits>() {
    const Values<T> zeros;
    T step;
    for (const double y : rounded<Bits, V>(zeros.x, 64, step)) CHECK(y == 0);
    CHECK(step == 0);
  });
}

TEST_CASE_TEMPLATE("gaussian: the tiniest values there are have a finite step", V, VECTORS) {
  using T = typename Lanes<V>::scalar;
  for_each_width([]<int Bits>() {
    Values<T> values;
    for (int s = 0; s < Values<T>::size; ++s) {
      values.x[s] = static_cast<T>(s % 3 - 1) * std::numeric_limits<T>::denorm_min();
    }
    T side[1];
    const auto fitted = Gaussian<Bits>::template fit<V>(values.x, 64, side);
    CHECK(std::isfinite(fitted.reciprocal));
    CHECK(std::isfinite(fitted.original(1)));
    CHECK(std::isfinite(fitted.reconstructed(1, static_cast<double>(side[0]))));
    CHECK(Gaussian<Bits>::representable(side, T(1)));
  });
}

TEST_CASE("gaussian: steps that are negative, or whose levels overflow, are refused") {
  for_each_width([]<int Bits>() {
    const auto ok = [](float step, float gain = 1) {
      const float side[] = {step};
      return Gaussian<Bits>::representable(side, gain);
    };
    CHECK(ok(0));
    CHECK(ok(1e-30f));
    CHECK_FALSE(ok(-1e-30f));
    CHECK_FALSE(ok(std::numeric_limits<float>::quiet_NaN()));
    CHECK_FALSE(ok(std::numeric_limits<float>::infinity()));
    CHECK_FALSE(ok(3e38f, 16));
  });
}
