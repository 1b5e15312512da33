// A transform without an inverse is refused as a Transform.
// expect: Transform
#include <deltadct/codec.hpp>

struct OneWay : deltadct::Identity {
#if defined(DELTADCT_MUST_FAIL)
  template <int P, class V, class Source, class Sink>
  static void inverse(const Source&, const Sink&) = delete;
#endif
};

struct Policy : deltadct::DefaultPolicy<float, 4> {
  using Transform = OneWay;
};

const deltadct::DeltaCodec<Policy, deltadct::Serial> codec;
