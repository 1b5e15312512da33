// The header of the safetensors container: parses and checks it, and makes its text.
//
//   {"__metadata__": {"key": "text", ...},
//    "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
//
// data_offsets count from the start of the data, which the tensors fill one after another without
// holes. The order of the header need not be that of the data. Rank 0 (one element) and extents of
// 0 (no bytes) are valid. The rules are those of huggingface/safetensors 0.8, which also ignores
// unknown members of a tensor's entry. It opens three things that the format does not allow: null
// metadata, blanks before the first brace, and an entry that is an array of its three values.
#pragma once

#include <deltadct/io/json.hpp>
#include <deltadct/io/read_options.hpp>
#include <deltadct/io/tensor_info.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// The contents of a header, with the tensors in the order of their data.
struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;
  Metadata metadata;
  bool null_metadata = false;   ///< it is null, and treated as absent
  bool leading_blanks = false;  ///< before the first brace
  bool array_entries = false;   ///< some entries are arrays: dtype, shape, data_offsets
  bool other_members = false;   ///< some entries have members that no reader knows
};

namespace detail {

inline Metadata read_metadata(const nlohmann::json& value, std::string_view file,
                              const Limits& limits) {
  const std::string where = tensor_place(file, kMetadataKey);
  if (!value.is_object()) throw Error(Errc::bad_container, where, "not an object");
  if (value.size() > limits.tensors) {
    throw Error(Errc::limit_exceeded, where,
                "too many entries" + limit_advice("tensors", value.size()));
  }
  Metadata metadata;
  for (const auto& [key, text] : value.items()) {
    metadata.emplace(key, json_string(text, where, shortened(key)));
  }
  return metadata;
}

inline std::vector<std::uint64_t> read_shape(const nlohmann::json& entry, const char* key,
                                             std::string_view where, const Limits& limits) {
  const auto& extents = json_array(json_member(entry, key, where), where, key);
  if (extents.size() > limits.rank) {
    throw Error(Errc::limit_exceeded, where,
                "rank " + std::to_string(extents.size()) + limit_advice("rank", extents.size()));
  }
  std::vector<std::uint64_t> shape;
  shape.reserve(extents.size());
  for (const auto& extent : extents) shape.push_back(json_unsigned(extent, where, "an extent"));
  return shape;
}

/// The bits of an element if that many bytes hold a tensor of that shape; 0 if they cannot. A
/// tensor without elements counts as having 8.
inline std::uint64_t bits_of_element(std::span<const std::uint64_t> shape,
                                     std::uint64_t bytes) noexcept {
  const auto elements = extent_product(shape);
  if (!elements || bytes > kMaxNumber / 8) return 0;
  if (!has_elements(shape)) return bytes == 0 ? 8 : 0;
  return 8 * bytes % *elements == 0 ? 8 * bytes / *elements : 0;
}

[[noreturn]] inline void refuse_dtype(const std::string& name, std::string_view where,
                                      UnknownDType unknown) {
  throw Error(Errc::unsupported_dtype, where,
              shortened(name) + (unknown == UnknownDType::refuse
                                     ? "; --unknown-dtype keep takes it along byte for byte"
                                     : ", whose size or name is none of a dtype"));
}

/// The dtype of a tensor that has `bytes` bytes.
inline StoredDType read_dtype(const nlohmann::json& entry, std::span<const std::uint64_t> shape,
                              std::uint64_t bytes, std::string_view where, UnknownDType unknown) {
  const std::string& name = json_string(json_member(entry, "dtype", where), where, "dtype");
  if (const auto dtype = parse_dtype(name)) return *dtype;
  if (unknown == UnknownDType::keep) {
    if (auto dtype = StoredDType::named(name, bits_of_element(shape, bytes))) return *dtype;
  }
  refuse_dtype(name, where, unknown);
}

inline TensorInfo read_tensor(const std::string& name, const nlohmann::json& entry,
                              std::string_view file, const ReadOptions& options) {
  const std::string where = tensor_place(file, name);
  TensorInfo info;
  info.name = name;
  info.shape = read_shape(entry, "shape", where, options.limits);
  const auto& offsets =
      json_array(json_member(entry, "data_offsets", where), where, "data_offsets");
  if (offsets.size() != 2) throw Error(Errc::bad_container, where, "data_offsets is not a pair");
  info.begin = json_unsigned(offsets[0], where, "an offset");
  info.end = json_unsigned(offsets[1], where, "an offset");
  if (info.end < info.begin) throw Error(Errc::bad_container, where, "data_offsets run backwards");
  info.dtype = read_dtype(entry, info.shape, info.bytes(), where, options.unknown_dtype);
  const auto bytes = tensor_bytes(info.dtype, info.shape);
  if (!bytes) throw Error(Errc::bad_container, where, kBadSize);
  if (*bytes != info.bytes()) {
    throw Error(Errc::bad_container, where,
                "data_offsets span " + std::to_string(info.bytes()) +
                    " bytes, dtype and shape need " + std::to_string(*bytes));
  }
  return info;
}

/// The members of an entry: dtype, shape, data_offsets.
inline constexpr std::size_t kMembers = 3;

/// The entry that an array of its values stands for.
inline nlohmann::json entry_of_array(nlohmann::json&& values) {
  nlohmann::json entry = nlohmann::json::object();
  entry["dtype"] = std::move(values[0]);
  entry["shape"] = std::move(values[1]);
  entry["data_offsets"] = std::move(values[2]);
  return entry;
}

/// The most JSON values in one member of the header: the metadata's entries, or a shape and the
/// rest of a tensor's entry, with room for members that are ignored.
inline std::size_t member_values(const Limits& limits) noexcept {
  constexpr std::size_t kMost = std::numeric_limits<std::size_t>::max();
  constexpr std::size_t kOthers = 64;
  const std::size_t shape = limits.rank < kMost - kOthers ? limits.rank + kOthers : kMost;
  return limits.tensors < kMost - shape ? limits.tensors + shape : kMost;
}

/// Checks that tensors, sorted by offset, follow one another from 0 to the end of the data.
inline void check_layout(std::span<const TensorInfo> tensors, std::uint64_t data_bytes,
                         std::string_view file) {
  std::uint64_t expected = 0;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.begin != expected) {
      throw Error(Errc::bad_container, tensor_place(file, tensor.name),
                  std::string(tensor.begin < expected ? "overlap" : "hole") + ": begins at byte " +
                      std::to_string(tensor.begin) + " of the data, the one before ends at " +
                      std::to_string(expected));
    }
    expected = tensor.end;
  }
  if (expected == data_bytes) return;
  const auto where = tensors.empty() ? std::string(file) : tensor_place(file, tensors.back().name);
  throw Error(Errc::bad_container, where,
              "the last tensor ends at byte " + std::to_string(expected) +
                  " of the data, which has " + std::to_string(data_bytes));
}

}  // namespace detail

