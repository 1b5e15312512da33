// Prefetching: requests for cache lines ahead of their use.
#pragma once

#include <deltadct/core/matrix_view.hpp>

#include <cstddef>
#include <cstdint>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// Requests the cache line of an address. Any address is allowed.
DELTADCT_HD DELTADCT_INLINE void prefetch(const void* at) noexcept {
#if (defined(__GNUC__) || defined(__clang__)) && !defined(__CUDA_ARCH__)
  // Without this GCC removes calls to functions that only prefetch, as if they had no effect.
  __asm__ volatile("");
  __builtin_prefetch(at, 0, 2);
#else
  static_cast<void>(at);
#endif
}

/// Requests the cache lines of n elements from `from` on.
template <class T>
DELTADCT_INLINE void prefetch_run(const T* from, std::size_t n) noexcept {
  constexpr std::uintptr_t line = 64;
  const auto* begin = reinterpret_cast<const char*>(from);
  const char* end = begin + n * sizeof(T);
  for (const char* at = begin - reinterpret_cast<std::uintptr_t>(from) % line; at < end; at += line)
    prefetch(at);
}

/// Part of a matrix that will be read or written soon.
class Ahead {
 public:
  /// Nothing to prefetch: requests the same address again and again.
  explicit Ahead(const void* anything) noexcept : at_(static_cast<const char*>(anything)) {}

  /// The part of the matrix from (i, j) on.
  template <class U>
  Ahead(const MatrixView<U>& view, std::size_t i, std::size_t j) noexcept
      : at_(reinterpret_cast<const char*>(&view(i, j))),
        row_bytes_(view.row_stride * static_cast<std::ptrdiff_t>(sizeof(U))),
        element_bytes_(sizeof(U)) {}

  /// The same part, n columns further on.
  DELTADCT_INLINE Ahead columns_on(std::size_t n) const noexcept {
    Ahead moved = *this;
    moved.at_ += static_cast<std::ptrdiff_t>(n) * element_bytes_;
    return moved;
  }

  DELTADCT_HD DELTADCT_INLINE void prefetch(int i, int j) const noexcept {
    detail::prefetch(at_ + i * row_bytes_ + j * element_bytes_);
  }

 private:
  const char* at_;
  std::ptrdiff_t row_bytes_ = 0;
  std::ptrdiff_t element_bytes_ = 0;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
