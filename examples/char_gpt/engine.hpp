// How an inference engine uses deltadct: a base loaded once, deltas added from archives.
#pragma once

#include "gpt.hpp"

#include <deltadct/any_codec.hpp>
#include <deltadct/io/restore.hpp>
#include <deltadct/openmp.hpp>

#include <memory>
#include <span>
#include <string>

namespace char_gpt {

/// Reads every tensor of a safetensors file into float matrices.
Weights load_weights(const std::string& path);

/// Puts the bytes of a vector that an archive kept without loss into a matrix of floats.
void assign(Matrix& matrix, deltadct::DType dtype, std::span<const std::byte> bytes);

inline deltadct::MatrixView<float> view(Matrix& m) {
  return {m.data(), static_cast<std::size_t>(m.rows()), static_cast<std::size_t>(m.cols())};
}
inline deltadct::MatrixView<const float> view(const Matrix& m) {
  return {m.data(), static_cast<std::size_t>(m.rows()), static_cast<std::size_t>(m.cols())};
}

/// The one codec of archives made with a policy.
template <class Policy>
deltadct::CodecFactory codec_factory() {
  return [](const deltadct::CodecSpec& spec) {
    return std::make_unique<deltadct::AnyCodecOf<Policy>>(spec.allocator);
  };
}

/// live = base + the archive's deltas, in float; other tensors as the archive keeps them. Policy is
/// the one the archive was made with; base_path is the file that `base` was loaded from.
template <class Policy>
void apply_archive(const std::string& path, const std::string& base_path, const Weights& base,
                   Weights& live) {
  namespace io = deltadct::io;
  const auto base_model = io::Model::open(base_path);
  const auto archive = io::DeltaArchive::open(path);
  const deltadct::OpenMpExecutor executor;
  io::Restorer restorer(base_model, archive, codec_factory<Policy>(), executor);
  // All of them before the first is added: a wrong base leaves the live weights alone.
  for (const auto& entry : archive.entries()) {
    if (entry.base) restorer.check_base(entry);
  }
  const deltadct::DeltaCodec<Policy> codec;
  for (const auto& entry : archive.entries()) {
    Matrix& to = live.at(entry.name);
    if (entry.mode == io::Mode::delta) {
      const auto delta = archive.delta(entry);
      codec.decode_add(delta.view(), view(base.at(entry.name)), view(to), 1.0, executor);
    } else {
      assign(to, entry.dtype, restorer.restore(entry));
    }
  }
}

}  // namespace char_gpt
