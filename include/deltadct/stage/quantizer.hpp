// Quantization: the coefficients of a patch become codes and a few stored values, and back.
//
// A quantizer is a template over the bit width. Quantizer<0> reduces a patch to one constant; the
// others give
//   side_values                            how many values a patch stores (its "bounds")
//   fit<V>(coefficients, n, side) -> T     computes them, and what else the encoder needs
//   representable(side, gain)              whether codes can be computed from them
//   largest(side)                          the largest magnitude a code stands for
//   lost(side, gain)                       how much apart gain times coefficients may be that get
//   the
//                                          same code for being too small to compute with; need not
//                                          be there
//   Encoder(side, fitted, gain)(v) -> codes  v is gain times the coefficients, of which fitted is
//                                            what fit() returned; rounded, still as V
//   Decoder(side, factor)(codes) -> v      factor times the coefficients
// side is, but for fit(), as stored, that is after rounding to the bound's dtype. A quantizer that
// has not every width constrains its parameter.
#pragma once

#include <deltadct/core/finite.hpp>
#include <deltadct/core/lanes.hpp>

#include <string_view>

namespace deltadct::inline DELTADCT_ABI {

/// Uniform levels between the smallest and the largest coefficient of the patch (paper, section
/// 3.2): code = round((x - lo) / (hi - lo) * (2^Bits - 1)), ties to even; lo = hi gives code 0.
template <int Bits>
requires(Bits >= 0) struct MinMax {
  static constexpr std::string_view name = "min_max";
  static constexpr int side_values = 2;
  static constexpr int levels = (1 << Bits) - 1;

  /// side = {lo, hi} of n coefficients, n a multiple of the lanes of V; that is all.
  template <class V, class T>
  DELTADCT_HD static T fit(const T* coefficients, int n, T (&side)[side_values]) noexcept {
    using L = Lanes<V>;
    V lo = L::load(coefficients);
    V hi = lo;
    for (int s = L::count; s < n; s += L::count) {
      const V x = L::load(coefficients + s);
      lo = L::min(lo, x);
      hi = L::max(hi, x);
    }
    side[0] = reduce_lanes(lo, [](T a, T b) { return Lanes<T>::min(a, b); });
    side[1] = reduce_lanes(hi, [](T a, T b) { return Lanes<T>::max(a, b); });
    return 0;
  }

  /// Whether there are levels between lo and hi that can be computed: lo <= hi, and gain * (hi -
  /// lo) does not overflow.
  template <class T>
  DELTADCT_HD static bool representable(const T (&side)[side_values], T gain) noexcept {
    return side[0] <= side[1] && detail::is_finite(gain * (side[1] - side[0]));
  }

  template <class T>
  DELTADCT_HD static T largest(const T (&side)[side_values]) noexcept {
    return Lanes<T>::max(Lanes<T>::abs(side[0]), Lanes<T>::abs(side[1]));
  }

  template <class T>
  DELTADCT_HD static T lost(const T (&side)[side_values], T gain) noexcept {
    const T range = gain * (side[1] - side[0]);
    return T(levels) / range <= std::numeric_limits<T>::max() ? T(0) : range;
  }

  template <class V>
  class Encoder {
    using T = typename Lanes<V>::scalar;

   public:
    DELTADCT_HD Encoder(const T (&side)[side_values], T, T gain) noexcept
        : lo_(gain * side[0]), steps_(T(0)) {
      const T range = gain * (side[1] - side[0]);
      // A range too small to have a reciprocal counts as none.
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
    DELTADCT_HD Decoder(const T (&side)[side_values], T factor) noexcept
        : lo_(factor * side[0]), step_(factor * ((side[1] - side[0]) / T(levels))) {}

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
  static constexpr int side_values = 1;

  /// The constant to store for a patch of that mean.
  template <class T>
  DELTADCT_HD static T constant(T mean) noexcept {
    return mean;
  }
};

}  // namespace deltadct::inline DELTADCT_ABI
