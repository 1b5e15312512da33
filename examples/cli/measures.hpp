// How close one delta is to another: the figures of `deltadct diff`.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>

namespace cli {

/// A sum of products of doubles over their whole range. Factors are tiny, moderate or huge, in
/// units of 2^-700, 1 and 2^700. Their products are thus of five kinds, and each kind has its own
/// sum.
class ProductSum {
 public:
  void add(double a, double b) noexcept {
    const int kind_a = kind(a);
    const int kind_b = kind(b);
    sums_[index(kMiddle + kind_a + kind_b)] += in_units(a, kind_a) * in_units(b, kind_b);
  }

  /// Adds (a - b)^2, even if the difference is too large for a double.
  void add_square_of_difference(double a, double b) noexcept {
    if (kind(a) <= 0 && kind(b) <= 0) return add(a - b, a - b);
    const double apart = in_units(a, 1) - in_units(b, 1);
    sums_[index(kMiddle + 2)] += apart * apart;
  }

  void add(const ProductSum& other) noexcept {
    for (std::size_t k = 0; k < sums_.size(); ++k) sums_[k] += other.sums_[k];
  }

  /// The ratio of this sum to another, and its logarithm to base 2.
  double over(const ProductSum& other) const noexcept {
    const Parts a = in_parts();
    const Parts b = other.in_parts();
    return std::ldexp(a.fraction / b.fraction, a.exponent - b.exponent);
  }
  double log2_over(const ProductSum& other) const noexcept {
    const Parts a = in_parts();
    const Parts b = other.in_parts();
    return std::log2(a.fraction / b.fraction) + (a.exponent - b.exponent);
  }

  /// This sum over the square root of the product of two others.
  double over_root(const ProductSum& first, const ProductSum& second) const noexcept {
    const Parts a = in_parts();
    const Parts b = first.in_parts();
    const Parts c = second.in_parts();
    const int exponent = b.exponent + c.exponent;
    const double odd = exponent % 2 == 0 ? 1 : 2;
    return std::ldexp(a.fraction / std::sqrt(odd * b.fraction * c.fraction),
                      a.exponent - (exponent - (exponent % 2 == 0 ? 0 : 1)) / 2);
  }

 private:
  struct Parts {
    double fraction;  // to be multiplied by 2^exponent
    int exponent;
  };

  static constexpr int kMiddle = 2;  // the index of the middle kind
  static constexpr int kUnit = 700;

  static std::size_t index(int kind) noexcept { return static_cast<std::size_t>(kind); }

  static int kind(double x) noexcept {
    const double size = std::abs(x);
    return size > 0x1p400 ? 1 : size < 0x1p-400 ? -1 : 0;
  }
  static double in_units(double x, int kind) noexcept {
    return kind == 0 ? x : kind > 0 ? x * 0x1p-700 : x * 0x1p700;
  }

  Parts in_parts() const noexcept {
    int unit = 2 * kMiddle;
    while (unit > 0 && sums_[index(unit)] == 0) --unit;
    double sum = 0;
    for (int k = 0; k <= unit; ++k) sum += std::ldexp(sums_[index(k)], kUnit * (k - unit));
    int exponent = 0;
    const double fraction = std::frexp(sum, &exponent);
    return {fraction, exponent + kUnit * (unit - kMiddle)};
  }

  std::array<double, 2 * kMiddle + 1> sums_{};
};

/// Sums over pairs of an element d of a delta and an element r of its reconstruction.
struct Measures {
  ProductSum dd;
  ProductSum dr;
  ProductSum rr;
  ProductSum error;
  ProductSum abs_d;
  ProductSum abs_r;

  void add(double d, double r) {
    dd.add(d, d);
    dr.add(d, r);
    rr.add(r, r);
    error.add_square_of_difference(d, r);
    abs_d.add(std::abs(d), 1);
    abs_r.add(std::abs(r), 1);
  }
  void add(const Measures& other) {
    dd.add(other.dd);
    dr.add(other.dr);
    rr.add(other.rr);
    error.add(other.error);
    abs_d.add(other.abs_d);
    abs_r.add(other.abs_r);
  }

  /// Signal-to-noise ratio in decibels; infinite if both are equal, NaN if d is zero.
  double snr() const { return 10 * std::log10(2.0) * dd.log2_over(error); }
  /// The share of the delta that is recovered: <D, D^> / <D, D>.
  double gain() const { return dr.over(dd); }
  double cosine() const { return dr.over_root(dd, rr); }
  /// mean |D^| / mean |D|.
  double mean_abs_ratio() const { return abs_r.over(abs_d); }
};

}  // namespace cli
