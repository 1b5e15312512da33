// Loads elements of a matrix into lanes, and stores lanes as elements, at any address. half and
// bfloat16 are widened and rounded.
#pragma once

#include <deltadct/core/dtype.hpp>

#include <xsimd/xsimd.hpp>

#include <cstddef>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// Loads and stores elements one by one, for registers and types without instructions below. The
/// count is a constant, so that compilers can do better.
template <class V, class U>
struct ElementLanes {
  static DELTADCT_INLINE V load(const U* from) noexcept {
    alignas(64) typename V::value_type lane[V::size];
    for (std::size_t l = 0; l < V::size; ++l) lane[l] = static_cast<compute_t<U>>(from[l]);
    return V::load_aligned(lane);
  }
  static DELTADCT_INLINE void store(U* to, V x) noexcept {
    alignas(64) typename V::value_type lane[V::size];
    x.store_aligned(lane);
    for (std::size_t l = 0; l < V::size; ++l) to[l] = static_cast<U>(lane[l]);
  }
};

template <class V, class U>
requires std::same_as<typename V::value_type, U>
struct ElementLanes<V, U> {
  static DELTADCT_INLINE V load(const U* from) noexcept { return V::load_unaligned(from); }
  static DELTADCT_INLINE void store(U* to, V x) noexcept { x.store_unaligned(to); }
};

#if XSIMD_WITH_SSE4_1
// Rounds like bfloat16. The result is in the lower half of each lane.
template <class V>
DELTADCT_INLINE auto rounded_to_bfloat16(V x) noexcept {
  using U = xsimd::batch<std::uint32_t, typename V::arch_type>;
  const U u = xsimd::bitwise_cast<U>(x);
  const V nearest = xsimd::bitwise_cast<V>(u + U(0x7FFFu) + ((u >> 16) & U(1u)));
  const V quiet = xsimd::bitwise_cast<V>(u | U(0x00400000u));
  return xsimd::bitwise_cast<U>(xsimd::select(xsimd::isnan(x), quiet, nearest)) >> 16;
}

template <class A>
struct ElementLanes<xsimd::batch<float, A>, bfloat16> {
  using V = xsimd::batch<float, A>;
  static_assert(sizeof(bfloat16) == 2);

  static DELTADCT_INLINE V load(const bfloat16* from) noexcept requires(V::size == 4) {
    const __m128i packed = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return V(_mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(packed), 16)));
  }
  static DELTADCT_INLINE void store(bfloat16* to, V x) noexcept requires(V::size == 4) {
    const __m128i rounded = rounded_to_bfloat16(x);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi32(rounded, rounded));
  }
  #if XSIMD_WITH_AVX2
  static DELTADCT_INLINE V load(const bfloat16* from) noexcept requires(V::size == 8) {
    const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return V(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(packed), 16)));
  }
  static DELTADCT_INLINE void store(bfloat16* to, V x) noexcept requires(V::size == 8) {
    const __m256i rounded = rounded_to_bfloat16(x);
    const __m128i packed =
        _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), packed);
  }
  #endif
};
#endif

#if defined(__F16C__)
template <class A>
struct ElementLanes<xsimd::batch<float, A>, half> {
  using V = xsimd::batch<float, A>;
  static constexpr int nearest = _MM_FROUND_TO_NEAREST_INT;

  static DELTADCT_INLINE V load(const half* from) noexcept requires(V::size == 4) {
    return V(_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
  }
  static DELTADCT_INLINE void store(half* to, V x) noexcept requires(V::size == 4) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_cvtps_ph(x, nearest));
  }
  static DELTADCT_INLINE V load(const half* from) noexcept requires(V::size == 8) {
    return V(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
  }
  static DELTADCT_INLINE void store(half* to, V x) noexcept requires(V::size == 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(x, nearest));
  }
};
#endif

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
