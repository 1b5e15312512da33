// Manifests with an entry of every mode.
#pragma once

#include "support.hpp"

#include <deltadct/io/manifest_reader.hpp>
#include <deltadct/io/manifest_writer.hpp>

namespace io_test {

using deltadct::TensorHeader;
using io::BaseTensor;
using io::Manifest;
using io::ManifestEntry;
using io::MatrixStack;
using io::Mode;
using nlohmann::json;

inline TensorHeader header_of(std::size_t rows, std::size_t cols, int patch, double scale) {
  TensorHeader header;
  header.rows = rows;
  header.cols = cols;
  header.patch = patch;
  header.transform = "dct";
  header.quantizer = "min_max";
  header.scale = scale;
  const std::size_t patches = header.patches();
  header.classes = {{.bits = 2, .bound_count = 2, .patches = patches / 2},
                    {.patches = patches - patches / 2}};
  return header;
}

inline std::string sum_of(std::string_view text) {
  return io::fingerprint(bytes_of(text));
}

inline ManifestEntry entry_of(const std::string& name, Mode mode, DType dtype, const Shape& shape) {
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

inline ManifestEntry delta_entry(const std::string& name, int patch) {
  ManifestEntry entry = entry_of(name, Mode::delta, DType::bf16, {2, 3, 20});
  entry.stack = {1, 2, 60};
  entry.matrices = {header_of(2, 60, patch, 1.0 / 3)};
  return entry;
}

/// One entry of each mode, and some more.
inline Manifest manifest() {
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

inline Manifest parse(const Manifest& from) {
  return io::parse_manifest(io::manifest_text(from), "file");
}

inline json& entry_named(json& manifest, const std::string& name) {
  for (json& entry : manifest["tensors"]) {
    if (entry["name"] == name) return entry;
  }
  FAIL("no entry");
  return manifest;
}

}  // namespace io_test
