// How close one delta is to another: the figures of `deltadct diff`.
#pragma once

#include <cmath>

namespace cli {

/// Sums over pairs of elements d of a delta and r of its reconstruction.
struct Measures {
  double dd = 0;
  double dr = 0;
  double rr = 0;
  double error = 0;
  double abs_d = 0;
  double abs_r = 0;

  void add(double d, double r) {
    dd += d * d;
    dr += d * r;
    rr += r * r;
    error += (d - r) * (d - r);
    abs_d += std::abs(d);
    abs_r += std::abs(r);
  }
  void add(const Measures& other) {
    dd += other.dd;
    dr += other.dr;
    rr += other.rr;
    error += other.error;
    abs_d += other.abs_d;
    abs_r += other.abs_r;
  }

  /// Signal to noise, in decibels; infinite where they are equal, not a number where d is zero.
  double snr() const { return 10 * std::log10(dd / error); }
  /// The share of the delta that is recovered: <D, D^> / <D, D>.
  double gain() const { return dr / dd; }
  double cosine() const { return dr / std::sqrt(dd * rr); }
  /// mean |D^| / mean |D|.
  double mean_abs_ratio() const { return abs_r / abs_d; }
};

}  // namespace cli
