// Packed codes to and from registers: one load and one shift per plane (layout: core/bits.hpp).
#pragma once

#include <deltadct/backend/simd/batch.hpp>
#include <deltadct/core/bits.hpp>
#include <deltadct/core/repeat.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

// Lane l of a register reads word l mod Words. If a register has more lanes than the plane has
// words, the lanes beyond hold later codes, `Plane` bits further up for every cycle through the
// words.
template <class U, int Plane, int Words>
DELTADCT_INLINE U lane_shifts() noexcept {
  alignas(64) std::uint32_t shifts[U::size];
  for (std::size_t l = 0; l < U::size; ++l) {
    shifts[l] = static_cast<std::uint32_t>(Plane * (static_cast<int>(l) / Words));
  }
  return U::load_aligned(shifts);
}

// Shifts each lane of x right by the same lane of `by`.
template <class U>
DELTADCT_INLINE U shift_right(U x, U by) noexcept {
#if XSIMD_WITH_AVX2
  // xsimd treats a register of 128 bits as SSE, which has no such instruction.
  if constexpr (U::size == 4) return U(_mm_srlv_epi32(x, by));
#endif
  return x >> by;
}

// Repeats the words of a narrow plane to fill a register, and shifts each lane to its first code.
template <class U, int Plane, int Words, int Bytes>
DELTADCT_INLINE U load_narrow(const std::byte* at) noexcept {
  if constexpr (Words <= 2) {
    using Word = std::conditional_t<Words == 1, std::uint32_t, std::uint64_t>;
    Word word = 0;
    std::memcpy(&word, at, Bytes);
    const xsimd::batch<Word, typename U::arch_type> repeated(word);
    return shift_right(xsimd::bitwise_cast<U>(repeated), lane_shifts<U, Plane, Words>());
  }
#if XSIMD_WITH_AVX2
  if constexpr (U::size == 8 && Words == 4) {
    const __m128i quad = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    return shift_right(U(_mm256_broadcastsi128_si256(quad)), lane_shifts<U, Plane, Words>());
  }
#endif
  alignas(64) std::uint32_t words[U::size] = {};
  std::memcpy(words, at, Bytes);
  for (std::size_t l = Words; l < U::size; ++l) words[l] = words[l % Words];
  return shift_right(U::load_aligned(words), lane_shifts<U, Plane, Words>());
}

// Half a register from the last words of a plane, and half from its first, `Plane` bits further up.
template <class U, int Plane>
DELTADCT_INLINE U load_around(const std::uint32_t* last, const std::uint32_t* first) noexcept {
  constexpr int half = static_cast<int>(U::size) / 2;
#if XSIMD_WITH_AVX2
  if constexpr (half == 4) {
    const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(last));
    const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(first));
    return shift_right(U(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1)),
                       lane_shifts<U, Plane, half>());
  }
#endif
  alignas(64) std::uint32_t lane[U::size];
  std::memcpy(lane, last, sizeof(lane) / 2);
  std::memcpy(lane + half, first, sizeof(lane) / 2);
  return shift_right(U::load_aligned(lane), lane_shifts<U, Plane, half>());
}

/// Codes s, s + 1, ... in one plane, as unsigned lanes. The bits above a code belong to other
/// codes.
template <int Bits, int Plane, int Skipped, int N, class U>
DELTADCT_INLINE U plane_words(const std::byte* bytes, int s) noexcept {
  constexpr int lanes = static_cast<int>(U::size);
  const auto extract = [&]<int Codes>() DELTADCT_INLINE_LAMBDA {
    constexpr int words = bits::place(Plane, Codes, 0).words;
    const int t = s % bits::kBlock;
    const std::byte* plane = bytes + bits::plane_byte(Bits, Skipped, N, s);
    const int shift = Plane * (t / words);
    if constexpr (words >= lanes) {
      const int first = t % words;
      const auto* at = reinterpret_cast<const std::uint32_t*>(plane);
      if (first + lanes <= words) return U::load_unaligned(at + first) >> shift;
      return load_around<U, Plane>(at + first, at) >> shift;
    } else {
      return load_narrow<U, Plane, words, Codes * Plane / 8>(plane) >> shift;
    }
  };
  // Only P = 4, 8 and 12 have a block shorter than the others.
  constexpr int tail = N % bits::kBlock;
  if constexpr (N > bits::kBlock && tail != 0) {
    if (s >= N - tail) return extract.template operator()<tail>();
  }
  return extract.template operator()<std::min(N, bits::kBlock)>();
}

/// The same, with those bits cleared.
template <int Bits, int Plane, int Skipped, int N, class U>
DELTADCT_INLINE U plane_codes(const std::byte* bytes, int s) noexcept {
  return plane_words<Bits, Plane, Skipped, N, U>(bytes, s) & U((1u << Plane) - 1u);
}

#if XSIMD_WITH_AVX
// Lane l of the result is lane index[l] % 4 of the table, within the same 128 bits.
template <class A>
DELTADCT_INLINE xsimd::batch<float, A> select4(xsimd::batch<float, A> table,
                                               xsimd::batch<std::uint32_t, A> index) noexcept {
  if constexpr (xsimd::batch<float, A>::size == 8)
    return _mm256_permutevar_ps(table, index);
  else
    return _mm_permutevar_ps(table, index);
}
#endif

/// Packs one block of Codes codes. code(t) returns codes t, t + 1, ... as unsigned lanes.
template <int Bits, int Codes, class U, class Code>
DELTADCT_INLINE void pack_block(std::byte* bytes, Code code) noexcept {
  constexpr int lanes = static_cast<int>(U::size);
  bits::for_each_plane<Bits>([&]<int Plane, int Skipped>() DELTADCT_INLINE_LAMBDA {
    constexpr int words = bits::place(Plane, Codes, 0).words;
    constexpr int step = words >= lanes ? words : lanes;
    std::byte* plane = bytes + Codes * Skipped / 8;
    for (int w = 0; w < words; w += lanes) {
      U packed(0u);
      repeat<Codes / step>([&](int j) DELTADCT_INLINE_LAMBDA {
        U part = code(j * step + w);
        if constexpr (Plane != Bits) part = (part >> Skipped) & U((1u << Plane) - 1u);
        packed = packed | (part << (Plane * (step / words) * j));
      });
      if constexpr (words >= lanes) {
        packed.store_unaligned(reinterpret_cast<std::uint32_t*>(plane + 4 * w));
      } else {
        packed = packed << lane_shifts<U, Plane, words>();
        alignas(64) std::uint32_t lane[U::size];
        packed.store_aligned(lane);
        for (std::size_t l = words; l < U::size; ++l) lane[l % words] |= lane[l];
        std::memcpy(plane, lane, Codes * Plane / 8);
      }
    }
  });
}

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
