// The safetensors container: a checked reader, and a writer that streams.
//
//   byte 0    u64, little-endian: N, the header's length, at most 100,000,000
//        8    header: N bytes of JSON that begin with '{', maybe padded with spaces at the end
//    8 + N    data: tensors one after another without holes, up to the end of the file
#pragma once

#include <deltadct/io/atomic_file.hpp>
#include <deltadct/io/foreign_format.hpp>
#include <deltadct/io/padding.hpp>
#include <deltadct/io/safetensors_header.hpp>

#include <filesystem>
#include <set>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

namespace detail {

inline constexpr std::size_t kLengthBytes = 8;

/// The length N at the start of a file.
inline std::uint64_t stored_length(const InputFile& file) {
  std::vector<std::byte> storage;
  std::uint64_t length = 0;
  const auto bytes = file.bytes(0, kLengthBytes, storage);
  for (std::size_t i = kLengthBytes; i-- > 0;) {
    length = length << 8 | std::to_integer<std::uint64_t>(bytes[i]);
  }
  return length;
}

/// Reads N and checks it before anything of that size is read or allocated.
inline std::uint64_t header_length(const InputFile& file, const Limits& limits) {
  const std::string where = file.path().string();
  if (file.size() < kLengthBytes) {
    throw Error(Errc::bad_container, where, std::to_string(file.size()) + " bytes, too short");
  }
  const std::uint64_t length = stored_length(file);
  const std::string text = "header of " + std::to_string(length) + " bytes";
  if (length > kMaxHeaderBytes) throw Error(Errc::bad_container, where, text);
  if (length > file.size() - kLengthBytes) {
    throw Error(Errc::bad_container, where,
                text + " in a file of " + std::to_string(file.size()) + " bytes");
  }
  if (length > limits.header_bytes) {
    throw Error(Errc::limit_exceeded, where, text + limit_advice("header", length));
  }
  return length;
}

/// Throws bad_container if the first bytes are those of another format, saying what the file is and
/// what to do about it.
inline void refuse_foreign(const InputFile& file) {
  std::vector<std::byte> storage;
  const auto first = file.bytes(0, std::min<std::uint64_t>(file.size(), kTellingBytes), storage);
  const char* foreign = foreign_format(first);
  if (foreign != nullptr) throw Error(Errc::bad_container, file.path().string(), foreign);
}

/// A safetensors file whose header has been read.
struct Container {
  InputFile file;
  std::uint64_t data_begin;
  SafetensorsHeader header;
};

inline Container open_container(const std::filesystem::path& path, const ReadOptions& options,
                                Links links) {
  InputFile file = InputFile::open(path, options.access, links);
  refuse_foreign(file);
  const std::uint64_t length = header_length(file, options.limits);
  const std::uint64_t data_begin = kLengthBytes + length;
  std::vector<std::byte> storage;
  const auto bytes = file.bytes(kLengthBytes, length, storage);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  auto header = parse_safetensors_header(text, file.size() - data_begin, path.string(), options);
  file.release(0, data_begin);
  return {std::move(file), data_begin, std::move(header)};
}

}  // namespace detail

/// Whether a header takes all the room that is reserved for it.
enum class HeaderRoom {
  fixed,  ///< yes, so that positions are known beforehand
  least,  ///< no more than it needs, in a file so small that the rest would matter
};

/// Writes a safetensors file from front to back. The file appears complete with finish(), or never.
///
/// The header is known last but comes first, so room is reserved for it. What it leaves is filled
/// with spaces, which the format allows. Data is stored in the order in which it is written. System
/// errors are io_failure; a name that is used twice or cannot be stored is bad_container.
class SafetensorsWriter {
 public:
  /// Reserves header_capacity bytes, rounded up so that the data starts at a multiple of 8. Throws
  /// output_exists, io_failure, or too_large above the limit of the format.
  SafetensorsWriter(const std::filesystem::path& path, Overwrite overwrite,
                    std::size_t header_capacity, HeaderRoom room = HeaderRoom::fixed)
      : capacity_(rounded(header_capacity, path)), file_(path, overwrite) {
    if (room == HeaderRoom::fixed) begin_data();
  }

  /// Up to this much data, a header takes only the room that it needs (HeaderRoom::least). Beside
  /// more data, unused room hardly counts.
  static constexpr std::size_t kMostHeld = std::size_t{16} << 20;

  /// The offset of the next byte of data in the file, if the header's room is fixed.
  std::uint64_t position() const noexcept { return file_.position(); }

  /// Starts the next tensor. Throws shape_mismatch if the previous one lacks data, too_large for a
  /// shape whose size overflows or ends within a byte.
  void begin(const std::string& name, const StoredDType& dtype,
             std::span<const std::uint64_t> shape) {
    check_complete();
    detail::quoted_name(name, place());
    const std::string where = detail::tensor_place(place(), name);
    const auto bytes = tensor_bytes(dtype, shape);
    const std::uint64_t first = data_bytes();
    if (!bytes || *bytes > kMaxDataBytes - first) {
      throw Error(Errc::too_large, where, detail::kBadSize);
    }
    if (!names_.insert(name).second) throw Error(Errc::bad_container, where, "name used twice");
    tensors_.push_back({name, dtype, {shape.begin(), shape.end()}, first, first + *bytes});
  }

  /// Appends to the current tensor. Throws shape_mismatch, and writes nothing, if that is more than
  /// its shape holds.
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

  /// Writes the header and puts the file in place. Call this once, last. Returns the bytes of the
  /// file, after check(bytes), which may throw. Throws shape_mismatch if the last tensor lacks
  /// data, too_large if the header does not fit its room, output_exists, io_failure.
  std::uint64_t finish(const Metadata& metadata = {}) {
    return finish(metadata, [](std::uint64_t) {});
  }
  template <class Check>
  std::uint64_t finish(const Metadata& metadata, Check&& check) {
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
    check(file_bytes);
    file_.commit();
    return file_bytes;
  }

 private:
  // Keeps every offset in the file within 2^63 - 1, the largest file offset.
  static constexpr std::uint64_t kMaxDataBytes =
      kMaxNumber - kMaxHeaderBytes - detail::kLengthBytes;

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

  /// Fixes the room of the header and begins the data.
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
  bool begun_ = false;           // whether the room of the header is fixed
  std::vector<std::byte> held_;  // data that waits for that
  std::vector<TensorInfo> tensors_;
  std::set<std::string> names_;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
