// A scorer that cannot be called with a patch is refused as a Scorer.
// expect: Scorer
#include <deltadct/codec.hpp>

struct Sum {
  template <int P, class T>
#if defined(DELTADCT_MUST_FAIL)
  T score(std::span<const T, static_cast<std::size_t>(P) * P> patch) const {
#else
  T operator()(std::span<const T, static_cast<std::size_t>(P) * P> patch) const {
#endif
      T sum = 0;
  for (const T x : patch) sum += x;
  return sum;
}
}
;

struct Policy : deltadct::DefaultPolicy<float, 4> {
  using Scorer = Sum;
};

const deltadct::DeltaCodec<Policy, deltadct::Serial> codec;
