// The manifest: entries come back from its text, and what is no manifest is refused by name.
#include <deltadct/io/manifest.hpp>

#include "support.hpp"

using namespace io_test;
using deltadct::TensorHeader;
using deltadct::WidthClass;
using io::ManifestEntry;
using io::Mode;
using nlohmann::json;

namespace {

ManifestEntry delta_entry(const std::string& name, int patch) {
  TensorHeader header;
  header.rows = 6;
  header.cols = 20;
  header.patch = patch;
  header.transform = "dct";
  header.quantizer = "min_max";
  header.scale = 1.0 / 3;
  header.classes = {{.bits = 2, .side_values = 2, .patches = 4}, {.patches = 6}};
  return {name, Mode::delta, DType::bf16, {2, 3, 20}, "base", "payload", header};
}

std::vector<ManifestEntry> entries() {
  std::vector<ManifestEntry> result{delta_entry("a", 4), delta_entry("b", 16), delta_entry("c", 4)};
  result.push_back({"raw", Mode::raw, DType::boolean, {}, "0123", "4567", {}});
  result.push_back({"same", Mode::same, DType::f8_e5m2, {0, 4}, "89ab", {}, {}});
  return result;
}

/// The error for a manifest of entries() with something changed.
template <class Fn>
Error altered(Fn fn) {
  json manifest = json::parse(io::manifest_text(entries()));
  fn(manifest);
  return caught([&] { io::parse_manifest(manifest.dump(), "file"); });
}

}  // namespace

TEST_CASE("entries come back as they were") {
  const std::vector<ManifestEntry> before = entries();
  const std::vector<ManifestEntry> after = io::parse_manifest(io::manifest_text(before), "file");
  REQUIRE(after.size() == before.size());
  for (std::size_t i = 0; i < before.size(); ++i) {
    CHECK(after[i].name == before[i].name);
    CHECK(after[i].mode == before[i].mode);
    CHECK(after[i].dtype == before[i].dtype);
    CHECK(after[i].shape == before[i].shape);
    CHECK(after[i].base == before[i].base);
    CHECK(after[i].payload == before[i].payload);
    const TensorHeader& header = after[i].header;
    CHECK(header.rows == before[i].header.rows);
    CHECK(header.cols == before[i].header.cols);
    CHECK(header.patch == before[i].header.patch);
    CHECK(header.transform == before[i].header.transform);
    CHECK(header.quantizer == before[i].header.quantizer);
    CHECK(header.bound == before[i].header.bound);
    CHECK(header.scale == before[i].header.scale);
    REQUIRE(header.classes.size() == before[i].header.classes.size());
    for (std::size_t k = 0; k < header.classes.size(); ++k) {
      CHECK(header.classes[k].bits == before[i].header.classes[k].bits);
      CHECK(header.classes[k].side_values == before[i].header.classes[k].side_values);
      CHECK(header.classes[k].patches == before[i].header.classes[k].patches);
    }
  }
}

TEST_CASE("every finite scale comes back exactly") {
  for (const double scale : {0.0, -1.0, 0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, 1e22, 7.0}) {
    std::vector<ManifestEntry> before{delta_entry("a", 4)};
    before[0].header.scale = scale;
    CHECK(io::parse_manifest(io::manifest_text(before), "file").at(0).header.scale == scale);
  }
}

TEST_CASE("tensors share the codecs they have in common") {
  const json manifest = json::parse(io::manifest_text(entries()));
  CHECK(manifest["version"] == 1);
  CHECK(manifest["codecs"].size() == 2);
  CHECK(manifest["tensors"][0]["codec"] == 0);
  CHECK(manifest["tensors"][1]["codec"] == 1);
  CHECK(manifest["tensors"][2]["codec"] == 0);
}

TEST_CASE("modes carry only the fields they need") {
  const json tensors = json::parse(io::manifest_text(entries()))["tensors"];
  CHECK(tensors[0].contains("classes"));
  CHECK(tensors[3].contains("payload"));
  CHECK_FALSE(tensors[3].contains("codec"));
  CHECK_FALSE(tensors[4].contains("payload"));
}

TEST_CASE("no entries") {
  CHECK(io::parse_manifest(io::manifest_text({}), "file").empty());
}

