// What README.md's blocks of C++ take for granted.
#pragma once

#include <cstddef>

extern const deltadct::bfloat16* base_ptr;
extern const deltadct::bfloat16* tuned_ptr;
extern deltadct::bfloat16* weights_ptr;
extern std::size_t rows, cols, row, col;
extern deltadct::MatrixView<deltadct::bfloat16> slice;
extern const deltadct::DeltaCodec<deltadct::UnitGainPolicy<deltadct::bfloat16, 32>> codec;
extern deltadct::MatrixView<deltadct::bfloat16> live;
extern const deltadct::CompressedTensor delta;

using MyScorer = deltadct::L2Norm;
using Policy = deltadct::UnitGainPolicy<deltadct::bfloat16, 32>;

#if __has_include(<cuda_runtime_api.h>)
extern cudaStream_t stream;
#endif
extern std::span<std::byte> device_memory;
extern deltadct::MatrixView<deltadct::bfloat16> device_weights;
