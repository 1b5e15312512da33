// The operations, other than + - *, that the kernels need of an arithmetic type. A scalar has one
// lane and is defined here; a SIMD batch has several and is specialised by its backend.
#pragma once

#include <deltadct/config.hpp>
#include <deltadct/core/dtype.hpp>
#include <deltadct/core/repeat.hpp>

#include <cmath>
#include <type_traits>

namespace deltadct { inline namespace DELTADCT_ABI {

/// Operations on a value V of `count` lanes of `scalar`.
template <class V>
struct Lanes;

template <concepts::Compute T>
struct Lanes<T> {
  using scalar = T;
  /// A type with twice as many lanes; join(), low() and high() convert between the two. A scalar
  /// has none.
  using Double = void;
  static constexpr int count = 1;

  DELTADCT_HD static T load(const T* from) noexcept { return *from; }
  DELTADCT_HD static void store(T* to, T x) noexcept { *to = x; }
  /// Loads elements of a matrix from any address, or stores them there, rounded to nearest.
  template <concepts::Element U>
  DELTADCT_HD static T load_elements(const U* from) noexcept {
    return static_cast<T>(*from);
  }
  template <concepts::Element U>
  DELTADCT_HD static void store_elements(U* to, T x) noexcept {
    *to = static_cast<U>(x);
  }
  DELTADCT_HD static T abs(T x) noexcept { return std::abs(x); }
  /// The arguments must not be NaN. A device has one instruction for this; comparing and selecting
  /// take two.
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
  /// `yes` where a < b, else `no`.
  DELTADCT_HD static T select_less(T a, T b, T yes, T no) noexcept { return a < b ? yes : no; }
  /// Rounds to the nearest integer, ties to even.
  DELTADCT_HD static T round(T x) noexcept { return std::nearbyint(x); }
  /// Transposes a count x count tile whose rows are the values.
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

/// Whether registers hold more precision than the type, as those of the x87 do. The result of a sum
/// then depends on when its terms are stored, even with the same values in the same order.
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

}}  // namespace deltadct::inline DELTADCT_ABI
