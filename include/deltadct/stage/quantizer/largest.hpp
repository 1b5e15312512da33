// Less than one bit per coefficient: which coefficient of a group is the largest, and its sign.
#pragma once

#include <deltadct/core/bits.hpp>
#include <deltadct/core/energy.hpp>
#include <deltadct/core/finite.hpp>
#include <deltadct/stage/quantizer/fitting.hpp>

#include <cstring>

namespace deltadct { inline namespace DELTADCT_ABI {

namespace detail {

/// Writes the codes of LargestOf<k>; one function for all k.
template <class V, class T>
DELTADCT_HD Fit<T> encode_largest(int k, const T* coefficients, int n, std::byte* codes) noexcept {
  Fit<T> fit{energy_of<V>(coefficients, n)};
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

/// Decodes such codes.
template <class T>
DELTADCT_HD void decode_largest(int k, const std::byte* codes, T step, T* coefficients,
                                int n) noexcept {
  std::memset(coefficients, 0, static_cast<std::size_t>(n) * sizeof(T));
  const int groups = n >> k;
  for (int j = 0; j < groups; ++j) {
    const std::uint32_t code = bits::get_dense(codes, k + 1, static_cast<std::size_t>(j));
    coefficients[static_cast<int>(code / 2) * groups + j] = code % 2 == 0 ? step : -step;
  }
}

}  // namespace detail

/// A code, and the sum of the group's coefficients times their levels, in steps.
template <class T>
struct GroupCode {
  std::uint32_t code;
  T product;
};

/// Splits the coefficients of a patch into groups of 2^K. The coefficient of largest magnitude in
/// each group decodes to plus or minus the patch's one bound, the step; the others decode to 0. The
/// step makes <F, F^> = <F, F>. For the normal distribution, keeping a random coefficient of each
/// group instead would take 1.1 (K = 2) to 1.6 (K = 7) times the bits for the same noise at unit
/// gain. Every patch that is not all zeros keeps its gain.
///
/// Of n coefficients, group j holds those at j, j + n / 2^K, ... Its code has K + 1 bits: 2 i +
/// sign, where the i-th coefficient of the group is the largest (the first one, if several are
/// equal), and sign is 1 if it is negative. Code j begins at bit j (K + 1) of the bytes, lowest
/// bits first.
template <int K>
requires(K >= 2 && K <= 7) struct LargestOf {
  static constexpr Fitting fitting = Fitting::energy;
  static constexpr int bound_count = 1;
  static constexpr int group = 1 << K;  ///< coefficients that share a code
  static constexpr int code_bits = K + 1;

  /// Writes the codes of n coefficients, n a multiple of 2^K and of the lanes of V. All codes are 0
  /// if all coefficients are zero.
  template <class V, class T>
  DELTADCT_HD static detail::Fit<T> encode(const T* coefficients, int n,
                                           std::byte* codes) noexcept {
    return detail::encode_largest<V>(K, coefficients, n, codes);
  }

  /// Computes the n coefficients that these codes and this step stand for.
  template <class T>
  DELTADCT_HD static void decode(const std::byte* codes, T step, T* coefficients, int n) noexcept {
    detail::decode_largest(K, codes, step, coefficients, n);
  }

  /// The code of one group. load(i) returns its i-th coefficient.
  template <class Load>
  DELTADCT_HD DELTADCT_INLINE static auto choose(const Load& load) noexcept {
    auto x = load(0);
    using T = decltype(x);
    int index = 0;
    T largest = Lanes<T>::abs(x);
    for (int i = 1; i < group; ++i) {
      const T y = load(i);
      if (largest < Lanes<T>::abs(y)) {
        index = i;
        x = y;
      }
      largest = Lanes<T>::max(largest, Lanes<T>::abs(y));
    }
    return GroupCode<T>{static_cast<std::uint32_t>(2 * index + (x < 0 ? 1 : 0)), largest};
  }

  /// The value that a code gives to the i-th coefficient of its group.
  template <class T>
  DELTADCT_HD DELTADCT_INLINE static T level(std::uint32_t code, int i, T step) noexcept {
    if (static_cast<int>(code / 2) != i) return T(0);
    return code % 2 == 0 ? step : -step;
  }

  /// Whether the bits after the last code are zero.
  DELTADCT_HD static bool is_padded(const std::byte* codes, int n) noexcept {
    return bits::is_dense_padded(codes, code_bits, static_cast<std::size_t>(n >> K));
  }

  template <class T>
  DELTADCT_HD static bool representable(const T (&bounds)[bound_count], T) noexcept {
    return bounds[0] >= 0 && detail::is_finite(bounds[0]);
  }

  template <class T>
  DELTADCT_HD static T largest(const T (&bounds)[bound_count]) noexcept {
    return bounds[0];
  }
};

}}  // namespace deltadct::inline DELTADCT_ABI
