// The DCT of a patch whose signs were changed at random. Outlying weights, and structure that rows
// and columns share, spread over all coefficients. Whatever the patch, its coefficients then look
// normally distributed, and so does the error that quantization adds to the weights.
#pragma once

#include <deltadct/core/random.hpp>
#include <deltadct/dct/transform.hpp>

#include <bit>
#include <cstdint>
#include <type_traits>

namespace deltadct { inline namespace DELTADCT_ABI {

namespace detail {

/// A factor, 1 or -1, for each element of a P x P patch, row-major: row i, column j gets -1 if bit
/// j of random number i is set.
template <class T, int P>
struct SignTable {
  alignas(64) T factor[P * P]{};

  constexpr SignTable() noexcept {
    for (int i = 0; i < P; ++i) {
      const std::uint64_t signs = random_bits(0, static_cast<std::uint64_t>(i));
      for (int j = 0; j < P; ++j) factor[i * P + j] = (signs >> j & 1) == 0 ? T(1) : T(-1);
    }
  }
};
template <class T, int P>
inline constexpr SignTable<T, P> kSigns{};

/// Changes the signs of row i, columns j, j + 1, ..., as the table does, but without a table.
template <int P, class V>
DELTADCT_HD DELTADCT_INLINE V change_signs(V x, int i, int j) noexcept {
  using T = typename Lanes<V>::scalar;
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  using Row = std::conditional_t<P <= 32, std::uint32_t, std::uint64_t>;
  constexpr int lanes = Lanes<V>::count;
  constexpr int last = 8 * sizeof(Row) - 1;
  // Each lane's bit moves to the top, the last lane's first. Only this first shift is by an amount
  // that is not a constant.
  const Row row = static_cast<Row>(random_bits(0, static_cast<std::uint64_t>(i)))
                  << (last + 1 - lanes - j);
  for (int l = 0; l < lanes; ++l) {
    const Row bit = row << (lanes - 1 - l) & Row{1} << last;
    Bits sign;
    if constexpr (sizeof(Bits) < sizeof(Row))
      sign = static_cast<Bits>(bit >> 32);
    else
      sign = static_cast<Bits>(bit) << (8 * (sizeof(Bits) - sizeof(Row)));
    lane(x, l) = std::bit_cast<T>(std::bit_cast<Bits>(lane(x, l)) ^ sign);
  }
  return x;
}

}  // namespace detail

/// The DCT after a change of signs, which is the same for all patches of a size.
struct RandomizedDct : MappedTransform<RandomizedDct, Dct> {
  static constexpr std::string_view name = "randomized_dct";

  template <int P, class V>
  DELTADCT_HD DELTADCT_INLINE static V map(V x, int i, int j) noexcept {
    using T = typename Lanes<V>::scalar;
    // A device computes the signs, because it would have to wait for a table.
    constexpr bool has_table = !detail::kOnDevice && requires(const T* from) {
      Lanes<V>::load_elements(from);
    };
    if constexpr (has_table)
      return x * Lanes<V>::load_elements(detail::kSigns<T, P>.factor + i * P + j);
    else
      return detail::change_signs<P>(x, i, j);
  }
};

}}  // namespace deltadct::inline DELTADCT_ABI
