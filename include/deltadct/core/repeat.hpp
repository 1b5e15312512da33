// A loop whose trip count the compiler knows.
#pragma once

#include <deltadct/config.hpp>

namespace deltadct::inline DELTADCT_ABI {

namespace detail {

#if defined(__CUDA_ARCH__)
inline constexpr bool kOnDevice = true;
#else
inline constexpr bool kOnDevice = false;
#endif

}  // namespace detail

/// Calls fn(0) ... fn(N - 1). Unrolled, the indices become constants and small arrays registers;
/// past 16 steps a loop is kinder to the instruction cache. On a device, which has registers for
/// all that a thread holds, it is always unrolled.
template <int N, bool Unroll = (N <= 16), class Fn>
DELTADCT_HD DELTADCT_INLINE constexpr void repeat(Fn&& fn) {
  if constexpr (Unroll || detail::kOnDevice) {
    DELTADCT_UNROLL
    for (int i = 0; i < N; ++i) fn(i);
  } else {
    for (int i = 0; i < N; ++i) fn(i);
  }
}

}  // namespace deltadct::inline DELTADCT_ABI
