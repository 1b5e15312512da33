// The dtype of a tensor in a file: one that the library knows, or the name and size of an unknown
// one.
#pragma once

#include <deltadct/core/dtype.hpp>
#include <deltadct/core/error.hpp>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

namespace deltadct { inline namespace DELTADCT_ABI {

/// The most bits that an element of an unknown dtype may have.
inline constexpr unsigned kMaxUnknownBits = 128;

/// A dtype as a file names it. For a dtype that the library does not know, only the number of bits
/// per element matters: it lets tensors be kept byte for byte.
class StoredDType {
 public:
  StoredDType(DType known) noexcept : known_(known), bits_(dtype_bits(known)) {}

  /// The dtype of that name. If the name is unknown, an element has `bits` bits. Returns nothing if
  /// `bits` is not 1 to kMaxUnknownBits, or if an unknown name is not 1 to 32 letters, digits and
  /// underscores.
  static std::optional<StoredDType> named(std::string_view name, std::uint64_t bits) {
    if (const auto known = parse_dtype(name)) return StoredDType(*known);
    if (!is_name(name) || bits < 1 || bits > kMaxUnknownBits) return std::nullopt;
    return StoredDType(name, static_cast<unsigned>(bits));
  }

  bool is_known() const noexcept { return unknown_.empty(); }
  std::string_view name() const noexcept { return is_known() ? dtype_name(known_) : unknown_; }
  unsigned bits() const noexcept { return bits_; }

  /// The dtype as the library knows it. Throws unsupported_dtype if it does not; code that computes
  /// with elements asks is_element() first.
  operator DType() const {
    if (!is_known()) throw Error(Errc::unsupported_dtype, unknown_);
    return known_;
  }

  bool operator==(const StoredDType&) const = default;
  bool operator==(DType dtype) const noexcept { return is_known() && known_ == dtype; }

 private:
  static constexpr std::size_t kLongestName = 32;

  StoredDType(std::string_view name, unsigned bits) : unknown_(name), bits_(bits) {}

  static bool is_name(std::string_view name) noexcept {
    constexpr std::string_view kCharacters =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";
    return !name.empty() && name.size() <= kLongestName &&
           name.find_first_not_of(kCharacters) == name.npos;
  }

  DType known_ = DType::u8;  // always this for an unknown dtype
  std::string unknown_;      // its name; empty for a known dtype
  unsigned bits_;
};

inline std::string_view dtype_name(const StoredDType& dtype) noexcept {
  return dtype.name();
}

inline unsigned dtype_bits(const StoredDType& dtype) noexcept {
  return dtype.bits();
}

/// Bytes that a single element takes: its bits, rounded up.
inline std::size_t dtype_bytes(const StoredDType& dtype) noexcept {
  return detail::whole_bytes(dtype.bits());
}

/// Whether the codec takes matrices of this dtype.
inline bool is_element(const StoredDType& dtype) noexcept {
  return dtype.is_known() && is_element(static_cast<DType>(dtype));
}

}}  // namespace deltadct::inline DELTADCT_ABI
