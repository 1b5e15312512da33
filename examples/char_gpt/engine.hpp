// How an inference engine uses deltadct: a base loaded once, deltas added from archives.
#pragma once

#include "gpt.hpp"

#include <deltadct/baseline/any_baseline.hpp>
#include <deltadct/core/dtype.hpp>

#include <span>
#include <string>

namespace char_gpt {

/// Reads every tensor of a safetensors file into float matrices.
Weights load_weights(const std::string& path);

/// Puts the bytes of a vector that an archive kept without loss into a matrix of floats.
void assign(Matrix& matrix, deltadct::DType dtype, std::span<const std::byte> bytes);

/// What compresses, and makes the codecs of what it compressed.
struct Codec {
  deltadct::CodecSpec spec;
  deltadct::CodecFactory make;
};

/// That of a spec with patches, and that of a baseline.
Codec codec_of(deltadct::CodecSpec spec);
Codec codec_of(const deltadct::AnyBaseline& baseline);

/// That of unit gain, in patches of P.
Codec unit_gain(int patch, deltadct::AnyAllocator allocator);

/// live = base + the archive's deltas, in float; other tensors as the archive keeps them. The
/// codecs are of float; base_path is the file that `base` was loaded from.
void apply_archive(const std::string& path, const std::string& base_path, const Weights& base,
                   Weights& live, const deltadct::CodecFactory& codecs);

}  // namespace char_gpt
