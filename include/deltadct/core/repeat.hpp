// A loop whose trip count the compiler knows.
#pragma once

#include <deltadct/config.hpp>

namespace deltadct { inline namespace DELTADCT_ABI {

namespace detail {

#if defined(__CUDA_ARCH__)
inline constexpr bool kOnDevice = true;
#else
inline constexpr bool kOnDevice = false;
#endif

}  // namespace detail

/// Calls fn(0) ... fn(N - 1). Unrolling turns the indices into constants and keeps small arrays in
/// registers. Beyond 16 steps a loop is better for the instruction cache. A device has enough
/// registers for all that a thread holds, so there the loop is always unrolled.
template <int N, bool Unroll = (N <= 16), class Fn>
DELTADCT_HD DELTADCT_INLINE constexpr void repeat(Fn&& fn) {
  if constexpr (Unroll || detail::kOnDevice) {
    DELTADCT_UNROLL
    for (int i = 0; i < N; ++i) fn(i);
  } else {
    for (int i = 0; i < N; ++i) fn(i);
  }
}

}}  // namespace deltadct::inline DELTADCT_ABI
