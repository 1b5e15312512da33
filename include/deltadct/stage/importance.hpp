// Importance: gives each patch a score. Patches with higher scores get more bits.
#pragma once

#include <deltadct/core/finite.hpp>
#include <deltadct/core/reduce.hpp>

#include <cmath>
#include <limits>
#include <span>

namespace deltadct { inline namespace DELTADCT_ABI {

/// The Euclidean norm of the patch before the transform (paper, section 3.1). The transform is
/// orthonormal, so this is the norm of the coefficients too. Zero padding adds nothing.
struct L2Norm {
  static constexpr int degree = 1;  ///< the norm of c x is c times that of x

  template <int P, concepts::Compute T>
  T operator()(std::span<const T, static_cast<std::size_t>(P) * P> patch) const noexcept {
    T score;
    if (from_sum(detail::sum_patch<P, T>(patch.data(), [](T x) { return term(x); }), score)) {
      return score;
    }
    // If the squares left the type's range, sum them again in a type that holds them.
    const auto wide = detail::sum_patch<P, long double>(patch.data(), [](auto x) { return x * x; });
    return static_cast<T>(std::sqrt(wide));
  }

  /// What encoding may sum over a patch while it reads the matrix, instead of calling the scorer
  /// for every patch. V is a scalar or a register; operations beyond arithmetic are in Lanes<V>.
  template <class V>
  DELTADCT_HD static V term(V x) noexcept {
    return x * x;
  }

  /// Computes the score of a patch from the sum of its terms. Returns false if the sum does not
  /// suffice, but sets the score even then. A host then calls the scorer. A device sums the patch
  /// again, times a power of two, and divides the score by that power to the degree.
  template <concepts::Compute T>
  DELTADCT_HD static bool from_sum(T square, T& score) noexcept {
    constexpr T tiny = std::numeric_limits<T>::min() / std::numeric_limits<T>::epsilon();
    score = std::sqrt(square);
    return square >= tiny && detail::all_finite(&square, 1);
  }
};

}}  // namespace deltadct::inline DELTADCT_ABI
