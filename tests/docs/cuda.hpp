// What the blocks of C++ of docs/cuda.md take for granted.
#pragma once

#include <cstddef>

extern const deltadct::CompressedTensor compressed;
extern std::span<std::byte> memory, workspace;
extern cudaStream_t stream;
extern std::size_t row, col;
extern deltadct::MatrixView<float> weights, out, slice;
extern deltadct::MatrixView<const float> base, tuned;
