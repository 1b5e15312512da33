// Asking for cache lines ahead of their use.
#pragma once

#include <deltadct/config.hpp>

#include <cstddef>

namespace deltadct::inline DELTADCT_ABI::detail {

/// Touches the lines of n elements from `from` on; any address will do.
template <class T>
DELTADCT_INLINE void prefetch_run(const T* from, std::size_t n) noexcept {
#if defined(__GNUC__) || defined(__clang__)
  const auto* bytes = reinterpret_cast<const char*>(from);
  for (std::size_t at = 0; at < n * sizeof(T); at += 64) __builtin_prefetch(bytes + at, 0, 2);
#else
  static_cast<void>(from);
  static_cast<void>(n);
#endif
}

}  // namespace deltadct::inline DELTADCT_ABI::detail
