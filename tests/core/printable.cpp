// Untrusted text, as it is shown.
#include <deltadct/core/printable.hpp>

#include <set>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

/// A character encoded as UTF-8, even an invalid one such as a surrogate.
std::string utf8(std::uint32_t code) {
  const auto tail = [&](int shift) { return static_cast<char>(0x80 | (code >> shift & 0x3F)); };
  if (code < 0x80) return {static_cast<char>(code)};
  if (code < 0x800) return {static_cast<char>(0xC0 | code >> 6), tail(0)};
  if (code < 0x10000) return {static_cast<char>(0xE0 | code >> 12), tail(6), tail(0)};
  return {static_cast<char>(0xF0 | code >> 18), tail(12), tail(6), tail(0)};
}

std::string repeated(std::string_view text, std::size_t times) {
  std::string result;
  while (times-- > 0) result += text;
  return result;
}

}  // namespace

TEST_CASE("printable: text as people write it is left as it is") {
  for (const char* text :
       {"", "model.layers.0.mlp.up_proj.weight", "a b/c:d'e\"f?%\x7E", "\xC3\xA9",
        "\xE6\x97\xA5\xE6\x9C\xAC", "\xF0\x9F\x98\x80", "\xD7\xA9\xD7\x9C"}) {
    CHECK(printable(text) == text);
  }
}

TEST_CASE("printable: control characters are escaped") {
  CHECK(printable(std::string_view("a\0\x1B[2J\x7F\r\n\t", 10)) ==
        R"(a\x00\x1b[2J\x7f\x0d\x0a\x09)");
  CHECK(printable("\xC2\x80\xC2\x9B"
                  "31m\xC2\x9F\xC2\xA0") == "\\u0080\\u009b31m\\u009f\xC2\xA0");
}

TEST_CASE("printable: what turns or hides the text around it is escaped") {
  for (std::uint32_t code :
       {0x00ADu, 0x034Fu, 0x061Cu, 0x180Eu, 0x200Bu, 0x200Du, 0x200Eu, 0x200Fu, 0x2028u, 0x2029u,
        0x202Au, 0x202Eu, 0x2060u, 0x2066u, 0x2069u, 0x206Fu, 0x3164u, 0xFE0Fu, 0xFEFFu}) {
    CAPTURE(code);
    char expected[8];
    std::snprintf(expected, sizeof expected, "\\u%04x", static_cast<unsigned>(code));
    CHECK(printable("a" + utf8(code) + "b") == "a" + std::string(expected) + "b");
  }
  CHECK(printable(utf8(0xE0041)) == "\\U000e0041");
}

TEST_CASE("printable: what is not UTF-8 is escaped byte by byte") {
  CHECK(printable("\x80\x9B\xFF\xC3") == R"(\x80\x9b\xff\xc3)");
  CHECK(printable("\xC0\x9B") == R"(\xc0\x9b)");  // ESC, overlong by one byte
  CHECK(printable("\xE0\x80\x9B") == R"(\xe0\x80\x9b)");
  CHECK(printable("\xED\xA0\x80") == R"(\xed\xa0\x80)");  // a surrogate
  CHECK(printable("\xF4\x90\x80\x80") == R"(\xf4\x90\x80\x80)");
  CHECK(printable("\xE2\x82") == R"(\xe2\x82)");
  CHECK(printable("\xE2\x82x") == R"(\xe2\x82x)");
}

TEST_CASE("printable: no two texts are shown alike") {
  const std::string_view texts[] = {"\x1B",    "\\x1b",    "\\\\x1b", "\\\x1B",       "\x9B",
                                    "\\u009b", "\xC2\x9B", "\\x9b",   "\xE2\x80\xAE", "\\u202e"};
  std::set<std::string> shown;
  for (const std::string_view text : texts) shown.insert(printable(text));
  CHECK(shown.size() == std::size(texts));
}

TEST_CASE("printable: every character is shown as itself or in ASCII without controls") {
  for (std::uint32_t code = 0; code < 0x30000; ++code) {
    const std::string text = utf8(code);
    const std::string shown = printable(text);
    if (shown == text) {
      if (detail::is_control(code)) FAIL(code);
      continue;
    }
    for (const char c : shown) {
      if (c < 0x20 || c > 0x7E) FAIL(code);
    }
  }
}

TEST_CASE("printable: a long text loses its middle, between characters") {
  CHECK(printable(std::string(200, 'a')) == std::string(200, 'a'));
  const std::string shown = printable("first" + std::string(3'000'000, 'a') + "last");
  CHECK(shown.size() <= 200);
  CHECK(shown.starts_with("firsta"));
  CHECK(shown.ends_with("alast"));
  CHECK(shown.find("a...a") != std::string::npos);
  for (const char* unit :
       {"\x01", "\xE2\x82\xAC", "\xE2\x80\xAE", "\\", "\xFF", "a\xF0\x9F\x98\x80"}) {
    const std::string one = printable(unit);
    for (const std::size_t most : {20u, 21u, 22u, 23u, 24u, 25u, 200u}) {
      const std::string text = repeated(unit, 100'000);
      const std::string cut = printable(text, most);
      CHECK(cut.size() <= most);
      CHECK(cut.size() + 2 * one.size() + 2 >= most);
      const std::size_t dots = cut.find("...");
      REQUIRE(dots != std::string::npos);
      // Both sides must consist of whole characters.
      for (const std::string& side : {cut.substr(0, dots), cut.substr(dots + 3)}) {
        CHECK((repeated(one, 200).starts_with(side) || repeated(one, 200).ends_with(side)));
      }
    }
  }
}

TEST_CASE("printable: short text whose escapes are long is cut, too") {
  const std::string shown = printable(std::string(199, '\x01'));
  CHECK(shown.size() <= 200);
  CHECK(shown.starts_with("\\x01\\x01"));
  CHECK(shown.ends_with("1...\\x01" + repeated("\\x01", 23)));
}

TEST_CASE("printable: shortened text keeps its characters, unescaped") {
  CHECK(detail::shortened("\x1B") == "\x1B");
  const std::string name = std::string(98, 'a') + repeated("\xE2\x82\xAC", 100) + "end";
  const std::string cut = detail::shortened(name);
  CHECK(cut.size() <= 200);
  CHECK(cut.starts_with(std::string(98, 'a') + "..."));
  CHECK(
      cut.ends_with("\xE2\x82\xAC"
                    "end"));
  CHECK(printable(cut) == cut);  // still UTF-8
}

TEST_CASE("printable: controls are found, those of two bytes too") {
  for (const char* text : {"\x01", "a\x1F", "\x7F", "\xC2\x80", "\xFF\xC2\x9F"}) {
    CHECK(detail::has_controls(text));
  }
  for (const char* text : {"", "a", "\xC2\xA0", "\xE2\x80\xAE", "\x80", "\xE2\x9B\x94"}) {
    CHECK_FALSE(detail::has_controls(text));
  }
}
