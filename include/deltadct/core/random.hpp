// Random numbers as a function of a seed and an index, so that each can be computed alone: no
// state, no order, no table.
#pragma once

#include <deltadct/config.hpp>

#include <cstdint>

namespace deltadct { inline namespace DELTADCT_ABI {

/// Number `index`, counted from 0, of SplitMix64 (Steele, Lea and Flood, 2014) started at `seed`.
DELTADCT_HD constexpr std::uint64_t random_bits(std::uint64_t seed, std::uint64_t index) noexcept {
  std::uint64_t x = seed + 0x9E3779B97F4A7C15u * (index + 1);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

}}  // namespace deltadct::inline DELTADCT_ABI
