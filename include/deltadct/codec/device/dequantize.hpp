// From packed codes to the coefficients of a thread's columns.
#pragma once

#include <deltadct/backend/cuda/columns.hpp>
#include <deltadct/codec/width.hpp>
#include <deltadct/core/bits.hpp>

#include <cstddef>
#include <cstdint>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// A code as a value. A float is assembled from bits, because conversions take four times as long
/// on a device.
template <class T>
DELTADCT_HD DELTADCT_INLINE T value_of_code(std::uint32_t code) noexcept {
  if constexpr (sizeof(T) == 4)
    return std::bit_cast<float>(code | 0x4B000000u) - 0x1p23F;
  else
    return static_cast<T>(code);
}

/// The k-th bound of a patch.
template <class T, class Bound>
DELTADCT_HD DELTADCT_INLINE T stored_value(const Bound* bounds, int k) noexcept {
  return static_cast<T>(static_cast<compute_t<Bound>>(bounds[k]));
}

/// Word `word` of a plane that begins at `bytes`, an address that is a multiple of four.
DELTADCT_HD DELTADCT_INLINE std::uint32_t load_word(const std::byte* bytes, int word) noexcept {
  return reinterpret_cast<const std::uint32_t*>(bytes)[word];
}

/// Calls out(k, code) for the codes k * P + column, k = 0 ... P - 1, of a patch. If P divides the
/// number of words of a plane, or that number divides P, the codes of a thread lie in few words, at
/// shifts known beforehand.
template <int Bits, int P, class Out>
DELTADCT_HD DELTADCT_INLINE void unpack_column(const std::byte* codes, int column,
                                               const Out& out) noexcept {
  constexpr int N = P * P;
  if constexpr (P % 8 != 0) {
    repeat<P>([&](int k)
                  DELTADCT_INLINE_LAMBDA { out(k, bits::get<Bits, N>(codes, k * P + column)); });
  } else {
    constexpr int block = N < bits::kBlock ? N : bits::kBlock;
    constexpr int rows = block / P;
    repeat<N / block>([&](int b) DELTADCT_INLINE_LAMBDA {
      std::uint32_t code[rows] = {};
      bits::for_each_plane<Bits>([&]<int Plane, int Skipped>() DELTADCT_INLINE_LAMBDA {
        constexpr int words = block * Plane / 32;
        constexpr std::uint32_t mask = (1u << Plane) - 1;
        const std::byte* plane = codes + b * (block * Bits / 8) + block * Skipped / 8;
        if constexpr (P % words == 0) {
          const std::uint32_t word = load_word(plane, column % words) >> (Plane * (column / words));
          repeat<rows>([&](int r) DELTADCT_INLINE_LAMBDA {
            code[r] |= (word >> (Plane * (r * P / words)) & mask) << Skipped;
          });
        } else {
          repeat<rows>([&](int r) DELTADCT_INLINE_LAMBDA {
            const std::uint32_t word = load_word(plane, r * P % words + column);
            code[r] |= (word >> (Plane * (r * P / words)) & mask) << Skipped;
          });
        }
      });
      repeat<rows>([&](int r) DELTADCT_INLINE_LAMBDA { out(b * rows + r, code[r]); });
    });
  }
}

/// The same for codes of groups: calls out(k, coefficient).
template <class Q, int P, class T, class Out>
DELTADCT_HD DELTADCT_INLINE void unpack_group_column(const std::byte* codes, int column, T step,
                                                     const Out& out) noexcept {
  constexpr int groups = P * P / Q::group;
  // The column's coefficients belong to every P-th group, cyclically.
  constexpr int period = groups % P == 0 ? groups / P : P % groups == 0 ? 1 : P;
  repeat<period>([&](int first) DELTADCT_INLINE_LAMBDA {
    const int s = first * P + column;
    const std::uint32_t code =
        bits::get_dense(codes, Q::code_bits, static_cast<std::size_t>(s % groups));
    repeat<P / period>([&](int n) DELTADCT_INLINE_LAMBDA {
      out(first + n * period, Q::level(code, n * (period * P / groups) + s / groups, step));
    });
  });
}

/// Computes thread t's columns of the coefficients of a patch, times factor. `width` is not 0.
template <template <int> class Quantizer, class Bound, int P, class V>
DELTADCT_HD DELTADCT_INLINE void dequantize_columns(int width, const std::byte* codes,
                                                    const Bound* stored,
                                                    typename Lanes<V>::scalar factor, int t,
                                                    V (&x)[P]) noexcept {
  using T = typename Lanes<V>::scalar;
  using Threads = PatchThreads<T, P>;
  with_width<Quantizer, P * P>(width, [&]<int Bits>() DELTADCT_INLINE_LAMBDA {
    if constexpr (Bits != 0) {
      using Q = Quantizer<Bits>;
      T bounds[Q::bound_count];
      for (int k = 0; k < Q::bound_count; ++k) bounds[k] = stored_value<T>(stored, k);
      const auto for_each_column = [&](const auto& fn) DELTADCT_INLINE_LAMBDA {
        repeat<Threads::lanes>([&](int l) DELTADCT_INLINE_LAMBDA {
          fn(Threads::coefficient_column(t, l),
             [&x, l](int k, T value) DELTADCT_INLINE_LAMBDA { lane(x[k], l) = value; });
        });
      };
      if constexpr (Bits < 0) {
        for_each_column([&](int column, const auto& out) DELTADCT_INLINE_LAMBDA {
          unpack_group_column<Q, P>(codes, column, factor * bounds[0], out);
        });
      } else {
        const typename Q::template Decoder<T> decoder(bounds, factor);
        [[maybe_unused]] const T levels[] = {decoder(T(0)), decoder(T(1))};
        for_each_column([&](int column, const auto& out) DELTADCT_INLINE_LAMBDA {
          unpack_column<Bits, P>(codes, column,
                                 [&](int k, std::uint32_t code) DELTADCT_INLINE_LAMBDA {
                                   if constexpr (Bits == 1)
                                     out(k, code == 0 ? levels[0] : levels[1]);
                                   else
                                     out(k, decoder(value_of_code<T>(code)));
                                 });
        });
      }
    }
  });
}

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
