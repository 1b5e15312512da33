// How an inference engine uses deltadct: it loads a base once and adds deltas from archives.
#pragma once

#include "gpt.hpp"

#include <deltadct/baseline/any_baseline.hpp>
#include <deltadct/core/dtype.hpp>

#include <span>
#include <string>

namespace char_gpt {

/// Reads every tensor of a safetensors file into float matrices.
Weights load_weights(const std::string& path);

/// Converts the bytes of a tensor that an archive kept without loss into a matrix of floats.
void assign(Matrix& matrix, deltadct::DType dtype, std::span<const std::byte> bytes);

/// Settings for compressing, and a factory for the codecs that decode the result.
struct Codec {
  deltadct::CodecSpec spec;
  deltadct::CodecFactory make;
};

/// The codec of a spec with patches, and that of a baseline.
Codec codec_of(deltadct::CodecSpec spec);
Codec codec_of(const deltadct::AnyBaseline& baseline);

/// The unit-gain codec, with patches of P x P.
Codec unit_gain(int patch, deltadct::AnyAllocator allocator);

/// live = base + the archive's deltas, in float; other tensors are as the archive keeps them.
/// `codecs` must make codecs that compute in float; base_path is the file that `base` was loaded
/// from.
void apply_archive(const std::string& path, const std::string& base_path, const Weights& base,
                   Weights& live, const deltadct::CodecFactory& codecs);

}  // namespace char_gpt
