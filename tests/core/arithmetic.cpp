// Integer arithmetic at the limits of the types.
#include <deltadct/core/arithmetic.hpp>
#include <deltadct/core/bits.hpp>

#include <cstdint>

#include <doctest/doctest.h>

using namespace deltadct;

TEST_CASE("arithmetic: a quotient rounded up does not overflow") {
  CHECK(ceil_div(std::size_t{0}, std::size_t{8}) == 0);
  CHECK(ceil_div(std::size_t{17}, std::size_t{8}) == 3);
  CHECK(ceil_div(SIZE_MAX, std::size_t{2}) == SIZE_MAX / 2 + 1);
}

TEST_CASE("arithmetic: sizes stay at the end of their range") {
  const SaturatingSize half(SIZE_MAX / 2 + 1);
  CHECK((SaturatingSize(3) * 5 + 2).value() == 17);
  CHECK((half + half).value() == SIZE_MAX);
  CHECK((half * 2).value() == SIZE_MAX);
  CHECK((half * 3 + 7).value() == SIZE_MAX);
  CHECK((SaturatingSize(SIZE_MAX) * 0).value() == 0);
  CHECK((SaturatingSize(0) * SIZE_MAX).value() == 0);
  CHECK((SaturatingSize(SIZE_MAX) + 0).value() == SIZE_MAX);
  CHECK(SaturatingSize(PTRDIFF_MAX).fits());
  CHECK(!half.fits());
}

TEST_CASE("arithmetic: bytes of dense codes do not overflow") {
  for (int width = 0; width <= 8; ++width) {
    for (std::size_t n = 0; n < 40; ++n) {
      CHECK(bits::dense_bytes(width, n) == (n * static_cast<std::size_t>(width) + 7) / 8);
    }
  }
  CHECK(bits::dense_bytes(8, SIZE_MAX) == SIZE_MAX);
  CHECK(bits::dense_bytes(1, SIZE_MAX) == SIZE_MAX / 8 + 1);
}
