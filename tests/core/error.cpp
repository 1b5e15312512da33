// The error type: a code, a place, a detail, and the text they make.
#include <deltadct/core/error.hpp>

#include <set>

#include <doctest/doctest.h>

using namespace deltadct;

TEST_CASE("error: the text names place, code and detail, each where there is one") {
  CHECK(std::string_view(Error(Errc::bad_mix, "mix", "sum").what()) ==
        "mix: not a valid mix of bit widths (sum)");
  CHECK(std::string_view(Error(Errc::bad_mix, "mix").what()) ==
        "mix: not a valid mix of bit widths");
  CHECK(std::string_view(Error(Errc::bad_mix, "").what()) == "not a valid mix of bit widths");
}

TEST_CASE("error: an outer place goes in front") {
  const Error inner(Errc::non_finite, "element (3, 4)", "NaN");
  const Error outer = inner.within("layer.weight");
  CHECK(outer.code() == Errc::non_finite);
  CHECK(outer.where() == "layer.weight: element (3, 4)");
  CHECK(outer.detail() == "NaN");
  CHECK(Error(Errc::non_finite, "").within("x").where() == "x");
}

TEST_CASE("error: every code has a text of its own") {
  std::set<std::string_view> texts;
  const int codes = static_cast<int>(Errc::name_clash) + 1;
  for (int k = 0; k < codes; ++k) texts.insert(describe(static_cast<Errc>(k)));
  CHECK(texts.size() == static_cast<std::size_t>(codes));
  CHECK(!texts.contains("unknown error"));
}
