// Min-max levels: the range, rounding, the error bound, and the constant for zero bits.
#include "../support/vectors.hpp"

#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

using namespace deltadct;
using test::DoubleVector;
using test::FloatVector;

namespace {

// The code of x from the encoder for V. The gain multiplies the input and must cancel out.
template <int Bits, class V>
double code_of(double lo, double hi, double x, double gain = 1) {
  using T = typename Lanes<V>::scalar;
  const T side[] = {static_cast<T>(lo), static_cast<T>(hi)};
  const typename MinMax<Bits>::template Encoder<V> encoder(side, T(0), static_cast<T>(gain));
  alignas(64) T lane[Lanes<V>::count];
  Lanes<V>::store(lane, encoder(V(static_cast<T>(gain * x))));
  return static_cast<double>(lane[Lanes<V>::count - 1]);
}

template <int Bits, class V>
double value_of(double lo, double hi, double code, double factor = 1) {
  using T = typename Lanes<V>::scalar;
  const T side[] = {static_cast<T>(lo), static_cast<T>(hi)};
  const typename MinMax<Bits>::template Decoder<V> decoder(side, static_cast<T>(factor));
  alignas(64) T lane[Lanes<V>::count];
  Lanes<V>::store(lane, decoder(V(static_cast<T>(code))));
  return static_cast<double>(lane[0]);
}

template <class V, class Fn>
void for_each_width(Fn fn) {
  [&]<int... Bits>(std::integer_sequence<int, Bits...>) {
    (fn.template operator()<Bits>(), ...);
  }
  (std::integer_sequence<int, 1, 2, 3, 4, 6, 8>{});
}

}  // namespace

TEST_CASE_TEMPLATE("quantizer: fit finds the smallest and the largest, in any place", V, VECTORS) {
  using T = typename Lanes<V>::scalar;
  constexpr int n = 64;
  for (int at = 0; at < n; ++at) {
    alignas(64) T x[n];
    for (int s = 0; s < n; ++s) x[s] = static_cast<T>(0.01 * ((s * 37) % n));
    x[at] = 5;
    x[(at + 11) % n] = -7;
    T side[2];
    MinMax<2>::fit<V>(x, n, side);
    CHECK(side[0] == -7);
    CHECK(side[1] == 5);
  }
}

TEST_CASE_TEMPLATE("quantizer: the ends of the range are the first and the last code", V, VECTORS) {
  for_each_width<V>([]<int Bits>() {
    const int last = (1 << Bits) - 1;
    CHECK(code_of<Bits, V>(-2, 3, -2) == 0);
    CHECK(code_of<Bits, V>(-2, 3, 3) == last);
    CHECK(value_of<Bits, V>(-2, 3, 0) == -2);
    CHECK(value_of<Bits, V>(-2, 3, last) == doctest::Approx(3).epsilon(1e-6));
  });
}

TEST_CASE_TEMPLATE("quantizer: halfway between two codes goes to the even one", V, VECTORS) {
  for_each_width<V>([]<int Bits>() {
    const int last = (1 << Bits) - 1;
    for (int code = 0; code < last; ++code) {
      CHECK(code_of<Bits, V>(0, last, code + 0.5) == code + code % 2);
      CHECK(code_of<Bits, V>(0, last, code + 0.4375) == code);
      CHECK(code_of<Bits, V>(0, last, code + 0.5625) == code + 1);
    }
  });
}

TEST_CASE_TEMPLATE("quantizer: a range of nothing gives code zero and decodes to it", V, VECTORS) {
  for_each_width<V>([]<int Bits>() {
    CHECK(code_of<Bits, V>(1.5, 1.5, 1.5) == 0);
    CHECK(code_of<Bits, V>(0, 0, 0) == 0);
    CHECK(value_of<Bits, V>(1.5, 1.5, 0) == 1.5);
  });
}

TEST_CASE_TEMPLATE("quantizer: values beyond bounds that were rounded are clamped", V, VECTORS) {
  for_each_width<V>([]<int Bits>() {
    CHECK(code_of<Bits, V>(-1, 1, -3) == 0);
    CHECK(code_of<Bits, V>(-1, 1, 3) == (1 << Bits) - 1);
  });
}

TEST_CASE_TEMPLATE("quantizer: the error is at most half a step", V, VECTORS) {
  for_each_width<V>([]<int Bits>() {
    std::mt19937 random(Bits);
    const double lo = -0.75;
    const double hi = 1.25;
    const double half_step = (hi - lo) / ((1 << Bits) - 1) / 2;
    double worst = 0;
    for (int k = 0; k < 1000; ++k) {
      const double x = lo + (hi - lo) * static_cast<double>(random()) * 0x1p-32;
      const double code = code_of<Bits, V>(lo, hi, x);
      worst = std::max(worst, std::abs(value_of<Bits, V>(lo, hi, code) - x));
    }
    CHECK(worst <= half_step * (1 + 1e-5));
    CHECK(worst > half_step * 0.9);
  });
}

TEST_CASE_TEMPLATE("quantizer: a gain divides out, a factor multiplies", V, VECTORS) {
  for (const double x : {-1.0, -0.3, 0.2, 0.9, 2.0}) {
    CHECK(code_of<4, V>(-1, 2, x, 16) == code_of<4, V>(-1, 2, x));
    CHECK(value_of<4, V>(-1, 2, 7, 0.25) ==
          doctest::Approx(0.25 * value_of<4, V>(-1, 2, 7)).epsilon(1e-6));
  }
}

TEST_CASE("quantizer: zero bits keep the mean") {
  CHECK(MinMax<0>::constant(0.125F) == 0.125F);
  CHECK(MinMax<0>::bound_count == 1);
  CHECK(MinMax<8>::bound_count == 2);
  CHECK(MinMax<0>::name == MinMax<8>::name);
}
