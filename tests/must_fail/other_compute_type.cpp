// A policy of double refuses a view of half, with a readable message.
// expect: compute type of the policy
#include <deltadct/codec.hpp>

#if defined(DELTADCT_MUST_FAIL)
using Value = deltadct::half;
#else
using Value = double;
#endif

void add(const deltadct::CompressedTensor& compressed, Value* weights) {
  const deltadct::DeltaCodec<deltadct::DefaultPolicy<double, 4>, deltadct::Serial> codec;
  codec.decode_add(compressed, deltadct::MatrixView<Value>(weights, 4, 4));
}
