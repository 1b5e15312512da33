// The energy of a patch's coefficients, whatever their magnitude.
#pragma once

#include <deltadct/core/lanes.hpp>

#include <cmath>
#include <limits>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// Sums over n coefficients x, scaled by `unit`. unit is 1 unless the squares would leave the range
/// of T; then it is a power of two.
template <class T>
struct Energy {
  T unit = 1;
  T square = 0;      ///< the sum of (unit x)^2; 0 if all x are zero
  T reciprocal = 0;  ///< 1 / the root mean square of unit x
};

/// Coefficients compared with the levels chosen for them, which are in units of the step.
template <class T>
struct Fit : Energy<T> {
  T product = 0;  ///< the sum of (unit x) * level

  /// The step s for which the sum of x * (s level) equals the sum of x^2; 0 if all x are zero.
  DELTADCT_HD T step() const noexcept {
    return this->square == 0 ? T(0) : this->square / product / this->unit;
  }

  /// The sums of x^2 and of x * (s level), where x is the coefficient divided by `gain`.
  DELTADCT_HD double original(double gain) const noexcept {
    const double units = gain * static_cast<double>(this->unit);
    return static_cast<double>(this->square) / units / units;
  }
  DELTADCT_HD double reconstructed(double gain, double s) const noexcept {
    return static_cast<double>(product) / (gain * static_cast<double>(this->unit)) * s;
  }
};

/// Whether a sum of squares is finite and lost no digits to the range of T.
template <class T>
DELTADCT_HD DELTADCT_INLINE bool is_within_range(T sum) noexcept {
  using Limits = std::numeric_limits<T>;
  return sum >= Limits::min() / Limits::epsilon() && sum <= Limits::max() * Limits::epsilon();
}

/// The power of two by which values of that greatest magnitude are scaled so that their squares
/// can be summed: 1 except for the smallest and the largest magnitudes.
template <class T>
DELTADCT_HD DELTADCT_INLINE T unit_of(T peak) noexcept {
  using Limits = std::numeric_limits<T>;
  constexpr int quarter = Limits::max_exponent / 4;
  if (peak == 0) return T(1);
  const int exponent = std::ilogb(peak);
  if (exponent > -quarter && exponent < quarter) return T(1);
  // The exponent is bounded so that the unit stays finite. Smaller values have no more digits to
  // save.
  return std::ldexp(T(1), -(exponent < Limits::min_exponent ? Limits::min_exponent : exponent));
}

template <class V, class T>
DELTADCT_HD T sum_of_squares(const T* x, int n, T unit) noexcept {
  using L = Lanes<V>;
  V sum(T(0));
  for (int s = 0; s < n; s += L::count) {
    const V y = L::load(x + s) * V(unit);
    sum = sum + y * y;
  }
  return reduce_lanes(sum, [](T a, T b) { return a + b; });
}

/// The energy of n finite coefficients. n must be a multiple of the lanes of V.
template <class V, class T>
DELTADCT_HD Energy<T> energy_of(const T* x, int n) noexcept {
  Energy<T> energy;
  energy.square = sum_of_squares<V>(x, n, T(1));
  if (!is_within_range(energy.square)) {
    T peak = 0;
    for (int s = 0; s < n; ++s) peak = Lanes<T>::max(peak, Lanes<T>::abs(x[s]));
    if (peak == 0) return {};
    energy.unit = unit_of(peak);
    energy.square = sum_of_squares<V>(x, n, energy.unit);
  }
  energy.reciprocal = std::sqrt(static_cast<T>(n) / energy.square);
  return energy;
}

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
