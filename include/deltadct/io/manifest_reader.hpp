// Parses the manifest of a delta archive and checks it (fields: docs/format.md).
#pragma once

#include <deltadct/core/finite.hpp>
#include <deltadct/io/fingerprint.hpp>
#include <deltadct/io/json.hpp>
#include <deltadct/io/manifest.hpp>
#include <deltadct/io/safetensors_header.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

namespace detail {

/// The longest name of a stage in a manifest. Names are copied into every header.
inline constexpr std::size_t kMaxStageName = 15;

inline double number_in(const nlohmann::json& value, std::string_view where,
                        std::string_view what) {
  if (!value.is_number())
    throw Error(Errc::corrupt_data, where, std::string(what) + " is not a number");
  const auto number = value.get<double>();
  if (!deltadct::detail::is_finite(number))
    throw Error(Errc::corrupt_data, where, std::string(what) + " is not finite");
  return number;
}

/// Reads the entries of one manifest.
class ManifestReader {
 public:
  ManifestReader(const nlohmann::json& json, std::string_view file, const ReadOptions& options,
                 std::size_t matrices)
      : file_(file),
        options_(options),
        matrices_left_(matrices),
        codecs_(json_array(json_member(json, "codecs", file), file, "codecs")) {}

  ManifestEntry read(const nlohmann::json& json) {
    ManifestEntry entry;
    entry.name = json_string(json_member(json, "name", file_), file_, "name");
    where_ = tensor_place(file_, entry.name);
    json_ = &json;
    // No model can have a tensor of such a name.
    if (entry.name == kMetadataKey || entry.name.find('\0') != entry.name.npos) {
      fail("not a name for a tensor");
    }
    entry.mode = mode_named(text("mode"));
    entry.dtype = dtype("");
    entry.shape = shape("shape", entry.dtype);
    if (entry.mode != Mode::removed) entry.tuned = tensor_sum("tuned");
    read_base(entry);
    if (has_delta(entry.mode)) entry.delta_sum = text("delta");
    if (has_lossless(entry.mode)) entry.lossless_sum = text("lossless");
    if (has_delta(entry.mode) && json.contains("outliers")) entry.outliers_sum = text("outliers");
    if (json.contains("reason")) entry.reason = text("reason");
    if (entry.mode == Mode::tied) entry.target = text("target");
    if (has_delta(entry.mode)) read_delta(entry);
    return entry;
  }

 private:
  [[noreturn]] void fail(std::string_view what) const {
    throw Error(Errc::corrupt_data, where_, what);
  }

  const std::string& text(const char* key) const {
    return json_string(json_member(*json_, key, where_), where_, key);
  }

  /// The fingerprint of a tensor. A malformed one would match no tensor.
  const std::string& tensor_sum(const char* key) const {
    const std::string& sum = text(key);
    if (!is_fingerprint(sum)) fail(std::string(key) + " is not 16 hexadecimal digits");
    return sum;
  }

  std::vector<std::uint64_t> shape(const char* key, const StoredDType& dtype) const {
    auto result = read_shape(*json_, key, where_, options_.limits);
    if (!tensor_bytes(dtype, result)) fail(kBadSize);
    return result;
  }

  StoredDType dtype(const std::string& prefix) const {
    const std::string& name = text((prefix + "dtype").c_str());
    const auto known = parse_dtype(name);
    const auto given = json_->find(prefix + "bits");
    if (given == json_->end()) {
      if (known) return *known;
      refuse_dtype(name, where_, options_.unknown_dtype);
    }
    const std::uint64_t bits = json_unsigned(*given, where_, "bits");
    if (known && bits != dtype_bits(*known)) fail("bits of dtype " + name);
    if (!known && options_.unknown_dtype == UnknownDType::refuse) {
      refuse_dtype(name, where_, options_.unknown_dtype);
    }
    if (auto stored = StoredDType::named(name, bits)) return *stored;
    refuse_dtype(name, where_, options_.unknown_dtype);
  }

