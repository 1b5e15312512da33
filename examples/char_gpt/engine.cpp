// Makes codecs from their settings, and loads weights from files.
#include "engine.hpp"

#include <deltadct/io/restore.hpp>
#include <deltadct/openmp.hpp>

#include <cstring>
#include <vector>

namespace char_gpt {

void assign(Matrix& matrix, deltadct::DType dtype, std::span<const std::byte> bytes) {
  const auto n = static_cast<std::size_t>(matrix.size());
  if (!deltadct::is_element(dtype)) {
    throw deltadct::Error(deltadct::Errc::unsupported_dtype, deltadct::dtype_name(dtype));
  }
  if (bytes.size() != n * deltadct::dtype_bytes(dtype)) {
    throw deltadct::Error(
        deltadct::Errc::shape_mismatch, "tensor",
        std::to_string(bytes.size()) + " bytes for " + std::to_string(n) + " elements");
  }
  deltadct::with_element(dtype, [&]<class T>() {
    std::vector<T> values(n);
    std::memcpy(values.data(), bytes.data(), bytes.size());
    for (std::size_t i = 0; i < n; ++i) {
      matrix.data()[i] = static_cast<float>(static_cast<deltadct::compute_t<T>>(values[i]));
    }
  });
}

Weights load_weights(const std::string& path) {
  const auto model = deltadct::io::Model::open(path);
  Weights weights;
  deltadct::io::TensorBytes bytes;
  for (const auto& tensor : model.tensors()) {
    // The demonstration's tensors are matrices, or vectors, which become one row.
    const auto cols = static_cast<Eigen::Index>(tensor.shape.at(tensor.shape.size() - 1));
    const auto rows = tensor.shape.size() == 1 ? 1 : static_cast<Eigen::Index>(tensor.shape[0]);
    Matrix& matrix = weights[tensor.name];
    matrix.resize(rows, cols);
    model.read(tensor, bytes);
    assign(matrix, tensor.dtype, bytes.bytes());
  }
  return weights;
}

Codec codec_of(deltadct::CodecSpec spec) {
  return {std::move(spec), deltadct::make_codec<deltadct::DefaultBackend>};
}

Codec codec_of(const deltadct::AnyBaseline& baseline) {
  return {deltadct::baseline_spec(baseline),
          deltadct::with_baselines(deltadct::make_codec<deltadct::DefaultBackend>, baseline)};
}

Codec unit_gain(int patch, deltadct::AnyAllocator allocator) {
  deltadct::CodecSpec spec = deltadct::unit_gain_spec();
  spec.patch = patch;
  spec.allocator = std::move(allocator);
  return codec_of(std::move(spec));
}

void apply_archive(const std::string& path, const std::string& base_path, const Weights& base,
                   Weights& live, const deltadct::CodecFactory& codecs) {
  namespace io = deltadct::io;
  const auto base_model = io::Model::open(base_path);
  const auto archive = io::DeltaArchive::open(path);
  const deltadct::OpenMpExecutor executor;
  io::Restorer restorer(base_model, archive, codecs, executor);
  // Checks all of them before the first is added: a wrong base leaves the live weights alone.
  for (const auto& entry : archive.entries()) {
    if (entry.base) restorer.check_base(entry);
  }
  for (const auto& entry : archive.entries()) {
    Matrix& to = live.at(entry.name);
    if (entry.mode == io::Mode::delta) {
      const deltadct::TensorHeader& made = entry.matrices[0];
      const auto codec =
          codecs({.patch = made.patch, .transform = made.transform, .quantizer = made.quantizer});
      const auto delta = archive.delta(entry);
      codec->validate(delta.view(), deltadct::DType::f32);
      codec->decode_add(delta.view(), deltadct::DType::f32, base.at(entry.name).data(), to.data(),
                        1.0, executor);
    } else {
      assign(to, entry.dtype, restorer.restore(entry));
    }
  }
}

}  // namespace char_gpt
