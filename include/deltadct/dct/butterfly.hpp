// The DCT of N points in registers, written once for float, double, SIMD batches and device
// registers.
//
// The scaling lets one factor 1/P serve the whole 2-D transform: forward() multiplies by
// S = sqrt(N) C, inverse() by its transpose, where C is the orthonormal DCT-II. Lee's algorithm
// splits a transform of N points into two of N/2 (B.G. Lee, "A new algorithm to compute the
// discrete cosine transform", 1984):
//
//     a[i] =  x[i] + x[N-1-i]                              S x [2k]   = (S a)[k]
//     b[i] = (x[i] - x[N-1-i]) / (2 cos(pi (2i+1) / 2N))   S x [2k+1] = (S b)[k] + (S b)[k+1]
//
// Here (S b)[0] is multiplied by sqrt(2), because its row lacks the sqrt(2) of the others, and
// (S b)[N/2] is 0. The inverse is the same graph with every arrow reversed. An odd number of points
// is transformed by the definition.
#pragma once

#include <deltadct/core/lanes.hpp>
#include <deltadct/core/repeat.hpp>
#include <deltadct/dct/cosine.hpp>

#include <numbers>

namespace deltadct { inline namespace DELTADCT_ABI {

/// The patch sizes of codecs: powers of two, and 12. Butterflies transform all of them fast.
DELTADCT_HD constexpr bool is_patch_size(int p) noexcept {
  return p == 4 || p == 8 || p == 12 || p == 16 || p == 32 || p == 64;
}

/// The patch sizes that can be transformed.
DELTADCT_HD constexpr bool is_transform_size(int p) noexcept {
  return p >= 2 && p <= 64;
}

namespace detail {

// Transforms of up to this many points run in registers.
inline constexpr int kRegisterPoints = 16;

template <class V>
DELTADCT_HD DELTADCT_INLINE constexpr V constant(double value) {
  return V(static_cast<typename Lanes<V>::scalar>(value));
}

inline constexpr double kSqrt2 = std::numbers::sqrt2;
inline constexpr double kSqrtHalf = 0.5 * std::numbers::sqrt2;
inline constexpr double kSqrtThreeHalves = std::numbers::sqrt3 * kSqrtHalf;

template <class V>
DELTADCT_HD DELTADCT_INLINE constexpr void both2(V (&x)[2]) {
  const V difference = x[0] - x[1];
  x[0] = x[0] + x[1];
  x[1] = difference;
}

template <class V>
DELTADCT_HD DELTADCT_INLINE constexpr void forward3(V (&x)[3]) {
  const V sum = x[0] + x[2];
  const V middle = x[1];
  x[1] = (x[0] - x[2]) * constant<V>(kSqrtThreeHalves);
  x[2] = sum * constant<V>(kSqrtHalf) - middle * constant<V>(kSqrt2);
  x[0] = sum + middle;
}

template <class V>
DELTADCT_HD DELTADCT_INLINE constexpr void inverse3(V (&x)[3]) {
  const V even = x[0] + x[2] * constant<V>(kSqrtHalf);
  const V odd = x[1] * constant<V>(kSqrtThreeHalves);
  x[1] = x[0] - x[2] * constant<V>(kSqrt2);
  x[0] = even + odd;
  x[2] = even - odd;
}

// Replaces x by S x, or by S^T x, as a product with the matrix.
template <bool Transposed, int N, class V>
DELTADCT_HD constexpr void by_definition(V (&x)[N]) {
  constexpr auto matrix = dct_table<N, typename Lanes<V>::scalar, true>();
  V sum[N];
  for (int a = 0; a < N; ++a) {
    sum[a] = V(matrix[static_cast<unsigned>(Transposed ? a : a * N)]) * x[0];
    for (int b = 1; b < N; ++b) {
      sum[a] = sum[a] + V(matrix[static_cast<unsigned>(Transposed ? b * N + a : a * N + b)]) * x[b];
    }
  }
  for (int a = 0; a < N; ++a) x[a] = sum[a];
}

// Replaces x by S x; inverse_registers() replaces it by S^T x. Both work in registers.
template <int N, class V>
DELTADCT_HD DELTADCT_INLINE constexpr void forward_registers(V (&x)[N]) {
  if constexpr (N == 2) {
    both2(x);
  } else if constexpr (N == 3) {
    forward3(x);
  } else if constexpr (N % 2 != 0) {
    by_definition<false>(x);
  } else {
    constexpr auto secants = half_secants<N, typename Lanes<V>::scalar>();
    constexpr int half = N / 2;
    V even[half];
    V odd[half];
    repeat<half>([&](int i) DELTADCT_INLINE_LAMBDA {
      even[i] = x[i] + x[N - 1 - i];
      odd[i] = (x[i] - x[N - 1 - i]) * V(secants[static_cast<unsigned>(i)]);
    });
    forward_registers<half, V>(even);
    forward_registers<half, V>(odd);
    odd[0] = odd[0] * constant<V>(kSqrt2);
    repeat<half - 1>([&](int i) DELTADCT_INLINE_LAMBDA {
      x[2 * i] = even[i];
      x[2 * i + 1] = odd[i] + odd[i + 1];
    });
    x[N - 2] = even[half - 1];
    x[N - 1] = odd[half - 1];
  }
}

template <int N, class V>
DELTADCT_HD DELTADCT_INLINE constexpr void inverse_registers(V (&x)[N]) {
  if constexpr (N == 2) {
    both2(x);
  } else if constexpr (N == 3) {
    inverse3(x);
  } else if constexpr (N % 2 != 0) {
    by_definition<true>(x);
  } else {
    constexpr auto secants = half_secants<N, typename Lanes<V>::scalar>();
    constexpr int half = N / 2;
    V even[half];
    V odd[half];
    even[0] = x[0];
    odd[0] = x[1] * constant<V>(kSqrt2);
    repeat<half - 1>([&](int i) DELTADCT_INLINE_LAMBDA {
      even[i + 1] = x[2 * i + 2];
      odd[i + 1] = x[2 * i + 3] + x[2 * i + 1];
    });
    inverse_registers<half, V>(even);
    inverse_registers<half, V>(odd);
    repeat<half>([&](int i) DELTADCT_INLINE_LAMBDA {
      const V difference = odd[i] * V(secants[static_cast<unsigned>(i)]);
      x[i] = even[i] + difference;
      x[N - 1 - i] = even[i] - difference;
    });
  }
}

}  // namespace detail

/// Calls out(k, (S x)[k]) for all k, where x[i] = load(i) and S is sqrt(N) times the orthonormal
/// DCT-II. N is at most 64. load and out may be called in any order, and load more than once.
template <int N, class V, class Load, class Out>
DELTADCT_HD DELTADCT_INLINE constexpr void forward(const Load& load, const Out& out);

/// Calls out(i, (S^T x)[i]) for all i, where x[k] = load(k). The inverse of the forward result is
/// N x.
template <int N, class V, class Load, class Out>
DELTADCT_HD DELTADCT_INLINE constexpr void inverse(const Load& load, const Out& out);

namespace detail {

template <int N, class V>
DELTADCT_HD DELTADCT_NOINLINE constexpr void forward_outline(const V* from, V* to) {
  forward<N, V>([=](int i) DELTADCT_INLINE_LAMBDA { return from[i]; },
                [=](int k, V x) DELTADCT_INLINE_LAMBDA { to[k] = x; });
}

template <int N, class V, class Load>
DELTADCT_HD DELTADCT_NOINLINE constexpr void inverse_outline(const Load& load, V* to) {
  inverse<N, V>(load, [=](int i, V x) DELTADCT_INLINE_LAMBDA { to[i] = x; });
}

}  // namespace detail

// A transform of more points than registers hold is split into two halves. Each half computes its
// inputs while it loads them, so that values pass through the cache once. Beyond 32 points, one
// half is not inlined, to spare the instruction cache.

template <int N, class V, class Load, class Out>
DELTADCT_HD DELTADCT_INLINE constexpr void forward(const Load& load, const Out& out) {
  if constexpr (N <= detail::kRegisterPoints || N % 2 != 0) {
    V x[N];
    repeat<N>([&](int i) DELTADCT_INLINE_LAMBDA { x[i] = load(i); });
    detail::forward_registers<N, V>(x);
    repeat<N>([&](int k) DELTADCT_INLINE_LAMBDA { out(k, x[k]); });
  } else {
    constexpr auto secants = half_secants<N, typename Lanes<V>::scalar>();
    constexpr int half = N / 2;
    const auto even = [&](int i) DELTADCT_INLINE_LAMBDA { return load(i) + load(N - 1 - i); };
    const auto odd = [&](int i) DELTADCT_INLINE_LAMBDA {
      return (load(i) - load(N - 1 - i)) * V(secants[static_cast<unsigned>(i)]);
    };
    V odds[half];
    if constexpr (half <= detail::kRegisterPoints) {
      forward<half, V>(even, [&](int k, V x) DELTADCT_INLINE_LAMBDA { out(2 * k, x); });
      forward<half, V>(odd, [&](int k, V x) DELTADCT_INLINE_LAMBDA { odds[k] = x; });
    } else {
      // Otherwise the halves of each half would compute these again and again.
      V sums[half];
      V differences[half];
      repeat<half>([&](int i) DELTADCT_INLINE_LAMBDA {
        sums[i] = even(i);
        differences[i] = odd(i);
      });
      detail::forward_outline<half, V>(differences, odds);
      forward<half, V>([&](int i) DELTADCT_INLINE_LAMBDA { return sums[i]; },
                       [&](int k, V x) DELTADCT_INLINE_LAMBDA { out(2 * k, x); });
    }
    odds[0] = odds[0] * detail::constant<V>(detail::kSqrt2);
    repeat<half - 1>([&](int k) DELTADCT_INLINE_LAMBDA { out(2 * k + 1, odds[k] + odds[k + 1]); });
    out(N - 1, odds[half - 1]);
  }
}

template <int N, class V, class Load, class Out>
DELTADCT_HD DELTADCT_INLINE constexpr void inverse(const Load& load, const Out& out) {
  if constexpr (N <= detail::kRegisterPoints || N % 2 != 0) {
    V x[N];
    repeat<N>([&](int k) DELTADCT_INLINE_LAMBDA { x[k] = load(k); });
    detail::inverse_registers<N, V>(x);
    repeat<N>([&](int i) DELTADCT_INLINE_LAMBDA { out(i, x[i]); });
  } else {
    constexpr auto secants = half_secants<N, typename Lanes<V>::scalar>();
    constexpr int half = N / 2;
    V even[half];
    const auto load_even = [&](int k) DELTADCT_INLINE_LAMBDA { return load(2 * k); };
    const auto load_odd = [&](int k) DELTADCT_INLINE_LAMBDA {
      return k == 0 ? load(1) * detail::constant<V>(detail::kSqrt2)
                    : load(2 * k + 1) + load(2 * k - 1);
    };
    if constexpr (half <= detail::kRegisterPoints)
      inverse<half, V>(load_even, [&](int i, V x) DELTADCT_INLINE_LAMBDA { even[i] = x; });
    else
      detail::inverse_outline<half, V>(load_even, even);
    inverse<half, V>(load_odd, [&](int i, V x) DELTADCT_INLINE_LAMBDA {
      const V difference = x * V(secants[static_cast<unsigned>(i)]);
      const V sum = even[i];
      out(i, sum + difference);
      out(N - 1 - i, sum - difference);
    });
  }
}

}}  // namespace deltadct::inline DELTADCT_ABI
