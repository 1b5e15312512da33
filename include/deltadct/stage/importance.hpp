// Importance: a patch becomes a score; the higher, the more bits it is given.
#pragma once

#include <deltadct/core/reduce.hpp>

#include <cmath>
#include <limits>
#include <span>

namespace deltadct::inline DELTADCT_ABI {

/// The Euclidean norm of the patch before the transform (paper, section 3.1); the transform is
/// orthonormal, so it is the norm of the coefficients too. Zero padding adds nothing.
struct L2Norm {
  template <int P, concepts::Compute T>
  T operator()(std::span<const T, static_cast<std::size_t>(P) * P> patch) const noexcept {
    const T square = detail::sum_patch<P, T>(patch.data(), [](auto x) { return x * x; });
    // Squares that left the type's range are summed again in one that holds them.
    constexpr T tiny = std::numeric_limits<T>::min() / std::numeric_limits<T>::epsilon();
    if (square >= tiny && square <= std::numeric_limits<T>::max()) return std::sqrt(square);
    const auto wide = detail::sum_patch<P, long double>(patch.data(), [](auto x) { return x * x; });
    return static_cast<T>(std::sqrt(wide));
  }
};

}  // namespace deltadct::inline DELTADCT_ABI