  Mode mode_named(const std::string& name) const {
    for (const Mode mode : kModes) {
      if (mode_name(mode) == name) return mode;
    }
    fail("unknown mode '" + shortened(name) + "'");
  }

  void read_base(ManifestEntry& entry) const {
    if (json_->contains("base")) {
      BaseTensor base{entry.dtype, entry.shape, tensor_sum("base")};
      if (json_->contains("base_dtype")) base.dtype = dtype("base_");
      if (json_->contains("base_shape")) base.shape = shape("base_shape", base.dtype);
      if (!tensor_bytes(base.dtype, base.shape)) fail(kBadSize);
      entry.base = std::move(base);
    }
    check_base(entry);
  }

  void check_base(const ManifestEntry& entry) const {
    const bool none = entry.mode == Mode::added;
    const bool optional = entry.mode == Mode::tied;
    if (!optional && entry.base.has_value() == none) fail("base and mode do not fit");
    if (!entry.base) return;
    const auto common = common_rows(entry.shape, entry.base->shape);
    const bool same_dtype = entry.dtype == entry.base->dtype;
    const bool same = entry.shape == entry.base->shape && same_dtype;
    switch (entry.mode) {
      case Mode::same:
        if (!same || entry.tuned != entry.base->fingerprint) fail("base and mode do not fit");
        return;
      case Mode::delta:
      case Mode::removed:
        if (!same) fail("base and mode do not fit");
        return;
      case Mode::grown:
      case Mode::shrunk:
        if (!common || entry.shape.empty() || !same_dtype ||
            (entry.shape[0] > entry.base->shape[0]) != (entry.mode == Mode::grown) ||
            entry.shape[0] == entry.base->shape[0]) {
          fail("base and mode do not fit");
        }
        return;
      default:
        return;
    }
  }

  void read_delta(ManifestEntry& entry) {
    if (!is_element(entry.dtype)) fail("a delta has no elements of that dtype");
    const auto& stack = json_array(json_member(*json_, "stack", where_), where_, "stack");
    if (stack.size() != 3) fail("stack is not three numbers");
    const auto number = [&](std::size_t i) {
      return static_cast<std::size_t>(json_unsigned(stack[i], where_, "stack"));
    };
    entry.stack = {number(0), number(1), number(2)};
    if (!is_stack_of(entry.stack, *common_rows(entry.shape, entry.base->shape)) ||
        entry.stack.count == 0) {
      fail("stack and shape do not fit");
    }
    const bool is_empty = entry.stack.rows == 0 || entry.stack.cols == 0;
    if (is_empty && entry.stack.count != 1) fail("several matrices without elements");
    const TensorHeader codec = read_codec(entry.stack);
    const auto& matrices = json_array(json_member(*json_, "matrices", where_), where_, "matrices");
    if (matrices.size() != entry.stack.count) fail("stack and matrices do not fit");
    if (matrices.size() > matrices_left_) {
      throw Error(Errc::limit_exceeded, where_,
                  "too many matrices for --limit tensors, or for the size of the file");
    }
    matrices_left_ -= matrices.size();
    entry.matrices.reserve(matrices.size());
    for (const auto& matrix : matrices) entry.matrices.push_back(read_matrix(matrix, codec));
    if (json_->contains("tuned_dtype")) read_tuned_dtype(entry);
    if (json_->contains("recovery")) entry.recovery = read_recovery((*json_)["recovery"]);
    if (json_->contains("lost")) entry.lost = read_lost((*json_)["lost"]);
  }

  void read_tuned_dtype(ManifestEntry& entry) const {
    entry.tuned_dtype = parse_dtype(text("tuned_dtype"));
    if (!entry.tuned_dtype || !is_element(*entry.tuned_dtype)) fail("tuned_dtype");
    if (!tensor_bytes(*entry.tuned_dtype, entry.shape)) fail("the shape's size overflows");
  }

