// How much of a delta is left after it was compressed, decoded, added to the base, and rounded to
// the output's dtype.
#pragma once

#include <deltadct/config.hpp>

#include <cmath>
#include <cstdint>
#include <limits>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// Sums over elements, where d is tuned - base and r is output - base.
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

  /// <d, r> / <d, d>: 1 if the output moves from the base as far as the fine-tune did.
  double gain() const noexcept { return energy == 0 ? 1 : product / energy; }

  /// Signal-to-noise ratio in decibels; infinite if the output equals the fine-tune.
  double snr_db() const noexcept {
    return error == 0 ? std::numeric_limits<double>::infinity() : 10 * std::log10(energy / error);
  }

  /// Whether the delta is lost: less than half of it is left, and the output is no nearer to the
  /// fine-tune than the base is. A codec that keeps a part of the delta keeps the noise below the
  /// signal, and one with unit gain keeps the gain. Rounding that swallows the delta keeps neither.
  bool is_lost() const noexcept { return energy > 0 && gain() < 0.5 && !(error < 0.99 * energy); }

  /// The sums that correspond to an energy, a gain and an SNR, which archives store.
  static Recovery of(double energy, double gain, double snr_db) noexcept {
    return {energy, gain * energy, energy * std::pow(10.0, -snr_db / 10)};
  }
};

/// Rows of a matrix whose delta is lost. Sums over a whole tensor do not show them: one large
/// element, one row or one matrix of a stack outweighs all the others.
struct RowLosses {
  std::uint64_t changed = 0;  ///< rows that differ from the base's
  std::uint64_t rounded = 0;  ///< of these, rows lost because rounding swallows their own delta
  std::uint64_t still = 0;    ///< of the others, rows restored as the base's

  bool operator==(const RowLosses&) const = default;

  RowLosses& operator+=(const RowLosses& other) noexcept {
    changed += other.changed;
    rounded += other.rounded;
    still += other.still;
    return *this;
  }

  std::uint64_t lost() const noexcept { return rounded + still; }

  /// Whether that is a substantial share. Codecs that drop patches or elements leave some rows as
  /// they were, so those count only if they are most.
  bool is_substantial() const noexcept { return 4 * rounded > changed || 2 * lost() > changed; }
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
