// Less than a bit a coefficient: of each group of coefficients, which is the largest, and its sign.
#pragma once

#include <deltadct/core/bits.hpp>
#include <deltadct/core/spread.hpp>

#include <cstring>

namespace deltadct::inline DELTADCT_ABI {

/// The coefficients of a patch in groups of 2^k, of each of which the largest by magnitude decodes
/// to plus or minus the patch's one stored value, the step, and the rest to 0. The step makes
/// <F, F^> = <F, F>. For the normal distribution the noise at unit gain is that of a random one of
/// each group at 1.1 (k = 2) to 1.6 times the bits (k = 7); and no patch but that of zeros is left
/// without gain.
///
/// Of n coefficients, group j holds those at j, j + n / 2^k, ... Its code, of k + 1 bits, is 2 i +
/// sign for the i-th of them, the first of equals, sign being 1 where it is negative. Code j begins
/// at bit j (k + 1) of the bytes, lowest bits first.
struct LargestOf {
  /// Writes the codes of n coefficients, n a multiple of 2^k and of the lanes of V; codes of 0
  /// where all are zero.
  template <class V, class T>
  DELTADCT_HD static detail::Fit<T> encode(int k, const T* coefficients, int n,
                                           std::byte* codes) noexcept {
    detail::Fit<T> fit{detail::spread_of<V>(coefficients, n)};
    std::memset(codes, 0, code_bytes(-k, static_cast<std::size_t>(n)));
    if (fit.square == 0) return fit;
    const int groups = n >> k;
    const auto encode_groups = [&]<class X>(int j) DELTADCT_INLINE_LAMBDA {
      using L = Lanes<X>;
      alignas(64) T place[L::count];
      X largest = L::abs(L::load(coefficients + j));
      X index(T(0));
      for (int i = 1; i < 1 << k; ++i) {
        const X x = L::abs(L::load(coefficients + i * groups + j));
        index = L::select_less(largest, x, X(static_cast<T>(i)), index);
        largest = L::max(largest, x);
      }
      L::store(place, index);
      for (int l = 0; l < L::count; ++l) {
        const auto i = static_cast<std::uint32_t>(place[l]);
        const T x = coefficients[static_cast<int>(i) * groups + j + l] * fit.unit;
        bits::put_dense(codes, k + 1, static_cast<std::size_t>(j + l), 2 * i + (x < 0 ? 1 : 0));
        fit.product += x < 0 ? -x : x;
      }
    };
    if (groups % Lanes<V>::count == 0) {
      for (int j = 0; j < groups; j += Lanes<V>::count) encode_groups.template operator()<V>(j);
    } else {
      for (int j = 0; j < groups; ++j) encode_groups.template operator()<T>(j);
    }
    return fit;
  }

  /// Whether the bits after the last code are zero.
  DELTADCT_HD static bool is_padded(int k, const std::byte* codes, int n) noexcept {
    return bits::is_dense_padded(codes, k + 1, static_cast<std::size_t>(n >> k));
  }

  /// The n coefficients that such codes and step stand for.
  template <class T>
  DELTADCT_HD static void decode(int k, const std::byte* codes, T step, T* coefficients,
                                 int n) noexcept {
    std::memset(coefficients, 0, static_cast<std::size_t>(n) * sizeof(T));
    const int groups = n >> k;
    for (int j = 0; j < groups; ++j) {
      const std::uint32_t code = bits::get_dense(codes, k + 1, static_cast<std::size_t>(j));
      coefficients[static_cast<int>(code / 2) * groups + j] = code % 2 == 0 ? step : -step;
    }
  }
};

}  // namespace deltadct::inline DELTADCT_ABI
