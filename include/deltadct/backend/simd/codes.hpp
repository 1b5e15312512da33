// Packed codes to and from registers: one load and one shift a plane (layout: core/bits.hpp).
#pragma once

#include <deltadct/backend/simd/batch.hpp>
#include <deltadct/core/bits.hpp>
#include <deltadct/core/repeat.hpp>

#include <cstdint>
#include <cstring>

namespace deltadct::inline DELTADCT_ABI::detail {

// Lane l of a register meets word l mod Words; where a register has more lanes than the plane has
// words, the lanes past them hold later codes, `Plane` bits further up a turn.
template <class U, int Plane, int Words>
DELTADCT_INLINE U lane_shifts() noexcept {
  alignas(64) std::uint32_t shifts[U::size];
  for (std::size_t l = 0; l < U::size; ++l) {
    shifts[l] = static_cast<std::uint32_t>(Plane * (static_cast<int>(l) / Words));
  }
  return U::load_aligned(shifts);
}

// The words of a narrow plane, repeated to fill a register, each lane shifted to its first code.
template <class U, int Plane, int Words, int Bytes>
DELTADCT_INLINE U load_narrow(const std::byte* at) noexcept {
#if XSIMD_WITH_AVX2
  if constexpr (U::size == 8 && Words == 4) {
    const __m128i quad = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    return U(_mm256_broadcastsi128_si256(quad)) >> lane_shifts<U, Plane, Words>();
  }
#endif
  alignas(64) std::uint32_t words[U::size] = {};
  std::memcpy(words, at, Bytes);
  for (std::size_t l = Words; l < U::size; ++l) words[l] = words[l % Words];
  return U::load_aligned(words) >> lane_shifts<U, Plane, Words>();
}

/// The codes from s on in one plane, as unsigned lanes.
template <int Bits, int Plane, int Skipped, int N, class U>
DELTADCT_INLINE U plane_codes(const std::byte* bytes, int s) noexcept {
  constexpr int lanes = static_cast<int>(U::size);
  const auto extract = [&]<int Codes>() DELTADCT_INLINE_LAMBDA {
    constexpr int words = bits::place(Plane, Codes, 0).words;
    constexpr std::uint32_t mask = (1u << Plane) - 1u;
    const int t = s % bits::kBlock;
    const std::byte* plane = bytes + bits::plane_byte(Bits, Skipped, N, s);
    const int shift = Plane * (t / words);
    if constexpr (words >= lanes) {
      const auto* at = reinterpret_cast<const std::uint32_t*>(plane + 4 * (t % words));
      return (U::load_unaligned(at) >> shift) & U(mask);
    } else {
      return (load_narrow<U, Plane, words, Codes * Plane / 8>(plane) >> shift) & U(mask);
    }
  };
  // Only P = 4, 8 and 12 have a block shorter than the others.
  constexpr int tail = N % bits::kBlock;
  if constexpr (N < bits::kBlock)
    return extract.template operator()<N>();
  else if constexpr (tail == 0)
    return extract.template operator()<bits::kBlock>();
  else if (s < N - tail)
    return extract.template operator()<bits::kBlock>();
  else
    return extract.template operator()<tail>();
}

/// Packs one block of Codes codes; code(t) yields the codes from t on as unsigned lanes.
template <int Bits, int Codes, class U, class Code>
DELTADCT_INLINE void pack_block(std::byte* bytes, Code code) noexcept {
  constexpr int lanes = static_cast<int>(U::size);
  bits::for_each_plane<Bits>([&]<int Plane, int Skipped>() DELTADCT_INLINE_LAMBDA {
    constexpr int words = bits::place(Plane, Codes, 0).words;
    constexpr int step = words >= lanes ? words : lanes;
    constexpr std::uint32_t mask = (1u << Plane) - 1u;
    std::byte* plane = bytes + Codes * Skipped / 8;
    for (int w = 0; w < words; w += lanes) {
      U packed(0u);
      repeat<Codes / step>([&](int j) DELTADCT_INLINE_LAMBDA {
        const U part = (code(j * step + w) >> Skipped) & U(mask);
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

}  // namespace deltadct::inline DELTADCT_ABI::detail
