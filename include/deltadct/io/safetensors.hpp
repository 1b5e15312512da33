// The safetensors container: a checked reader, and a writer that streams.
//
//   byte 0    u64, little-endian: N, the header's length, at most 100,000,000
//        8    header: N bytes of JSON from '{' on, maybe padded with spaces at the end
//               {"__metadata__": {"key": "text", ...},
//                "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
//    8 + N    data: tensors one after another without holes, up to the end of the file
//
// data_offsets count from the start of the data. The header's order need not be the data's. Rank 0
// (one element) and extents of 0 (no bytes) are valid. Rules as of huggingface/safetensors, which
// also ignores members of a tensor's entry that it does not know.
#pragma once

#include <deltadct/config.hpp>
#include <deltadct/core/dtype.hpp>
#include <deltadct/core/error.hpp>
#include <deltadct/io/atomic_file.hpp>
#include <deltadct/io/input_file.hpp>
#include <deltadct/io/json.hpp>
#include <deltadct/io/padding.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace deltadct::inline DELTADCT_ABI::io {

/// The longest header the format allows, in bytes.
inline constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;

/// What a reader accepts before it throws limit_exceeded (for depth: bad_container). `tensors` also
/// bounds the number of metadata entries.
struct Limits {
  std::uint64_t header_bytes = kMaxHeaderBytes;  ///< of a header, an index or a manifest
  std::size_t tensors = 1'000'000;
  std::size_t rank = 16;
  int depth = 16;
  std::size_t shards = 100'000;
  /// Of all the tensors that an archive restores: 16 TiB.
  std::uint64_t bytes = std::uint64_t{1} << 44;
  /// Bytes an archive may restore for every byte it has, beyond 64 MiB and twice its base's.
  double expansion = 1000;
};

using Metadata = std::map<std::string, std::string>;

/// One tensor of a container; begin and end are byte offsets within the data section.
struct TensorInfo {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::uint64_t> shape;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;

  /// Product of the shape: 1 for rank 0.
  std::uint64_t elements() const noexcept {
    return std::accumulate(shape.begin(), shape.end(), std::uint64_t{1}, std::multiplies<>{});
  }
  std::uint64_t bytes() const noexcept { return end - begin; }
};

/// What a header says, tensors in the order of their data.
struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;
  Metadata metadata;
};

/// Bytes of a tensor; nothing where they exceed 2^63 - 1. Extents of 0 are left out while that is
/// checked, so that the verdict on [2^40, 2^40, 0] does not depend on the order of its extents: a
/// shape whose strides overflow is never accepted.
inline std::optional<std::uint64_t> tensor_bytes(DType dtype,
                                                 std::span<const std::uint64_t> shape) noexcept {
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  std::uint64_t bytes = dtype_bytes(dtype);
  bool empty = false;
  for (const std::uint64_t extent : shape) {
    empty = empty || extent == 0;
    if (extent == 0) continue;
    if (bytes > kMost / extent) return std::nullopt;
    bytes *= extent;
  }
  return empty ? 0 : bytes;
}

