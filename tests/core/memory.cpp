// Failed allocations become errors of the library.
#include "../support/caught.hpp"

#include <deltadct/core/memory.hpp>

#include <vector>

#include <doctest/doctest.h>

using namespace deltadct;
using deltadct::detail::require_memory;

#if defined(DELTADCT_SANITIZED)
constexpr bool kAllocationsMayFail = false;  // the address sanitizer ends the program instead
#else
constexpr bool kAllocationsMayFail = true;
#endif

TEST_CASE("memory: what cannot be allocated is an error with a place" *
          doctest::skip(!kAllocationsMayFail)) {
  const auto place = [] { return "file: tensor"; };
  for (const std::size_t count : {std::vector<double>().max_size(), ~std::size_t{0}}) {
    const Error error =
        test::caught([&] { require_memory(place, [&] { std::vector<double> values(count); }); });
    CHECK(error.code() == Errc::out_of_memory);
    CHECK(error.where() == "file: tensor");
  }
}

TEST_CASE("memory: results and other errors pass through") {
  const auto place = [] { return "place"; };
  CHECK(require_memory(place, [] { return 3; }) == 3);
  CHECK(test::caught([&] {
          require_memory(place, [] { throw Error(Errc::bad_mix, "other"); });
        }).where() == "other");
}
