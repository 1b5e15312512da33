// Integer arithmetic that is easy to get wrong: off by one, or by overflow.
#pragma once

#include <deltadct/config.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>

namespace deltadct { inline namespace DELTADCT_ABI {

/// n / d, rounded up; never overflows.
template <std::unsigned_integral T>
DELTADCT_HD constexpr T ceil_div(T n, T d) noexcept {
  return n / d + (n % d != 0);
}

/// A size computed from sums and products. It saturates at SIZE_MAX instead of wrapping.
class SaturatingSize {
 public:
  constexpr SaturatingSize(std::size_t value) noexcept : value_(value) {}

  constexpr std::size_t value() const noexcept { return value_; }

  /// Whether an array can have this many bytes.
  constexpr bool fits() const noexcept { return value_ <= PTRDIFF_MAX; }

  friend constexpr SaturatingSize operator+(SaturatingSize a, SaturatingSize b) noexcept {
    return a.value_ > SIZE_MAX - b.value_ ? SIZE_MAX : a.value_ + b.value_;
  }
  friend constexpr SaturatingSize operator*(SaturatingSize a, SaturatingSize b) noexcept {
    return b.value_ != 0 && a.value_ > SIZE_MAX / b.value_ ? SIZE_MAX : a.value_ * b.value_;
  }

 private:
  std::size_t value_;
};

}}  // namespace deltadct::inline DELTADCT_ABI
