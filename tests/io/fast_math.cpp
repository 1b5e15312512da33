// Compiled with -ffast-math: non-finite numbers in a manifest must be refused although the compiler
// may assume that there are none.
#include "../support/caught.hpp"

#include <deltadct/io/manifest_reader.hpp>

#include <cstring>

#include <doctest/doctest.h>

using namespace deltadct;

TEST_CASE("fast_math: numbers of a manifest that are not finite are refused") {
  for (const std::uint64_t bits : {0x7FF0000000000000u, 0xFFF0000000000000u, 0x7FF8000000000000u}) {
    double number = 0;
    std::memcpy(&number, &bits, sizeof(bits));
    const nlohmann::json json = number;
    const Error error = test::caught([&] { io::detail::number_in(json, "tensor", "scale"); });
    CHECK(error.code() == Errc::corrupt_data);
    CHECK(test::names(error, "scale is not finite"));
  }
  CHECK(io::detail::number_in(nlohmann::json(0.5), "tensor", "scale") == 0.5);
}
