// Inference of the demo's byte-level GPT over a map of named weights.
//
//     x = embed[byte] + position[t]
//     x = x + proj(attention(qkv(norm1(x)))),  x = x + down(gelu(up(norm2(x))))     for each block
//     logits = norm(x) * embed^T
//
// RMSNorm (eps 1e-5), causal attention, tanh-GELU, no biases. train.py beside this file is the
// definition; the tensor names and shapes are those of its state dict.
#pragma once

#include <Eigen/Core>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace char_gpt {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Tensors by state-dict name; a linear layer is [out x in], a vector is 1 x n.
using Weights = std::map<std::string, Matrix, std::less<>>;

inline constexpr std::size_t all_windows = std::numeric_limits<std::size_t>::max();

// A view of a model: it owns no weights, it points at the map's matrices. Hence
//  - the map and its entries must outlive the Gpt; moving the map away or erasing an entry ends it;
//  - values may be changed in place between calls, and the next call sees them (that is how the
//    demo patches one model into another); shapes may not change;
//  - const calls may run concurrently with each other, not with a change of the weights.
class Gpt {
 public:
  // Infers width, layers and context from the shapes. Throws std::invalid_argument, which names the
  // tensor, when one is missing, misshapen or unknown.
  explicit Gpt(const Weights& weights, Eigen::Index heads = 4);
  explicit Gpt(const Weights&&, Eigen::Index heads = 4) = delete;

  Eigen::Index width() const { return embed_->cols(); }
  Eigen::Index context() const { return position_->rows(); }
  Eigen::Index layers() const { return static_cast<Eigen::Index>(blocks_.size()); }
  Eigen::Index heads() const { return heads_; }

  // Row t scores the 256 candidates for the byte after tokens[t]: tokens.size() x 256,
  // unnormalised. Throws std::invalid_argument for more than context() tokens.
  Matrix logits(std::span<const std::uint8_t> tokens) const;

  // Mean loss in nats a byte over the first `windows` non-overlapping windows of context() bytes,
  // as train.py's evaluate(). Windows run in parallel under OpenMP; the sum's order is fixed, so
  // the result does not depend on the number of threads. Throws std::invalid_argument for a text
  // that holds no window and the byte after it, or for `windows` of 0.
  double cross_entropy(std::span<const std::uint8_t> text, std::size_t windows = all_windows) const;

  // The `bytes` bytes that follow the prompt (the prompt itself is not repeated; an empty one
  // counts as a newline). Temperature 0 takes the likeliest byte. Since positions are learned and
  // absolute, a full context restarts from the text's last context() / 2 bytes, rounded up; so does
  // a prompt longer than the context. Throws std::invalid_argument for a negative or NaN
  // temperature.
  std::string generate(std::string_view prompt, std::size_t bytes, double temperature,
                       std::uint64_t seed) const;

 private:
  struct Block {
    const Matrix* norm1;
    const Matrix* qkv;
    const Matrix* proj;
    const Matrix* norm2;
    const Matrix* up;
    const Matrix* down;
  };
  struct Workspace;

  void forward(std::span<const std::uint8_t> tokens, Eigen::Index past, Workspace& work) const;
  void attend(Eigen::Index past, Eigen::Index count, const Matrix& qkv, Workspace& work) const;
  double window_loss(std::span<const std::uint8_t> window, Workspace& work) const;

  const Matrix* embed_;
  const Matrix* position_;
  const Matrix* norm_;
  std::vector<Block> blocks_;
  Eigen::Index heads_;
};

}  // namespace char_gpt
