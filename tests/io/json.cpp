// Strict JSON: what is accepted, and every class of text that is refused.
#include "../support/caught.hpp"

#include <deltadct/io/json.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

using deltadct::Errc;
using deltadct::Error;
using namespace deltadct::io;
using namespace test;

namespace {

Error refused(std::string_view text, int depth = 16) {
  return caught([&] { parse_json(text, "some.json", depth); });
}

void check_refused(std::string_view text) {
  CAPTURE(text);
  const Error error = refused(text);
  CHECK(error.code() == Errc::bad_container);
  CHECK(error.where() == "some.json");
  CHECK(error.detail().find("at byte ") != std::string::npos);
}

std::string repeat(std::string_view text, int count) {
  std::string result;
  for (int i = 0; i < count; ++i) result += text;
  return result;
}

}  // namespace

TEST_CASE("io/json: values of every kind are parsed") {
  const auto json =
      parse_json(R"( {"a":[1,-2,0.5,true,null,"x\u00e9\n"],"b":{"a":{}},"":[]} )", "w");
  CHECK(json["a"].size() == 6);
  CHECK(json["a"][0].get<int>() == 1);
  CHECK(json["a"][1].get<int>() == -2);
  CHECK(json["a"][2].get<double>() == 0.5);
  CHECK(json["a"][5].get<std::string>() == "x\xC3\xA9\n");
  CHECK(json["b"]["a"].is_object());
  CHECK(json[""].is_array());
  CHECK(parse_json("7", "w").get<int>() == 7);
  CHECK(parse_json("\"a\\u0000b\"", "w").get<std::string>().size() == 3);
}

TEST_CASE("io/json: repeated keys are refused") {
  SUBCASE("plain") {
    check_refused(R"({"a":1,"a":2})");
  }
  SUBCASE("the same value") {
    check_refused(R"({"a":1,"b":0,"a":1})");
  }
  SUBCASE("one of them escaped") {
    check_refused(R"({"a":1,"\u0061":2})");
  }
  SUBCASE("a surrogate pair and its UTF-8") {
    check_refused("{\"\xF0\x9F\x98\x80\":1,\"\\uD83D\\uDE00\":2}");
  }
  SUBCASE("the empty key") {
    check_refused(R"({"":1,"":2})");
  }
  SUBCASE("nested") {
    check_refused(R"({"x":[{"y":{"a":1,"a":2}}]})");
  }
  SUBCASE("after a nested object") {
    check_refused(R"({"a":{"b":1},"a":{"c":1}})");
  }
  SUBCASE("in members handed to a sink") {
    const auto ignore = [](const std::string&, nlohmann::json&&) {};
    const Error error =
        caught([&] { parse_json_members(R"({"a":1,"\u0061":2})", "some.json", ignore); });
    CHECK(error.code() == Errc::bad_container);
    CHECK(error.detail() == "repeated key 'a' at byte 15");
  }
}

TEST_CASE("io/json: one key at several levels is not a repetition") {
  CHECK(parse_json(R"({"a":{"a":{"a":1}},"b":{"a":1}})", "w").size() == 2);
}

TEST_CASE("io/json: bad UTF-8 is refused") {
  SUBCASE("a lone continuation") {
    check_refused("\"\x80\"");
  }
  SUBCASE("an overlong form") {
    check_refused("\"\xC0\xAF\"");
  }
  SUBCASE("a surrogate") {
    check_refused("\"\xED\xA0\x80\"");
  }
  SUBCASE("above U+10FFFF") {
    check_refused("\"\xF4\x90\x80\x80\"");
  }
  SUBCASE("cut off") {
    check_refused("\"\xE2\x82\"");
  }
  SUBCASE("in a key") {
    check_refused("{\"\xFF\":1}");
  }
  SUBCASE("outside strings") {
    check_refused("{\xC3\xA9}");
  }
  SUBCASE("a lone escaped surrogate") {
    check_refused(R"("\ud800")");
  }
  SUBCASE("an escaped surrogate pair the wrong way round") {
    check_refused(R"("\udc00\ud800")");
  }
}

TEST_CASE("io/json: a byte-order mark is refused") {
  check_refused("\xEF\xBB\xBF{}");
  check_refused("\xEF\xBB{}");
  check_refused("\xFE\xFF{}");
}

