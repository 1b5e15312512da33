// Two values side by side in a thread's registers. A thread that transforms two columns at once
// needs half the addresses and half the memory instructions, and overlaps the arithmetic of one
// column with that of the other.
#pragma once

#include <deltadct/core/lanes.hpp>
#include <deltadct/core/repeat.hpp>

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace deltadct { inline namespace DELTADCT_ABI {

template <concepts::Compute T>
struct Pair {
  T lane[2];

  Pair() = default;
  DELTADCT_HD DELTADCT_INLINE constexpr Pair(T a, T b) noexcept : lane{a, b} {}
  DELTADCT_HD DELTADCT_INLINE constexpr explicit Pair(T both) noexcept : lane{both, both} {}

  friend DELTADCT_HD DELTADCT_INLINE constexpr Pair operator+(Pair a, Pair b) noexcept {
    return {a.lane[0] + b.lane[0], a.lane[1] + b.lane[1]};
  }
  friend DELTADCT_HD DELTADCT_INLINE constexpr Pair operator-(Pair a, Pair b) noexcept {
    return {a.lane[0] - b.lane[0], a.lane[1] - b.lane[1]};
  }
  friend DELTADCT_HD DELTADCT_INLINE constexpr Pair operator*(Pair a, Pair b) noexcept {
    return {a.lane[0] * b.lane[0], a.lane[1] * b.lane[1]};
  }
};

template <class T>
struct Lanes<Pair<T>> {
  using scalar = T;
  using Double = void;
  using V = Pair<T>;
  static constexpr int count = 2;

  DELTADCT_HD static V load(const T* from) noexcept { return {from[0], from[1]}; }
  DELTADCT_HD static void store(T* to, V x) noexcept {
    to[0] = x.lane[0];
    to[1] = x.lane[1];
  }
  DELTADCT_HD static V abs(V x) noexcept {
    return {Lanes<T>::abs(x.lane[0]), Lanes<T>::abs(x.lane[1])};
  }
  DELTADCT_HD static V min(V a, V b) noexcept {
    return {Lanes<T>::min(a.lane[0], b.lane[0]), Lanes<T>::min(a.lane[1], b.lane[1])};
  }
  DELTADCT_HD static V max(V a, V b) noexcept {
    return {Lanes<T>::max(a.lane[0], b.lane[0]), Lanes<T>::max(a.lane[1], b.lane[1])};
  }
  DELTADCT_HD static V select_less(V a, V b, V yes, V no) noexcept {
    return {Lanes<T>::select_less(a.lane[0], b.lane[0], yes.lane[0], no.lane[0]),
            Lanes<T>::select_less(a.lane[1], b.lane[1], yes.lane[1], no.lane[1])};
  }
  DELTADCT_HD static V round(V x) noexcept {
    return {Lanes<T>::round(x.lane[0]), Lanes<T>::round(x.lane[1])};
  }
};

namespace detail {

/// Adjacent elements of a matrix row, which one instruction loads or stores.
template <class U, int N>
struct alignas(sizeof(U) * N) Packed {
  U element[N];
};

/// An integer of that many bytes.
template <std::size_t Bytes>
using Word = std::conditional_t<Bytes == 2, std::uint16_t,
                                std::conditional_t<Bytes == 4, std::uint32_t, std::uint64_t>>;

/// Loads from, or stores to, an address that is a multiple of their size. A device moves them as
/// one word, because compilers split structs into members.
template <int N, class U>
DELTADCT_HD DELTADCT_INLINE Packed<U, N> load_packed(const U* from) noexcept {
  Packed<U, N> packed;
#if defined(__CUDA_ARCH__)
  const auto word = *reinterpret_cast<const Word<sizeof(packed)>*>(from);
  std::memcpy(&packed, &word, sizeof(packed));
#else
  std::memcpy(&packed, from, sizeof(packed));
#endif
  return packed;
}
template <int N, class U>
DELTADCT_HD DELTADCT_INLINE void store_packed(U* to, const Packed<U, N>& packed) noexcept {
#if defined(__CUDA_ARCH__)
  Word<sizeof(packed)> word;
  std::memcpy(&word, &packed, sizeof(packed));
  *reinterpret_cast<Word<sizeof(packed)>*>(to) = word;
#else
  std::memcpy(to, &packed, sizeof(packed));
#endif
}

/// The same, to a matrix. There, compilers split a pair of floats even if it is stored as a word.
template <int N, class U>
DELTADCT_HD DELTADCT_INLINE void store_row(U* to, const Packed<U, N>& packed) noexcept {
#if defined(__CUDA_ARCH__)
  if constexpr (N == 2 && std::is_same_v<U, float>)
    return __stwb(reinterpret_cast<float2*>(to), make_float2(packed.element[0], packed.element[1]));
#endif
  store_packed(to, packed);
}

template <class V, class U>
DELTADCT_HD DELTADCT_INLINE V unpack_elements(const Packed<U, Lanes<V>::count>& packed) noexcept {
  using T = typename Lanes<V>::scalar;
  V x;
  if constexpr (std::same_as<V, Pair<float>> && std::same_as<U, bfloat16>) {
    // Compilers need two or more instructions for the upper element.
    const auto both = std::bit_cast<std::uint32_t>(packed);
    x = {std::bit_cast<float>(both << 16), std::bit_cast<float>(both & 0xFFFF0000u)};
  } else {
    for (int l = 0; l < Lanes<V>::count; ++l) lane(x, l) = static_cast<T>(packed.element[l]);
  }
  return x;
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
inline constexpr bool kRoundsPairs = true;

/// Rounds two elements of two bytes with one instruction.
template <class U>
__device__ inline std::uint32_t round_pair(float low, float high) noexcept {
  std::uint32_t both;
  if constexpr (std::same_as<U, bfloat16>)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}
#else
inline constexpr bool kRoundsPairs = false;
#endif

/// a * b, rounded separately. Compilers would fuse it with a later sum in some paths and not in
/// others.
template <concepts::Compute T>
DELTADCT_HD DELTADCT_INLINE T rounded_product(T a, T b) noexcept {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == 4)
    return __fmul_rn(a, b);
  else
    return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

/// Rounds to nearest, ties to even.
template <class U, class V>
DELTADCT_HD DELTADCT_INLINE Packed<U, Lanes<V>::count> pack_elements(V x) noexcept {
  Packed<U, Lanes<V>::count> packed;
  if constexpr (kRoundsPairs && std::same_as<V, Pair<float>> && sizeof(U) == 2) {
    const std::uint32_t both = round_pair<U>(x.lane[0], x.lane[1]);
    std::memcpy(&packed, &both, sizeof(both));
  } else {
    for (int l = 0; l < Lanes<V>::count; ++l) packed.element[l] = static_cast<U>(lane(x, l));
  }
  return packed;
}

}  // namespace detail
}}  // namespace deltadct::inline DELTADCT_ABI
