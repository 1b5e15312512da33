// Rescaling: one factor per tensor makes some measure of the reconstruction D^ equal to that of the
// delta D.
//
// Sums run over real elements only, not over padding. The factor is the sum of original(d) over D,
// divided by the sum of reconstructed(d, r) over D and D^ together.
// reconstructed_constant(sum, n, c) is the sum of reconstructed(d, c) over n elements that sum to
// `sum`; a patch without bits adds this.
#pragma once

#include <deltadct/core/lanes.hpp>

#include <cmath>
#include <string_view>

namespace deltadct { inline namespace DELTADCT_ABI {

/// mean|D| / mean|D^| (paper, eq. 6).
struct MeanAbs {
  static constexpr std::string_view name = "mean_abs";
  static constexpr bool enabled = true;

  template <class V>
  DELTADCT_HD static V original(V d) noexcept {
    return Lanes<V>::abs(d);
  }
  template <class V>
  DELTADCT_HD static V reconstructed(V, V r) noexcept {
    return Lanes<V>::abs(r);
  }
  DELTADCT_HD static double reconstructed_constant(double, double n, double c) noexcept {
    return n * std::abs(c);
  }
};

/// <D, D> / <D, D^>: gives the reconstruction's projection on the delta the length of the delta.
struct UnitGain {
  static constexpr std::string_view name = "unit_gain";
  static constexpr bool enabled = true;
  static constexpr bool is_product = true;  ///< a sum of products, which coefficients give as well

  template <class V>
  DELTADCT_HD static V original(V d) noexcept {
    return d * d;
  }
  template <class V>
  DELTADCT_HD static V reconstructed(V d, V r) noexcept {
    return d * r;
  }
  DELTADCT_HD static double reconstructed_constant(double sum, double, double c) noexcept {
    return sum * c;
  }
};

/// The factor 1: the reconstruction is left as it is, and encode never computes it.
struct NoRescale {
  static constexpr std::string_view name = "none";
  static constexpr bool enabled = false;

  template <class V>
  DELTADCT_HD static V original(V) noexcept {
    return V(0);
  }
  template <class V>
  DELTADCT_HD static V reconstructed(V, V) noexcept {
    return V(0);
  }
  DELTADCT_HD static double reconstructed_constant(double, double, double) noexcept { return 0; }
};

}}  // namespace deltadct::inline DELTADCT_ABI
