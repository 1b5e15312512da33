// The manifest: entries are read back from its text, and anything else is refused by name.
#include <deltadct/io/manifest.hpp>

#include "support.hpp"

using namespace io_test;
using deltadct::TensorHeader;
using deltadct::WidthClass;
using io::BaseTensor;
using io::Manifest;
using io::ManifestEntry;
using io::MatrixStack;
using io::Mode;
using nlohmann::json;

namespace {

TensorHeader header_of(std::size_t rows, std::size_t cols, int patch, double scale) {
  TensorHeader header;
  header.rows = rows;
  header.cols = cols;
  header.patch = patch;
  header.transform = "dct";
  header.quantizer = "min_max";
  header.scale = scale;
  const std::size_t patches = header.patches();
  header.classes = {{.bits = 2, .side_values = 2, .patches = patches / 2},
                    {.patches = patches - patches / 2}};
  return header;
}

std::string sum_of(std::string_view text) {
  return io::fingerprint(bytes_of(text));
}

ManifestEntry entry_of(const std::string& name, Mode mode, DType dtype, const Shape& shape) {
  ManifestEntry entry;
  entry.name = name;
  entry.mode = mode;
  entry.dtype = dtype;
  entry.shape = shape;
  if (mode != Mode::added) entry.base = BaseTensor{dtype, shape, sum_of("base of " + name)};
  if (mode != Mode::removed) entry.tuned = sum_of("tuned of " + name);
  if (mode == Mode::same) entry.tuned = entry.base->fingerprint;
  if (io::has_delta(mode)) entry.delta_sum = "delta of " + name;
  if (io::has_lossless(mode)) entry.lossless_sum = "lossless of " + name;
  return entry;
}

ManifestEntry delta_entry(const std::string& name, int patch) {
  ManifestEntry entry = entry_of(name, Mode::delta, DType::bf16, {2, 3, 20});
  entry.stack = {1, 2, 60};
  entry.matrices = {header_of(2, 60, patch, 1.0 / 3)};
  return entry;
}

/// One entry of each mode, and some more.
Manifest manifest() {
  Manifest result;
  result.metadata = {{"format", "pt"}, {"caf\u00e9", "\"quoted\"\n"}};
  result.entries = {delta_entry("a", 4), delta_entry("b", 16), delta_entry("c", 4)};
  result.entries.push_back(entry_of("stack", Mode::delta, DType::f32, {2, 64, 65}));
  result.entries.back().stack = {2, 64, 65};
  result.entries.back().matrices = {header_of(64, 65, 16, -2), header_of(64, 65, 16, 0)};
  result.entries.push_back(entry_of("grown", Mode::grown, DType::f64, {9, 5}));
  result.entries.back().base->shape = {7, 5};
  result.entries.back().stack = {1, 7, 5};
  result.entries.back().matrices = {header_of(7, 5, 4, 1)};
  result.entries.push_back(entry_of("shrunk", Mode::shrunk, DType::f16, {7, 5}));
  result.entries.back().base->shape = {9, 5};
  result.entries.back().stack = {1, 7, 5};
  result.entries.back().matrices = {header_of(7, 5, 4, 1)};
  result.entries.push_back(entry_of("lossless", Mode::lossless, DType::boolean, {}));
  result.entries.back().base = BaseTensor{DType::i64, {3, 1}, sum_of("another kind of base")};
  result.entries.back().reason = "shape";
  result.entries.push_back(entry_of("added", Mode::added, DType::u8, {0, 7}));
  result.entries.push_back(entry_of("same", Mode::same, DType::f8_e5m2, {0, 4}));
  result.entries.push_back(entry_of("removed", Mode::removed, DType::i32, {3}));
  result.entries.push_back(entry_of("tied", Mode::tied, DType::f64, {9, 5}));
  result.entries.back().target = "grown";
  result.entries.push_back(entry_of("tied and new", Mode::tied, DType::f64, {9, 5}));
  result.entries.back().base.reset();
  result.entries.back().target = "grown";
  return result;
}

Manifest parse(const Manifest& from) {
  return io::parse_manifest(io::manifest_text(from), "file");
}

/// The error for a manifest with one change.
template <class Fn>
Error altered(Fn fn) {
  json changed = json::parse(io::manifest_text(manifest()));
  fn(changed);
  return caught([&] { io::parse_manifest(changed.dump(), "file"); });
}

json& entry_named(json& manifest, const std::string& name) {
  for (json& entry : manifest["tensors"]) {
    if (entry["name"] == name) return entry;
  }
  FAIL("no entry");
  return manifest;
}

}  // namespace

