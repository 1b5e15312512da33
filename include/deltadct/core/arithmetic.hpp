// Integer arithmetic that is easy to get wrong by one.
#pragma once

#include <deltadct/config.hpp>

#include <concepts>

namespace deltadct::inline DELTADCT_ABI {

/// n / d, rounded up; never overflows.
template <std::unsigned_integral T>
DELTADCT_HD constexpr T ceil_div(T n, T d) noexcept {
  return n / d + (n % d != 0);
}

}  // namespace deltadct::inline DELTADCT_ABI
