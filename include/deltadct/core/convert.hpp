// Runs of elements to and from the type they are computed in.
#pragma once

#include <deltadct/core/dtype.hpp>

#include <cstddef>

namespace deltadct::inline DELTADCT_ABI {

namespace detail {

// How many elements of a run are converted eight at a time by instructions of their own: half's,
// where there are some, for compilers do not vectorise that conversion.
template <class U>
constexpr std::size_t eights(std::size_t n) noexcept {
#if defined(__F16C__)
  if constexpr (std::same_as<U, half>) return n / 8 * 8;
#endif
  static_cast<void>(n);
  return 0;
}

}  // namespace detail

/// Calls fn(j, from[j * stride]) for j = 0 ... n - 1, the elements in their compute type. A plain
/// loop over a compile-time count where the caller has one: it then vectorises.
template <concepts::Element U, class Count, class Fn>
DELTADCT_INLINE void visit_run(const U* from, std::ptrdiff_t stride, Count n, Fn fn) {
  if (stride != 1) {
    for (std::size_t j = 0; j < n; ++j) {
      fn(j, static_cast<compute_t<U>>(from[static_cast<std::ptrdiff_t>(j) * stride]));
    }
    return;
  }
  const std::size_t whole = detail::eights<U>(n);
#if defined(__F16C__)
  if constexpr (std::same_as<U, half>) {
    for (std::size_t j = 0; j < whole; j += 8) {
      alignas(32) float wide[8];
      const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + j));
      _mm256_store_ps(wide, _mm256_cvtph_ps(packed));
      for (std::size_t k = 0; k < 8; ++k) fn(j + k, wide[k]);
    }
  }
#endif
  for (std::size_t j = whole; j < n; ++j) fn(j, static_cast<compute_t<U>>(from[j]));
}

/// to[j * stride] = from[j], rounded to nearest, ties to even.
template <concepts::Element U, class Count>
DELTADCT_INLINE void narrow_run(const compute_t<U>* __restrict from, Count n, U* to,
                                std::ptrdiff_t stride) {
  if (stride != 1) {
    for (std::size_t j = 0; j < n; ++j) {
      to[static_cast<std::ptrdiff_t>(j) * stride] = static_cast<U>(from[j]);
    }
    return;
  }
  const std::size_t whole = detail::eights<U>(n);
#if defined(__F16C__)
  if constexpr (std::same_as<U, half>) {
    for (std::size_t j = 0; j < whole; j += 8) {
      const __m128i packed = _mm256_cvtps_ph(_mm256_loadu_ps(from + j), _MM_FROUND_TO_NEAREST_INT);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + j), packed);
    }
  }
#endif
  for (std::size_t j = whole; j < n; ++j) to[j] = static_cast<U>(from[j]);
}

}  // namespace deltadct::inline DELTADCT_ABI
