// A quantizer whose codes cannot be decoded is refused as a Quantizer.
// expect: Quantizer
#include <deltadct/codec.hpp>

template <int Bits>
struct Lossy : deltadct::MinMax<Bits> {
#if defined(DELTADCT_MUST_FAIL)
  template <class V>
  struct Decoder {};
#endif
};
template <>
struct Lossy<0> : deltadct::MinMax<0> {};

struct Policy : deltadct::DefaultPolicy<float, 4> {
  template <int Bits>
  using Quantizer = Lossy<Bits>;
};

const deltadct::DeltaCodec<Policy, deltadct::Serial> codec;
