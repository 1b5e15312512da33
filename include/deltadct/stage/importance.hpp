// Importance: a patch becomes a score; the higher, the more bits it is given.
#pragma once

#include <deltadct/core/finite.hpp>
#include <deltadct/core/reduce.hpp>

#include <cmath>
#include <limits>
#include <span>

namespace deltadct::inline DELTADCT_ABI {

/// The Euclidean norm of the patch before the transform (paper, section 3.1); the transform is
/// orthonormal, so it is the norm of the coefficients too. Zero padding adds nothing.
struct L2Norm {
  static constexpr int degree = 1;  ///< the norm of c x is c times that of x

  template <int P, concepts::Compute T>
  T operator()(std::span<const T, static_cast<std::size_t>(P) * P> patch) const noexcept {
    T score;
    if (from_sum(detail::sum_patch<P, T>(patch.data(), [](T x) { return term(x); }), score)) {
      return score;
    }
    // Squares that left the type's range are summed again in one that holds them.
    const auto wide = detail::sum_patch<P, long double>(patch.data(), [](auto x) { return x * x; });
    return static_cast<T>(std::sqrt(wide));
  }

  /// What encoding may sum over a patch while it reads the matrix, instead of asking for the score
  /// of every patch.
  template <class V>
  DELTADCT_HD static V term(V x) noexcept {
    return x * x;
  }

  /// The score of a patch whose terms have that sum; false where the sum is not enough.
  template <concepts::Compute T>
  DELTADCT_HD static bool from_sum(T square, T& score) noexcept {
    constexpr T tiny = std::numeric_limits<T>::min() / std::numeric_limits<T>::epsilon();
    score = std::sqrt(square);
    return square >= tiny && detail::all_finite(&square, 1);
  }
};

}  // namespace deltadct::inline DELTADCT_ABI
