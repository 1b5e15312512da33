// The manifest of a delta archive: what each tensor is, as JSON (fields: docs/format.md).
#pragma once

#include <deltadct/compressed_tensor.hpp>
#include <deltadct/io/json.hpp>
#include <deltadct/io/safetensors.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace deltadct::inline DELTADCT_ABI::io {

/// The version of the format this library writes, and the only one it reads.
inline constexpr int kFormatVersion = 1;

/// How a tensor is kept.
enum class Mode {
  delta,  ///< its difference from the base, compressed
  raw,    ///< its own bytes
  same,   ///< nothing: it equals the base's
};

constexpr std::string_view mode_name(Mode mode) noexcept {
  switch (mode) {
    case Mode::delta:
      return "delta";
    case Mode::raw:
      return "raw";
    case Mode::same:
      return "same";
  }
  return "";
}

/// A tensor of the archive.
struct ManifestEntry {
  std::string name;
  Mode mode = Mode::raw;
  DType dtype = DType::f32;
  std::vector<std::uint64_t> shape;
  std::string base;  ///< fingerprint of the base tensor's bytes
  std::string
      payload;  ///< fingerprint of the stored bytes: bounds, widths, codes; or the raw bytes
  TensorHeader header;  ///< of mode delta
};

/// A tensor of any rank as the matrix that is compressed: the product of the leading extents x the
/// last one.
inline std::pair<std::size_t, std::size_t> matrix_shape(std::span<const std::uint64_t> shape) {
  std::size_t rows = 1;
  for (std::size_t k = 0; k + 1 < shape.size(); ++k) rows *= static_cast<std::size_t>(shape[k]);
  return {rows, shape.empty() ? 1 : static_cast<std::size_t>(shape.back())};
}

/// The bits that name a class in the packed width map: 0, 1, 2 or 4.
constexpr int width_map_bits(std::size_t classes) noexcept {
  return classes <= 1 ? 0 : classes == 2 ? 1 : classes <= 4 ? 2 : 4;
}

