// A view of half is refused by a policy of double, in words.
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
