// The policy with which the engine's deltas are compressed.
#pragma once

#include <deltadct/cuda.hpp>

using EnginePolicy = deltadct::UnitGainPolicy<float, 32>;

// Compiled in kernels.cu.
extern template struct deltadct::CudaKernels<EnginePolicy, deltadct::bfloat16>;
