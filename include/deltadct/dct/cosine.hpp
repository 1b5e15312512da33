// Cosines at compile time: std::cos is not constexpr, and tables of literals would hide the
// formula.
#pragma once

#include <deltadct/config.hpp>

#include <array>
#include <numbers>

namespace deltadct::inline DELTADCT_ABI {

/// cos(pi numerator / denominator) to double precision.
constexpr double cos_pi(long numerator, long denominator) noexcept {
  // Fold the angle into [0, 1/4] of pi exactly, in integers, where the series converge fastest.
  long a = numerator % (2 * denominator);
  if (a < 0) a = -a;
  if (a > denominator) a = 2 * denominator - a;  // cos(2 pi - x) = cos x
  const bool negative = 2 * a > denominator;     // cos(pi - x) = -cos x
  if (negative) a = denominator - a;
  const bool as_sine = 4 * a > denominator;  // cos x = sin(pi/2 - x)
  const double x =
      as_sine ? std::numbers::pi * static_cast<double>(denominator - 2 * a) /
                    static_cast<double>(2 * denominator)
              : std::numbers::pi * static_cast<double>(a) / static_cast<double>(denominator);
  double sum = 0;
  for (int k = as_sine ? 19 : 18; k > 1; k -= 2) sum = (1 + sum) * -x * x / (k * (k - 1));
  const double value = as_sine ? x * (1 + sum) : 1 + sum;
  return negative ? -value : value;
}

/// The factors 1 / (2 cos(pi (2 i + 1) / 2 N)), i = 0 ... N/2 - 1, of Lee's split of N points.
template <int N, class T>
constexpr std::array<T, N / 2> half_secants() noexcept {
  std::array<T, N / 2> factors{};
  for (int i = 0; i < N / 2; ++i) {
    factors[static_cast<unsigned>(i)] = static_cast<T>(0.5 / cos_pi(2 * i + 1, 2 * N));
  }
  return factors;
}

}  // namespace deltadct::inline DELTADCT_ABI