namespace detail {

inline constexpr std::size_t kLengthBytes = 8;
inline constexpr const char* kMetadataKey = "__metadata__";

inline std::string tensor_place(std::string_view file, std::string_view tensor) {
  return std::string(file) + ": " + printable(tensor);
}

inline Metadata read_metadata(const nlohmann::json& value, std::string_view file,
                              const Limits& limits) {
  const std::string where = tensor_place(file, kMetadataKey);
  if (!value.is_object()) throw Error(Errc::bad_container, where, "not an object");
  if (value.size() > limits.tensors) throw Error(Errc::limit_exceeded, where, "too many entries");
  Metadata metadata;
  for (const auto& [key, text] : value.items()) {
    metadata.emplace(key, json_string(text, where, printable(key)));
  }
  return metadata;
}

inline DType read_dtype(const nlohmann::json& entry, std::string_view where) {
  const std::string& name = json_string(json_member(entry, "dtype", where), where, "dtype");
  if (const auto dtype = parse_dtype(name)) return *dtype;
  throw Error(Errc::unsupported_dtype, where, printable(name));
}

inline std::vector<std::uint64_t> read_shape(const nlohmann::json& entry, const char* key,
                                             std::string_view where, const Limits& limits) {
  const auto& extents = json_array(json_member(entry, key, where), where, key);
  if (extents.size() > limits.rank) {
    throw Error(Errc::limit_exceeded, where, "rank " + std::to_string(extents.size()));
  }
  std::vector<std::uint64_t> shape;
  shape.reserve(extents.size());
  for (const auto& extent : extents) shape.push_back(json_unsigned(extent, where, "an extent"));
  return shape;
}

inline TensorInfo read_tensor(const std::string& name, const nlohmann::json& entry,
                              std::string_view file, const Limits& limits) {
  const std::string where = tensor_place(file, name);
  TensorInfo info{name, read_dtype(entry, where), read_shape(entry, "shape", where, limits)};
  const auto& offsets =
      json_array(json_member(entry, "data_offsets", where), where, "data_offsets");
  if (offsets.size() != 2) throw Error(Errc::bad_container, where, "data_offsets is not a pair");
  info.begin = json_unsigned(offsets[0], where, "an offset");
  info.end = json_unsigned(offsets[1], where, "an offset");
  if (info.end < info.begin) throw Error(Errc::bad_container, where, "data_offsets run backwards");
  const auto bytes = tensor_bytes(info.dtype, info.shape);
  if (!bytes) throw Error(Errc::bad_container, where, "the shape's size overflows");
  if (*bytes != info.bytes()) {
    throw Error(Errc::bad_container, where,
                "data_offsets span " + std::to_string(info.bytes()) +
                    " bytes, dtype and shape need " + std::to_string(*bytes));
  }
  return info;
}

/// JSON values one member of the header may hold: the metadata's entries, or a shape and the rest
/// of a tensor's entry, with room for members to be ignored.
inline std::size_t member_values(const Limits& limits) noexcept {
  constexpr std::size_t kMost = std::numeric_limits<std::size_t>::max();
  constexpr std::size_t kOthers = 64;
  const std::size_t shape = limits.rank < kMost - kOthers ? limits.rank + kOthers : kMost;
  return limits.tensors < kMost - shape ? limits.tensors + shape : kMost;
}

/// Tensors sorted by offset must follow one another from 0 to the end of the data.
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

/// Parses a header and checks every rule that does not need the data itself. Pure: `where` only
/// names the file in errors, which name the tensor too. data_bytes is what follows the header.
/// Throws bad_container, unsupported_dtype or limit_exceeded.
inline SafetensorsHeader parse_safetensors_header(std::string_view text, std::uint64_t data_bytes,
                                                  std::string_view where,
                                                  const Limits& limits = {}) {
  if (text.size() > limits.header_bytes) {
    throw Error(Errc::limit_exceeded, where, "header of " + std::to_string(text.size()) + " bytes");
  }
  // Leading spaces are fine for JSON, not for the format.
  if (text.empty() || text.front() != '{') {
    throw Error(Errc::bad_container, where, "the header does not start with '{'");
  }
  SafetensorsHeader header;
  const auto take = [&](const std::string& name, nlohmann::json&& value) {
    if (name == detail::kMetadataKey) {
      header.metadata = detail::read_metadata(value, where, limits);
    } else if (header.tensors.size() == limits.tensors) {
      throw Error(Errc::limit_exceeded, detail::tensor_place(where, name), "too many tensors");
    } else {
      header.tensors.push_back(detail::read_tensor(name, value, where, limits));
    }
  };
  parse_json_members(text, where, take, limits.depth, detail::member_values(limits));
  // Stable: empty tensors that share an offset keep the header's order.
  std::stable_sort(header.tensors.begin(), header.tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  detail::check_layout(header.tensors, data_bytes, where);
  return header;
}

namespace detail {

/// Reads N, and refuses it before anything of that size is read or allocated.
inline std::uint64_t header_length(const InputFile& file, const Limits& limits) {
  const std::string where = file.path().string();
  if (file.size() < kLengthBytes) {
    throw Error(Errc::bad_container, where, std::to_string(file.size()) + " bytes, too short");
  }
  std::vector<std::byte> storage;
  std::uint64_t length = 0;
  const auto bytes = file.bytes(0, kLengthBytes, storage);
  for (std::size_t i = kLengthBytes; i-- > 0;) {
    length = length << 8 | std::to_integer<std::uint64_t>(bytes[i]);
  }
  const std::string text = "header of " + std::to_string(length) + " bytes";
  if (length > kMaxHeaderBytes) throw Error(Errc::bad_container, where, text);
  if (length > file.size() - kLengthBytes) {
    throw Error(Errc::bad_container, where,
                text + " in a file of " + std::to_string(file.size()) + " bytes");
  }
  if (length > limits.header_bytes) throw Error(Errc::limit_exceeded, where, text);
  return length;
}

/// A safetensors file whose header has been read.
struct Container {
  InputFile file;
  std::uint64_t data_begin;
  SafetensorsHeader header;
};

inline Container open_container(const std::filesystem::path& path, Access access,
                                const Limits& limits, Links links) {
  InputFile file = InputFile::open(path, access, links);
  const std::uint64_t length = header_length(file, limits);
  const std::uint64_t data_begin = kLengthBytes + length;
  std::vector<std::byte> storage;
  const auto bytes = file.bytes(kLengthBytes, length, storage);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  auto header = parse_safetensors_header(text, file.size() - data_begin, path.string(), limits);
  file.release(0, data_begin);
  return {std::move(file), data_begin, std::move(header)};
}

/// A key between quotes; refuses what the reader would.
inline std::string quoted_key(const std::string& key, std::string_view where) {
  if (key.find('\0') == key.npos) return json_quoted(key, where);
  throw Error(Errc::bad_container, where, "NUL in '" + printable(key) + "'");
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
  return quoted_name(tensor.name, where) + ":{\"dtype\":\"" +
         std::string(dtype_name(tensor.dtype)) + "\",\"shape\":[" + shape + "],\"data_offsets\":[" +
         std::to_string(tensor.begin) + "," + std::to_string(tensor.end) + "]}";
}

/// The header without padding: metadata first, so that tools see it without parsing the rest.
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

/// The exact length of the header a SafetensorsWriter would write, before padding: the capacity
/// with which it wastes at most 7 bytes. Offsets must be the final ones. Throws bad_container for
/// names and texts that cannot be stored.
inline std::size_t header_bytes(std::span<const TensorInfo> tensors, const Metadata& metadata) {
  return detail::header_text(tensors, metadata, "header").size();
}

/// Whether a header takes all the room that was reserved for it.
enum class HeaderRoom {
  fixed,  ///< so that positions are known beforehand
  least,  ///< no more than it needs, in a file so small that it would be noticed
};

/// Writes a safetensors file front to back; the file appears complete with finish(), or never.
///
/// The header's text is known last but stands first, so room for it is reserved and what is left
/// over is filled with spaces, which the format allows. Data is stored in the order it comes.
/// Errors of the system are io_failure; a name used twice or not storable is bad_container.
class SafetensorsWriter {
 public:
  /// Reserves header_capacity bytes, rounded up so that the data starts at a multiple of 8.
  /// Throws output_exists, io_failure, or too_large above what the format allows.
  SafetensorsWriter(const std::filesystem::path& path, Overwrite overwrite,
                    std::size_t header_capacity, HeaderRoom room = HeaderRoom::fixed)
      : capacity_(rounded(header_capacity, path)), file_(path, overwrite) {
    if (room == HeaderRoom::fixed) begin_data();
  }

  /// Data up to which a header takes no more room than it needs (HeaderRoom::least): beside more,
  /// what is left over hardly counts.
  static constexpr std::size_t kMostHeld = std::size_t{16} << 20;

  /// Where in the file the next byte of data goes, if the header's room is fixed.
  std::uint64_t position() const noexcept { return file_.position(); }

  /// Starts the next tensor. Throws shape_mismatch where the one before lacks data, too_large for
  /// a shape whose size overflows.
  void begin(const std::string& name, DType dtype, std::span<const std::uint64_t> shape) {
    check_complete();
    detail::quoted_name(name, place());
    const std::string where = detail::tensor_place(place(), name);
    const auto bytes = tensor_bytes(dtype, shape);
    const std::uint64_t first = data_bytes();
    if (!bytes || *bytes > kMaxDataBytes - first) {
      throw Error(Errc::too_large, where, "the shape's size overflows");
    }
    if (!names_.insert(name).second) throw Error(Errc::bad_container, where, "name used twice");
    tensors_.push_back({name, dtype, {shape.begin(), shape.end()}, first, first + *bytes});
  }

  /// Appends to the current tensor. Throws shape_mismatch for more than its shape holds, and then
  /// writes nothing.
  void write(std::span<const std::byte> bytes) {
    const std::uint64_t room = tensors_.empty() ? 0 : tensors_.back().end - data_bytes();
    if (bytes.size() > room) {
      throw Error(
          Errc::shape_mismatch, current_place(),
          std::to_string(bytes.size()) + " bytes of data, room for " + std::to_string(room));
    }
    try {
      if (!begun_ && held_.size() + bytes.size() > kMostHeld) begin_data();
      if (begun_)
        file_.write(bytes);
      else
        held_.insert(held_.end(), bytes.begin(), bytes.end());
    } catch (const Error& error) {
      throw Error(error.code(), current_place(), error.detail());
    }
  }

  /// Writes the header and puts the file in place; to be called once, last. Returns the file's
  /// bytes. Throws shape_mismatch where the last tensor lacks data, too_large where the header does
  /// not fit its room, output_exists, io_failure.
  std::uint64_t finish(const Metadata& metadata = {}) {
    check_complete();
    const std::string text = detail::header_text(tensors_, metadata, place());
    if (text.size() > capacity_) {
      throw Error(Errc::too_large, place(),
                  "header of " + std::to_string(text.size()) + " bytes, room for " +
                      std::to_string(capacity_));
    }
    if (!begun_) {
      capacity_ = detail::padded(text.size());
      begin_data();
    }
    file_.write_at(0, std::as_bytes(std::span<const char>(header(text))));
    const std::uint64_t file_bytes = file_.position();
    file_.commit();
    return file_bytes;
  }

 private:
  // Keeps every offset in the file within 2^63 - 1, the most a file offset holds.
  static constexpr std::uint64_t kMaxDataBytes =
      static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) - kMaxHeaderBytes -
      detail::kLengthBytes;

  static std::size_t rounded(std::size_t capacity, const std::filesystem::path& path) {
    if (capacity > kMaxHeaderBytes) {
      throw Error(Errc::too_large, path.string(),
                  "header of " + std::to_string(capacity) + " bytes");
    }
    return detail::padded(capacity);
  }

  std::string place() const { return file_.path().string(); }

  std::string current_place() const {
    return tensors_.empty() ? place() : detail::tensor_place(place(), tensors_.back().name);
  }

  std::uint64_t data_bytes() const noexcept {
    return begun_ ? file_.position() - detail::kLengthBytes - capacity_ : held_.size();
  }

  void check_complete() const {
    if (tensors_.empty() || tensors_.back().end == data_bytes()) return;
    throw Error(Errc::shape_mismatch, current_place(),
                std::to_string(tensors_.back().end - data_bytes()) + " bytes of data are missing");
  }

  /// From here on the header's room is what it is.
  void begin_data() {
    begun_ = true;
    file_.skip(detail::kLengthBytes + capacity_);
    file_.write(held_);
    held_ = {};
  }

  std::string header(std::string text) const {
    text.resize(capacity_, ' ');
    std::string length(detail::kLengthBytes, '\0');
    for (std::size_t i = 0; i < length.size(); ++i) {
      length[i] = static_cast<char>(static_cast<unsigned char>(capacity_ >> (8 * i)));
    }
    return length + text;
  }

  std::size_t capacity_;
  AtomicFile file_;
  bool begun_ = false;           // whether the room of the header is settled
  std::vector<std::byte> held_;  // data that waits for it
  std::vector<TensorInfo> tensors_;
  std::set<std::string> names_;
};

}  // namespace deltadct::inline DELTADCT_ABI::io
