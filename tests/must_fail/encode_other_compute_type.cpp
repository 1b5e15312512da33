// A policy of double refuses to encode a view of half, with a readable message.
// expect: compute type of the policy
#include <deltadct/codec.hpp>

#if defined(DELTADCT_MUST_FAIL)
using Value = deltadct::half;
#else
using Value = double;
#endif

void encode(Value* values) {
  const deltadct::DeltaCodec<deltadct::DefaultPolicy<double, 4>, deltadct::Serial> codec;
  codec.encode(deltadct::MatrixView<Value>(values, 4, 4));
}
