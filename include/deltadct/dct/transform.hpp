// The transform of a patch as a policy: the 2-D DCT of the paper, or the identity of its ablation.
//
// A transform moves a patch from a source to a sink, both indexed by one number s:
//   spatial side:      s = row * P + column
//   coefficient side:  s = k_column * P + k_row    (transposed: one transpose fewer on the way)
// source.template load<V>(s) yields, sink.template store<V>(s, v) takes the Lanes<V>::count values
// from s on. So dequantize, inverse transform and whatever the sink does are one pass.
#pragma once

#include <deltadct/dct/butterfly.hpp>

#include <string_view>

namespace deltadct::inline DELTADCT_ABI {

namespace detail {

// Applies a 1-D transform to the columns, transposes, applies it to the columns again.
template <int P, class V, class Butterfly, class Source, class Sink>
DELTADCT_HD DELTADCT_INLINE void separable(Butterfly butterfly, const Source& source,
                                           const Sink& sink) {
  constexpr int lanes = Lanes<V>::count;
  constexpr int groups = P / lanes;
  constexpr bool unrolled = P <= 16 && groups <= 4;
  static_assert(P % lanes == 0, "a column group must fill the register");
  alignas(64) typename Lanes<V>::scalar turned[P * P];
  const auto load_and_turn = [&](int group) DELTADCT_INLINE_LAMBDA {
    const int c = group * lanes;
    V x[P];
    repeat<P>([&](int j) DELTADCT_INLINE_LAMBDA { x[j] = source.template load<V>(j * P + c); });
    butterfly(x);
    repeat<groups, unrolled>([&](int g) DELTADCT_INLINE_LAMBDA {
      V tile[lanes];
      repeat<lanes>([&](int i) DELTADCT_INLINE_LAMBDA { tile[i] = x[g * lanes + i]; });
      Lanes<V>::transpose(tile);
      repeat<lanes>([&](int i) DELTADCT_INLINE_LAMBDA {
        Lanes<V>::store(turned + (c + i) * P + g * lanes, tile[i]);
      });
    });
  };
  const auto finish = [&](int group) DELTADCT_INLINE_LAMBDA {
    const int c = group * lanes;
    V x[P];
    repeat<P>([&](int j) DELTADCT_INLINE_LAMBDA { x[j] = Lanes<V>::load(turned + j * P + c); });
    butterfly(x);
    repeat<P>([&](int j) DELTADCT_INLINE_LAMBDA { sink.template store<V>(j * P + c, x[j]); });
  };
  repeat<groups, unrolled>(load_and_turn);
  repeat<groups, unrolled>(finish);
}

}  // namespace detail

/// The orthonormal 2-D DCT-II (paper, section 3.2), times gain<P>.
struct Dct {
  static constexpr std::string_view name = "dct";

  /// forward() yields gain times the orthonormal coefficients; inverse() of orthonormal
  /// coefficients yields gain times the patch. Whoever quantizes divides by it for free.
  template <int P>
  static constexpr int gain = P;

  template <int P, class V, class Source, class Sink>
  DELTADCT_HD DELTADCT_INLINE static void forward(const Source& source, const Sink& sink) {
    detail::separable<P, V>([](V(&x)[P]) DELTADCT_INLINE_LAMBDA { deltadct::forward<P, V>(x); },
                            source, sink);
  }

  template <int P, class V, class Source, class Sink>
  DELTADCT_HD DELTADCT_INLINE static void inverse(const Source& source, const Sink& sink) {
    detail::separable<P, V>([](V(&x)[P]) DELTADCT_INLINE_LAMBDA { deltadct::inverse<P, V>(x); },
                            source, sink);
  }
};

/// No transform: weights are quantized as they are (the paper's ablation "without DCT"). Here both
/// sides are indexed by row * P + column.
struct Identity {
  static constexpr std::string_view name = "identity";

  template <int P>
  static constexpr int gain = 1;

  template <int P, class V, class Source, class Sink>
  DELTADCT_HD DELTADCT_INLINE static void forward(const Source& source, const Sink& sink) {
    for (int s = 0; s < P * P; s += Lanes<V>::count) {
      sink.template store<V>(s, source.template load<V>(s));
    }
  }

  template <int P, class V, class Source, class Sink>
  DELTADCT_HD DELTADCT_INLINE static void inverse(const Source& source, const Sink& sink) {
    forward<P, V>(source, sink);
  }
};

}  // namespace deltadct::inline DELTADCT_ABI