TEST_CASE("members that are not known are ignored") {
  json manifest = json::parse(io::manifest_text(entries()));
  manifest["comment"] = "x";
  manifest["tensors"][0]["comment"] = {1, 2};
  manifest["codecs"][0]["comment"] = nullptr;
  CHECK(io::parse_manifest(manifest.dump(), "file").size() == entries().size());
}

TEST_CASE("a tensor of any rank is a matrix of the last extent's width") {
  using Matrix = std::pair<std::size_t, std::size_t>;
  CHECK(io::matrix_shape(Shape{}) == Matrix{1, 1});
  CHECK(io::matrix_shape(Shape{7}) == Matrix{1, 7});
  CHECK(io::matrix_shape(Shape{3, 5}) == Matrix{3, 5});
  CHECK(io::matrix_shape(Shape{2, 3, 5}) == Matrix{6, 5});
  CHECK(io::matrix_shape(Shape{2, 3, 4, 5}) == Matrix{24, 5});
  CHECK(io::matrix_shape(Shape{0, 5}) == Matrix{0, 5});
  CHECK(io::matrix_shape(Shape{5, 0}) == Matrix{5, 0});
}

TEST_CASE("a class is named in 0, 1, 2 or 4 bits") {
  const int expected[] = {0, 0, 1, 2, 2, 4, 4, 4};
  for (std::size_t classes = 0; classes < std::size(expected); ++classes) {
    CHECK(io::width_map_bits(classes) == expected[classes]);
  }
}

TEST_CASE("modes have distinct names") {
  CHECK(io::mode_name(Mode::delta) == "delta");
  CHECK(io::mode_name(Mode::raw) == "raw");
  CHECK(io::mode_name(Mode::same) == "same");
}

TEST_CASE("errors name the file, and the tensor where there is one") {
  const Error file = altered([](json& m) { m.erase("codecs"); });
  CHECK(file.code() == Errc::bad_container);
  CHECK(file.where() == "file");
  CHECK(names(file, "codecs"));
  const Error tensor = altered([](json& m) { m["tensors"][1]["scale"] = "big"; });
  CHECK(tensor.code() == Errc::corrupt_data);
  CHECK(tensor.where() == "file: b");
  CHECK(names(tensor, "scale"));
  const Error version = altered([](json& m) { m["version"] = 7; });
  CHECK(version.code() == Errc::unsupported_version);
  CHECK(names(version, "version 7"));
}

TEST_CASE("a name from the file cannot break the line of a message") {
  const Error error = altered([](json& m) {
    m["tensors"][0]["name"] = "a\nb\x1b[2J" + std::string(100'000, 'x');
    m["tensors"][0]["mode"] = "\n" + std::string(100'000, 'y');
  });
  const std::string text = error.what();
  CHECK(text.size() < 1000);
  CHECK(text.find('\n') == text.npos);
  CHECK(text.find('\x1b') == text.npos);
}

TEST_CASE("the caller's limits hold") {
  const std::string text = io::manifest_text(entries());
  const auto parse = [&](const io::Limits& limits) {
    return io::parse_manifest(text, "file", limits).size();
  };
  CHECK(caught([&] { parse({.tensors = 4}); }).code() == Errc::limit_exceeded);
  CHECK(parse({.tensors = 5}) == 5);
  CHECK(caught([&] { parse({.rank = 2}); }).code() == Errc::limit_exceeded);
  CHECK(parse({.rank = 3}) == 5);
  CHECK(caught([&] { parse({.depth = 4}); }).code() == Errc::bad_container);
  CHECK(parse({.depth = 5}) == 5);
}

TEST_CASE("any part of a manifest is refused, and no other text crashes") {
  const std::string text = io::manifest_text(entries());
  for (std::size_t length = 0; length < text.size(); ++length) {
    CHECK_THROWS_AS(io::parse_manifest(text.substr(0, length), "file"), Error);
  }
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (const char c : {'\0', '"', '0', '9', '-', '{', ']', ',', '\xff'}) {
      std::string changed = text;
      changed[at] = c;
      try {
        static_cast<void>(io::parse_manifest(changed, "file"));
      } catch (const Error&) {
      }
    }
  }
}
