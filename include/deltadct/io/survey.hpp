// Measures how much deltas vary over a whole model, for methods that treat a matrix by its rank
// among the others.
#pragma once

#include <deltadct/baseline/ultra_delta.hpp>
#include <deltadct/io/compress.hpp>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// The standard deviation of every matrix that compress_model() may compress, if it has the same
/// shape and dtype in both models and differs between them.
inline std::vector<DeltaStatistics> survey_deltas(
    const Model& base, const Model& tuned,
    const std::function<bool(std::string_view)>& selected = {}) {
  std::vector<DeltaStatistics> statistics;
  TensorBytes from;
  TensorBytes to;
  for (const ModelTensor& tensor : tuned.tensors()) {
    const ModelTensor* before = base.find(tensor.name);
    if (before == nullptr || before->dtype != tensor.dtype || before->shape != tensor.shape ||
        !is_element(tensor.dtype) || tensor.shape.size() < 2 ||
        (selected && !selected(tensor.name))) {
      continue;
    }
    base.read(*before, from);
    tuned.read(tensor, to);
    if (std::ranges::equal(from.bytes(), to.bytes())) continue;
    from.align(dtype_bytes(tensor.dtype));
    to.align(dtype_bytes(tensor.dtype));
    const MatrixStack stack = stack_of(tensor.shape);
    with_element(tensor.dtype, [&]<class T>() {
      using Compute = compute_t<T>;
      const auto* x = reinterpret_cast<const T*>(from.bytes().data());
      const auto* y = reinterpret_cast<const T*>(to.bytes().data());
      std::vector<Compute> delta(stack.rows * stack.cols);
      for (std::size_t k = 0; k < stack.count; ++k, x += delta.size(), y += delta.size()) {
        for (std::size_t s = 0; s < delta.size(); ++s) {
          delta[s] = static_cast<Compute>(y[s]) - static_cast<Compute>(x[s]);
        }
        statistics.push_back(DeltaStatistics::of(std::span<const Compute>(delta)));
      }
    });
    from.release();
    to.release();
  }
  return statistics;
}

}}}  // namespace deltadct::inline DELTADCT_ABI::io
