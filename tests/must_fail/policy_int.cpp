// A policy for matrices of integers is refused.
// expect: Element
#include <deltadct/codec.hpp>

#if defined(DELTADCT_MUST_FAIL)
using Value = int;
#else
using Value = deltadct::half;
#endif

const deltadct::DeltaCodec<deltadct::DefaultPolicy<Value, 4>, deltadct::Serial> codec;
