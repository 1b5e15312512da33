// The command `inspect`.
#include "commands.hpp"
#include "options.hpp"
#include "text.hpp"

#include <cstdio>
#include <functional>
#include <map>

namespace cli {

namespace io = deltadct::io;

namespace {

// JSON has no infinity, so the SNR of an exact reconstruction is null.
nlohmann::json recovery_json(const io::Recovery& recovery) {
  nlohmann::json json = {{"gain", recovery.gain()}, {"snr_db", nullptr}};
  if (recovery.error != 0) json["snr_db"] = recovery.snr_db();
  return json;
}

nlohmann::json entry_json(const io::DeltaArchive& archive, const io::ManifestEntry& entry) {
  nlohmann::json json = {{"name", entry.name},
                         {"mode", io::mode_name(entry.mode)},
                         {"dtype", deltadct::dtype_name(entry.dtype)},
                         {"shape", entry.shape},
                         {"bytes", archive.stored_bytes(entry)}};
  if (entry.base && entry.base->dtype != entry.dtype) {
    json["base_dtype"] = deltadct::dtype_name(entry.base->dtype);
  }
  if (entry.base && entry.base->shape != entry.shape) json["base_shape"] = entry.base->shape;
  if (!entry.reason.empty()) json["reason"] = entry.reason;
  if (entry.mode == io::Mode::tied) json["target"] = entry.target;
  if (entry.tuned_dtype) json["tuned_dtype"] = deltadct::dtype_name(*entry.tuned_dtype);
  if (entry.recovery) json["recovery"] = recovery_json(*entry.recovery);
  if (entry.lost) {
    json["lost"] = {{"rows", entry.lost->rows},
                    {"changed", entry.lost->changed},
                    {"tuned_dtype_keeps", entry.lost->tuned_keeps}};
  }
  if (entry.matrices.empty()) return json;
  const deltadct::TensorHeader& codec = entry.matrices[0];
  json["stack"] = {entry.stack.count, entry.stack.rows, entry.stack.cols};
  if (codec.patch == 0) {
    json["method"] = codec.transform;
    return json;
  }
  json["patch"] = codec.patch;
  json["transform"] = codec.transform;
  json["quantizer"] = codec.quantizer;
  json["bound"] = deltadct::dtype_name(codec.bound);
  json["matrices"] = nlohmann::json::array();
  for (const deltadct::TensorHeader& header : entry.matrices) {
    nlohmann::json widths = nlohmann::json::array();
    for (const auto& k : header.classes) {
      widths.push_back({{"bits", k.bits}, {"patches", k.patches}});
    }
    json["matrices"].push_back({{"scale", header.scale}, {"widths", widths}});
  }
  return json;
}

/// What people want to know about an entry besides its size.
std::string remark(const io::ManifestEntry& entry) {
  std::string text;
  const auto append = [&](const std::string& part) {
    text += (text.empty() ? "" : ", ") + deltadct::printable(part);
  };
  if (entry.base && entry.base->dtype != entry.dtype) {
    append("base " + std::string(deltadct::dtype_name(entry.base->dtype)));
  }
  if (entry.base && entry.base->shape != entry.shape) {
    append("base " + io::shape_text(entry.base->shape));
  }
  if (!entry.reason.empty()) append(entry.reason);
  if (entry.mode == io::Mode::tied) append("as " + entry.target);
  if (entry.tuned_dtype) append("from " + std::string(deltadct::dtype_name(*entry.tuned_dtype)));
  if (entry.recovery) append(recovery_text(*entry.recovery));
  if (entry.lost) {
    append("lost in " + std::to_string(entry.lost->rows) + " of " +
           std::to_string(entry.lost->changed) + " rows that changed");
  }
  if (entry.matrices.empty()) return text;
  if (entry.matrices[0].patch == 0) {
    append(entry.matrices[0].transform);
    return text;
  }
  std::map<int, std::size_t, std::greater<>> patches;
  for (const deltadct::TensorHeader& header : entry.matrices) {
    for (const auto& k : header.classes) patches[k.bits] += k.patches;
  }
  std::string codec =
      "P=" + std::to_string(entry.matrices[0].patch) + " " + entry.matrices[0].transform;
  for (const auto& [bits, count] : patches) {
    codec += " " + std::to_string(bits) + "b:" + std::to_string(count);
  }
  append(codec);
  return text;
}

void inspect_text(const io::DeltaArchive& archive, const io::CheckpointReport& report) {
  std::printf("%-44s %-8s %-7s %-16s %12s %8s  %s\n", "tensor", "mode", "dtype", "shape", "bytes",
              "bits", "remarks");
  for (const io::ManifestEntry& entry : archive.entries()) {
    const std::uint64_t bytes = archive.stored_bytes(entry);
    std::printf("%-44s %-8s %-7s %-16s %12llu %8.3f  %s\n", deltadct::printable(entry.name).c_str(),
                std::string(io::mode_name(entry.mode)).c_str(),
                std::string(deltadct::dtype_name(entry.dtype)).c_str(),
                io::shape_text(entry.shape).c_str(), static_cast<unsigned long long>(bytes),
                per_weight(bytes, io::elements(entry.shape)), remark(entry).c_str());
  }
  for (const io::FileEntry& file : archive.companions()) {
    std::printf("%-44s %-8s %-7s %-16llu %12llu\n", deltadct::printable(file.name).c_str(), "file",
                "", static_cast<unsigned long long>(file.bytes),
                static_cast<unsigned long long>(archive.stored_bytes(file)));
  }
  std::printf("total: %s, %.3f bits per weight\n",
              bytes_text(static_cast<double>(archive.file_bytes())).c_str(),
              report.bits_per_weight());
  if (report.recovery.energy != 0) {
    std::printf("restored: %s (of the deltas, rounded to the output's dtypes)\n",
                recovery_text(report.recovery).c_str());
  }
}

}  // namespace

void inspect(const std::string& delta, bool json, const Common& common) {
  const auto archive = io::DeltaArchive::open(delta, reading(common));
  io::CheckpointReport report;
  report.file_bytes = archive.file_bytes();
  for (const io::ManifestEntry& entry : archive.entries()) report.add(entry);
  if (!json) return inspect_text(archive, report);
  nlohmann::json result = {
      {"version", io::kFormatVersion},     {"bytes", archive.file_bytes()},
      {"weights", report.elements},        {"bits_per_weight", report.bits_per_weight()},
      {"folder", archive.of_folder()},     {"files", nlohmann::json::array()},
      {"tensors", nlohmann::json::array()}};
  if (report.recovery.energy != 0) result["recovery"] = recovery_json(report.recovery);
  for (const io::FileEntry& file : archive.companions()) {
    result["files"].push_back(
        {{"name", file.name}, {"size", file.bytes}, {"bytes", archive.stored_bytes(file)}});
  }
  for (const io::ManifestEntry& entry : archive.entries()) {
    result["tensors"].push_back(entry_json(archive, entry));
  }
  print_json(result);
}

}  // namespace cli