TEST_CASE("io/json: text after the value is refused") {
  SUBCASE("another value") {
    check_refused("{} {}");
  }
  SUBCASE("a bracket") {
    check_refused("{}}");
  }
  SUBCASE("a comma") {
    check_refused("[],");
  }
  SUBCASE("a NUL, which the parser would take for the end") {
    check_refused(std::string_view("{}\0", 3));
    check_refused(std::string_view("{}\0garbage", 10));
  }
  CHECK(parse_json("{} \n\t\r ", "w").is_object());
}

TEST_CASE("io/json: NUL characters in keys are refused") {
  check_refused(R"({"a\u0000b":1})");
  check_refused(R"({"x":{"\u0000":1}})");
  check_refused(std::string_view("{\"a\0b\":1}", 9));
}

TEST_CASE("io/json: nesting is bounded") {
  CHECK(parse_json(repeat("[", 16) + repeat("]", 16), "w").is_array());
  CHECK(refused(repeat("[", 17) + repeat("]", 17)).detail().find("16 deep") != std::string::npos);
  CHECK(parse_json("[[]]", "w", 2).is_array());
  CHECK(refused("[[]]", 1).code() == Errc::bad_container);
  CHECK(refused("[]", 0).code() == Errc::bad_container);
  CHECK(parse_json("1", "w", 0).is_number());
}

