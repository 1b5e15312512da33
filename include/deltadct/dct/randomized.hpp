// The DCT of a patch whose signs were changed at random: weights that stand out, and structure that
// rows and columns share, spread over all coefficients, which then look like draws from a normal
// distribution whatever the patch. So does what quantization adds to the weights.
#pragma once

#include <deltadct/core/random.hpp>
#include <deltadct/dct/transform.hpp>

namespace deltadct::inline DELTADCT_ABI {

namespace detail {

/// A factor, 1 or -1, for each element of a P x P patch, row-major: -1 for column j of row i where
/// bit j of random number i is set.
template <class T, int P>
struct SignTable {
  alignas(64) T factor[P * P];

  constexpr SignTable() noexcept : factor{} {
    for (int i = 0; i < P; ++i) {
      const std::uint64_t signs = random_bits(0, static_cast<std::uint64_t>(i));
      for (int j = 0; j < P; ++j) factor[i * P + j] = (signs >> j & 1) == 0 ? T(1) : T(-1);
    }
  }
};
template <class T, int P>
inline constexpr SignTable<T, P> kSigns{};

template <int P, class V>
DELTADCT_INLINE V change_signs(V x, int i, int j) noexcept {
  using T = typename Lanes<V>::scalar;
  return x * Lanes<V>::load_elements(kSigns<T, P>.factor + i * P + j);
}

}  // namespace detail

/// A patch from a source, its signs changed.
template <int P, class Source>
struct SignedSource {
  const Source& source;

  template <class V>
  DELTADCT_INLINE V load(int i, int j) const noexcept {
    return detail::change_signs<P>(source.template load<V>(i, j), i, j);
  }
};

/// A patch to a sink, its signs changed.
template <int P, class Sink>
struct SignedSink {
  const Sink& sink;

  template <class V>
  DELTADCT_INLINE void store(int i, int j, V x) const noexcept {
    sink.store(i, j, detail::change_signs<P>(x, i, j));
  }
};

/// The DCT after a change of signs that is the same for all patches of a size.
struct RandomizedDct {
  static constexpr std::string_view name = "randomized_dct";
  static constexpr bool is_orthogonal = true;

  template <int P>
  static constexpr int gain = Dct::gain<P>;

  template <int P, class V, class Source, class Sink>
  DELTADCT_INLINE static void forward(const Source& source, const Sink& sink) {
    Dct::forward<P, V>(SignedSource<P, Source>{source}, sink);
  }

  template <int P, class V, class Source, class Sink>
  DELTADCT_INLINE static void inverse(const Source& source, const Sink& sink) {
    Dct::inverse<P, V>(source, SignedSink<P, Sink>{sink});
  }
};

}  // namespace deltadct::inline DELTADCT_ABI
