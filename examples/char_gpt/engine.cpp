// Weights from safetensors files.
#include "engine.hpp"

#include <deltadct/core/convert.hpp>

#include <cstring>

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

void require_base(const deltadct::io::SafetensorsFile& base, const std::string& archive_path) {
  const auto archive = deltadct::io::DeltaArchive::open(archive_path);
  std::vector<std::byte> storage;
  for (const auto& entry : archive.entries()) {
    const auto* tensor = base.find(entry.name);
    if (tensor == nullptr || deltadct::io::fingerprint(base.data(*tensor, storage)) != entry.base) {
      throw deltadct::Error(deltadct::Errc::wrong_base, entry.name);
    }
  }
}

Weights load_weights(const std::string& path) {
  const auto file = deltadct::io::SafetensorsFile::open(path);
  Weights weights;
  std::vector<std::byte> storage;
  for (const auto& tensor : file.tensors()) {
    const auto [rows, cols] = deltadct::io::matrix_shape(tensor.shape);
    Matrix& matrix = weights[tensor.name];
    matrix.resize(static_cast<Eigen::Index>(rows), static_cast<Eigen::Index>(cols));
    assign(matrix, tensor.dtype, file.data(tensor, storage));
  }
  return weights;
}

}  // namespace char_gpt