namespace detail {

inline nlohmann::json codec_json(const TensorHeader& header) {
  return {{"patch", header.patch},
          {"transform", header.transform},
          {"quantizer", header.quantizer},
          {"bound", dtype_name(header.bound)}};
}

inline nlohmann::json entry_json(const ManifestEntry& entry, std::vector<nlohmann::json>& codecs) {
  nlohmann::json json = {{"name", entry.name},
                         {"mode", mode_name(entry.mode)},
                         {"dtype", dtype_name(entry.dtype)},
                         {"shape", entry.shape},
                         {"base", entry.base}};
  if (entry.mode != Mode::same) json["payload"] = entry.payload;
  if (entry.mode != Mode::delta) return json;
  const nlohmann::json codec = codec_json(entry.header);
  const auto known = std::find(codecs.begin(), codecs.end(), codec);
  json["codec"] = known - codecs.begin();
  if (known == codecs.end()) codecs.push_back(codec);
  json["scale"] = entry.header.scale;
  json["classes"] = nlohmann::json::array();
  for (const WidthClass& k : entry.header.classes) {
    json["classes"].push_back({k.bits, k.side_values, k.patches});
  }
  return json;
}

inline double number_in(const nlohmann::json& value, std::string_view where,
                        std::string_view what) {
  if (!value.is_number())
    throw Error(Errc::corrupt_data, where, std::string(what) + " is no number");
  return value.get<double>();
}

inline DType dtype_named(const std::string& name, std::string_view where) {
  const auto dtype = parse_dtype(name);
  if (!dtype) throw Error(Errc::unsupported_dtype, where, printable(name));
  return *dtype;
}

inline TensorHeader read_header(const nlohmann::json& json, const nlohmann::json::array_t& codecs,
                                std::span<const std::uint64_t> shape, std::string_view where) {
  const std::uint64_t index = json_unsigned(json_member(json, "codec", where), where, "codec");
  if (index >= codecs.size()) throw Error(Errc::corrupt_data, where, "no such codec");
  const nlohmann::json& codec = codecs[static_cast<std::size_t>(index)];
  const auto text = [&](const char* key) {
    return json_string(json_member(codec, key, where), where, key);
  };
  TensorHeader header;
  std::tie(header.rows, header.cols) = matrix_shape(shape);
  const std::uint64_t patch = json_unsigned(json_member(codec, "patch", where), where, "patch");
  if (patch < 1 || patch > 64) throw Error(Errc::corrupt_data, where, "patch size");
  header.patch = static_cast<int>(patch);
  header.transform = text("transform");
  header.quantizer = text("quantizer");
  // Copied into every tensor's header: a long name would multiply.
  if (header.transform.size() > 64 || header.quantizer.size() > 64) {
    throw Error(Errc::corrupt_data, where, "name of a stage");
  }
  header.bound = dtype_named(text("bound"), where);
  header.scale = number_in(json_member(json, "scale", where), where, "scale");
  for (const auto& item : json_array(json_member(json, "classes", where), where, "classes")) {
    const auto& triple = json_array(item, where, "a width class");
    if (triple.size() != 3 || header.classes.size() == std::size(kBitWidths)) {
      throw Error(Errc::corrupt_data, where, "width classes");
    }
    WidthClass k;
    k.bits = static_cast<int>(std::min<std::uint64_t>(json_unsigned(triple[0], where, "bits"), 99));
    k.side_values =
        static_cast<int>(std::min<std::uint64_t>(json_unsigned(triple[1], where, "values"), 99));
    k.patches = static_cast<std::size_t>(json_unsigned(triple[2], where, "patches"));
    header.classes.push_back(k);
  }
  return header;
}

inline Mode read_mode(const std::string& name, std::string_view where) {
  for (const Mode mode : {Mode::delta, Mode::raw, Mode::same}) {
    if (mode_name(mode) == name) return mode;
  }
  throw Error(Errc::corrupt_data, where, "unknown mode '" + printable(name) + "'");
}

inline ManifestEntry read_entry(const nlohmann::json& json, const nlohmann::json::array_t& codecs,
                                std::string_view file, const Limits& limits) {
  ManifestEntry entry;
  entry.name = json_string(json_member(json, "name", file), file, "name");
  const std::string where = tensor_place(file, entry.name);
  const auto text = [&](const char* key) {
    return json_string(json_member(json, key, where), where, key);
  };
  entry.mode = read_mode(text("mode"), where);
  entry.dtype = dtype_named(text("dtype"), where);
  entry.shape = read_shape(json, where, limits);
  if (!tensor_bytes(entry.dtype, entry.shape)) {
    throw Error(Errc::corrupt_data, where, "the shape's size overflows");
  }
  entry.base = text("base");
  if (entry.mode != Mode::same) entry.payload = text("payload");
  if (entry.mode == Mode::delta) entry.header = read_header(json, codecs, entry.shape, where);
  return entry;
}

}  // namespace detail

/// The manifest's text.
inline std::string manifest_text(std::span<const ManifestEntry> entries) {
  std::vector<nlohmann::json> codecs;
  nlohmann::json tensors = nlohmann::json::array();
  for (const ManifestEntry& entry : entries) tensors.push_back(detail::entry_json(entry, codecs));
  return nlohmann::json{{"version", kFormatVersion}, {"codecs", codecs}, {"tensors", tensors}}
      .dump();
}

/// Parses a manifest. Throws bad_container, corrupt_data, unsupported_version, unsupported_dtype or
/// limit_exceeded, naming the file and the tensor. Headers still lack their layout, which
/// validation against the stored arrays completes.
inline std::vector<ManifestEntry> parse_manifest(std::string_view text, std::string_view file,
                                                 const Limits& limits = {}) {
  const nlohmann::json json = parse_json(text, file, limits.depth);
  const std::uint64_t version = json_unsigned(json_member(json, "version", file), file, "version");
  if (version != kFormatVersion) {
    throw Error(Errc::unsupported_version, file, "version " + std::to_string(version));
  }
  const auto& codecs = json_array(json_member(json, "codecs", file), file, "codecs");
  const auto& tensors = json_array(json_member(json, "tensors", file), file, "tensors");
  if (tensors.size() > limits.tensors) throw Error(Errc::limit_exceeded, file, "too many tensors");
  std::vector<ManifestEntry> entries;
  for (const auto& tensor : tensors) {
    entries.push_back(detail::read_entry(tensor, codecs, file, limits));
  }
  return entries;
}

}  // namespace deltadct::inline DELTADCT_ABI::io
