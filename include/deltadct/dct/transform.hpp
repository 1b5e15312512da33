// The transform of a patch as a policy: the paper's 2-D DCT, or the identity of its ablation.
//
// A transform moves a patch from a source to a sink. Both are indexed by two numbers:
//   spatial side:      (row, column)
//   coefficient side:  (k_column, k_row)    (transposed, which saves a transpose)
// source.template load<V>(i, j) returns the Lanes<V>::count values from (i, j) on; sink.template
// store<V>(i, j, v) takes them. So dequantizing, the inverse transform and the work of the sink
// form one pass.
//
// A custom transform can derive from MappedTransform; it then runs on every backend as fast as its
// base. Or it defines forward() and inverse() itself, DELTADCT_HD for devices; every thread of a
// patch then computes the whole patch there. Sources and sinks are DELTADCT_HD too, because nvcc
// compiles their callers for both sides.
#pragma once

#include <deltadct/dct/butterfly.hpp>

#include <string_view>
#include <type_traits>

namespace deltadct { inline namespace DELTADCT_ABI {

/// Reads the values of a patch from rows of Stride values. Addresses need no alignment.
template <class T, int Stride>
struct ArraySource {
  const T* from;

  template <class V>
  DELTADCT_HD DELTADCT_INLINE V load(int i, int j) const noexcept {
    return Lanes<V>::load_elements(from + i * Stride + j);
  }
};

/// Writes the values of a patch to rows of Stride values.
template <class T, int Stride>
struct ArraySink {
  T* to;

  template <class V>
  DELTADCT_HD DELTADCT_INLINE void store(int i, int j, V x) const noexcept {
    Lanes<V>::store_elements(to + i * Stride + j, x);
  }
};

/// The same, times a factor.
template <class T, int Stride>
struct ScaledSink {
  T* to;
  T factor;

  template <class V>
  DELTADCT_HD DELTADCT_INLINE void store(int i, int j, V x) const noexcept {
    Lanes<V>::store_elements(to + i * Stride + j, x * V(factor));
  }
};

namespace detail {

// The columns of a patch in groups that fill registers. Usually all groups are of V, whose lanes
// divide P. If all columns but one V's fill registers twice as wide, the groups are of those, and
// one of V.
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

  /// Calls fn.operator()<X>(c) for every group, where X is its type and c its first column.
  template <class Fn>
  static DELTADCT_INLINE void for_each(Fn fn) {
    for (int c = 0; c < groups * wide_lanes; c += wide_lanes) fn.template operator()<Wide>(c);
    if constexpr (mixed) fn.template operator()<V>(P - lanes);
  }
};

// Writes P values of some columns, one column per lane of x, as rows c, c + 1, ... of `transposed`.
// Stores are as wide as the later loads by Groups: a load that spans two stores would wait for
// both.
template <class Groups, int P, class X, class T>
DELTADCT_INLINE void transpose_columns(const X (&x)[P], int c, T* transposed) {
  using V = typename Groups::Narrow;
  constexpr int n = Lanes<X>::count;
  const ArraySink<T, P> sink{transposed};
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

// Applies a 1-D transform to the columns, transposes, and applies it to the columns again.
// columns.operator()<X>(load, out) transforms a group of columns, one per lane of X.
template <int P, class V, class Columns, class Source, class Sink>
DELTADCT_INLINE void separable(Columns columns, const Source& source, const Sink& sink) {
  using Groups = ColumnGroups<P, V>;
  using T = typename Lanes<V>::scalar;
  alignas(64) T transposed[P * P];
  Groups::for_each([&]<class X>(int c) DELTADCT_INLINE_LAMBDA {
    X x[P];
    columns.template operator()<X>(
        [&](int j) DELTADCT_INLINE_LAMBDA { return source.template load<X>(j, c); },
        [&](int k, X value) DELTADCT_INLINE_LAMBDA { x[k] = value; });
    transpose_columns<Groups>(x, c, transposed);
  });
  Groups::for_each([&]<class X>(int c) DELTADCT_INLINE_LAMBDA {
    const ArraySource<T, P> rows{transposed};
    columns.template operator()<X>(
        [&](int j) DELTADCT_INLINE_LAMBDA { return rows.template load<X>(j, c); },
        [&](int k, X value) DELTADCT_INLINE_LAMBDA { sink.store(k, c, value); });
  });
}

}  // namespace detail

/// The orthonormal 2-D DCT-II (paper, section 3.2), times gain<P>.
struct Dct {
  static constexpr std::string_view name = "dct";
  /// Products of patches equal those of their coefficients, apart from gain.
  static constexpr bool is_orthogonal = true;

  /// forward() gives gain times the orthonormal coefficients; inverse() of orthonormal coefficients
  /// gives gain times the patch. Quantizers divide by gain at no cost.
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

/// A source of a patch with its elements mapped.
template <class Transform, int P, class Source>
struct MappedSource {
  const Source& source;

  template <class V>
  DELTADCT_HD DELTADCT_INLINE V load(int i, int j) const noexcept {
    return Transform::template map<P>(source.template load<V>(i, j), i, j);
  }
};

/// A sink of a patch with its elements mapped.
template <class Transform, int P, class Sink>
struct MappedSink {
  const Sink& sink;

  template <class V>
  DELTADCT_HD DELTADCT_INLINE void store(int i, int j, V x) const noexcept {
    sink.store(i, j, Transform::template map<P>(x, i, j));
  }
};

/// A transform that maps the elements of a patch and then applies Base. Self has a name and
///   map<P>(V x, int i, int j) -> V   of row i, columns j, j + 1, ..., one per lane
/// which must be its own inverse and must not change magnitudes. Backends run the base.
template <class Self, class BaseTransform>
struct MappedTransform {
  using Base = BaseTransform;
  static constexpr bool is_orthogonal = Base::is_orthogonal;

  template <int P>
  static constexpr int gain = Base::template gain<P>;

  template <int P, class V, class Source, class Sink>
  DELTADCT_INLINE static void forward(const Source& source, const Sink& sink) {
    Base::template forward<P, V>(MappedSource<Self, P, Source>{source}, sink);
  }

  template <int P, class V, class Source, class Sink>
  DELTADCT_INLINE static void inverse(const Source& source, const Sink& sink) {
    Base::template inverse<P, V>(source, MappedSink<Self, P, Sink>{sink});
  }
};

namespace concepts {

template <class X>
concept MappedTransform = requires {
  typename X::Base;
};

/// forward() turns a patch into gain<P> times its coefficients, inverse() turns coefficients into
/// gain<P> times the patch, for P x P patches and values of V. The concept tests this with scalars
/// in arrays; codecs use any source and sink. If is_orthogonal exists and is true, products of
/// patches equal those of their coefficients, apart from gain. Archives store the name.
template <class X, class T, int P>
concept Transform = requires(const ArraySource<T, P>& source, const ArraySink<T, P>& sink) {
  { X::name } -> std::convertible_to<std::string_view>;
  { X::template gain<P> } -> std::convertible_to<int>;
  X::template forward<P, T>(source, sink);
  X::template inverse<P, T>(source, sink);
};

}  // namespace concepts

}}  // namespace deltadct::inline DELTADCT_ABI
