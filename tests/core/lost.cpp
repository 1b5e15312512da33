// Which values are lost when they are stored in a smaller type.
#include <deltadct/core/lost.hpp>

#include <limits>

#include <doctest/doctest.h>

using namespace deltadct;
using namespace deltadct::detail;

TEST_CASE("lost: rounding to half loses nothing, a value below its range is lost") {
  const auto stored = [](float x) { return static_cast<float>(static_cast<half>(x)); };
  for (const float x : {1.0f, -3.14159f, 1e-4f, 65504.0f, 0.0f}) CHECK(lost_of(x, stored(x)) == 0);
  CHECK(lost_of(1e-9f, stored(1e-9f)) == 1e-9f);
  CHECK(lost_of(-1e-9f, stored(-1e-9f)) == 1e-9f);
  // A subnormal half has fewer digits.
  CHECK(lost_of(8.9e-8f, stored(8.9e-8f)) > 0);
}

TEST_CASE("lost: a value beyond the range is refused elsewhere") {
  const float largest = std::numeric_limits<float>::max();
  CHECK(lost_of(largest, std::numeric_limits<float>::infinity()) == 0);
}

TEST_CASE("lost: a loss matters from a thousandth of the largest value on") {
  CHECK_FALSE(is_lost(0, 0));
  CHECK_FALSE(is_lost(1, 1024));
  CHECK(is_lost(1.01, 1024));
  CHECK(is_lost(1e-30, 0));
}
