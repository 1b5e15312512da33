// Compile-time cosines, compared with the standard library's.
#include "../support/long_double.hpp"

#include <deltadct/dct/cosine.hpp>

#include <cmath>
#include <numbers>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

double exact(long numerator, long denominator) {
  const auto angle = static_cast<long double>(numerator) / static_cast<long double>(denominator);
  return static_cast<double>(std::cos(std::numbers::pi_v<long double> * angle));
}

template <int N, class T>
void check_secants() {
  constexpr auto secants = half_secants<N, T>();
  static_assert(secants.size() == N / 2);
  for (int i = 0; i < N / 2; ++i) {
    const double expected = 0.5 / exact(2 * i + 1, 2 * N);
    CHECK(std::abs(secants[static_cast<unsigned>(i)] - expected) <=
          (sizeof(T) == 4 ? 1e-7 : 1e-14) * expected);
  }
}

}  // namespace

TEST_CASE("cosine: every angle of every transform is right to 1e-15" *
          doctest::skip(!test::is_long_double_wide())) {
  for (const long p : {2, 3, 4, 6, 8, 12, 16, 32, 64}) {
    double worst = 0;
    for (long k = 0; k < 2 * p * p; ++k) {
      worst = std::max(worst, std::abs(cos_pi(k, 2 * p) - exact(k, 2 * p)));
    }
    CAPTURE(p);
    CHECK(worst <= 1e-15);
  }
}

TEST_CASE("cosine: angles of any denominator, negative ones too" *
          doctest::skip(!test::is_long_double_wide())) {
  double worst = 0;
  for (long denominator = 1; denominator <= 100; ++denominator) {
    for (long numerator = -3 * denominator; numerator <= 3 * denominator; ++numerator) {
      const double found = cos_pi(numerator, denominator);
      worst = std::max(worst, std::abs(found - exact(numerator, denominator)));
    }
  }
  CHECK(worst <= 1e-15);
}

TEST_CASE("cosine: the corners are exact, at compile time") {
  static_assert(cos_pi(0, 7) == 1);
  static_assert(cos_pi(7, 7) == -1);
  static_assert(cos_pi(1, 2) == 0);
  static_assert(cos_pi(3, 2) == 0);
  static_assert(cos_pi(14, 7) == 1);
  static_assert(cos_pi(5, 12) == cos_pi(-5, 12));
  static_assert(cos_pi(5, 12) == -cos_pi(7, 12));
  CHECK(cos_pi(1, 3) == doctest::Approx(0.5).epsilon(1e-15));
}

TEST_CASE("cosine: the factors of Lee's split are half secants") {
  check_secants<4, double>();
  check_secants<6, double>();
  check_secants<12, float>();
  check_secants<64, double>();
  check_secants<64, float>();
}
