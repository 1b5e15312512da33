// Lanes of an xsimd batch: loads, rounding and the in-register transpose.
#pragma once

#include <deltadct/backend/simd/elements.hpp>
#include <deltadct/core/lanes.hpp>

#include <xsimd/xsimd.hpp>

#include <cstddef>
#include <type_traits>

namespace deltadct { inline namespace DELTADCT_ABI {

namespace detail {

// Transposes a square tile through memory, for register widths without a shuffle sequence below.
template <class T, class A, std::size_t N>
DELTADCT_INLINE void transpose_tile(xsimd::batch<T, A> (&x)[N]) noexcept {
  alignas(64) T rows[N * N];
  alignas(64) T transposed[N * N];
  for (std::size_t i = 0; i < N; ++i) x[i].store_aligned(rows + i * N);
  for (std::size_t i = 0; i < N; ++i) {
    for (std::size_t j = 0; j < N; ++j) transposed[i * N + j] = rows[j * N + i];
  }
  for (std::size_t i = 0; i < N; ++i) x[i] = xsimd::batch<T, A>::load_aligned(transposed + i * N);
}

#if XSIMD_WITH_SSE2
template <class A>
DELTADCT_INLINE void transpose_tile(xsimd::batch<float, A> (&x)[4]) noexcept {
  __m128 r0 = x[0], r1 = x[1], r2 = x[2], r3 = x[3];
  _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
  x[0] = r0, x[1] = r1, x[2] = r2, x[3] = r3;
}

template <class A>
DELTADCT_INLINE void transpose_tile(xsimd::batch<double, A> (&x)[2]) noexcept {
  const __m128d lo = _mm_unpacklo_pd(x[0], x[1]);
  x[1] = _mm_unpackhi_pd(x[0], x[1]);
  x[0] = lo;
}
#endif

#if XSIMD_WITH_AVX
// Two rounds of interleaving bring four rows together within each half. The halves are swapped
// last.
template <class A>
DELTADCT_INLINE void transpose_tile(xsimd::batch<float, A> (&x)[8]) noexcept {
  __m256 quad[8];
  for (int h = 0; h < 8; h += 4) {
    const __m256 lo01 = _mm256_unpacklo_ps(x[h], x[h + 1]);
    const __m256 hi01 = _mm256_unpackhi_ps(x[h], x[h + 1]);
    const __m256 lo23 = _mm256_unpacklo_ps(x[h + 2], x[h + 3]);
    const __m256 hi23 = _mm256_unpackhi_ps(x[h + 2], x[h + 3]);
    quad[h] = _mm256_shuffle_ps(lo01, lo23, 0x44);
    quad[h + 1] = _mm256_shuffle_ps(lo01, lo23, 0xEE);
    quad[h + 2] = _mm256_shuffle_ps(hi01, hi23, 0x44);
    quad[h + 3] = _mm256_shuffle_ps(hi01, hi23, 0xEE);
  }
  for (int i = 0; i < 4; ++i) {
    x[i] = _mm256_permute2f128_ps(quad[i], quad[i + 4], 0x20);
    x[i + 4] = _mm256_permute2f128_ps(quad[i], quad[i + 4], 0x31);
  }
}

template <class A>
DELTADCT_INLINE void transpose_tile(xsimd::batch<double, A> (&x)[4]) noexcept {
  const __m256d lo01 = _mm256_unpacklo_pd(x[0], x[1]);
  const __m256d hi01 = _mm256_unpackhi_pd(x[0], x[1]);
  const __m256d lo23 = _mm256_unpacklo_pd(x[2], x[3]);
  const __m256d hi23 = _mm256_unpackhi_pd(x[2], x[3]);
  x[0] = _mm256_permute2f128_pd(lo01, lo23, 0x20);
  x[1] = _mm256_permute2f128_pd(hi01, hi23, 0x20);
  x[2] = _mm256_permute2f128_pd(lo01, lo23, 0x31);
  x[3] = _mm256_permute2f128_pd(hi01, hi23, 0x31);
}
#endif

// A register twice as wide, if that has at most 256 bits.
template <class T, std::size_t N>
struct DoubleBatch {
  using type = void;
};
template <class T, std::size_t N>
requires(2 * N * sizeof(T) <= 32) struct DoubleBatch<T, N> {
  using type = xsimd::make_sized_batch_t<T, 2 * N>;
};

template <class W, class V>
DELTADCT_INLINE W join_halves(V low, V high) noexcept {
#if XSIMD_WITH_AVX
  if constexpr (std::is_same_v<typename V::value_type, float> && V::size == 4)
    return W(_mm256_insertf128_ps(_mm256_castps128_ps256(low), high, 1));
  else if constexpr (std::is_same_v<typename V::value_type, double> && V::size == 2)
    return W(_mm256_insertf128_pd(_mm256_castpd128_pd256(low), high, 1));
  else
#endif
  {
    alignas(64) typename V::value_type lane[W::size];
    low.store_aligned(lane);
    high.store_aligned(lane + V::size);
    return W::load_aligned(lane);
  }
}

template <int Half, class V, class W>
DELTADCT_INLINE V half_of(W x) noexcept {
#if XSIMD_WITH_AVX
  if constexpr (std::is_same_v<typename V::value_type, float> && V::size == 4)
    return V(_mm256_extractf128_ps(x, Half));
  else if constexpr (std::is_same_v<typename V::value_type, double> && V::size == 2)
    return V(_mm256_extractf128_pd(x, Half));
  else
#endif
  {
    alignas(64) typename V::value_type lane[W::size];
    x.store_aligned(lane);
    return V::load_aligned(lane + Half * V::size);
  }
}

}  // namespace detail

template <class T, class A>
struct Lanes<xsimd::batch<T, A>> {
  using scalar = T;
  using V = xsimd::batch<T, A>;
  using Double = typename detail::DoubleBatch<T, V::size>::type;
  static constexpr int count = static_cast<int>(V::size);

