// Zero padding of stored data to a multiple of 8 bytes.
#pragma once

#include <deltadct/core/arithmetic.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io { namespace detail {

inline constexpr std::size_t kPadding = 8;

inline std::size_t padded(std::size_t bytes) noexcept {
  return ceil_div(bytes, kPadding) * kPadding;
}

inline bool is_zero(std::span<const std::byte> bytes) noexcept {
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

}}}}  // namespace deltadct::inline DELTADCT_ABI::io::detail