TEST_CASE("a folder and its files come back as they were, and are required") {
  Manifest before = manifest();
  CHECK(!parse(before).folder);
  CHECK(parse(before).files.empty());
  const json plain = json::parse(io::manifest_text(before));
  for (const char* key : {"folder", "files", "requires"}) CHECK(!plain.contains(key));
  before.folder = true;
  before.files = {{"config.json", 12, "sum", "section"}, {"a/caf\u00e9", 0, "x", "y"}};
  const Manifest after = parse(before);
  CHECK(after.folder);
  CHECK(after.files == before.files);
  json changed = json::parse(io::manifest_text(before));
  CHECK(changed["requires"] == json::array({"files"}));
  for (const char* key : {"name", "bytes", "sum", "file"}) {
    for (const json& value : {json(), json(-1), json({1})}) {
      changed = json::parse(io::manifest_text(before));
      changed["files"][1][key] = value;
      const Error error = caught([&] { io::parse_manifest(changed.dump(), "file"); });
      CHECK(error.code() == Errc::bad_container);
      changed["files"][1].erase(key);
      CHECK(caught([&] { io::parse_manifest(changed.dump(), "file"); }).code() ==
            Errc::bad_container);
    }
  }
  changed = json::parse(io::manifest_text(before));
  changed["requires"].push_back("x");
  CHECK(caught([&] { io::parse_manifest(changed.dump(), "file"); }).code() ==
        Errc::unsupported_version);
}

TEST_CASE("entries come back as they were") {
  const Manifest before = manifest();
  const Manifest after = parse(before);
  CHECK(after.metadata == before.metadata);
  REQUIRE(after.entries.size() == before.entries.size());
  for (std::size_t i = 0; i < before.entries.size(); ++i) {
    const ManifestEntry& x = after.entries[i];
    const ManifestEntry& y = before.entries[i];
    CAPTURE(y.name);
    CHECK(x.name == y.name);
    CHECK(x.mode == y.mode);
    CHECK(x.dtype == y.dtype);
    CHECK(x.shape == y.shape);
    CHECK(x.base == y.base);
    CHECK(x.tuned == y.tuned);
    CHECK(x.delta_sum == y.delta_sum);
    CHECK(x.lossless_sum == y.lossless_sum);
    CHECK(x.reason == y.reason);
    CHECK(x.target == y.target);
    CHECK(x.stack == y.stack);
    CHECK(x.bytes() == *io::tensor_bytes(y.dtype, y.shape));
    REQUIRE(x.matrices.size() == y.matrices.size());
    for (std::size_t m = 0; m < x.matrices.size(); ++m) {
      const TensorHeader& found = x.matrices[m];
      const TensorHeader& header = y.matrices[m];
      CHECK(found.rows == header.rows);
      CHECK(found.cols == header.cols);
      CHECK(found.patch == header.patch);
      CHECK(found.transform == header.transform);
      CHECK(found.quantizer == header.quantizer);
      CHECK(found.bound == header.bound);
      CHECK(found.scale == header.scale);
      REQUIRE(found.classes.size() == header.classes.size());
      for (std::size_t k = 0; k < header.classes.size(); ++k) {
        CHECK(found.classes[k].bits == header.classes[k].bits);
        CHECK(found.classes[k].side_values == header.classes[k].side_values);
        CHECK(found.classes[k].patches == header.classes[k].patches);
      }
    }
  }
  CHECK(io::manifest_text(after) == io::manifest_text(before));
}

TEST_CASE("every finite scale comes back exactly") {
  for (const double scale : {0.0, -1.0, 0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, 1e22, 7.0}) {
    Manifest before{{}, {delta_entry("a", 4)}};
    before.entries[0].matrices[0].scale = scale;
    CHECK(parse(before).entries.at(0).matrices.at(0).scale == scale);
  }
}

TEST_CASE("tensors share the codecs they have in common") {
  const json text = json::parse(io::manifest_text(manifest()));
  CHECK(text["version"] == 1);
  CHECK(text["codecs"].size() == 2);
  CHECK(text["tensors"][0]["codec"] == 0);
  CHECK(text["tensors"][1]["codec"] == 1);
  CHECK(text["tensors"][2]["codec"] == 0);
  CHECK(text["tensors"][3]["codec"] == 1);
}

