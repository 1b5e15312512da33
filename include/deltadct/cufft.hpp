// Opt-in: the cuFFT backend. Needs the CUDA Toolkit (link cudart and cufft). Files that launch
// kernels must be compiled by nvcc, with --expt-relaxed-constexpr.
#pragma once

#include <deltadct/backend/cufft/cufft.hpp>
