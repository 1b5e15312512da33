// A patch size that no codec has is refused, with a message that lists the valid ones.
// expect: P must be 4, 8, 12, 16, 32 or 64
#include <deltadct/codec.hpp>

#if defined(DELTADCT_MUST_FAIL)
using Policy = deltadct::DefaultPolicy<float, 7>;
#else
using Policy = deltadct::DefaultPolicy<float, 8>;
#endif

const deltadct::DeltaCodec<Policy> codec;
