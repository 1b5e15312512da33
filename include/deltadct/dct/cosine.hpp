// Cosines at compile time. std::cos is not constexpr, and tables of literals would hide the
// formula.
#pragma once

#include <deltadct/config.hpp>

#include <array>
#include <cstddef>
#include <numbers>

namespace deltadct { inline namespace DELTADCT_ABI {

/// cos(pi numerator / denominator) to double precision.
constexpr double cos_pi(long numerator, long denominator) noexcept {
  // Fold the angle into [0, pi / 4], exactly, in integers. The series converge fastest there.
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

namespace detail {

// Newton's iteration, for x >= 1. From x it converges in a few steps.
constexpr double square_root(double x) noexcept {
  double root = x;
  for (int i = 0; i < 40; ++i) root = 0.5 * (root + x / root);
  return root;
}

}  // namespace detail

/// The orthonormal DCT-II matrix of P points, multiplied by sqrt(P) if `Scaled`. Entry k * P + j is
/// C[k, j] = sqrt((k ? 2 : 1) / P) cos(pi (2 j + 1) k / 2 P).
template <int P, class T, bool Scaled = false>
constexpr std::array<T, static_cast<std::size_t>(P) * P> dct_table() noexcept {
  constexpr double norm = Scaled ? 1 : 1 / detail::square_root(P);
  std::array<double, static_cast<std::size_t>(4) * P> cosine{};
  for (int m = 0; m < 4 * P; ++m) {
    cosine[static_cast<unsigned>(m)] = norm * std::numbers::sqrt2 * cos_pi(m, 2 * P);
  }
  std::array<T, static_cast<std::size_t>(P) * P> c{};
  for (int j = 0; j < P; ++j) c[static_cast<unsigned>(j)] = static_cast<T>(norm);
  for (int k = 1; k < P; ++k) {
    for (int j = 0; j < P; ++j) {
      c[static_cast<unsigned>(k * P + j)] =
          static_cast<T>(cosine[static_cast<unsigned>((2 * j + 1) * k % (4 * P))]);
    }
  }
  return c;
}

}}  // namespace deltadct::inline DELTADCT_ABI
