// The transform of a patch as a policy: the 2-D DCT of the paper, or the identity of its ablation.
//
// A transform moves a patch from a source to a sink, both indexed by two numbers:
//   spatial side:      (row, column)
//   coefficient side:  (k_column, k_row)    (transposed: one transpose fewer on the way)
// source.template load<V>(i, j) yields, sink.template store<V>(i, j, v) takes the Lanes<V>::count
// values from (i, j) on. So dequantize, inverse transform and whatever the sink does are one pass.
#pragma once

#include <deltadct/dct/butterfly.hpp>

#include <string_view>
#include <type_traits>

namespace deltadct::inline DELTADCT_ABI {

/// Reads the values of a patch from rows of Stride values; their addresses need no alignment.
template <class T, int Stride>
struct ArraySource {
  const T* from;

  template <class V>
  DELTADCT_INLINE V load(int i, int j) const noexcept {
    return Lanes<V>::load_elements(from + i * Stride + j);
  }
};

/// Writes the values of a patch to rows of Stride values.
template <class T, int Stride>
struct ArraySink {
  T* to;

  template <class V>
  DELTADCT_INLINE void store(int i, int j, V x) const noexcept {
    Lanes<V>::store_elements(to + i * Stride + j, x);
  }
};

/// The same, times a factor.
template <class T, int Stride>
struct ScaledSink {
  T* to;
  T factor;

  template <class V>
  DELTADCT_INLINE void store(int i, int j, V x) const noexcept {
    Lanes<V>::store_elements(to + i * Stride + j, x * V(factor));
  }
};

namespace detail {

// The columns of a patch in groups that fill registers: of V, whose lanes divide P, or, where all
// columns but the last V are as many as lanes of registers twice as wide, of those and one V.
template <int P, class V>
struct ColumnGroups {
  using Narrow = V;
  static constexpr int lanes = Lanes<V>::count;
  static_assert(P % lanes == 0, "a column group must fill the register");
  using Double = typename Lanes<V>::Double;
  static constexpr bool mixed =
      !std::is_void_v<Double> && P % (2 * lanes) == lanes && P > 2 * lanes;
  using Wide = std::conditional_t<mixed, Double, V>;
  static constexpr int wide_lanes = mixed ? 2 * lanes : lanes;
  static constexpr int groups = P / wide_lanes;

