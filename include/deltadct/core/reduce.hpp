// Sums over a patch in an order that depends neither on threads nor on the instruction set.
#pragma once

#include <deltadct/core/dtype.hpp>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

// Sums P columns by repeatedly adding the upper half to the lower.
template <int P, class Sum>
DELTADCT_INLINE Sum fold_columns(Sum* column) noexcept {
  if constexpr (P % 2 == 0) {
    constexpr int half = P / 2;
    for (int j = 0; j < half; ++j) column[j] += column[j + half];
    return fold_columns<half>(column);
  } else {
    for (int j = 1; j < P; ++j) column[0] += column[j];
    return column[0];
  }
}

// Sums fn over a row-major P x P patch: first each column, then the columns by halves. These are
// independent chains, which compilers vectorise and processors overlap.
template <int P, class Sum, class T, class Fn>
DELTADCT_INLINE Sum sum_patch(const T* patch, Fn fn) noexcept {
  Sum column[P] = {};
  for (int i = 0; i < P; ++i) {
    for (int j = 0; j < P; ++j) column[j] += fn(static_cast<Sum>(patch[i * P + j]));
  }
  return fold_columns<P>(column);
}

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
