// Sums of squares of any magnitude, and the step that restores them.
#include <deltadct/core/energy.hpp>

#include "../support/vectors.hpp"

#include <cmath>
#include <limits>

#include <doctest/doctest.h>

using namespace deltadct;
using namespace deltadct::detail;

namespace {

constexpr int kCount = 256;

template <class T>
long double sum_of_squares(const T* x) {
  long double sum = 0;
  for (int i = 0; i < kCount; ++i) sum += static_cast<long double>(x[i]) * x[i];
  return sum;
}

template <class T>
bool is_power_of_two(T x) {
  int exponent = 0;
  return std::frexp(x, &exponent) == T(0.5);
}

template <class T>
doctest::Approx near(long double value) {
  return doctest::Approx(static_cast<double>(value))
      .epsilon(64 * std::numeric_limits<T>::epsilon());
}

}  // namespace

TEST_CASE_TEMPLATE("energy: squares of any magnitude are summed", V, VECTORS) {
  using T = typename Lanes<V>::scalar;
  const int exponents[] = {
      std::numeric_limits<T>::min_exponent + 8, std::numeric_limits<T>::min_exponent / 2, 0,
      std::numeric_limits<T>::max_exponent / 2 + 1, std::numeric_limits<T>::max_exponent - 6};
  for (const int exponent : exponents) {
    CAPTURE(exponent);
    auto values = test::normal<T>(1);
    for (T& x : values.x) x = std::ldexp(x, exponent);
    const Energy<T> energy = energy_of<V>(values.x, kCount);
    CHECK(is_power_of_two(energy.unit));
    for (T& x : values.x) x *= energy.unit;
    const long double exact = sum_of_squares(values.x);
    CHECK(static_cast<double>(energy.square) == near<T>(exact));
    CHECK(static_cast<double>(energy.reciprocal) == near<T>(std::sqrt(kCount / exact)));
  }
}

TEST_CASE_TEMPLATE("energy: values of ordinary magnitude are not scaled", T, float, double) {
  const auto values = test::normal<T>(0.01);
  CHECK(energy_of<T>(values.x, kCount).unit == 1);
}

TEST_CASE_TEMPLATE("energy: zeros have none", V, VECTORS) {
  using T = typename Lanes<V>::scalar;
  const test::Values<T> zeros;
  const Energy<T> energy = energy_of<V>(zeros.x, kCount);
  CHECK(energy.unit == 1);
  CHECK(energy.square == 0);
  CHECK(energy.reciprocal == 0);
}

TEST_CASE_TEMPLATE("energy: the step of a fit restores the energy", T, float, double) {
  const auto values = test::normal<T>(0.01);
  Fit<T> fit;
  static_cast<Energy<T>&>(fit) = energy_of<T>(values.x, kCount);
  for (int i = 0; i < kCount; ++i) fit.product += std::abs(values.x[i]) * fit.unit;  // levels +-1
  long double restored = 0;
  for (int i = 0; i < kCount; ++i) restored += std::abs(values.x[i]) * fit.step();
  CHECK(static_cast<double>(restored) == near<T>(sum_of_squares(values.x)));
  CHECK(fit.original(4) == near<T>(sum_of_squares(values.x) / 16));
  CHECK(fit.reconstructed(4, static_cast<double>(fit.step()) / 4) ==
        near<T>(sum_of_squares(values.x) / 16));
  CHECK(Fit<T>{}.step() == 0);
}