TEST_CASE("modes carry only the fields they need") {
  json text = json::parse(io::manifest_text(manifest()));
  const auto keys = [&](const std::string& name) {
    std::vector<std::string> found;
    for (const auto& [key, value] : entry_named(text, name).items()) found.push_back(key);
    return found;
  };
  using Keys = std::vector<std::string>;
  CHECK(keys("a") == Keys{"base", "codec", "delta", "dtype", "matrices", "mode", "name", "shape",
                          "stack", "tuned"});
  CHECK(keys("grown") == Keys{"base", "base_shape", "codec", "delta", "dtype", "lossless",
                              "matrices", "mode", "name", "shape", "stack", "tuned"});
  CHECK(keys("lossless") == Keys{"base", "base_dtype", "base_shape", "dtype", "lossless", "mode",
                                 "name", "reason", "shape", "tuned"});
  CHECK(keys("added") == Keys{"dtype", "lossless", "mode", "name", "shape", "tuned"});
  CHECK(keys("same") == Keys{"base", "dtype", "mode", "name", "shape", "tuned"});
  CHECK(keys("removed") == Keys{"base", "dtype", "mode", "name", "shape"});
  CHECK(keys("tied and new") == Keys{"dtype", "mode", "name", "shape", "target", "tuned"});
}

TEST_CASE("rows that are lost, if there are any") {
  Manifest from = manifest();
  from.entries[0].lost = io::LostRows{448, 512, true};
  const Manifest parsed = parse(from);
  CHECK(parsed.entries[0].lost == from.entries[0].lost);
  CHECK_FALSE(parsed.entries[1].lost.has_value());
  const std::pair<const char*, Errc> malformed[] = {{"[1, 2]", Errc::corrupt_data},
                                                    {"[1, 2, 3]", Errc::corrupt_data},
                                                    {"7", Errc::bad_container},
                                                    {"[-1, 2, true]", Errc::bad_container},
                                                    {"[1, null, true]", Errc::bad_container}};
  for (const auto& each : malformed) {
    const json lost = json::parse(each.first);
    const Error error = altered([&](json& changed) { entry_named(changed, "a")["lost"] = lost; });
    CHECK(error.code() == each.second);
    CHECK(names(error, "a"));
  }
}

TEST_CASE("no entries") {
  const Manifest empty = parse({});
  CHECK(empty.entries.empty());
  CHECK(empty.metadata.empty());
}

TEST_CASE("members that are not known are ignored") {
  json text = json::parse(io::manifest_text(manifest()));
  text["comment"] = "x";
  text["tensors"][0]["comment"] = {1, 2};
  text["codecs"][0]["comment"] = nullptr;
  CHECK(io::parse_manifest(text.dump(), "file").entries.size() == manifest().entries.size());
}

TEST_CASE("a required feature is refused by name, none is fine") {
  const Error error = altered([](json& m) { m["requires"] = {"magic", "more"}; });
  CHECK(error.code() == Errc::unsupported_version);
  CHECK(error.where() == "file");
  CHECK(names(error, "it requires 'magic'"));
  CHECK(altered([](json& m) { m["requires"] = "magic"; }).code() == Errc::bad_container);
  CHECK(altered([](json& m) { m["requires"] = {7}; }).code() == Errc::bad_container);
  json text = json::parse(io::manifest_text(manifest()));
  text["requires"] = json::array();
  CHECK(io::parse_manifest(text.dump(), "file").entries.size() == manifest().entries.size());
}

TEST_CASE("rows that two shapes have in common") {
  CHECK(io::common_rows(Shape{}, Shape{}) == Shape{});
  CHECK(io::common_rows(Shape{3}, Shape{5}) == Shape{3});
  CHECK(io::common_rows(Shape{5, 2}, Shape{3, 2}) == Shape{3, 2});
  CHECK(io::common_rows(Shape{0, 2}, Shape{3, 2}) == Shape{0, 2});
  CHECK(io::common_rows(Shape{2, 3, 4}, Shape{2, 3, 4}) == Shape{2, 3, 4});
  CHECK_FALSE(io::common_rows(Shape{3, 2}, Shape{3, 3}));
  CHECK_FALSE(io::common_rows(Shape{3}, Shape{3, 1}));
  CHECK_FALSE(io::common_rows(Shape{}, Shape{1}));
}