  Recovery read_recovery(const nlohmann::json& json) const {
    const auto& numbers = json_array(json, where_, "recovery");
    if (numbers.size() != 3) fail("recovery is not three numbers");
    const double energy = number_in(numbers[0], where_, "energy");
    const double gain = number_in(numbers[1], where_, "gain");
    const double snr = numbers[2].is_null() ? std::numeric_limits<double>::infinity()
                                            : number_in(numbers[2], where_, "SNR");
    if (!(energy >= 0)) fail("recovery");
    return Recovery::of(energy, gain, snr);
  }

  LostRows read_lost(const nlohmann::json& json) const {
    const auto& items = json_array(json, where_, "lost");
    if (items.size() != 3 || !items[2].is_boolean()) fail("lost is not two numbers and a truth");
    return {json_unsigned(items[0], where_, "lost"), json_unsigned(items[1], where_, "lost"),
            items[2].get<bool>()};
  }

  TensorHeader read_codec(const MatrixStack& stack) const {
    const std::uint64_t index =
        json_unsigned(json_member(*json_, "codec", where_), where_, "codec");
    if (index >= codecs_.size()) fail("no such codec");
    const nlohmann::json& codec = codecs_[static_cast<std::size_t>(index)];
    const auto stage = [&](const char* key) {
      const std::string& name = json_string(json_member(codec, key, where_), where_, key);
      if (name.size() > kMaxStageName || has_controls(name)) fail("name of a stage");
      return name;
    };
    TensorHeader header;
    header.rows = stack.rows;
    header.cols = stack.cols;
    if (codec.contains("method")) {
      header.transform = stage("method");
      return header;
    }
    const std::uint64_t patch = json_unsigned(json_member(codec, "patch", where_), where_, "patch");
    if (patch < 1 || patch > 64) fail("patch size");
    header.patch = static_cast<int>(patch);
    header.transform = stage("transform");
    header.quantizer = stage("quantizer");
    header.bound = bound_named(stage("bound"));
    return header;
  }

  DType bound_named(const std::string& name) const {
    if (const auto dtype = parse_dtype(name)) return *dtype;
    throw Error(Errc::unsupported_dtype, where_, shortened(name));
  }

  TensorHeader read_matrix(const nlohmann::json& json, TensorHeader header) const {
    if (header.patch == 0)
      header.whole_bytes = static_cast<std::size_t>(json_unsigned(json, where_, "a matrix"));
    else
      read_classes(json, header);
    try {
      validate_header(header);
    } catch (const Error& error) {
      throw error.within(where_);
    }
    return header;
  }

  void read_classes(const nlohmann::json& json, TensorHeader& header) const {
    const auto& pair = json_array(json, where_, "a matrix");
    if (pair.size() != 2) fail("a matrix is not a scale and classes");
    header.scale = number_in(pair[0], where_, "scale");
    for (const auto& item : json_array(pair[1], where_, "classes")) {
      const auto& triple = json_array(item, where_, "a width class");
      if (triple.size() != 3 || header.classes.size() == kMaxWidthClasses) {
        fail("width classes");
      }
      const auto small = [&](std::size_t i, const char* what) {
        return static_cast<int>(
            std::min<std::uint64_t>(json_unsigned(triple[i], where_, what), 99));
      };
      WidthClass k;
      k.bits = triple[0].is_number_integer() && triple[0] < 0
                   ? static_cast<int>(std::max<std::int64_t>(triple[0].get<std::int64_t>(), -99))
                   : small(0, "bits");
      k.bound_count = small(1, "values");
      k.patches = static_cast<std::size_t>(json_unsigned(triple[2], where_, "patches"));
      header.classes.push_back(k);
    }
  }

