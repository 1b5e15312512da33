// Zeros that bring what is stored to a multiple of 8 bytes.
#pragma once

#include <deltadct/core/arithmetic.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace deltadct::inline DELTADCT_ABI::io::detail {

inline std::size_t padded(std::size_t bytes) noexcept {
  return ceil_div<std::size_t>(bytes, 8) * 8;
}

inline bool is_zero(std::span<const std::byte> bytes) noexcept {
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

}  // namespace deltadct::inline DELTADCT_ABI::io::detail
