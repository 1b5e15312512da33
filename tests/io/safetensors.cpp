// The safetensors container: what is read of a file, and what is written.
#include <deltadct/io/safetensors.hpp>

#include "containers.hpp"

#include <filesystem>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

using namespace io_test;

namespace {

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
