// Scores of patches: the Euclidean norm, for values of any size.
#include "../support/long_double.hpp"

#include <deltadct/stage/importance.hpp>

#include <random>
#include <vector>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

template <int P, class T>
T norm(const std::vector<T>& patch) {
  return L2Norm{}.operator()<P, T>(std::span<const T, P * P>(patch.data(), P * P));
}

template <int P, class T>
std::vector<T> filled(T value) {
  return std::vector<T>(P * P, value);
}

template <int P, class T>
void check_random(double size) {
  std::mt19937 random(P);
  std::vector<T> patch;
  long double square = 0;
  for (int s = 0; s < P * P; ++s) {
    const auto x = static_cast<T>(size * (static_cast<double>(random()) * 0x1p-31 - 1));
    patch.push_back(x);
    square += static_cast<long double>(x) * static_cast<long double>(x);
  }
  const auto expected = static_cast<double>(std::sqrt(square));
  CAPTURE(size);
  const double tolerance = (sizeof(T) == 4 ? 1e-6 : 1e-14) * expected;
  const double least = std::numeric_limits<T>::denorm_min();
  CHECK(std::abs(norm<P>(patch) - expected) <= std::max(tolerance, least));
}

}  // namespace

TEST_CASE_TEMPLATE("importance: the norm is that of the definition", T, float, double) {
  check_random<4, T>(1);
  check_random<8, T>(1);
  check_random<12, T>(1e-3);
  check_random<16, T>(1e5);
  check_random<32, T>(1);
  check_random<64, T>(1);
}

TEST_CASE("importance: squares that leave the range of float do not matter") {
  for (const double size : {1e-44, 1e-40, 1e-30, 1e-20, 1e18, 1e25, 1e36}) {
    check_random<8, float>(size);
  }
}

TEST_CASE("importance: squares that leave the range of double do not matter" *
          doctest::skip(!test::is_long_double_wide())) {
  for (const double size : {1e-310, 1e-250, 1e-160, 1e160, 1e300}) check_random<8, double>(size);
}

TEST_CASE("importance: a constant patch scores P times its magnitude, zeros score zero") {
  CHECK(norm<16>(filled<16>(-0.5F)) == 8);
  CHECK(norm<64>(filled<64>(2.0)) == 128);
  CHECK(norm<8>(filled<8>(0.0F)) == 0);
  CHECK(norm<8>(filled<8>(-0.0)) == 0);
}

TEST_CASE("importance: the larger of two tiny patches scores higher") {
  CHECK(norm<8>(filled<8>(2e-42F)) > norm<8>(filled<8>(1e-42F)));
  CHECK(norm<8>(filled<8>(1e-42F)) > 0);
}
