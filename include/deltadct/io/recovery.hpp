// How much of a delta comes back: after it was decoded, added to the base, and rounded to the
// output's dtype.
#pragma once

#include <deltadct/config.hpp>

#include <cmath>
#include <limits>

namespace deltadct::inline DELTADCT_ABI::io {

/// Sums over elements d of tuned - base and r of output - base.
struct Recovery {
  double energy = 0;   ///< of d^2
  double product = 0;  ///< of d r
  double error = 0;    ///< of (d - r)^2

  bool operator==(const Recovery&) const = default;

  Recovery& operator+=(const Recovery& other) noexcept {
    energy += other.energy;
    product += other.product;
    error += other.error;
    return *this;
  }

  /// <d, r> / <d, d>: 1 where the output moves from the base as far as the fine-tune did.
  double gain() const noexcept { return energy == 0 ? 1 : product / energy; }

  /// Signal to noise in decibels; infinite where the output is the fine-tune.
  double snr_db() const noexcept {
    return error == 0 ? std::numeric_limits<double>::infinity() : 10 * std::log10(energy / error);
  }

  /// Whether the delta is gone: less than half of it is left, and the output is no nearer to the
  /// fine-tune than the base. A codec that keeps a part of the delta keeps the noise below the
  /// signal, one with unit gain keeps the gain; rounding that swallows the delta keeps neither.
  bool is_lost() const noexcept { return energy > 0 && gain() < 0.5 && !(error < 0.99 * energy); }

  /// The sums that give a gain and an SNR, as archives store them.
  static Recovery of(double energy, double gain, double snr_db) noexcept {
    return {energy, gain * energy, energy * std::pow(10.0, -snr_db / 10)};
  }
};

}  // namespace deltadct::inline DELTADCT_ABI::io
