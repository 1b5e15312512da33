// What the kernels need of an arithmetic type beside + - *: one lane for a scalar here, several for
// a SIMD batch (specialised by the backend that brings it).
#pragma once

#include <deltadct/config.hpp>
#include <deltadct/core/dtype.hpp>
#include <deltadct/core/repeat.hpp>

#include <cmath>
#include <type_traits>

namespace deltadct::inline DELTADCT_ABI {

/// Operations on a value V of `count` lanes of `scalar`.
template <class V>
struct Lanes;

template <concepts::Compute T>
struct Lanes<T> {
  using scalar = T;
  /// A value of twice as many lanes, which join(), low() and high() relate to this; none here.
  using Double = void;
  static constexpr int count = 1;

  DELTADCT_HD static T load(const T* from) noexcept { return *from; }
  DELTADCT_HD static void store(T* to, T x) noexcept { *to = x; }
  /// From and to elements of a matrix, at any address, rounded to nearest.
  template <concepts::Element U>
  DELTADCT_HD static T load_elements(const U* from) noexcept {
    return static_cast<T>(*from);
  }
  template <concepts::Element U>
  DELTADCT_HD static void store_elements(U* to, T x) noexcept {
    *to = static_cast<U>(x);
  }
  DELTADCT_HD static T abs(T x) noexcept { return std::abs(x); }
  /// Of numbers; on a device, where comparing and choosing takes two instructions, by one.
  DELTADCT_HD static T min(T a, T b) noexcept {
    if constexpr (detail::kOnDevice)
      return std::fmin(a, b);
    else
      return b < a ? b : a;
  }
  DELTADCT_HD static T max(T a, T b) noexcept {
    if constexpr (detail::kOnDevice)
      return std::fmax(a, b);
    else
      return a < b ? b : a;
  }
  /// yes where a < b, else no.
  DELTADCT_HD static T select_less(T a, T b, T yes, T no) noexcept { return a < b ? yes : no; }
  /// To the nearest integer, ties to even.
  DELTADCT_HD static T round(T x) noexcept { return std::nearbyint(x); }
  /// A count x count tile, one row a value, becomes its transpose.
  DELTADCT_HD static void transpose(T (&)[1]) noexcept {}
};

namespace detail {

/// Lane l of a scalar, or of what holds its lanes in an array.
template <class V>
DELTADCT_HD DELTADCT_INLINE constexpr auto& lane(V& x, int l) noexcept {
  if constexpr (Lanes<std::remove_const_t<V>>::count == 1)
    return x;
  else
    return x.lane[l];
}

/// Whether a register holds more than its type does, as those of the x87: then sums of the same
/// values in the same order differ by when they are stored.
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0
inline constexpr bool kExcessPrecision = true;
#else
inline constexpr bool kExcessPrecision = false;
#endif

}  // namespace detail

/// Combines the lanes of x in lane order.
template <class V, class Fn>
DELTADCT_HD typename Lanes<V>::scalar reduce_lanes(V x, Fn&& fn) noexcept {
  alignas(64) typename Lanes<V>::scalar lane[Lanes<V>::count];
  Lanes<V>::store(lane, x);
  auto result = lane[0];
  for (int i = 1; i < Lanes<V>::count; ++i) result = fn(result, lane[i]);
  return result;
}

}  // namespace deltadct::inline DELTADCT_ABI