TEST_CASE("shapes as text") {
  CHECK(io::shape_text(Shape{}) == "scalar");
  CHECK(io::shape_text(Shape{7}) == "7");
  CHECK(io::shape_text(Shape{768, 0, 256}) == "768x0x256");
}

TEST_CASE("what a mode reads and stores") {
  for (const Mode mode : io::kModes) {
    CAPTURE(std::string(io::mode_name(mode)));
    CHECK(io::has_delta(mode) ==
          (mode == Mode::delta || mode == Mode::grown || mode == Mode::shrunk));
    CHECK(io::has_lossless(mode) ==
          (mode == Mode::lossless || mode == Mode::added || mode == Mode::grown));
    CHECK(io::needs_base(mode) ==
          (mode != Mode::added && mode != Mode::removed && mode != Mode::tied));
  }
}

TEST_CASE("modes have distinct names") {
  std::vector<std::string> found;
  for (const Mode mode : io::kModes) found.emplace_back(io::mode_name(mode));
  CHECK(found == std::vector<std::string>{"same", "delta", "grown", "shrunk", "lossless", "added",
                                          "removed", "tied"});
}

TEST_CASE("errors name the file, and the tensor where there is one") {
  const Error file = altered([](json& m) { m.erase("codecs"); });
  CHECK(file.code() == Errc::bad_container);
  CHECK(file.where() == "file");
  CHECK(names(file, "codecs"));
  const Error tensor = altered([](json& m) { m["tensors"][1]["matrices"][0][0] = "big"; });
  CHECK(tensor.code() == Errc::corrupt_data);
  CHECK(tensor.where() == "file: b");
  CHECK(names(tensor, "scale"));
  const Error inner = altered([](json& m) { m["tensors"][1]["matrices"][0][1][0][0] = 5; });
  CHECK(inner.code() == Errc::corrupt_data);
  CHECK(names(inner, "file: b: bit width"));
  const Error version = altered([](json& m) { m["version"] = 7; });
  CHECK(version.code() == Errc::unsupported_version);
  CHECK(names(version, "version 7"));
  const Error metadata = altered([](json& m) { m["metadata"]["format"] = 7; });
  CHECK(metadata.code() == Errc::bad_container);
  CHECK(names(metadata, "file: __metadata__"));
}

TEST_CASE("a base that its mode does not allow") {
  const auto base = [](const char* name, const char* key, const json& value) {
    const Error error = altered([&](json& m) {
      json& entry = entry_named(m, name);
      if (value.is_null())
        entry.erase(key);
      else
        entry[key] = value;
    });
    CHECK(error.where() == "file: " + std::string(name));
    return error.code();
  };
  for (const char* name : {"a", "grown", "shrunk", "lossless", "same", "removed"}) {
    CAPTURE(name);
    CHECK(base(name, "base", nullptr) == Errc::corrupt_data);
  }
  CHECK(base("added", "base", "x") == Errc::corrupt_data);
  CHECK(base("same", "base", "x") == Errc::corrupt_data);
  for (const char* name : {"a", "grown", "shrunk", "same", "removed"}) {
    CAPTURE(name);
    CHECK(base(name, "base_dtype", "U16") == Errc::corrupt_data);
    CHECK(base(name, "base_shape", {1}) == Errc::corrupt_data);
    CHECK(base(name, "base_shape", json::array()) == Errc::corrupt_data);
  }
  CHECK(base("grown", "base_shape", {9, 5}) == Errc::corrupt_data);
  CHECK(base("grown", "base_shape", {10, 5}) == Errc::corrupt_data);
  CHECK(base("grown", "base_shape", nullptr) == Errc::corrupt_data);
  CHECK(base("shrunk", "base_shape", {7, 5}) == Errc::corrupt_data);
  CHECK(base("shrunk", "base_shape", {6, 5}) == Errc::corrupt_data);
  CHECK(base("shrunk", "base_shape", nullptr) == Errc::corrupt_data);
  // Its bytes would overflow in the base's dtype, or in any.
  CHECK(base("lossless", "base_shape", {std::int64_t{1} << 60}) == Errc::corrupt_data);
  CHECK(base("lossless", "base_shape", {std::int64_t{1} << 62, 8, 0}) == Errc::corrupt_data);
}

TEST_CASE("a shape that fits the tensor's dtype, but overflows in its base's") {
  const Error error = altered([](json& m) {
    json& entry = entry_named(m, "lossless");
    entry["dtype"] = "U8";
    entry["base_dtype"] = "F64";
    entry["shape"] = {std::int64_t{1} << 61};
    entry.erase("base_shape");
  });
  CHECK(error.code() == Errc::corrupt_data);
  CHECK(names(error, "overflows"));
}

