// Rescaling: one factor per tensor makes a measure of the reconstruction D^ match the delta D's.
//
// Sums run over real elements only, padding excluded. original(d) is summed over D,
// reconstructed(d, r) over D and D^ together; the factor is their quotient.
// reconstructed_constant(sum, n, c) is the sum of reconstructed(d, c) over n elements that sum to
// `sum`: what a patch without bits adds.
#pragma once

#include <deltadct/core/lanes.hpp>

#include <cmath>
#include <string_view>

namespace deltadct::inline DELTADCT_ABI {

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

/// <D, D> / <D, D^>: the reconstruction's projection on the delta has the delta's length.
struct UnitGain {
  static constexpr std::string_view name = "unit_gain";
  static constexpr bool enabled = true;
  static constexpr bool is_product =
      true;  ///< reconstructed() is one, so that coefficients will do

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

/// The factor 1: the reconstruction is left as it is, and encode never makes it.
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

}  // namespace deltadct::inline DELTADCT_ABI
