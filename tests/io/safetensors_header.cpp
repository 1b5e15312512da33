// The header of a safetensors file: every rule of the format.
#include <deltadct/io/safetensors_header.hpp>

#include "containers.hpp"

#include <string>
#include <string_view>
#include <vector>

using namespace io_test;

TEST_CASE("io/safetensors: valid headers that are easily refused") {
  SUBCASE("no tensors") {
    CHECK(parse("{}", 0).tensors.empty());
    CHECK(parse("{\"__metadata__\":{}}", 0).metadata.empty());
  }
  SUBCASE("rank 0") {
    const auto header = parse("{" + entry("s", "F64", "", "0,8") + "}", 8);
    CHECK(header.tensors[0].shape.empty());
    CHECK(header.tensors[0].elements() == 1);
  }
  SUBCASE("empty tensors, alone and between others") {
    CHECK(parse("{" + entry("e", "F32", "0", "0,0") + "}", 0).tensors[0].elements() == 0);
    const auto header =
        parse("{" + entry("a", "U8", "1", "0,1") + "," + entry("c", "U8", "1", "1,2") + "," +
                  entry("b", "F32", "3,0,5", "1,1") + "," + entry("d", "F32", "0", "2,2") + "}",
              2);
    std::string order;
    for (const auto& tensor : header.tensors) order += tensor.name;
    CHECK(order == "abcd");
  }
  SUBCASE("header order unlike offset order") {
    const auto header =
        parse("{" + entry("b", "U8", "3", "2,5") + "," + entry("a", "U8", "2", "0,2") + "}", 5);
    CHECK(header.tensors[0].name == "a");
    CHECK(header.tensors[1].name == "b");
  }
  SUBCASE("padded with spaces") {
    CHECK(parse("{" + entry("a", "U8", "2", "0,2") + "}      ", 2).tensors.size() == 1);
  }
  SUBCASE("spaces within") {
    CHECK(parse("{ \"__metadata__\" : { } }", 0).tensors.empty());
  }
  SUBCASE("escaped and empty names") {
    const auto header = parse(
        "{" + entry(R"(\u0061\")", "U8", "1", "0,1") + "," + entry("", "U8", "1", "1,2") + "}", 2);
    CHECK(header.tensors[0].name == "a\"");
    CHECK(header.tensors[1].name.empty());
  }
  SUBCASE("members of an entry that nobody knows, in any order") {
    const auto header =
        parse(R"({"a":{"data_offsets":[0,1],"note":{"x":[1,{}]},"shape":[1],"dtype":"U8"}})", 1);
    CHECK(header.tensors[0].end == 1);
  }
  SUBCASE("metadata last, with any text as value") {
    const auto header = parse(
        "{" + entry("a", "U8", "1", "0,1") + R"(,"__metadata__":{"":"","k\n":"a\u0000b"}})", 1);
    CHECK(header.metadata.at("k\n").size() == 3);
  }
  SUBCASE("every dtype") {
    for (const auto& row : deltadct::detail::kDTypes) {
      const auto bytes = std::to_string(row.bits);  // of eight elements
      const auto header = parse("{" + entry("a", row.name, "2,4", "0," + bytes) + "}", row.bits);
      CHECK(header.tensors[0].dtype == row.dtype);
    }
  }
}

TEST_CASE("io/safetensors: the header is an object from its first byte on") {
  for (const char* header : {"", " ", "\n\n", " []", "\v{}", "[]", "1", "\"\"", "null",
                             "\xEF\xBB\xBF{}", " \xEF\xBB\xBF{}"}) {
    check_bad(header, 0, "");
  }
}

TEST_CASE("io/safetensors: what the format does not allow and safetensors reads") {
  const deltadct::io::ReadOptions strictly{.strictness = deltadct::io::Strictness::strict};
  const std::pair<std::string, std::vector<std::uint64_t>> headers[] = {
      {" \t\r\n{" + entry("a", "U8", "1,3", "0,3") + "}", {1, 3}},
      {R"({"a":["U8",[3,1],[0,3]]})", {3, 1}},
  };
  for (const auto& each : headers) {
    const std::string& text = each.first;
    CAPTURE(text);
    const auto header = deltadct::io::parse_safetensors_header(text, 3, "x");
    REQUIRE(header.tensors.size() == 1);
    CHECK(header.tensors[0].shape == each.second);
    CHECK(header.leading_blanks == (text[0] == ' '));
    CHECK(header.array_entries == (text[0] != ' '));
    const Error error =
        caught([&] { deltadct::io::parse_safetensors_header(text, 3, "x", strictly); });
    CHECK(error.code() == Errc::bad_container);
  }
  check_bad(R"({"a":["U8",[3],[0,3],1]})", 3, "a");
  check_bad(R"({"a":["U8",[3]]})", 3, "a");
  check_bad(R"({"a":[[3],"U8",[0,3]]})", 3, "a");
}

