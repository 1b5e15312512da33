// The energy of a patch's coefficients, whatever their magnitude.
#pragma once

#include <deltadct/core/lanes.hpp>

#include <cmath>
#include <limits>

namespace deltadct::inline DELTADCT_ABI::detail {

/// Sums over n coefficients x, scaled by `unit`. unit is 1 unless the squares would leave the range
/// of T; then it is a power of two.
template <class T>
struct Spread {
  T unit = 1;
  T square = 0;      ///< the sum of (unit x)^2; 0 if all x are zero
  T reciprocal = 0;  ///< 1 / the root mean square of unit x
};

/// Coefficients compared with the levels chosen for them, which are in units of the step.
template <class T>
struct Fit : Spread<T> {
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

/// The distance between a value and what is stored for it, if that is more than rounding, which
/// means that the value was too small for the stored type; otherwise 0.
template <class T>
DELTADCT_HD T lost_of(T value, T stored) noexcept {
  const T size = Lanes<T>::abs(value);
  const T apart = Lanes<T>::abs(value - stored);
  return apart > size / 16 && size <= std::numeric_limits<T>::max() / 2 ? apart : T(0);
}

/// Whether such a loss matters compared with the largest decoded value.
inline bool is_lost(double lost, double largest) noexcept {
  return lost > largest / 1024;
}

inline constexpr const char* kLostText =
    "too small to be stored; --exclude keeps a tensor without loss";

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

/// The spread of n finite coefficients. n must be a multiple of the lanes of V.
template <class V, class T>
DELTADCT_HD Spread<T> spread_of(const T* x, int n) noexcept {
  using Limits = std::numeric_limits<T>;
  Spread<T> spread;
  spread.square = sum_of_squares<V>(x, n, T(1));
  if (!(spread.square >= Limits::min() / Limits::epsilon() &&
        spread.square <= Limits::max() * Limits::epsilon())) {
    T peak = 0;
    for (int s = 0; s < n; ++s) peak = Lanes<T>::max(peak, Lanes<T>::abs(x[s]));
    if (peak == 0) return {};
    // The exponent is bounded so that unit stays finite. Smaller values have no more digits to
    // save.
    const int exponent = std::ilogb(peak);
    spread.unit =
        std::ldexp(T(1), -(exponent < Limits::min_exponent ? Limits::min_exponent : exponent));
    spread.square = sum_of_squares<V>(x, n, spread.unit);
  }
  spread.reciprocal = std::sqrt(static_cast<T>(n) / spread.square);
  return spread;
}

}  // namespace deltadct::inline DELTADCT_ABI::detail
