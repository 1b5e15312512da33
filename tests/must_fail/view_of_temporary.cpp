// A view of a temporary tensor is refused.
// expect: deleted
#include <deltadct/codec.hpp>

deltadct::PatchPlace first_place(deltadct::MatrixView<const float> delta) {
  const deltadct::DeltaCodec<deltadct::DefaultPolicy<float, 4>, deltadct::Serial> codec;
#if defined(DELTADCT_MUST_FAIL)
  const deltadct::CompressedView view = codec.encode(delta);
#else
  const deltadct::CompressedTensor tensor = codec.encode(delta);
  const deltadct::CompressedView view = tensor;
#endif
  return view.places[0];
}