TEST_CASE("a grown scalar, and a shrunk one, are none") {
  for (const char* mode : {"grown", "shrunk"}) {
    CHECK(altered([&](json& m) {
            json& entry = entry_named(m, "grown");
            entry["mode"] = mode;
            entry["shape"] = json::array();
            entry["base_shape"] = json::array();
          }).code() == Errc::corrupt_data);
  }
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
  const std::string text = io::manifest_text(manifest());
  const auto parse = [&](const io::Limits& limits) {
    return io::parse_manifest(text, "file", {.limits = limits}).entries.size();
  };
  const auto limited = [&](const io::Limits& limits) { return caught([&] { parse(limits); }); };
  CHECK(limited({.header_bytes = text.size() - 1}).code() == Errc::limit_exceeded);
  CHECK(parse({.header_bytes = text.size()}) == 12);
  CHECK(limited({.tensors = 11}).code() == Errc::limit_exceeded);
  CHECK(parse({.tensors = 12}) == 12);
  CHECK(limited({.rank = 2}).code() == Errc::limit_exceeded);
  CHECK(parse({.rank = 3}) == 12);
  CHECK(limited({.depth = 6}).code() == Errc::bad_container);
  CHECK(parse({.depth = 7}) == 12);
}

TEST_CASE("a manifest that is cut off is refused, and no other text crashes") {
  Manifest small = manifest();
  small.entries.erase(small.entries.begin() + 1, small.entries.begin() + 3);
  const std::string text = io::manifest_text(small);
  for (std::size_t length = 0; length < text.size(); ++length) {
    CHECK_THROWS_AS(io::parse_manifest(text.substr(0, length), "file"), Error);
  }
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (const char c : {'"', '9', '-', '{', ']', '\xff'}) {
      std::string changed = text;
      changed[at] = c;
      try {
        static_cast<void>(io::parse_manifest(changed, "file"));
      } catch (const Error&) {
      }
    }
  }
}

TEST_CASE("a dtype that is unknown has bits") {
  const io::ReadOptions any{.unknown_dtype = io::UnknownDType::keep};
  const StoredDType nibbles = StoredDType::named("U4", 4).value();
  Manifest from;
  from.entries.push_back(entry_of("same", Mode::same, DType::u8, {6}));
  from.entries[0].dtype = from.entries[0].base->dtype = nibbles;
  from.entries.push_back(entry_of("was", Mode::lossless, DType::u8, {6}));
  from.entries[1].base->dtype = nibbles;
  const json text = json::parse(io::manifest_text(from));
  CHECK(text["tensors"][0]["bits"] == 4);
  CHECK(!text["tensors"][0].contains("base_bits"));
  CHECK(!text["tensors"][1].contains("bits"));
  CHECK(text["tensors"][1]["base_bits"] == 4);
  const Manifest found = io::parse_manifest(text.dump(), "file", any);
  CHECK(found.entries[0].dtype == nibbles);
  CHECK(found.entries[0].base->dtype == nibbles);
  CHECK(found.entries[0].bytes() == 3);
  CHECK(found.entries[1].base->dtype == nibbles);
  const auto refused = [&](const char* key, const json& value, const io::ReadOptions& options) {
    json changed = text;
    changed["tensors"][0][key] = value;
    const Error error = caught([&] { io::parse_manifest(changed.dump(), "file", options); });
    CHECK(error.where() == "file: same");
    return error.code();
  };
  CHECK(refused("bits", 4, {}) == Errc::unsupported_dtype);
  CHECK(refused("bits", nullptr, any) == Errc::bad_container);
  CHECK(refused("bits", 0, any) == Errc::unsupported_dtype);
  CHECK(refused("bits", 129, any) == Errc::unsupported_dtype);
  CHECK(refused("bits", 3, any) == Errc::corrupt_data);  // ends within a byte
  CHECK(refused("dtype", "a b", any) == Errc::unsupported_dtype);
  CHECK(refused("dtype", "F32", any) == Errc::corrupt_data);  // has 32 bits, not 4
  json without = text;
  without["tensors"][0].erase("bits");
  CHECK(caught([&] { io::parse_manifest(without.dump(), "file", any); }).code() ==
        Errc::unsupported_dtype);
}
