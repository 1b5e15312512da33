// Writes a manifest as JSON (fields: docs/format.md).
#pragma once

#include <deltadct/io/json.hpp>
#include <deltadct/io/manifest.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

namespace detail {

inline nlohmann::json codec_json(const TensorHeader& header) {
  if (header.patch == 0) return {{"method", header.transform}};
  return {{"patch", header.patch},
          {"transform", header.transform},
          {"quantizer", header.quantizer},
          {"bound", dtype_name(header.bound)}};
}

inline nlohmann::json matrices_json(const ManifestEntry& entry) {
  nlohmann::json matrices = nlohmann::json::array();
  for (const TensorHeader& header : entry.matrices) {
    if (header.patch == 0) {
      matrices.push_back(header.whole_bytes);
      continue;
    }
    nlohmann::json classes = nlohmann::json::array();
    for (const WidthClass& k : header.classes) {
      classes.push_back({k.bits, k.bound_count, k.patches});
    }
    matrices.push_back({header.scale, std::move(classes)});
  }
  return matrices;
}

/// Four digits are enough for people, and every byte counts.
inline double rounded_for_people(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3e", value);
  return std::strtod(text, nullptr);
}

/// [energy, gain, SNR in dB or null]: JSON has no infinity.
inline nlohmann::json recovery_json(const Recovery& recovery) {
  nlohmann::json snr = nullptr;
  if (recovery.error != 0) snr = rounded_for_people(recovery.snr_db());
  return {rounded_for_people(recovery.energy), rounded_for_people(recovery.gain()), snr};
}

/// Adds a dtype and, if the library does not know its size, also its bits.
inline void put_dtype(nlohmann::json& json, const std::string& prefix, const StoredDType& dtype) {
  json[prefix + "dtype"] = dtype.name();
  if (!dtype.is_known()) json[prefix + "bits"] = dtype.bits();
}

inline nlohmann::json entry_json(const ManifestEntry& entry, std::vector<nlohmann::json>& codecs) {
  nlohmann::json json = {
      {"name", entry.name}, {"mode", mode_name(entry.mode)}, {"shape", entry.shape}};
  put_dtype(json, "", entry.dtype);
  if (entry.base) {
    json["base"] = entry.base->fingerprint;
    if (entry.base->dtype != entry.dtype) put_dtype(json, "base_", entry.base->dtype);
    if (entry.base->shape != entry.shape) json["base_shape"] = entry.base->shape;
  }
  for (const auto& [key, text] : {std::pair("tuned", &entry.tuned),
                                  {"delta", &entry.delta_sum},
                                  {"lossless", &entry.lossless_sum},
                                  {"outliers", &entry.outliers_sum},
                                  {"reason", &entry.reason}}) {
    if (!text->empty()) json[key] = *text;
  }
  if (entry.mode == Mode::tied) json["target"] = entry.target;  // a name may be empty
  if (!has_delta(entry.mode)) return json;
  const nlohmann::json codec = codec_json(entry.matrices.at(0));
  const auto known = std::ranges::find(codecs, codec);
  json["codec"] = known - codecs.begin();
  if (known == codecs.end()) codecs.push_back(codec);
  json["stack"] = {entry.stack.count, entry.stack.rows, entry.stack.cols};
  json["matrices"] = matrices_json(entry);
  if (entry.tuned_dtype) json["tuned_dtype"] = dtype_name(*entry.tuned_dtype);
  if (entry.recovery) json["recovery"] = recovery_json(*entry.recovery);
  if (entry.lost) json["lost"] = {entry.lost->rows, entry.lost->changed, entry.lost->tuned_keeps};
  return json;
}

inline nlohmann::json file_json(const FileEntry& file) {
  nlohmann::json json = {
      {"name", file.name}, {"bytes", file.bytes}, {"sum", file.sum}, {"file", file.section}};
  if (file.executable) json["executable"] = true;
  return json;
}

}  // namespace detail

/// The text of a manifest.
inline std::string manifest_text(const Manifest& manifest) {
  std::vector<nlohmann::json> codecs;
  nlohmann::json tensors = nlohmann::json::array();
  for (const ManifestEntry& entry : manifest.entries) {
    tensors.push_back(detail::entry_json(entry, codecs));
  }
  nlohmann::json json = {{"version", kFormatVersion},
                         {"metadata", manifest.metadata},
                         {"codecs", codecs},
                         {"tensors", std::move(tensors)}};
  if (manifest.folder) json["folder"] = true;
  if (!manifest.index_metadata.empty()) {
    json["index_metadata"] = nlohmann::json::parse(manifest.index_metadata);
  }
  for (const FileEntry& file : manifest.files) json["files"].push_back(detail::file_json(file));
  auto features = detail::required_by(manifest);
  if (!features.empty()) json["requires"] = std::move(features);
  return json.dump();
}

}}}  // namespace deltadct::inline DELTADCT_ABI::io