TEST_CASE("io/json: 200,000 levels are refused at once") {
  check_refused(repeat("[", 200'000));
  check_refused(repeat("[", 200'000) + repeat("]", 200'000));
  check_refused(repeat("{\"a\":", 200'000) + "1" + repeat("}", 200'000));
}

TEST_CASE("io/json: deep nesting a caller allows is still handled") {
  const auto deep = parse_json(repeat("[", 200'000) + repeat("]", 200'000), "w", 200'000);
  CHECK(deep.is_array());
}

TEST_CASE("io/json: what is not JSON is refused") {
  for (const char* text :
       {"",        " ",         "{",          "[",        "\"",      "{]",       "[}",
        "{\"a\"}", "{\"a\":}",  "{\"a\":1,}", "[1,]",     "[,1]",    "{,}",      "{a:1}",
        "{'a':1}", "[1 2]",     "nul",        "True",     "NaN",     "Infinity", "-",
        "+1",      "01",        "1.",         ".5",       "1e",      "0x10",     "1e999",
        R"("\x")", R"("\u12")", "\"a\nb\"",   "\"a\tb\"", "// a\n1", "/* */1",   "{1:2}"}) {
    check_refused(text);
  }
}

TEST_CASE("io/json: errors are short and printable for hostile text") {
  const std::string key(100'000, '\x01');
  std::string escaped;
  for (std::size_t i = 0; i < key.size(); ++i) escaped += "\\u0001";
  const Error error = refused("{\"" + escaped + "\":1,\"" + escaped + "\":1}");
  CHECK(std::string(error.what()).size() < 1100);
  CHECK(std::string(error.what()).find('\x01') == std::string::npos);
  CHECK(std::string(refused("[\"" + std::string(100'000, 'a')).what()).size() < 400);
}

TEST_CASE("io/json: the number of values is bounded") {
  CHECK(parse_json("[1,2,3]", "w", 16, 4).size() == 3);
  const Error error = caught([] { parse_json("[1,2,3]", "w", 16, 3); });
  CHECK(error.code() == Errc::limit_exceeded);
  CHECK(error.where() == "w");
}

TEST_CASE("io/json: members come one by one, in order") {
  std::vector<std::pair<std::string, std::string>> members;
  const auto take = [&](const std::string& key, nlohmann::json&& value) {
    members.emplace_back(key, value.dump());
  };
  parse_json_members(R"({"b":1,"a":{"b":[2]},"c":[]} )", "w", take);
  REQUIRE(members.size() == 3);
  CHECK(members[0] == std::pair<std::string, std::string>("b", "1"));
  CHECK(members[1] == std::pair<std::string, std::string>("a", R"({"b":[2]})"));
  CHECK(members[2] == std::pair<std::string, std::string>("c", "[]"));
}

TEST_CASE("io/json: members are those of an object, and bounded each") {
  const auto ignore = [](const std::string&, nlohmann::json&&) {};
  for (const char* text : {"[]", "1", "\"a\"", "null", "true", "[{\"a\":1}]", ""}) {
    CAPTURE(text);
    const Error error = caught([&] { parse_json_members(text, "w", ignore); });
    CHECK(error.code() == Errc::bad_container);
  }
  CHECK_NOTHROW(parse_json_members(R"({"a":[1],"b":[1],"c":[1]})", "w", ignore, 16, 3));
  const Error error =
      caught([&] { parse_json_members(R"({"a":[1],"b":[1,2,3]})", "w", ignore, 16, 3); });
  CHECK(error.code() == Errc::limit_exceeded);
}

TEST_CASE("io/json: items of one member come one by one, and then that member") {
  std::vector<std::string> seen;
  const auto take = [&](const std::string& key, nlohmann::json&& value) {
    seen.push_back(key + value.dump());
  };
  const JsonItems items{"a", [&](nlohmann::json&& item) { seen.push_back(item.dump()); }};
  const auto parse = [&](const char* text, std::size_t most) {
    seen.clear();
    parse_json_items(text, "w", take, items, most);
    return seen;
  };
  using Seen = std::vector<std::string>;
  CHECK(parse(R"({"b":[1,2],"a":[3,[4],{"a":[5]},[]],"c":0})", 4) ==
        Seen{"b[1,2]", "3", "[4]", R"({"a":[5]})", "[]", "a[]", "c0"});
  CHECK(parse(R"({"a":[]})", 0) == Seen{"a[]"});
  CHECK(parse(R"({"b":{"a":[1]}})", 1) == Seen{R"(b{"a":[1]})"});
  for (const char* text : {R"({"a":[1,2,3]})", R"({"b":[1,2,3]})", R"({"a":[[1,2,3]]})"}) {
    const Error error = caught([&] { parse(text, 2); });
    CHECK(error.code() == Errc::limit_exceeded);
    CHECK(error.detail().find(text[2] == 'a' ? "too many a at byte" : "too many b at byte") == 0);
    CHECK(seen.size() <= 2);
  }
  for (const char* text : {R"({"a":{}})", R"({"a":1})", R"({"a":null})", R"({"a":"[]"})", "[]"}) {
    CHECK(caught([&] { parse(text, 2); }).code() == Errc::bad_container);
  }
}

TEST_CASE("io/json: what a sink throws passes through") {
  const auto fail = [](const std::string& key, nlohmann::json&&) {
    throw Error(Errc::missing_tensor, key);
  };
  const Error error = caught([&] { parse_json_members(R"({"a":1})", "w", fail); });
  CHECK(error.code() == Errc::missing_tensor);
}

TEST_CASE("io/json: unsigned integers are plain digits up to 2^63 - 1") {
  const auto number = [](std::string_view text) {
    return json_unsigned(parse_json(text, "w"), "place", "count");
  };
  CHECK(number("0") == 0);
  CHECK(number("9223372036854775807") == 9223372036854775807u);
  for (const char* text :
       {"9223372036854775808", "18446744073709551615", "18446744073709551616", "-1", "-0", "1.0",
        "0.5", "1e3", "1E0", "true", "null", "\"1\"", "[1]"}) {
    CAPTURE(text);
    const Error error = caught([&] { number(text); });
    CHECK(error.code() == Errc::bad_container);
    CHECK(error.where() == "place");
    CHECK(error.detail().find("count") == 0);
  }
}

TEST_CASE("io/json: members, strings and arrays are checked") {
  const auto json = parse_json(R"({"s":"text","a":[1]})", "w");
  CHECK(json_string(json_member(json, "s", "w"), "w", "s") == "text");
  CHECK(json_array(json_member(json, "a", "w"), "w", "a").size() == 1);
  CHECK(caught([&] { json_member(json, "b", "w"); }).detail() == "b is missing");
  CHECK(caught([&] { json_member(json["a"], "b", "w"); }).code() == Errc::bad_container);
  CHECK(caught([&] { json_string(json["a"], "w", "a"); }).code() == Errc::bad_container);
  CHECK(caught([&] { json_array(json["s"], "w", "s"); }).code() == Errc::bad_container);
}

TEST_CASE("io/json: quoted text reads back; bad UTF-8 is refused") {
  const std::string text = "a\"\\\n\x01\x7F \xC3\xA9\xF0\x9F\x98\x80";
  CHECK(parse_json(json_quoted(text, "w"), "w").get<std::string>() == text);
  CHECK(caught([] { json_quoted("\xFF", "w"); }).code() == Errc::bad_container);
}
