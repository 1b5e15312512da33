// Packs the codes of a thread's columns into the words of a patch, which its threads share.
#pragma once

#include <deltadct/backend/cuda/columns.hpp>
#include <deltadct/core/bits.hpp>
#include <deltadct/core/repeat.hpp>

#include <cstddef>
#include <cstdint>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// Ors bits into a word that threads share.
DELTADCT_HD DELTADCT_INLINE void or_word(std::uint32_t* word, std::uint32_t bits) noexcept {
#if defined(__CUDA_ARCH__)
  atomicOr(word, bits);
#else
  *word |= bits;
#endif
}

/// Packs code(k) as code k * P + column of a patch, for k = 0 ... P - 1. The patch's threads share
/// the words, which must be zero beforehand.
template <int Bits, int P, class Code>
DELTADCT_HD DELTADCT_INLINE void pack_column(std::uint32_t* words, int column,
                                             const Code& code) noexcept {
  constexpr int N = P * P;
  if constexpr (P % 8 != 0) {
    repeat<P>([&](int k) DELTADCT_INLINE_LAMBDA {
      const int s = k * P + column;
      const std::uint32_t value = code(k);
      bits::for_each_plane<Bits>([&]<int Plane, int Skipped>() DELTADCT_INLINE_LAMBDA {
        const bits::Place at = bits::place(Plane, N, s);
        const int bit = 8 * bits::plane_byte(Bits, Skipped, N, s) + 32 * at.word + at.shift;
        const std::uint32_t part = (value >> Skipped) & ((1u << Plane) - 1);
        or_word(words + bit / 32, part << (bit % 32));
      });
    });
  } else {
    constexpr int block = N < bits::kBlock ? N : bits::kBlock;
    constexpr int rows = block / P;
    repeat<N / block>([&](int b) DELTADCT_INLINE_LAMBDA {
      std::uint32_t value[rows];
      repeat<rows>([&](int r) DELTADCT_INLINE_LAMBDA { value[r] = code(b * rows + r); });
      bits::for_each_plane<Bits>([&]<int Plane, int Skipped>() DELTADCT_INLINE_LAMBDA {
        constexpr int plane_words = block * Plane / 32;
        const auto part = [&](int r) DELTADCT_INLINE_LAMBDA {
          const std::uint32_t bits =
              Plane == Bits ? value[r] : (value[r] >> Skipped) & ((1u << Plane) - 1);
          return bits << (Plane * (r * P / plane_words));
        };
        std::uint32_t* plane = words + b * (block * Bits / 32) + block * Skipped / 32;
        if constexpr (P % plane_words == 0) {
          std::uint32_t word = 0;
          repeat<rows>([&](int r) DELTADCT_INLINE_LAMBDA { word += part(r); });
          or_word(plane + column % plane_words, word << (Plane * (column / plane_words)));
        } else {
          repeat<rows>([&](int r) DELTADCT_INLINE_LAMBDA {
            or_word(plane + r * P % plane_words + column, part(r));
          });
        }
      });
    });
  }
}

/// Packs dense code j of `width` bits, at most 8, in the same way.
DELTADCT_HD DELTADCT_INLINE void pack_dense(std::uint32_t* words, int width, int j,
                                            std::uint32_t code) noexcept {
  const int bit = j * width;
  or_word(words + bit / 32, code << (bit % 32));
  if (bit % 32 + width > 32) or_word(words + bit / 32 + 1, code >> (32 - bit % 32));
}

/// Packs the codes of levels that follow the energy, for the columns x of thread t. For more than
/// one bit, x must have been divided by its root mean square. Returns the sum of x times their
/// levels, in steps.
template <class Q, int Bits, class V, int P>
DELTADCT_HD DELTADCT_INLINE typename Lanes<V>::scalar pack_levels(int t, const V (&x)[P],
                                                                  std::uint32_t* words) noexcept {
  using T = typename Lanes<V>::scalar;
  const T one[] = {T(1)};
  const typename Q::template Encoder<T> encoder(T(1));
  const typename Q::template Decoder<T> level(one, T(1));
  T sum = 0;
  repeat<Lanes<V>::count>([&](int l) DELTADCT_INLINE_LAMBDA {
    T products = 0;
    const auto code_of = [&](int c) DELTADCT_INLINE_LAMBDA {
      const T value = lane(x[c], l);
      if constexpr (Bits == 1) {  // its code is its sign
        products = products + Lanes<T>::abs(value);
        return value < 0 ? 0u : 1u;
      } else {
        const T code = encoder(value);
        products = products + value * level(code);
        return static_cast<std::uint32_t>(code);
      }
    };
    pack_column<Bits, P>(words, PatchThreads<T, P>::coefficient_column(t, l), code_of);
    sum = sum + products;
  });
  return sum;
}

/// Packs the codes of groups; each thread takes some of the groups. Returns its sum of
/// unit * coefficient * level, in steps.
template <class Q, class T, int P>
DELTADCT_HD DELTADCT_INLINE T pack_groups(int t, const T* coefficients, T unit,
                                          std::uint32_t* words) noexcept {
  constexpr int groups = P * P / Q::group;
  T sum = 0;
  for (int j = t; j < groups; j += PatchThreads<T, P>::per_patch) {
    const auto [code, product] = Q::choose(
        [&](int i) DELTADCT_INLINE_LAMBDA { return coefficients[i * groups + j] * unit; });
    pack_dense(words, Q::code_bits, j, code);
    sum += product;
  }
  return sum;
}

/// Copies a patch's codes to their place; this is the part of thread t of `threads`. If `bytes` is
/// a multiple of four, the address must be one too.
DELTADCT_HD DELTADCT_INLINE void copy_words(int t, int threads, const std::uint32_t* words,
                                            std::uint32_t mask, std::byte* to, int bytes) noexcept {
  if (bytes % 4 == 0) {
    auto* to_words = reinterpret_cast<std::uint32_t*>(to);
    for (int w = t; w < bytes / 4; w += threads) to_words[w] = words[w] & mask;
  } else {
    for (int b = t; b < bytes; b += threads) {
      to[b] = static_cast<std::byte>((words[b / 4] & mask) >> (8 * (b % 4)));
    }
  }
}

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
