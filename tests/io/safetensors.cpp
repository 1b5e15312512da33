// The safetensors container: every rule of the format, for reading and for writing.
#include "../support/caught.hpp"
#include "../support/files.hpp"

#include <deltadct/io/model.hpp>

#include <filesystem>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

using deltadct::DType;
using deltadct::Errc;
using deltadct::Error;
using namespace deltadct::io;
using namespace test;

namespace {

std::string little_endian(std::uint64_t value) {
  std::string text;
  for (int i = 0; i < 8; ++i) text += static_cast<char>(value >> (8 * i) & 0xFF);
  return text;
}

std::string container(std::string_view header, std::string_view data = "") {
  return little_endian(header.size()) + std::string(header) + std::string(data);
}

std::string stored_text(const Model& model, std::string_view name) {
  TensorBytes bytes;
  model.read(*model.find(name), bytes);
  return text_of(bytes.bytes());
}

std::string entry(std::string_view name, std::string_view dtype, std::string_view shape,
                  std::string_view offsets) {
  std::string text = "\"";
  text.append(name).append(R"(":{"dtype":")").append(dtype).append(R"(","shape":[)");
  text.append(shape).append("],\"data_offsets\":[").append(offsets).append("]}");
  return text;
}

SafetensorsHeader parse(std::string_view header, std::uint64_t data_bytes,
                        const Limits& limits = {}) {
  return parse_safetensors_header(header, data_bytes, "m.safetensors", {.limits = limits});
}

/// Expects a header to be refused with the name of the file, and of the tensor if one is given.
void check_refused(std::string_view header, std::uint64_t data_bytes, Errc code,
                   const std::string& tensor, const Limits& limits = {}) {
  CAPTURE(header);
  const Error error = caught([&] { parse(header, data_bytes, limits); });
  const std::string what = error.what();
  CAPTURE(what);
  CHECK(error.code() == code);
  CHECK(error.where() == (tensor.empty() ? "m.safetensors" : "m.safetensors: " + tensor));
}

void check_bad(std::string_view header, std::uint64_t data_bytes, const std::string& tensor) {
  check_refused(header, data_bytes, Errc::bad_container, tensor);
}

/// Expects a file to be refused with both kinds of access, with its path in the message.
void check_file_refused(std::string_view bytes, Errc code, const Limits& limits = {}) {
  const Folder folder;
  put_text(folder / "m", bytes);
  for (const Access access : {Access::map, Access::read}) {
    const ReadOptions options{.access = access, .limits = limits};
    const Error error = caught([&] { Model::open(folder / "m", options); });
    const std::string what = error.what();
    CAPTURE(what);
    CHECK(error.code() == code);
    CHECK(error.where().find((folder / "m").string()) == 0);
  }
}

constexpr std::uint64_t kScalar[] = {1};

}  // namespace

TEST_CASE("io/safetensors: a file is read in both modes") {
  const Folder folder;
  put_text(folder / "m",
           container(R"({"__metadata__":{"format":"pt"},)" + entry("w", "F32", "1,2", "0,8") + "," +
                         entry("b", "BF16", "3", "8,14") + "}",
                     "01234567abcdef"));
  for (const Access access : {Access::map, Access::read}) {
    const Model file = Model::open(folder / "m", {.access = access});
    CHECK(file.path() == folder / "m");
    CHECK(file.file_bytes() == fs::file_size(folder / "m"));
    CHECK(file.metadata() == Metadata{{"format", "pt"}});
    REQUIRE(file.tensors().size() == 2);
    const ModelTensor* const w = file.find("w");
    REQUIRE(w == &file.tensors()[0]);
    CHECK(w->dtype == DType::f32);
    CHECK(w->shape == std::vector<std::uint64_t>{1, 2});
    CHECK(w->elements() == 2);
    CHECK(w->bytes() == 8);
    TensorBytes bytes;
    file.read(*w, bytes);
    CHECK(text_of(bytes.bytes()) == "01234567");
    CHECK(stored_text(file, "b") == "abcdef");
    // Mapped bytes are shared; with Access::read each reader has its own copy.
    TensorBytes again;
    file.read(*w, again);
    CHECK((bytes.bytes().data() == again.bytes().data()) == (access == Access::map));
    bytes.release();
    CHECK(text_of(bytes.bytes()) == "01234567");
    CHECK(stored_text(file, "w") == "01234567");
    CHECK(file.find("") == nullptr);
    CHECK(file.find("a") == nullptr);
    CHECK(file.find("ww") == nullptr);
    CHECK(file.find("__metadata__") == nullptr);
  }
}

TEST_CASE("io/safetensors: a file may be moved") {
  static_assert(!std::is_copy_constructible_v<Model>);
  const Folder folder;
  put_text(folder / "m", container("{" + entry("w", "U8", "2", "0,2") + "}", "ok"));
  Model first = Model::open(folder / "m");
  const Model second = std::move(first);
  CHECK(stored_text(second, "w") == "ok");
}

TEST_CASE("io/safetensors: a tensor of another file leaves the bounds") {
  const Folder folder;
  put_text(folder / "m", container("{" + entry("w", "U8", "2", "0,2") + "}", "ok"));
  for (const Access access : {Access::map, Access::read}) {
    const Model file = Model::open(folder / "m", {.access = access});
    const ModelTensor other{{"other", DType::u8, {9}, 0, 9}};
    TensorBytes bytes;
    const Error error = caught([&] { file.read(other, bytes); });
    CHECK(error.code() == Errc::io_failure);
    CHECK(error.where() == (folder / "m").string() + ": other");
    CHECK(bytes.size() == 0);
    bytes.release();
  }
}

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

TEST_CASE("io/safetensors: the header's length is checked") {
  SUBCASE("no file of 8 bytes") {
    check_file_refused("", Errc::bad_container);
    check_file_refused(std::string(7, '\0'), Errc::bad_container);
  }
  SUBCASE("no header") {
    check_file_refused(little_endian(0), Errc::bad_container);
  }
  SUBCASE("beyond the file") {
    check_file_refused(little_endian(3) + "{}", Errc::bad_container);
    check_file_refused(little_endian(100'000'000) + "{}", Errc::bad_container);
  }
  SUBCASE("above 100,000,000") {
    check_file_refused(little_endian(100'000'001) + "{}", Errc::bad_container);
    check_file_refused(little_endian(~std::uint64_t{0}) + "{}", Errc::bad_container);
    check_file_refused(little_endian(std::uint64_t{1} << 63) + "{}", Errc::bad_container);
  }
  SUBCASE("above 100,000,000, in a file that long") {
    const Folder folder;
    put_text(folder / "m", little_endian(100'000'001) + "{}");
    fs::resize_file(folder / "m", 100'000'100);  // sparse
    CHECK(caught([&] { Model::open(folder / "m"); }).code() == Errc::bad_container);
  }
  SUBCASE("big-endian") {
    check_file_refused(std::string("\0\0\0\0\0\0\0\2{}", 10), Errc::bad_container);
  }
  SUBCASE("above the caller's limit") {
    Limits limits;
    limits.header_bytes = 2;
    check_file_refused(container("{} "), Errc::limit_exceeded, limits);
    check_refused("{} ", 0, Errc::limit_exceeded, "", limits);
    CHECK_NOTHROW(parse("{}", 0, limits));
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
  for (const auto& [text, shape] : headers) {
    CAPTURE(text);
    const auto header = deltadct::io::parse_safetensors_header(text, 3, "x");
    REQUIRE(header.tensors.size() == 1);
    CHECK(header.tensors[0].shape == shape);
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

TEST_CASE("io/safetensors: every cut of a valid file is refused") {
  const std::string whole = container(
      "{" + entry("a", "F32", "2", "0,8") + "," + entry("s", "U8", "", "8,9") + "}", "123456789");
  const Folder folder;
  for (std::size_t length = 0; length < whole.size(); ++length) {
    put_text(folder / "m", std::string_view(whole).substr(0, length));
    CHECK(caught([&] { Model::open(folder / "m"); }).code() == Errc::bad_container);
  }
  put_text(folder / "m", whole);
  CHECK_NOTHROW(Model::open(folder / "m"));
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

TEST_CASE("io/safetensors: what is written reads back") {
  const Folder folder;
  const Metadata metadata{{"format", "pt"}, {"quote\"", "\xC3\xA9\n"}};
  const std::uint64_t matrix[] = {2, 3};
  const std::uint64_t none[] = {4, 0};
  SafetensorsWriter writer(folder / "m", Overwrite::no, 1001);
  writer.begin("w", DType::f32, matrix);
  writer.write(view_of("0123456789"));
  writer.write(view_of(""));
  writer.write(view_of("abcdefghijklmn"));
  writer.begin("empty", DType::f16, none);
  writer.begin("scalar \"\xE2\x82\xAC\"", DType::boolean, {});
  writer.write(view_of("!"));
  CHECK_FALSE(fs::exists(folder / "m"));
  const std::uint64_t bytes = writer.finish(metadata);
  CHECK(bytes == 8 + 1008 + 25);
  CHECK(fs::file_size(folder / "m") == bytes);
  CHECK(folder.entries() == 1);
  for (const Access access : {Access::map, Access::read}) {
    const Model file = Model::open(folder / "m", {.access = access});
    CHECK(file.metadata() == metadata);
    REQUIRE(file.tensors().size() == 3);
    CHECK(file.find("w")->shape == std::vector<std::uint64_t>{2, 3});
    CHECK(stored_text(file, "w") == "0123456789abcdefghijklmn");
    CHECK(stored_text(file, "empty").empty());
    CHECK(stored_text(file, "scalar \"\xE2\x82\xAC\"") == "!");
  }
}

TEST_CASE("io/safetensors: the bytes are those of the format") {
  const Folder folder;
  SafetensorsWriter writer(folder / "m", Overwrite::no, 65);
  const std::uint64_t shape[] = {2};
  writer.begin("a", DType::u8, shape);
  writer.write(view_of("xy"));
  writer.finish();
  std::string header = R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})";
  header.resize(72, ' ');
  CHECK(get_text(folder / "m") == container(header, "xy"));
}

TEST_CASE("io/safetensors: header_bytes is exact") {
  const Folder folder;
  const Metadata metadata{{"a", "b"}, {"c\t", "d"}};
  const TensorInfo tensors[] = {{"x", DType::bf16, {2, 1}, 0, 4}, {"\"", DType::i64, {}, 4, 12}};
  const std::size_t length = header_bytes(tensors, metadata);
  const auto write = [&](std::size_t capacity) {
    SafetensorsWriter writer(folder / "m", Overwrite::yes, capacity);
    for (const auto& tensor : tensors) {
      writer.begin(tensor.name, tensor.dtype, tensor.shape);
      writer.write(view_of(std::string(tensor.bytes(), 'x')));
    }
    return writer.finish(metadata);
  };
  CHECK(write(length) == 8 + (length + 7) / 8 * 8 + 12);
  const std::string file = get_text(folder / "m");
  CHECK(file[8 + length - 1] == '}');
  CHECK(file.substr(8 + length, (8 - length % 8) % 8).find_first_not_of(' ') == std::string::npos);
  CHECK(Model::open(folder / "m").tensors().size() == 2);
  CHECK(caught([&] { write((length - 1) / 8 * 8); }).code() == Errc::too_large);
  CHECK(get_text(folder / "m") == file);
  CHECK(folder.entries() == 1);
  CHECK(header_bytes({}, {}) == 2);
}

TEST_CASE("io/safetensors: a file of no tensors") {
  const Folder folder;
  CHECK(SafetensorsWriter(folder / "m", Overwrite::no, 2).finish() == 16);
  CHECK(Model::open(folder / "m").tensors().empty());
}

TEST_CASE("io/safetensors: a tensor's data is neither more nor less than its shape") {
  const Folder folder;
  const std::string where = (folder / "m").string();
  {
    SafetensorsWriter writer(folder / "m", Overwrite::no, 200);
    const std::uint64_t shape[] = {2, 2};
    CHECK(caught([&] { writer.write(view_of("x")); }).code() == Errc::shape_mismatch);
    writer.begin("t", DType::u8, shape);
    writer.write(view_of("123"));
    for (const Error& error :
         {caught([&] { writer.write(view_of("45")); }),
          caught([&] { writer.begin("u", DType::u8, shape); }), caught([&] { writer.finish(); })}) {
      CHECK(error.code() == Errc::shape_mismatch);
      CHECK(error.where() == where + ": t");
    }
    writer.write(view_of("4"));
    CHECK(caught([&] { writer.write(view_of("5")); }).code() == Errc::shape_mismatch);
    writer.finish();
  }
  CHECK(stored_text(Model::open(folder / "m"), "t") == "1234");
}

TEST_CASE("io/safetensors: names that the reader would refuse are not written") {
  const Folder folder;
  SafetensorsWriter writer(folder / "m", Overwrite::no, 200);
  writer.begin("a", DType::u8, kScalar);
  writer.write(view_of("x"));
  for (const std::string& name : {std::string("a"), std::string("__metadata__"),
                                  std::string("x\0y", 3), std::string("\xFF")}) {
    const Error error = caught([&] { writer.begin(name, DType::u8, kScalar); });
    CHECK(error.code() == Errc::bad_container);
    CHECK(error.where().find((folder / "m").string()) == 0);
  }
  CHECK(caught([&] { writer.finish({{"k", "\xFF"}}); }).code() == Errc::bad_container);
  CHECK(caught([&] { writer.finish({{std::string("\0", 1), ""}}); }).code() == Errc::bad_container);
  const Metadata unusual{{"__metadata__", std::string("a\0b", 3)}};
  writer.finish(unusual);
  CHECK(Model::open(folder / "m").metadata() == unusual);
}

TEST_CASE("io/safetensors: what is too large is refused") {
  const Folder folder;
  CHECK(caught([&] { SafetensorsWriter(folder / "m", Overwrite::no, 100'000'001); }).code() ==
        Errc::too_large);
  SafetensorsWriter writer(folder / "m", Overwrite::no, 100);
  const std::uint64_t wraps[] = {std::uint64_t{1} << 32, std::uint64_t{1} << 32};
  const std::uint64_t most[] = {std::uint64_t{1} << 63};
  const std::uint64_t nearly[] = {(std::uint64_t{1} << 63) - 1};
  for (const std::span<const std::uint64_t> shape :
       {std::span<const std::uint64_t>(wraps), std::span<const std::uint64_t>(most),
        std::span<const std::uint64_t>(nearly)}) {
    const Error error = caught([&] { writer.begin("t", DType::u8, shape); });
    CHECK(error.code() == Errc::too_large);
    CHECK(error.where() == (folder / "m").string() + ": t");
  }
}

TEST_CASE("io/safetensors: an output is replaced only when asked, and only by a complete one") {
  const Folder folder;
  put_text(folder / "m", "old");
  CHECK(caught([&] { SafetensorsWriter(folder / "m", Overwrite::no, 100); }).code() ==
        Errc::output_exists);
  {
    SafetensorsWriter writer(folder / "m", Overwrite::yes, 100);
    writer.begin("a", DType::u8, kScalar);
  }
  CHECK(get_text(folder / "m") == "old");
  {
    SafetensorsWriter writer(folder / "m", Overwrite::yes, 0);
    CHECK(caught([&] { writer.finish(); }).code() == Errc::too_large);
  }
  CHECK(get_text(folder / "m") == "old");
  CHECK(folder.entries() == 1);
  SafetensorsWriter(folder / "m", Overwrite::yes, 8).finish();
  CHECK(Model::open(folder / "m").tensors().empty());
  {
    SafetensorsWriter writer(folder / "new", Overwrite::no, 8);
    put_text(folder / "new", "theirs");
    CHECK(caught([&] { writer.finish(); }).code() == Errc::output_exists);
  }
  CHECK(get_text(folder / "new") == "theirs");
  CHECK(folder.entries() == 2);
}

TEST_CASE("io/safetensors: a disk that fills leaves the old file") {
  const Folder folder;
  put_text(folder / "m", "old");
  const std::uint64_t shape[] = {5'000'000};
  const std::string data(5'000'000, 'x');  // more than is gathered before a write
  const FileSizeLimit limit(65'536);
  const Error error = caught([&] {
    SafetensorsWriter writer(folder / "m", Overwrite::yes, 100);
    writer.begin("t", DType::u8, shape);
    writer.write(view_of(data));
  });
  CHECK(error.code() == Errc::io_failure);
  CHECK(error.where() == (folder / "m").string() + ": t");
  CHECK(get_text(folder / "m") == "old");
  CHECK(folder.entries() == 1);
}
