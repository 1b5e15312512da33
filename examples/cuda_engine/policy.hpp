// What the engine's deltas are compressed with.
#pragma once

#include <deltadct/cuda.hpp>

using EnginePolicy = deltadct::UnitGainPolicy<float, 32>;

// Compiled in kernels.cu.
extern template struct deltadct::CudaKernels<EnginePolicy, deltadct::bfloat16>;
