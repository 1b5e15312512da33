// Which numbers are finite, and how others are ranked.
#include <deltadct/core/finite.hpp>

#include <limits>

#include <doctest/doctest.h>

using namespace deltadct;
using namespace deltadct::detail;

namespace {

template <class T>
void check_ranks() {
  using Limits = std::numeric_limits<T>;
  for (const T x :
       {T(0), T(-1), Limits::max(), Limits::lowest(), Limits::denorm_min(), Limits::infinity()}) {
    CHECK(rankable(x) == x);
  }
  for (const T x :
       {Limits::quiet_NaN(), -Limits::quiet_NaN(), Limits::signaling_NaN(), -Limits::infinity()}) {
    CHECK(rankable(x) == Limits::lowest());
  }
}

template <class T>
void check_bits(FloatBits<T> largest, FloatBits<T> infinity, FloatBits<T> sign) {
  const auto is = [](unsigned long long bits) {
    return is_finite(std::bit_cast<T>(static_cast<FloatBits<T>>(bits)));
  };
  CHECK(is(0));
  CHECK(is(1));
  CHECK(is(largest));
  CHECK(is(sign | largest));
  CHECK_FALSE(is(infinity));
  CHECK_FALSE(is(sign | infinity));
  CHECK_FALSE(is(infinity + 1u));
  CHECK_FALSE(is(sign - 1u));
  CHECK_FALSE(is(~0ull));
}

}  // namespace

TEST_CASE("finite: every type's numbers, infinities and NaNs are told apart") {
  check_bits<half>(0x7BFF, 0x7C00, 0x8000);
  check_bits<bfloat16>(0x7F7F, 0x7F80, 0x8000);
  check_bits<float>(0x7F7FFFFF, 0x7F800000, 0x80000000);
  check_bits<double>(0x7FEFFFFFFFFFFFFF, 0x7FF0000000000000, 0x8000000000000000);
  const float values[] = {1, 2, std::numeric_limits<float>::infinity()};
  CHECK(all_finite(values, 2));
  CHECK_FALSE(all_finite(values, 3));
}

TEST_CASE("finite: a double may be beyond what float can hold") {
  CHECK(is_within<float>(-3.4e38));
  CHECK_FALSE(is_within<float>(3.5e38));
  CHECK(is_within<double>(3.5e38));
  CHECK_FALSE(is_within<double>(std::numeric_limits<double>::infinity()));
  CHECK_FALSE(is_within<float>(std::numeric_limits<double>::quiet_NaN()));
}

TEST_CASE("finite: what is no number ranks lowest") {
  check_ranks<float>();
  check_ranks<double>();
}
