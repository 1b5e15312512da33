// The bytes into which a baseline packs a matrix: numbers and arrays one after another, without
// padding.
#pragma once

#include <deltadct/core/bits.hpp>
#include <deltadct/core/dtype.hpp>
#include <deltadct/core/error.hpp>
#include <deltadct/core/finite.hpp>

#include <cstddef>
#include <cstring>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// Appends to bytes.
class PackedWriter {
 public:
  explicit PackedWriter(std::vector<std::byte>& to) noexcept : to_(to) {}

  template <class T>
  requires std::is_trivially_copyable_v<T>
  void put(const T& value) { std::memcpy(room(sizeof(T)).data(), &value, sizeof(T)); }

  /// Rounds to bfloat16 and returns the value that a decoder will see. Throws out_of_range, naming
  /// `what`, if it is beyond the range of bfloat16.
  template <class T>
  T put_bfloat16(T value, std::string_view what) {
    const bfloat16 stored(static_cast<float>(value));
    const auto seen = static_cast<float>(stored);
    if (!all_finite(&seen, 1)) throw Error(Errc::out_of_range, what, "beyond that of bfloat16");
    put(stored);
    return static_cast<T>(seen);
  }

  /// Appends that many zero bytes for the caller to write to. The span is valid until the next
  /// call.
  std::span<std::byte> room(std::size_t bytes) {
    to_.resize(to_.size() + bytes);
    return std::span(to_).last(bytes);
  }

 private:
  std::vector<std::byte>& to_;
};

/// Takes numbers from bytes. Throws corrupt_data, naming `what`, if the bytes end too soon, and in
/// finish() if some are left.
class PackedReader {
 public:
  explicit PackedReader(std::span<const std::byte> from) noexcept : rest_(from) {}

  template <class T>
  requires std::is_trivially_copyable_v<T> T take(std::string_view what) {
    T value;
    std::memcpy(&value, bytes(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  /// Takes that many bfloat16 numbers. Throws corrupt_data also if one is not finite.
  template <class T>
  std::vector<T> take_bfloat16(std::size_t count, std::string_view what) {
    const std::byte* from = bytes(count * sizeof(bfloat16), what).data();
    std::vector<T> values(count);
    for (T& value : values) {
      bfloat16 stored;
      std::memcpy(&stored, from, sizeof(bfloat16));
      from += sizeof(bfloat16);
      const auto seen = static_cast<float>(stored);
      if (!all_finite(&seen, 1)) throw Error(Errc::corrupt_data, what, "not finite");
      value = static_cast<T>(seen);
    }
    return values;
  }

  std::span<const std::byte> bytes(std::size_t count, std::string_view what) {
    if (count > rest_.size()) throw Error(Errc::corrupt_data, what, "cut off");
    const auto front = rest_.first(count);
    rest_ = rest_.subspan(count);
    return front;
  }

  std::size_t left() const noexcept { return rest_.size(); }

  void finish() const {
    if (!rest_.empty()) throw Error(Errc::corrupt_data, "size of the codes");
  }

 private:
  std::span<const std::byte> rest_;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
