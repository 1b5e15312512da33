// A matrix of integers is refused: the codec computes in float or double.
// expect: Element
#include <deltadct/codec.hpp>

#if defined(DELTADCT_MUST_FAIL)
using Value = int;
#else
using Value = float;
#endif

void encode(Value* values) {
  const deltadct::DeltaCodec<deltadct::DefaultPolicy<float, 4>, deltadct::Serial> codec;
  codec.encode(deltadct::MatrixView<Value>(values, 4, 4));
}
