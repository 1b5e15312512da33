// The one file of the engine that nvcc compiles: the kernels of its policy for its type of element.
#include "policy.hpp"

template struct deltadct::CudaKernels<EnginePolicy, deltadct::bfloat16>;
