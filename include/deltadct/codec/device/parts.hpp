// Reductions over a patch whose values are spread over many threads. Each thread reduces its own
// values; then all threads combine the same parts in the same order.
#pragma once

#include <deltadct/backend/cuda/columns.hpp>
#include <deltadct/core/lanes.hpp>
#include <deltadct/core/repeat.hpp>

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// Two results that a thread passes to the others.
template <class T>
struct Part {
  T a;
  T b;
};

template <class T>
DELTADCT_HD DELTADCT_INLINE Part<T> sum_parts(const Part<T>* parts, int threads) noexcept {
  Part<T> all{T(0), T(0)};
  for (int t = 0; t < threads; ++t) {
    all.a = all.a + parts[t].a;
    all.b = all.b + parts[t].b;
  }
  return all;
}

/// The largest magnitude among values, found by their bits.
template <class T>
class Magnitudes {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

 public:
  template <class V>
  DELTADCT_HD DELTADCT_INLINE void see(const V& x) noexcept {
    repeat<Lanes<V>::count>([&](int l) DELTADCT_INLINE_LAMBDA {
      see_bits(std::bit_cast<Bits>(lane(x, l)) & kMagnitude);
    });
  }
  DELTADCT_HD DELTADCT_INLINE void see(const Magnitudes& others) noexcept {
    see_bits(others.greatest_);
  }
  DELTADCT_HD DELTADCT_INLINE bool are_finite() const noexcept {
    return greatest_ < std::bit_cast<Bits>(std::numeric_limits<T>::infinity());
  }
  DELTADCT_HD DELTADCT_INLINE bool are_zero() const noexcept { return greatest_ == 0; }

 private:
  static constexpr Bits kMagnitude = static_cast<Bits>(~Bits{0}) >> 1;

  DELTADCT_HD DELTADCT_INLINE void see_bits(Bits magnitude) noexcept {
    greatest_ = greatest_ < magnitude ? magnitude : greatest_;
  }

  Bits greatest_;  // no default value, because blocks share values of this type
};

/// Keeps the least of the values that threads of all blocks pass.
DELTADCT_HD DELTADCT_INLINE void keep_least(std::uint32_t* least, std::uint32_t value) noexcept {
#if defined(__CUDA_ARCH__)
  atomicMin(least, value);
#else
  if (value < *least) *least = value;
#endif
}

template <class V>
DELTADCT_HD DELTADCT_INLINE typename Lanes<V>::scalar sum_lanes(V x) noexcept {
  auto sum = lane(x, 0);
  for (int l = 1; l < Lanes<V>::count; ++l) sum = sum + lane(x, l);
  return sum;
}

/// A thread's part of a sum of squares.
template <class V, int P>
DELTADCT_HD DELTADCT_INLINE typename Lanes<V>::scalar sum_of_squares(const V (&x)[P]) noexcept {
  V sum(typename Lanes<V>::scalar(0));
  repeat<P>([&](int k) DELTADCT_INLINE_LAMBDA { sum = sum + x[k] * x[k]; });
  return sum_lanes(sum);
}

/// The least and the greatest of a thread's values, or both infinities if a value is not finite.
template <class V, int P>
DELTADCT_HD DELTADCT_INLINE Part<typename Lanes<V>::scalar> range_of(const V (&x)[P]) noexcept {
  using T = typename Lanes<V>::scalar;
  V least = x[0];
  V greatest = x[0];
  Magnitudes<T> magnitudes{};
  repeat<P>([&](int k) DELTADCT_INLINE_LAMBDA {
    least = Lanes<V>::min(least, x[k]);
    greatest = Lanes<V>::max(greatest, x[k]);
    magnitudes.see(x[k]);
  });
  Part<T> range{lane(least, 0), lane(greatest, 0)};
  for (int l = 1; l < Lanes<V>::count; ++l) {
    range.a = Lanes<T>::min(range.a, lane(least, l));
    range.b = Lanes<T>::max(range.b, lane(greatest, l));
  }
  constexpr T infinity = std::numeric_limits<T>::infinity();
  return magnitudes.are_finite() ? range : Part<T>{-infinity, infinity};
}

/// The range of a patch from the parts of its threads.
template <class T>
DELTADCT_HD DELTADCT_INLINE Part<T> join_ranges(const Part<T>* parts, int threads) noexcept {
  Part<T> range = parts[0];
  for (int t = 1; t < threads; ++t) {
    range.a = Lanes<T>::min(range.a, parts[t].a);
    range.b = Lanes<T>::max(range.b, parts[t].b);
  }
  return range;
}

/// Stores the columns of thread t where all threads of the patch can read them, in the order of the
/// codes.
template <class T, class V, int P>
DELTADCT_HD DELTADCT_INLINE void lay_down(int t, const V (&x)[P], T* coefficients) noexcept {
  repeat<P>([&](int k) DELTADCT_INLINE_LAMBDA {
    for (int l = 0; l < Lanes<V>::count; ++l) {
      coefficients[k * P + PatchThreads<T, P>::coefficient_column(t, l)] = lane(x[k], l);
    }
  });
}

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