/// Parses a header and checks every rule that does not need the data itself. Reads no file: `where`
/// only names it in errors, which also name the tensor. data_bytes is the number of bytes after the
/// header. Throws bad_container, unsupported_dtype or limit_exceeded.
inline SafetensorsHeader parse_safetensors_header(std::string_view text, std::uint64_t data_bytes,
                                                  std::string_view where,
                                                  const ReadOptions& options = {}) {
  const Limits& limits = options.limits;
  if (text.size() > limits.header_bytes) {
    throw Error(Errc::limit_exceeded, where,
                "header of " + std::to_string(text.size()) + " bytes" +
                    detail::limit_advice("header", text.size()));
  }
  SafetensorsHeader header;
  // JSON allows leading blanks, the format does not.
  const std::size_t first = options.is_strict() ? 0 : text.find_first_not_of(" \t\r\n");
  if (first >= text.size() || text[first] != '{') {
    throw Error(Errc::bad_container, where, "the header does not start with '{'");
  }
  header.leading_blanks = first != 0;
  const auto take = [&](const std::string& name, nlohmann::json&& value) {
    if (name == detail::kMetadataKey && value.is_null() && !options.is_strict()) {
      header.null_metadata = true;
    } else if (name == detail::kMetadataKey) {
      header.metadata = detail::read_metadata(value, where, limits);
    } else if (header.tensors.size() == limits.tensors) {
      throw Error(Errc::limit_exceeded, detail::tensor_place(where, name),
                  "too many tensors" + detail::limit_advice("tensors"));
    } else if (value.is_array() && value.size() == 3 && !options.is_strict()) {
      header.array_entries = true;
      const nlohmann::json entry = detail::entry_of_array(std::move(value));
      header.tensors.push_back(detail::read_tensor(name, entry, where, options));
    } else {
      header.tensors.push_back(detail::read_tensor(name, value, where, options));
      header.other_members = header.other_members || value.size() > detail::kMembers;
    }
  };
  parse_json_members(text, where, take, limits.depth, detail::member_values(limits));
  // A stable sort: empty tensors that share an offset keep the header's order.
  std::stable_sort(header.tensors.begin(), header.tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  detail::check_layout(header.tensors, data_bytes, where);
  return header;
}

namespace detail {

/// A key in quotes. Refuses what the reader would refuse.
inline std::string quoted_key(const std::string& key, std::string_view where) {
  if (key.find('\0') == key.npos) return json_quoted(key, where);
  throw Error(Errc::bad_container, where, "NUL in '" + shortened(key) + "'");
}

inline std::string quoted_name(const std::string& name, std::string_view where) {
  if (name != kMetadataKey) return quoted_key(name, where);
  throw Error(Errc::bad_container, where, name + " is not a name for a tensor");
}

inline std::string metadata_text(const Metadata& metadata, std::string_view where) {
  std::string text = "\"" + std::string(kMetadataKey) + "\":{";
  for (const auto& [key, value] : metadata) {
    if (text.back() != '{') text += ',';
    text += quoted_key(key, where) + ":" + json_quoted(value, where);
  }
  return text + "}";
}

inline std::string tensor_text(const TensorInfo& tensor, std::string_view where) {
  std::string shape;
  for (const std::uint64_t extent : tensor.shape) {
    if (!shape.empty()) shape += ',';
    shape += std::to_string(extent);
  }
  return quoted_name(tensor.name, where) + ":{\"dtype\":\"" + std::string(tensor.dtype.name()) +
         "\",\"shape\":[" + shape + "],\"data_offsets\":[" + std::to_string(tensor.begin) + "," +
         std::to_string(tensor.end) + "]}";
}

/// The header without padding. Metadata comes first, so that tools see it without parsing the rest.
inline std::string header_text(std::span<const TensorInfo> tensors, const Metadata& metadata,
                               std::string_view where) {
  std::string text = "{";
  if (!metadata.empty()) text += metadata_text(metadata, where);
  for (const TensorInfo& tensor : tensors) {
    if (text.size() > 1) text += ',';
    text += tensor_text(tensor, where);
  }
  return text + "}";
}

}  // namespace detail

/// The exact length, before padding, of the header that a SafetensorsWriter would write. With this
/// capacity it wastes at most 7 bytes. Offsets must be the final ones. Throws bad_container for
/// names and texts that cannot be stored.
inline std::size_t header_bytes(std::span<const TensorInfo> tensors, const Metadata& metadata) {
  return detail::header_text(tensors, metadata, "header").size();
}

}}}  // namespace deltadct::inline DELTADCT_ABI::io
