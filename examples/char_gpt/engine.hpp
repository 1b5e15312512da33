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
void require_base(const deltadct::io::SafetensorsFile& base, const std::string& archive_path);

inline deltadct::MatrixView<float> view(Matrix& m) {
  return {m.data(), static_cast<std::size_t>(m.rows()), static_cast<std::size_t>(m.cols())};
}
inline deltadct::MatrixView<const float> view(const Matrix& m) {
  return {m.data(), static_cast<std::size_t>(m.rows()), static_cast<std::size_t>(m.cols())};
}

/// live = base + the archive's deltas, in float. Policy is the one the archive was made with;
/// base_path is the file that `base` was loaded from.
template <class Policy>
void apply_archive(const std::string& path, const std::string& base_path, const Weights& base,
                   Weights& live) {
  require_base(deltadct::io::SafetensorsFile::open(base_path), path);
  const auto archive = deltadct::io::DeltaArchive::open(path);
  const deltadct::DeltaCodec<Policy> codec;
  for (const auto& entry : archive.entries()) {
    const Matrix& from = base.at(entry.name);
    Matrix& to = live.at(entry.name);
    std::vector<std::byte> storage;
    switch (entry.mode) {
      case deltadct::io::Mode::delta: {
        const auto delta = archive.delta(entry);
        codec.decode_add(delta.view(), view(from), view(to), 1.0, deltadct::OpenMpExecutor{});
        break;
      }
      case deltadct::io::Mode::raw:
        assign(to, entry.dtype, archive.raw(entry, storage));
        break;
      case deltadct::io::Mode::same:
        to = from;
        break;
    }
  }
}

}  // namespace char_gpt
