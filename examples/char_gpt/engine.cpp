// Weights from safetensors files.
#include "engine.hpp"

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
    // The demonstration's tensors are matrices, and vectors, which are one row.
    const auto cols = static_cast<Eigen::Index>(tensor.shape.at(tensor.shape.size() - 1));
    const auto rows = tensor.shape.size() == 1 ? 1 : static_cast<Eigen::Index>(tensor.shape[0]);
    Matrix& matrix = weights[tensor.name];
    matrix.resize(rows, cols);
    model.read(tensor, bytes);
    assign(matrix, tensor.dtype, bytes.bytes());
  }
  return weights;
}

}  // namespace char_gpt
