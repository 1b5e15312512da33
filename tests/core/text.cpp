// Numbers as text.
#include <deltadct/core/text.hpp>

#include <cstdlib>
#include <limits>

#include <doctest/doctest.h>

using deltadct::detail::exact_text;

TEST_CASE("text: a number is written as short as it can be read back") {
  CHECK(exact_text(0.5) == "0.5");
  CHECK(exact_text(1) == "1");
  CHECK(exact_text(0.1) == "0.1");
  CHECK(exact_text(-0.0) == "-0");
  for (const double x :
       {1.0 / 3, std::numeric_limits<double>::max(), -std::numeric_limits<double>::denorm_min()}) {
    CHECK(std::strtod(exact_text(x).c_str(), nullptr) == x);
  }
}
