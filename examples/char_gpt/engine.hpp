// How an inference engine uses deltadct: a base loaded once, deltas added from archives.
#pragma once

#include "gpt.hpp"

#include <deltadct/codec.hpp>
#include <deltadct/io/archive.hpp>
#include <deltadct/openmp.hpp>

#include <string>
#include <vector>

namespace char_gpt {

/// Reads every tensor of a safetensors file into float matrices.
Weights load_weights(const std::string& path);

/// Puts the bytes of a vector that an archive kept without loss into a matrix of floats.
void assign(Matrix& matrix, deltadct::DType dtype, std::span<const std::byte> bytes);

/// Throws wrong_base, naming the tensor, unless the archive was made from this base.
void require_base(const deltadct::io::Model& base, const deltadct::io::DeltaArchive& archive);

/// A tensor that the archive keeps without loss, relative to the base's.
std::vector<std::byte> lossless_bytes(const deltadct::io::Model& base,
                                      const deltadct::io::DeltaArchive& archive,
                                      const deltadct::io::ManifestEntry& entry);

inline deltadct::MatrixView<float> view(Matrix& m) {
  return {m.data(), static_cast<std::size_t>(m.rows()), static_cast<std::size_t>(m.cols())};
}
inline deltadct::MatrixView<const float> view(const Matrix& m) {
  return {m.data(), static_cast<std::size_t>(m.rows()), static_cast<std::size_t>(m.cols())};
}

/// live = base + the archive's deltas, in float; other tensors as the archive keeps them. Policy is
/// the one the archive was made with; base_path is the file that `base` was loaded from.
template <class Policy>
void apply_archive(const std::string& path, const std::string& base_path, const Weights& base,
                   Weights& live) {
  namespace io = deltadct::io;
  const auto base_model = io::Model::open(base_path);
  const auto archive = io::DeltaArchive::open(path);
  require_base(base_model, archive);
  const deltadct::DeltaCodec<Policy> codec;
  for (const auto& entry : archive.entries()) {
    const Matrix& from = base.at(entry.name);
    Matrix& to = live.at(entry.name);
    if (entry.mode == io::Mode::delta) {
      const auto delta = archive.delta(entry);
      codec.decode_add(delta.view(), view(from), view(to), 1.0, deltadct::OpenMpExecutor{});
    } else if (entry.mode == io::Mode::same) {
      to = from;
    } else {
      assign(to, entry.dtype, lossless_bytes(base_model, archive, entry));
    }
  }
}

}  // namespace char_gpt
