// Decoding into constant elements is refused.
// expect: const
#include <deltadct/codec.hpp>

#if defined(DELTADCT_MUST_FAIL)
using Value = const float;
#else
using Value = float;
#endif

void decode(const deltadct::CompressedTensor& compressed, Value* out) {
  const deltadct::DeltaCodec<deltadct::DefaultPolicy<float, 4>, deltadct::Serial> codec;
  codec.decode(compressed, deltadct::MatrixView<Value>(out, 4, 4));
}
