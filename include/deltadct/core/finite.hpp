// Tests for NaN and infinity by the bits of a number. Under -ffast-math compilers assume that
// neither exists and remove the ordinary comparisons.
#pragma once

#include <deltadct/core/dtype.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// An unsigned integer that holds the bits of a number.
template <concepts::Element T>
using FloatBits =
    std::conditional_t<sizeof(T) == 2, std::uint16_t,
                       std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>>;

/// The bits of the exponent, which are also the bits of infinity.
template <concepts::Element T>
DELTADCT_HD constexpr FloatBits<T> exponent_bits() noexcept {
  if constexpr (std::same_as<T, half>) return 0x7C00;
  if constexpr (std::same_as<T, bfloat16>) return 0x7F80;
  if constexpr (std::same_as<T, float>) return 0x7F800000;
  if constexpr (std::same_as<T, double>) return 0x7FF0000000000000;
}

/// Whether all n values are finite.
template <concepts::Element T>
DELTADCT_HD DELTADCT_INLINE bool all_finite(const T* values, int n) noexcept {
  using Bits = FloatBits<T>;
  constexpr Bits infinity = exponent_bits<T>();
  Bits greatest = 0;
  for (int s = 0; s < n; ++s) {
    const auto exponent = static_cast<Bits>(std::bit_cast<Bits>(values[s]) & infinity);
    greatest = greatest < exponent ? exponent : greatest;
  }
  return greatest != infinity;
}

/// Whether one value is finite. The value is read from memory, by a function that is not inlined:
/// compilers may assume that an argument passed by value, or a result just computed, is finite,
/// even when its bits are tested.
template <concepts::Element T>
DELTADCT_HD DELTADCT_NOINLINE bool is_finite(const T& value) noexcept {
  return all_finite(&value, 1);
}

/// Whether a value is NaN. It is read in the same way.
template <concepts::Element T>
DELTADCT_HD DELTADCT_NOINLINE bool is_nan(const T& value) noexcept {
  constexpr auto magnitude = static_cast<FloatBits<T>>(~FloatBits<T>{0}) >> 1;
  return (std::bit_cast<FloatBits<T>>(value) & magnitude) > exponent_bits<T>();
}

/// Whether a value is finite and within the range of T.
template <concepts::Compute T>
DELTADCT_HD DELTADCT_INLINE bool is_within(const double& value) noexcept {
  return is_finite(value) && std::abs(value) <= static_cast<double>(std::numeric_limits<T>::max());
}

/// A score that can be ranked: NaN and minus infinity become the lowest finite value.
template <concepts::Compute T>
DELTADCT_HD DELTADCT_INLINE T rankable(const T& score) noexcept {
  using Bits = FloatBits<T>;
  constexpr Bits sign = ~(~Bits{0} >> 1);
  const auto bits = std::bit_cast<Bits>(score);
  const bool is_nan = (bits & ~sign) > exponent_bits<T>();
  return is_nan || bits == (sign | exponent_bits<T>()) ? std::numeric_limits<T>::lowest() : score;
}

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