  std::string file_;
  const ReadOptions& options_;
  std::size_t matrices_left_;
  const nlohmann::json::array_t& codecs_;
  std::string where_;
  const nlohmann::json* json_ = nullptr;
};

inline FileEntry read_file_entry(const nlohmann::json& json, std::string_view where) {
  FileEntry file;
  file.name = json_string(json_member(json, "name", where), where, "name");
  const std::string place = tensor_place(where, file.name);
  file.bytes = json_unsigned(json_member(json, "bytes", place), place, "bytes");
  file.sum = json_string(json_member(json, "sum", place), place, "sum");
  file.section = json_string(json_member(json, "file", place), place, "file");
  file.executable = json.contains("executable") && json["executable"] == true;
  return file;
}

inline void check_required(const nlohmann::json& json, std::string_view file) {
  if (!json.contains("requires")) return;
  for (const auto& item : json_array(json["requires"], file, "requires")) {
    const std::string& feature = json_string(item, file, "requires");
    if (feature == kOutliersFeature || feature == kFilesFeature) continue;
    throw Error(Errc::unsupported_version, file,
                "it requires '" + shortened(json_string(item, file, "requires")) + "'");
  }
}

/// The members of a manifest that this version knows; `tensors` without its items. Others are not
/// kept.
inline nlohmann::json manifest_members(std::string_view text, std::string_view file,
                                       const Limits& limits) {
  nlohmann::json members = nlohmann::json::object();
  const auto take = [&](const std::string& key, nlohmann::json&& value) {
    static constexpr std::string_view known[] = {"version", "requires",      "metadata",
                                                 "codecs",  "tensors",       "folder",
                                                 "files",   "index_metadata"};
    if (std::ranges::count(known, key) != 0) members[key] = std::move(value);
  };
  parse_json_items(text, file, take, {"tensors", [](nlohmann::json&&) {}}, limits.tensors,
                   limits.depth);
  return members;
}

/// Reads whether the fine-tune is a folder, which files it has, and what its index says.
inline void read_folder(const nlohmann::json& json, Manifest& manifest, std::string_view file) {
  manifest.folder = json.contains("folder") && json["folder"] == true;
  if (json.contains("index_metadata")) {
    const nlohmann::json& metadata = json["index_metadata"];
    if (!metadata.is_object()) {
      throw Error(Errc::bad_container, file, "index_metadata is not an object");
    }
    if (!metadata.empty()) manifest.index_metadata = metadata.dump();
  }
  if (!json.contains("files")) return;
  for (const auto& item : json_array(json["files"], file, "files")) {
    manifest.files.push_back(read_file_entry(item, file));
  }
}

}  // namespace detail

/// Parses a manifest of at most max_matrices matrices. Throws bad_container, corrupt_data,
/// unsupported_version, unsupported_dtype or limit_exceeded, naming the file and the tensor.
/// Headers still lack their layout, which validation against the stored arrays completes.
///
/// Reads the text twice and builds one entry at a time, because members that all entries need may
/// come after them.
inline Manifest parse_manifest(std::string_view text, std::string_view file,
                               const ReadOptions& options, std::size_t max_matrices) {
  const Limits& limits = options.limits;
  if (text.size() > limits.header_bytes) {
    throw Error(Errc::limit_exceeded, file,
                "manifest of " + std::to_string(text.size()) + " bytes" +
                    detail::limit_advice("header", text.size()));
  }
  const nlohmann::json json = detail::manifest_members(text, file, limits);
  const std::uint64_t version = json_unsigned(json_member(json, "version", file), file, "version");
  if (version != kFormatVersion) {
    throw Error(Errc::unsupported_version, file, "version " + std::to_string(version));
  }
  detail::check_required(json, file);
  static_cast<void>(json_member(json, "tensors", file));
  Manifest manifest;
  manifest.metadata = detail::read_metadata(json_member(json, "metadata", file), file, limits);
  detail::read_folder(json, manifest, file);
  detail::ManifestReader reader(json, file, options, max_matrices);
  const auto take = [&](nlohmann::json&& tensor) {
    manifest.entries.push_back(reader.read(tensor));
  };
  parse_json_items(
      text, file, [](const std::string&, nlohmann::json&&) {}, {"tensors", take}, limits.tensors,
      limits.depth);
  return manifest;
}

/// The same, with the limit on tensors as the limit on matrices.
inline Manifest parse_manifest(std::string_view text, std::string_view file,
                               const ReadOptions& options = {}) {
  return parse_manifest(text, file, options, options.limits.tensors);
}

}}}  // namespace deltadct::inline DELTADCT_ABI::io
