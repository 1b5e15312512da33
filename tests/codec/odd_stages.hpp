// Custom stages, as a user might write them, for hosts and devices.
#pragma once

#include <deltadct/policy.hpp>

#include <span>
#include <string_view>

namespace test {

using namespace deltadct;

/// A scorer without terms, which needs the whole patch.
struct LargestWeight {
  template <int P, class T>
  DELTADCT_HD T operator()(std::span<const T, static_cast<std::size_t>(P) * P> patch) const {
    T largest = 0;
    for (const T x : patch) largest = Lanes<T>::max(largest, Lanes<T>::abs(x));
    return largest;
  }
};

/// Levels between minus and plus the largest magnitude, which is the only bound at every width.
template <int Bits>
struct Symmetric {
  static constexpr std::string_view name = "symmetric";
  static constexpr int bound_count = 1;
  static constexpr int levels = (1 << Bits) - 1;

  template <class V, class T>
  DELTADCT_HD static T fit(const T* coefficients, int n, T (&bounds)[1]) {
    bounds[0] = 0;
    for (int s = 0; s < n; ++s) {
      bounds[0] = Lanes<T>::max(bounds[0], Lanes<T>::abs(coefficients[s]));
    }
    return bounds[0];
  }
  template <class T>
  DELTADCT_HD static bool representable(const T (&bounds)[1], T gain) {
    return bounds[0] >= 0 && detail::is_finite(2 * gain * bounds[0]);
  }
  template <class T>
  DELTADCT_HD static T largest(const T (&bounds)[1]) {
    return bounds[0];
  }

  template <class V>
  struct Encoder {
    using T = typename Lanes<V>::scalar;
    V steps;

    DELTADCT_HD Encoder(const T (&bounds)[1], T, T gain)
        : steps(T(levels) / (2 * gain * bounds[0])) {}
    DELTADCT_HD V operator()(V x) const {
      const V code = Lanes<V>::round(x * steps + V(T(levels) / 2));
      return Lanes<V>::min(Lanes<V>::max(code, V(T(0))), V(T(levels)));
    }
  };
  template <class V>
  struct Decoder {
    using T = typename Lanes<V>::scalar;
    V step;
    V least;

    DELTADCT_HD Decoder(const T (&bounds)[1], T factor)
        : step(2 * factor * bounds[0] / T(levels)), least(-factor * bounds[0]) {}
    DELTADCT_HD V operator()(V code) const { return code * step + least; }
  };
};
template <>
struct Symmetric<0> : MinMax<0> {
  static constexpr std::string_view name = "symmetric";
};

}  // namespace test