  /// fn.operator()<X>(c) for every group, of X, from column c on.
  template <class Fn>
  static DELTADCT_INLINE void for_each(Fn fn) {
    for (int c = 0; c < groups * wide_lanes; c += wide_lanes) fn.template operator()<Wide>(c);
    if constexpr (mixed) fn.template operator()<V>(P - lanes);
  }
};

// Writes P values of some columns, one column a lane of x, as rows c, c + 1, ... of `turned`. Each
// is written as it will be read, by Groups: a load that spans two stores would wait for both.
template <class Groups, int P, class X, class T>
DELTADCT_INLINE void turn_columns(const X (&x)[P], int c, T* turned) {
  using V = typename Groups::Narrow;
  constexpr int n = Lanes<X>::count;
  const ArraySink<T, P> sink{turned};
  const auto block = [&](int k, X(&tile)[n]) DELTADCT_INLINE_LAMBDA {
    repeat<n>([&](int i) DELTADCT_INLINE_LAMBDA { tile[i] = x[k + i]; });
    Lanes<X>::transpose(tile);
  };
  const auto write = [&]<class Y, int N>(const Y(&tile)[N], int row, int k) DELTADCT_INLINE_LAMBDA {
    repeat<N>([&](int i) DELTADCT_INLINE_LAMBDA { sink.store(row + i, k, tile[i]); });
  };
  if constexpr (!Groups::mixed) {
    for (int k = 0; k < P; k += n) {
      X tile[n];
      block(k, tile);
      write(tile, c, k);
    }
  } else if constexpr (std::is_same_v<X, V>) {
    for (int k = 0; k + 2 * n <= P; k += 2 * n) {
      X left[n];
      X right[n];
      block(k, left);
      block(k + n, right);
      repeat<n>([&](int i) DELTADCT_INLINE_LAMBDA {
        sink.store(c + i, k, Lanes<X>::join(left[i], right[i]));
      });
    }
    X last[n];
    block(P - n, last);
    write(last, c, P - n);
  } else {
    for (int k = 0; k + n <= P; k += n) {
      X tile[n];
      block(k, tile);
      write(tile, c, k);
    }
    constexpr int half = n / 2;
    V low[half];
    V high[half];
    repeat<half>([&](int i) DELTADCT_INLINE_LAMBDA {
      low[i] = Lanes<V>::low(x[P - half + i]);
      high[i] = Lanes<V>::high(x[P - half + i]);
    });
    Lanes<V>::transpose(low);
    Lanes<V>::transpose(high);
    write(low, c, P - half);
    write(high, c + half, P - half);
  }
}

// Applies a 1-D transform to the columns, transposes, applies it to the columns again.
// columns.operator()<X>(load, out) transforms a group of columns, one a lane of X.
template <int P, class V, class Columns, class Source, class Sink>
DELTADCT_INLINE void separable(Columns columns, const Source& source, const Sink& sink) {
  using Groups = ColumnGroups<P, V>;
  using T = typename Lanes<V>::scalar;
  alignas(64) T turned[P * P];
  Groups::for_each([&]<class X>(int c) DELTADCT_INLINE_LAMBDA {
    X x[P];
    columns.template operator()<X>(
        [&](int j) DELTADCT_INLINE_LAMBDA { return source.template load<X>(j, c); },
        [&](int k, X value) DELTADCT_INLINE_LAMBDA { x[k] = value; });
    turn_columns<Groups>(x, c, turned);
  });
  Groups::for_each([&]<class X>(int c) DELTADCT_INLINE_LAMBDA {
    const ArraySource<T, P> rows{turned};
    columns.template operator()<X>(
        [&](int j) DELTADCT_INLINE_LAMBDA { return rows.template load<X>(j, c); },
        [&](int k, X value) DELTADCT_INLINE_LAMBDA { sink.store(k, c, value); });
  });
}

}  // namespace detail

/// The orthonormal 2-D DCT-II (paper, section 3.2), times gain<P>.
struct Dct {
  static constexpr std::string_view name = "dct";
  /// Products of patches are those of their coefficients, gain aside.
  static constexpr bool is_orthogonal = true;

  /// forward() yields gain times the orthonormal coefficients; inverse() of orthonormal
  /// coefficients yields gain times the patch. Whoever quantizes divides by it for free.
  template <int P>
  static constexpr int gain = P;

  template <int P, class V, class Source, class Sink>
  DELTADCT_INLINE static void forward(const Source& source, const Sink& sink) {
    detail::separable<P, V>([&]<class X>(const auto& load, const auto& out)
                                DELTADCT_INLINE_LAMBDA { deltadct::forward<P, X>(load, out); },
                            source, sink);
  }

  template <int P, class V, class Source, class Sink>
  DELTADCT_INLINE static void inverse(const Source& source, const Sink& sink) {
    detail::separable<P, V>([&]<class X>(const auto& load, const auto& out)
                                DELTADCT_INLINE_LAMBDA { deltadct::inverse<P, X>(load, out); },
                            source, sink);
  }
};

/// No transform: weights are quantized as they are (the paper's ablation "without DCT"). Here both
/// sides are indexed by (row, column).
struct Identity {
  static constexpr std::string_view name = "identity";
  static constexpr bool is_orthogonal = true;

  template <int P>
  static constexpr int gain = 1;

  template <int P, class V, class Source, class Sink>
  DELTADCT_INLINE static void forward(const Source& source, const Sink& sink) {
    for (int i = 0; i < P; ++i) {
      for (int j = 0; j < P; j += Lanes<V>::count) sink.store(i, j, source.template load<V>(i, j));
    }
  }

  template <int P, class V, class Source, class Sink>
  DELTADCT_INLINE static void inverse(const Source& source, const Sink& sink) {
    forward<P, V>(source, sink);
  }
};

}  // namespace deltadct::inline DELTADCT_ABI
