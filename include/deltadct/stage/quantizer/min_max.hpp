// Uniform levels between the extremes of a patch's coefficients: the paper's quantizer.
#pragma once

#include <deltadct/core/finite.hpp>
#include <deltadct/core/lanes.hpp>
#include <deltadct/stage/quantizer/fitting.hpp>

#include <limits>
#include <string_view>

namespace deltadct { inline namespace DELTADCT_ABI {

/// Uniform levels between the smallest and the largest coefficient of the patch (paper, section
/// 3.2): code = round((x - lo) / (hi - lo) * (2^Bits - 1)), ties to even; lo = hi gives code 0.
template <int Bits>
requires(Bits >= 0) struct MinMax {
  static constexpr std::string_view name = "min_max";
  static constexpr Fitting fitting = Fitting::extremes;
  static constexpr int bound_count = 2;
  static constexpr int levels = (1 << Bits) - 1;

  /// Computes bounds = {lo, hi} of n coefficients, n a multiple of the lanes of V. Encoders need no
  /// more.
  template <class V, class T>
  DELTADCT_HD static T fit(const T* coefficients, int n, T (&bounds)[bound_count]) noexcept {
    using L = Lanes<V>;
    V lo = L::load(coefficients);
    V hi = lo;
    for (int s = L::count; s < n; s += L::count) {
      const V x = L::load(coefficients + s);
      lo = L::min(lo, x);
      hi = L::max(hi, x);
    }
    bounds[0] = reduce_lanes(lo, [](T a, T b) { return Lanes<T>::min(a, b); });
    bounds[1] = reduce_lanes(hi, [](T a, T b) { return Lanes<T>::max(a, b); });
    return 0;
  }

  /// Whether the levels between lo and hi can be computed: lo <= hi, and gain * (hi - lo) does not
  /// overflow.
  template <class T>
  DELTADCT_HD static bool representable(const T (&bounds)[bound_count], T gain) noexcept {
    return bounds[0] <= bounds[1] && detail::is_finite(gain * (bounds[1] - bounds[0]));
  }

  template <class T>
  DELTADCT_HD static T largest(const T (&bounds)[bound_count]) noexcept {
    return Lanes<T>::max(Lanes<T>::abs(bounds[0]), Lanes<T>::abs(bounds[1]));
  }

  template <class T>
  DELTADCT_HD static T lost(const T (&bounds)[bound_count], T gain) noexcept {
    const T range = gain * (bounds[1] - bounds[0]);
    return T(levels) / range <= std::numeric_limits<T>::max() ? T(0) : range;
  }

  template <class V>
  class Encoder {
    using T = typename Lanes<V>::scalar;

   public:
    DELTADCT_HD Encoder(const T (&bounds)[bound_count], T, T gain) noexcept
        : lo_(gain * bounds[0]), steps_(T(0)) {
      const T range = gain * (bounds[1] - bounds[0]);
      // A range too small to have a finite reciprocal counts as zero.
      const T steps = T(levels) / range;
      if (detail::all_finite(&steps, 1)) steps_ = V(steps);
    }

    DELTADCT_HD DELTADCT_INLINE V operator()(V x) const noexcept {
      const V code = Lanes<V>::round((x - lo_) * steps_);
      return Lanes<V>::min(Lanes<V>::max(code, V(T(0))), V(T(levels)));
    }

   private:
    V lo_;
    V steps_;
  };

  template <class V>
  class Decoder {
    using T = typename Lanes<V>::scalar;

   public:
    DELTADCT_HD Decoder(const T (&bounds)[bound_count], T factor) noexcept
        : lo_(factor * bounds[0]), step_(factor * ((bounds[1] - bounds[0]) / T(levels))) {}

    DELTADCT_HD DELTADCT_INLINE V operator()(V code) const noexcept { return code * step_ + lo_; }

   private:
    V lo_;
    V step_;
  };
};

/// Zero bits: the patch is stored as the mean of its real elements and decodes to that constant.
template <>
struct MinMax<0> {
  static constexpr std::string_view name = "min_max";
  static constexpr int bound_count = 1;

  /// The constant to store for a patch of that mean.
  template <class T>
  DELTADCT_HD static T constant(T mean) noexcept {
    return mean;
  }
};

}}  // namespace deltadct::inline DELTADCT_ABI