TEST_CASE("io/safetensors: the header is JSON, all of it") {
  for (const std::string& header :
       {std::string("{"), std::string("{}}"), std::string("{} {}"), std::string("{}x"),
        std::string("{}\0", 3), std::string("{\"\xFF\":{}}"), std::string("{,}"),
        "{" + entry("a", "U8", "0", "0,0") + ",}", "{\"a\":" + std::string(200'000, '[')}) {
    check_bad(header, 0, "");
  }
}

TEST_CASE("io/safetensors: NUL or a lone surrogate in a name is refused") {
  check_bad("{" + entry("a\\u0000", "U8", "0", "0,0") + "}", 0, "");
  check_bad("{" + entry("a\\ud800", "U8", "0", "0,0") + "}", 0, "");
}

TEST_CASE("io/safetensors: repeated keys are refused") {
  const std::string a = entry("a", "U8", "1", "0,1");
  SUBCASE("names") {
    check_bad("{" + a + "," + a + "}", 1, "");
  }
  SUBCASE("names, one escaped") {
    check_bad("{" + a + "," + entry("\\u0061", "U8", "1", "1,2") + "}", 2, "");
  }
  SUBCASE("metadata") {
    check_bad(R"({"__metadata__":{},"__metadata__":{}})", 0, "");
  }
  SUBCASE("in the metadata") {
    check_bad(R"({"__metadata__":{"k":"1","k":"2"}})", 0, "");
  }
  SUBCASE("in an entry") {
    check_bad(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, "");
  }
  SUBCASE("the message has name and place") {
    const Error error = caught([&] { parse("{" + a + "," + a + "}", 1); });
    CHECK(error.detail().find("repeated key 'a' at byte ") == 0);
  }
}

TEST_CASE("io/safetensors: metadata that is null is none, unless all is to be strict") {
  const std::string header = R"({"__metadata__":null,)" + entry("w", "U8", "1", "0,1") + "}";
  const SafetensorsHeader found = parse(header, 1);
  CHECK(found.metadata.empty());
  CHECK(found.null_metadata);
  CHECK(found.tensors.size() == 1);
  CHECK(!parse("{" + entry("w", "U8", "1", "0,1") + "}", 1).null_metadata);
  const Error error =
      caught([&] { parse_safetensors_header(header, 1, "m", {.strictness = Strictness::strict}); });
  CHECK(error.code() == Errc::bad_container);
  CHECK(error.where() == "m: __metadata__");
}

TEST_CASE("io/safetensors: metadata maps strings to strings") {
  for (const char* value :
       {"1", "\"text\"", "[]", "{\"k\":1}", "{\"k\":null}", "{\"k\":{}}", R"({"k":["v"]})"}) {
    check_bad("{\"__metadata__\":" + std::string(value) + "}", 0, "__metadata__");
  }
}

TEST_CASE("io/safetensors: an entry is complete and of the right types") {
  for (const char* value :
       {"null", "1", "[]", "{}", R"({"shape":[1],"data_offsets":[0,1]})",
        R"({"dtype":"U8","data_offsets":[0,1]})", R"({"dtype":"U8","shape":[1]})",
        R"({"dtype":3,"shape":[1],"data_offsets":[0,1]})",
        R"({"dtype":null,"shape":[1],"data_offsets":[0,1]})",
        R"({"dtype":"U8","shape":1,"data_offsets":[0,1]})",
        R"({"dtype":"U8","shape":"1","data_offsets":[0,1]})",
        R"({"dtype":"U8","shape":{},"data_offsets":[0,1]})",
        R"({"dtype":"U8","shape":["1"],"data_offsets":[0,1]})",
        R"({"dtype":"U8","shape":[[1]],"data_offsets":[0,1]})",
        R"({"dtype":"U8","shape":[1],"data_offsets":[0]})",
        R"({"dtype":"U8","shape":[1],"data_offsets":[]})",
        R"({"dtype":"U8","shape":[1],"data_offsets":[0,1,1]})",
        R"({"dtype":"U8","shape":[1],"data_offsets":{"0":0,"1":1}})",
        R"({"dtype":"U8","shape":[1],"data_offsets":1})"}) {
    check_bad("{\"t\":" + std::string(value) + "}", 1, "t");
  }
}

TEST_CASE("io/safetensors: extents and offsets are plain unsigned integers") {
  for (const char* number : {"-1", "-0", "1.0", "1e0", "1.5", "true", "null", "\"1\"",
                             "9223372036854775808", "18446744073709551616", "1e400"}) {
    const std::string bad = number;
    CAPTURE(bad);
    // The parser itself refuses 1e400, before the entry is complete.
    const std::string tensor = bad == "1e400" ? "" : "t";
    check_bad("{" + entry("t", "U8", bad, "0,1") + "}", 1, tensor);
    check_bad("{" + entry("t", "U8", "1", bad + ",1") + "}", 1, tensor);
    check_bad("{" + entry("t", "U8", "1", "0," + bad) + "}", 1, tensor);
  }
}

TEST_CASE("io/safetensors: unknown dtypes are refused, naming dtype and switch") {
  for (const char* dtype : {"F8", "f32", "", "F32 ", "C128", "FLOAT"}) {
    check_refused("{" + entry("t", dtype, "1", "0,4") + "}", 4, Errc::unsupported_dtype, "t");
  }
  const Error error = caught([] { parse("{" + entry("t", "U4", "2", "0,1") + "}", 1); });
  CHECK(names(error, "U4"));
  CHECK(names(error, "--unknown-dtype keep"));
}

TEST_CASE("io/safetensors: unknown dtypes are kept where asked, with the bits that they have") {
  const auto parse_any = [](std::string_view dtype, std::string_view shape, std::uint64_t bytes) {
    const std::string header = "{" + entry("t", dtype, shape, "0," + std::to_string(bytes)) + "}";
    return parse_safetensors_header(header, bytes, "m", {.unknown_dtype = UnknownDType::keep})
        .tensors.at(0);
  };
  const auto check = [&](std::string_view shape, std::uint64_t bytes, unsigned bits) {
    const TensorInfo tensor = parse_any("X", shape, bytes);
    CHECK(tensor.dtype.name() == "X");
    CHECK(tensor.dtype.bits() == bits);
    CHECK(tensor_bytes(tensor.dtype, tensor.shape) == bytes);
    const std::vector<TensorInfo> tensors{tensor};
    const std::string again = detail::header_text(tensors, {}, "m");
    CHECK(again.find(R"("dtype":"X")") != again.npos);
  };
  check("2", 1, 4);
  check("8,3", 3, 1);
  check("4,2", 3, 3);
  check("", 16, 128);
  check("3", 48, 128);
  check("1000", 1500, 12);
  check("0", 0, 8);
  check("7,0", 0, 8);
  const auto refuse = [&](std::string_view dtype, std::string_view shape, std::uint64_t bytes) {
    const Error error = caught([&] { parse_any(dtype, shape, bytes); });
    CHECK(error.code() == Errc::unsupported_dtype);
    CHECK(error.where() == "m: t");
  };
  refuse("X", "3", 49);
  refuse("X", "3", 51);  // 136 bits per element
  refuse("X", "9", 1);   // less than one bit per element
  refuse("X", "1", 0);
  refuse("X", "0", 1);
  refuse("X", "3", 2);
  refuse("X", "4611686018427387904,4611686018427387904", 8);
  refuse("", "1", 1);
  refuse("a b", "1", 1);
  // A known dtype has its own size.
  CHECK(caught([&] { parse_any("F32", "4", 8); }).code() == Errc::bad_container);
}

TEST_CASE("io/safetensors: elements of less than a byte end with one") {
  CHECK(tensor_bytes(DType::f4, std::vector<std::uint64_t>{2, 3}) == 3);
  CHECK(tensor_bytes(DType::f6_e2m3, std::vector<std::uint64_t>{4}) == 3);
  CHECK(tensor_bytes(DType::f4, std::vector<std::uint64_t>{3, 0}) == 0);
  CHECK(!tensor_bytes(DType::f4, {}).has_value());
  constexpr std::uint64_t kHalf = std::uint64_t{1} << 62;
  CHECK(tensor_bytes(DType::f4, std::vector<std::uint64_t>{kHalf}) == kHalf / 2);
  CHECK(tensor_bytes(DType::u8, std::vector<std::uint64_t>{kMaxNumber}) == kMaxNumber);
  CHECK(!tensor_bytes(DType::u16, std::vector<std::uint64_t>{kHalf}).has_value());
  check_bad("{" + entry("t", "F4", "3", "0,1") + "}", 1, "t");
  check_bad("{" + entry("t", "F4", "3", "0,2") + "}", 2, "t");
  check_bad("{" + entry("t", "F6_E3M2", "2", "0,2") + "}", 2, "t");
  check_bad("{" + entry("t", "F4", "", "0,1") + "}", 1, "t");
}

TEST_CASE("io/safetensors: size is elements times dtype") {
  check_bad("{" + entry("t", "F32", "2", "0,4") + "}", 4, "t");
  check_bad("{" + entry("t", "F32", "2", "0,9") + "}", 9, "t");
  check_bad("{" + entry("t", "F32", "", "0,0") + "}", 0, "t");
  check_bad("{" + entry("t", "F32", "0", "0,4") + "}", 4, "t");
}

TEST_CASE("io/safetensors: sizes that overflow are refused") {
  const auto bad = [](std::string_view dtype, std::string_view shape) {
    check_bad("{" + entry("t", dtype, shape, "0,0") + "}", 0, "t");
  };
  SUBCASE("to 0") {
    bad("U8", "4294967296,4294967296");
  }
  SUBCASE("in the last multiplication, by the dtype") {
    bad("F64", "2305843009213693952");
  }
  SUBCASE("before a 0") {
    bad("F32", "1099511627776,1099511627776,0");
  }
  SUBCASE("after a 0") {
    bad("F32", "0,1099511627776,1099511627776");
  }
  SUBCASE("to a size that would fit") {
    check_bad("{" + entry("t", "U8", "9223372036854775807,9223372036854775807", "0,1") + "}", 1,
              "t");
  }
  SUBCASE("large extents beside a 0 that do fit are valid") {
    CHECK(parse("{" + entry("t", "U8", "0,9223372036854775807", "0,0") + "}", 0).tensors.size() ==
          1);
  }
}

TEST_CASE("io/safetensors: data is contiguous") {
  const auto two = [](std::string_view first, std::string_view second) {
    return "{" + entry("a", "U8", "2", first) + "," + entry("b", "U8", "2", second) + "}";
  };
  CHECK_NOTHROW(parse(two("0,2", "2,4"), 4));
  SUBCASE("a hole in front") {
    check_bad(two("1,3", "3,5"), 5, "a");
  }
  SUBCASE("a hole between") {
    check_bad(two("0,2", "3,5"), 5, "b");
  }
  SUBCASE("a hole at the end") {
    check_bad(two("0,2", "2,4"), 5, "b");
  }
  SUBCASE("overlap") {
    check_bad(two("0,2", "1,3"), 3, "b");
  }
  SUBCASE("the same bytes twice") {
    check_bad(two("0,2", "0,2"), 2, "b");
  }
  SUBCASE("beyond the end") {
    check_bad(two("0,2", "2,4"), 3, "b");
  }
  SUBCASE("backwards") {
    check_bad(two("0,2", "4,2"), 4, "b");
    const Error error = caught([&] { parse(two("0,2", "4,2"), 4); });
    CHECK(error.detail() == "data_offsets run backwards");
  }
  SUBCASE("an empty tensor within another") {
    check_bad("{" + entry("a", "U8", "2", "0,2") + "," + entry("e", "U8", "0", "1,1") + "}", 2,
              "e");
  }
  SUBCASE("an empty tensor beyond the end") {
    check_bad("{" + entry("e", "U8", "0", "1,1") + "}", 0, "e");
  }
  SUBCASE("data without tensors") {
    check_bad("{}", 1, "");
  }
  SUBCASE("in files") {
    check_file_refused(container(two("0,2", "2,4"), "abc"), Errc::bad_container);
    check_file_refused(container(two("0,2", "2,4"), "abcde"), Errc::bad_container);
  }
}

TEST_CASE("io/safetensors: the caller's limits hold") {
  Limits limits;
  const std::string a = entry("a", "U8", "1", "0,1");
  const std::string b = entry("b", "U8", "1", "1,2");
  SUBCASE("tensors") {
    limits.tensors = 1;
    CHECK_NOTHROW(parse("{" + a + "}", 1, limits));
    check_refused("{" + a + "," + b + "}", 2, Errc::limit_exceeded, "b", limits);
  }
  SUBCASE("metadata entries") {
    limits.tensors = 1;
    CHECK_NOTHROW(parse(R"({"__metadata__":{"a":""}})", 0, limits));
    check_refused(R"({"__metadata__":{"a":"","b":""}})", 0, Errc::limit_exceeded, "__metadata__",
                  limits);
  }
  SUBCASE("rank") {
    limits.rank = 2;
    CHECK_NOTHROW(parse("{" + entry("t", "U8", "1,1", "0,1") + "}", 1, limits));
    check_refused("{" + entry("t", "U8", "1,1,1", "0,1") + "}", 1, Errc::limit_exceeded, "t",
                  limits);
  }
  SUBCASE("rank, by default") {
    std::string shape = "1";
    for (int i = 1; i < 16; ++i) shape += ",1";
    CHECK_NOTHROW(parse("{" + entry("t", "U8", shape, "0,1") + "}", 1));
    check_refused("{" + entry("t", "U8", shape + ",1", "0,1") + "}", 1, Errc::limit_exceeded, "t");
  }
  SUBCASE("depth") {
    limits.depth = 3;
    CHECK_NOTHROW(parse("{" + a + "}", 1, limits));
    limits.depth = 2;
    check_refused("{" + a + "}", 1, Errc::bad_container, "", limits);
  }
  SUBCASE("values in one entry") {
    limits.tensors = 10;
    std::string shape = "1";
    for (int i = 0; i < 1000; ++i) shape += ",1";
    check_refused("{" + entry("t", "U8", shape, "0,1") + "}", 1, Errc::limit_exceeded, "", limits);
  }
  SUBCASE("none") {
    limits = {~std::uint64_t{0}, ~std::size_t{0}, ~std::size_t{0}, 1'000'000};
    CHECK_NOTHROW(parse("{" + a + "," + b + "}", 2, limits));
  }
}

TEST_CASE("io/safetensors: names in errors are short and printable") {
  const Error error = caught([] {
    parse("{" + entry(std::string(10'000, 'x') + "\\u001b[2J", "U8", "1", "0,2") + "}", 2);
  });
  CHECK(error.code() == Errc::bad_container);
  CHECK(std::string(error.what()).size() < 500);
  const Error control = caught([] { parse("{" + entry("\\u001b[2J", "U8", "1", "0,2") + "}", 2); });
  CHECK(control.where() == "m.safetensors: \x1B[2J");
  CHECK(std::string_view(control.what()).starts_with("m.safetensors: \\x1b[2J: "));
}

TEST_CASE("io/safetensors: 100,000 tensors, in reversed order, in linear time") {
  constexpr int kCount = 100'000;
  std::string header = "{";
  for (int i = kCount; i-- > 0;) {
    if (header.size() > 1) header += ',';
    header += entry("layer." + std::to_string(i), "U8", "1",
                    std::to_string(i) + "," + std::to_string(i + 1));
  }
  const auto tensors = parse(header + "}", kCount).tensors;
  CHECK(tensors.size() == kCount);
  CHECK(tensors[777].name == "layer.777");
}

TEST_CASE("io/safetensors: any byte of a valid header may change without harm") {
  const std::string whole = R"({"__metadata__":{"k":"v"},)" + entry("a", "F32", "2,1", "0,8") +
                            "," + entry("s", "U8", "", "8,9") + "}  ";
  int taken = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (int value = 0; value < 256; value += 3) {
      std::string header = whole;
      header[at] = static_cast<char>(value);
      try {
        const auto result = parse(header, 9);
        ++taken;
        std::uint64_t sum = 0;
        for (const auto& tensor : result.tensors) sum += tensor.bytes();
        REQUIRE(sum == 9);
      } catch (const Error&) {
      }
    }
  }
  CHECK(taken > 0);
}
