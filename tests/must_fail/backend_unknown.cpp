// A type for which DctKernel is not specialised is refused as a Backend.
// expect: Backend
#include <deltadct/codec.hpp>

#if defined(DELTADCT_MUST_FAIL)
struct MyBackend {};
#else
using MyBackend = deltadct::Serial;
#endif

const deltadct::DeltaCodec<deltadct::DefaultPolicy<float, 4>, MyBackend> codec;
