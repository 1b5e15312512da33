// Levels for coefficients that are normally distributed, and one step per patch that gives the
// reconstruction unit gain.
#pragma once

#include <deltadct/core/energy.hpp>
#include <deltadct/core/finite.hpp>
#include <deltadct/core/lanes.hpp>
#include <deltadct/core/repeat.hpp>
#include <deltadct/stage/quantizer/fitting.hpp>
#include <deltadct/stage/quantizer/largest.hpp>

#include <limits>
#include <string_view>

namespace deltadct { inline namespace DELTADCT_ABI {

namespace detail {

/// The 2^Bits levels, in steps: code c has the level 2 u (1 + bend u^2), where
/// u = c - (2^Bits - 1) / 2. Also the edges between the positive levels, in units of the root mean
/// square. Bend and edges give the least noise at unit gain for the normal distribution. With 1 and
/// 2 bits these are the levels of Lloyd and Max; with 3 and 4 bits they are noisier than those by
/// 0.2 % and 2 %.
template <int Bits>
struct GaussianLevels;

template <>
struct GaussianLevels<1> {
  static constexpr double bend = 0;
  DELTADCT_HD static constexpr double edge(int) noexcept { return 0; }
};

template <>
struct GaussianLevels<2> {
  static constexpr double bend = 0.05677368;
  DELTADCT_HD static constexpr double edge(int) noexcept { return 0.98159883; }
};

template <>
struct GaussianLevels<3> {
  static constexpr double bend = 0.02457252;
  DELTADCT_HD static constexpr double edge(int i) noexcept {
    constexpr double edges[] = {0.49172870, 1.05296647, 1.75322237};
    return edges[i];
  }
};

template <>
struct GaussianLevels<4> {
  static constexpr double bend = 0.00872127;
  DELTADCT_HD static constexpr double edge(int i) noexcept {
    constexpr double edges[] = {0.24417802, 0.50094121, 0.78287474, 1.10256380,
                                1.47259354, 1.90554915, 2.41401580};
    return edges[i];
  }
};

}  // namespace detail

/// A patch stores one value, the step between the levels of its coefficients, chosen so that
/// <F, F^> = <F, F>. No width exceeds 4 bits.
template <int Bits>
struct Gaussian;

/// Levels for normally distributed coefficients, of 1 to 4 bits.
template <int Bits>
requires(Bits >= 1 && Bits <= 4) struct Gaussian<Bits> {
  static constexpr std::string_view name = "gaussian";
  static constexpr Fitting fitting = Fitting::energy;
  static constexpr int bound_count = 1;
  static constexpr int codes = 1 << Bits;
  using Levels = detail::GaussianLevels<Bits>;

  /// Computes bounds = {step} of n coefficients, n a multiple of the lanes of V.
  template <class V, class T>
  DELTADCT_HD static detail::Fit<T> fit(const T* coefficients, int n,
                                        T (&bounds)[bound_count]) noexcept {
    using L = Lanes<V>;
    detail::Fit<T> fit{detail::energy_of<V>(coefficients, n)};
    if (fit.square != 0) {
      const T one[] = {T(1)};
      const Encoder<V> encoder(fit.reciprocal);
      const Decoder<V> decoder(one, T(1));
      V product(T(0));
      for (int s = 0; s < n; s += L::count) {
        const V x = L::load(coefficients + s) * V(fit.unit);
        product = product + (Bits == 1 ? L::abs(x) : x * decoder(encoder(x)));
      }
      fit.product = reduce_lanes(product, [](T a, T b) { return a + b; });
    }
    bounds[0] = fit.step();
    return fit;
  }

  template <class T>
  DELTADCT_HD static bool representable(const T (&bounds)[bound_count], T gain) noexcept {
    return bounds[0] >= 0 && detail::is_finite(gain * largest(bounds));
  }

  template <class T>
  DELTADCT_HD static T largest(const T (&bounds)[bound_count]) noexcept {
    return Decoder<T>(bounds, T(1))(T(codes - 1));
  }

  template <class V>
  class Encoder {
    using T = typename Lanes<V>::scalar;

   public:
    /// For values that are to be multiplied by the reciprocal of their root mean square.
    DELTADCT_HD explicit Encoder(T reciprocal) noexcept : reciprocal_(reciprocal) {}

    /// If that reciprocal overflows, the values are so small that only their signs are told apart.
    DELTADCT_HD Encoder(const T (&)[bound_count], const detail::Fit<T>& fit, T) noexcept
        : Encoder(Lanes<T>::min(fit.reciprocal * fit.unit, std::numeric_limits<T>::max())) {}

    DELTADCT_HD DELTADCT_INLINE V operator()(V x) const noexcept {
      const V zero(T(0));
      V code(T(codes / 2));  // of a positive value
      if constexpr (codes > 2) {
        const V one(T(1));
        const V size = Lanes<V>::abs(x * reciprocal_);
        repeat<codes / 2 - 1>([&](int i) DELTADCT_INLINE_LAMBDA {
          const V edge(static_cast<T>(Levels::edge(i)));
          code = code + Lanes<V>::select_less(size, edge, zero, one);
        });
      }
      return Lanes<V>::select_less(x, zero, V(T(codes - 1)) - code, code);
    }

   private:
    V reciprocal_;
  };

  template <class V>
  class Decoder {
    using T = typename Lanes<V>::scalar;

   public:
    DELTADCT_HD Decoder(const T (&bounds)[bound_count], T factor) noexcept
        : slope_(2 * factor * bounds[0]),
          bend_(2 * factor * bounds[0] * static_cast<T>(Levels::bend)) {}

    DELTADCT_HD DELTADCT_INLINE V operator()(V code) const noexcept {
      const V u = code - V(T(codes - 1) / 2);
      return u * (bend_ * (u * u) + slope_);
    }

   private:
    V slope_;
    V bend_;
  };
};

/// Zero bits: the patch is stored as the mean of its real elements and decodes to that constant.
template <>
struct Gaussian<0> {
  static constexpr std::string_view name = "gaussian";
  static constexpr int bound_count = 1;

  template <class T>
  DELTADCT_HD static T constant(T mean) noexcept {
    return mean;
  }
};

/// Less than one bit: width -k is one code of k + 1 bits per group of 2^k coefficients.
template <int Bits>
requires(Bits >= -7 && Bits <= -2) struct Gaussian<Bits> : LargestOf<-Bits> {
  static constexpr std::string_view name = "gaussian";
};

}}  // namespace deltadct::inline DELTADCT_ABI