  static DELTADCT_INLINE V load(const T* from) noexcept { return V::load_aligned(from); }
  static DELTADCT_INLINE void store(T* to, V x) noexcept { x.store_aligned(to); }
  template <concepts::Element U>
  static DELTADCT_INLINE V load_elements(const U* from) noexcept {
    return detail::ElementLanes<V, U>::load(from);
  }
  template <concepts::Element U>
  static DELTADCT_INLINE void store_elements(U* to, V x) noexcept {
    detail::ElementLanes<V, U>::store(to, x);
  }
  static DELTADCT_INLINE V abs(V x) noexcept { return xsimd::abs(x); }
  static DELTADCT_INLINE V min(V a, V b) noexcept { return xsimd::min(a, b); }
  static DELTADCT_INLINE V max(V a, V b) noexcept { return xsimd::max(a, b); }
  static DELTADCT_INLINE V select_less(V a, V b, V yes, V no) noexcept {
    return xsimd::select(a < b, yes, no);
  }
  static DELTADCT_INLINE V round(V x) noexcept { return xsimd::nearbyint(x); }
  static DELTADCT_INLINE void transpose(V (&x)[V::size]) noexcept { detail::transpose_tile(x); }
  static DELTADCT_INLINE auto join(V low, V high) noexcept {
    return detail::join_halves<Double>(low, high);
  }
  template <class W>
  static DELTADCT_INLINE V low(W x) noexcept {
    return detail::half_of<0, V>(x);
  }
  template <class W>
  static DELTADCT_INLINE V high(W x) noexcept {
    return detail::half_of<1, V>(x);
  }
};

namespace detail {

// The widest register of at most 256 bits whose lanes divide P, or a scalar if there is none.
template <class T, int P, std::size_t N = 32 / sizeof(T)>
struct VectorFor {
  using batch = xsimd::make_sized_batch_t<T, N>;
  static constexpr bool fits = P % static_cast<int>(N) == 0 && !std::is_void_v<batch>;
  using type =
      typename std::conditional_t<fits, std::type_identity<batch>, VectorFor<T, P, N / 2>>::type;
};
template <class T, int P>
struct VectorFor<T, P, 1> {
  using type = T;
};

}  // namespace detail

}}  // namespace deltadct::inline DELTADCT_ABI
