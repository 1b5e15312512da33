// The text of a manifest: entries are read back from it, and it holds no more than they need.
#include <deltadct/io/manifest_writer.hpp>

#include "manifests.hpp"

using namespace io_test;
using deltadct::WidthClass;

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
        CHECK(found.classes[k].bound_count == header.classes[k].bound_count);
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
}

TEST_CASE("no entries") {
  const Manifest empty = parse({});
  CHECK(empty.entries.empty());
  CHECK(empty.metadata.empty());
}
