// What quantizers need to know of a patch whose coefficients lie with many threads: each reduces
// its own, and all combine the same parts in the same order.
#pragma once

#include <deltadct/backend/cuda/columns.hpp>
#include <deltadct/codec/code_source.hpp>
#include <deltadct/core/bits.hpp>
#include <deltadct/core/finite.hpp>
#include <deltadct/core/spread.hpp>

#include <cmath>
#include <cstdint>
#include <limits>

namespace deltadct::inline DELTADCT_ABI::detail {

/// Two results a thread has for the others.
template <class T>
struct FitPart {
  T a;
  T b;
};

template <class T>
DELTADCT_HD DELTADCT_INLINE FitPart<T> sum_parts(const FitPart<T>* parts, int threads) noexcept {
  FitPart<T> all{T(0), T(0)};
  for (int t = 0; t < threads; ++t) {
    all.a = all.a + parts[t].a;
    all.b = all.b + parts[t].b;
  }
  return all;
}

/// How large values are, by their bits.
template <class T>
class Magnitudes {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

 public:
  template <class V>
  DELTADCT_HD DELTADCT_INLINE void see(const V& x) noexcept {
    repeat<Lanes<V>::count>([&](int l) DELTADCT_INLINE_LAMBDA {
      see_bits(std::bit_cast<Bits>(lane(x, l)) & kMagnitude);
    });
  }
  DELTADCT_HD DELTADCT_INLINE void see(const Magnitudes& others) noexcept {
    see_bits(others.greatest_);
  }
  DELTADCT_HD DELTADCT_INLINE bool are_finite() const noexcept {
    return greatest_ < std::bit_cast<Bits>(std::numeric_limits<T>::infinity());
  }
  DELTADCT_HD DELTADCT_INLINE bool are_zero() const noexcept { return greatest_ == 0; }

 private:
  static constexpr Bits kMagnitude = static_cast<Bits>(~Bits{0}) >> 1;

  DELTADCT_HD DELTADCT_INLINE void see_bits(Bits magnitude) noexcept {
    greatest_ = greatest_ < magnitude ? magnitude : greatest_;
  }

  Bits greatest_;  // zero where it is made as Magnitudes<T>{}: blocks share values of this type
};

/// Whether a sum of squares is finite and lost none of its digits to the range of T.
template <class T>
DELTADCT_HD DELTADCT_INLINE bool is_within_range(T sum) noexcept {
  using Limits = std::numeric_limits<T>;
  return sum >= Limits::min() / Limits::epsilon() && sum <= Limits::max() * Limits::epsilon();
}

/// The power of two that makes squares of values of that greatest magnitude ones that can be
/// summed: 1 but for the tiniest and the largest. See spread_of().
template <class T>
DELTADCT_HD DELTADCT_INLINE T unit_of(T peak) noexcept {
  using Limits = std::numeric_limits<T>;
  constexpr int quarter = Limits::max_exponent / 4;
  if (peak == 0) return T(1);
  const int exponent = std::ilogb(peak);
  if (exponent > -quarter && exponent < quarter) return T(1);
  return std::ldexp(T(1), -(exponent < Limits::min_exponent ? Limits::min_exponent : exponent));
}

/// Ors bits into a word that threads share.
DELTADCT_HD DELTADCT_INLINE void or_word(std::uint32_t* word, std::uint32_t bits) noexcept {
#if defined(__CUDA_ARCH__)
  atomicOr(word, bits);
#else
  *word |= bits;
#endif
}

/// The least of what threads of all blocks give.
DELTADCT_HD DELTADCT_INLINE void keep_least(std::uint32_t* least, std::uint32_t value) noexcept {
#if defined(__CUDA_ARCH__)
  atomicMin(least, value);
#else
  if (value < *least) *least = value;
#endif
}

/// Packs code(k) for the codes k * P + column, k = 0 ... P - 1, of a patch into its words, which
/// were zero and which threads share.
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

/// Packs dense code j of `width` bits, up to 8, likewise.
DELTADCT_HD DELTADCT_INLINE void pack_dense(std::uint32_t* words, int width, int j,
                                            std::uint32_t code) noexcept {
  const int bit = j * width;
  or_word(words + bit / 32, code << (bit % 32));
  if (bit % 32 + width > 32) or_word(words + bit / 32 + 1, code >> (32 - bit % 32));
}

}  // namespace deltadct::inline DELTADCT_ABI::detail
