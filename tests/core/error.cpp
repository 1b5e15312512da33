// The error type: a code, a place, a detail, and the resulting text.
#include <deltadct/core/error.hpp>

#include <set>
#include <type_traits>
#include <utility>

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

TEST_CASE("error: the text is fit for a terminal, place and detail are as they were") {
  const Error error(Errc::io_failure, "dir/\x1B]0;x\x07\nname", "'\xE2\x80\xAE' is \xFF\\");
  CHECK(std::string_view(error.what()) ==
        R"(dir/\x1b]0;x\x07\x0aname: input or output failed ('\u202e' is \xff\\))");
  CHECK(error.where() == "dir/\x1B]0;x\x07\nname");
  CHECK(error.detail() == "'\xE2\x80\xAE' is \xFF\\");
  // Escapes once, however often an error is passed on.
  CHECK(std::string_view(Error(error.code(), error.where(), error.detail()).what()) ==
        error.what());
  CHECK(std::string_view(error.within("\t").what()) == "\\x09: " + std::string(error.what()));
}

TEST_CASE("error: the text is short, whatever its parts") {
  const std::string name(3'000'000, 'n');
  const Error error = Error(Errc::non_finite, "element (3, 4)", name).within("file: " + name);
  const std::string text = error.what();
  CHECK(text.size() < 2100);
  CHECK(text.starts_with("file: nnn"));
  CHECK(text.find("nnn: element (3, 4): value is not finite (nnn") != std::string::npos);
}

// The language requires this of what is thrown and caught by value.
static_assert(std::is_nothrow_copy_constructible_v<Error>);
static_assert(std::is_nothrow_copy_assignable_v<Error>);
static_assert(std::is_nothrow_move_constructible_v<Error>);

TEST_CASE("error: copies have the texts, and so has what was moved from") {
  Error error(Errc::bad_range, "rows", "5");
  const Error copy = error;
  const Error moved = std::move(error);
  for (const Error& e : {copy, moved, error}) {
    CHECK(e.where() == "rows");
    CHECK(e.detail() == "5");
    CHECK(std::string_view(e.what()) == "rows: range outside the matrix (5)");
  }
}

TEST_CASE("error: every code has a text of its own") {
  std::set<std::string_view> texts;
  const int codes = static_cast<int>(Errc::name_clash) + 1;
  for (int k = 0; k < codes; ++k) texts.insert(describe(static_cast<Errc>(k)));
  CHECK(texts.size() == static_cast<std::size_t>(codes));
  CHECK(!texts.contains("unknown error"));
}
