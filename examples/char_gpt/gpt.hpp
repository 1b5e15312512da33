// Inference of the demo's byte-level GPT over a map of named weights.
//
//     x = embed[byte] + position[t]
//     logits = transformer(x) * embed^T
//
// Attention is causal. train.py beside this file is the definition; the names and shapes of the
// tensors are those of its state dict.
#pragma once

#include "transformer.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>

namespace char_gpt {

inline constexpr std::size_t all_windows = std::numeric_limits<std::size_t>::max();

// A view of a model: it owns no weights, but points at the map's matrices. Hence
//  - the map and its entries must outlive the Gpt, so do not move the map away or erase an entry;
//  - values may be changed in place between calls, and the next call sees them (in this way the
//    demo patches one model into another); shapes must not change;
//  - const calls may run concurrently with each other, but not with a change of the weights.
class Gpt {
 public:
  // Infers width, layers and context from the shapes. Throws std::invalid_argument, naming the
  // tensor, if one is missing, misshapen or unknown.
  explicit Gpt(const Weights& weights, Eigen::Index heads = 4);
  explicit Gpt(const Weights&&, Eigen::Index heads = 4) = delete;

  Eigen::Index width() const { return embed_->cols(); }
  Eigen::Index context() const { return position_->rows(); }
  Eigen::Index layers() const { return trunk_.layers(); }
  Eigen::Index heads() const { return trunk_.heads(); }

  // Row t scores the 256 candidates for the byte after tokens[t]: tokens.size() x 256,
  // unnormalised. Throws std::invalid_argument for more than context() tokens.
  Matrix logits(std::span<const std::uint8_t> tokens) const;

  // Evaluates the first `windows` non-overlapping windows of context() bytes, as train.py's
  // evaluate() does. Windows run in parallel under OpenMP; the result does not depend on the number
  // of threads. Throws std::invalid_argument for a text shorter than a window and the byte after
  // it, or if `windows` is 0.
  Judgement judge(std::span<const std::uint8_t> text, std::size_t windows = all_windows) const;

  // The `bytes` bytes that follow the prompt. The prompt itself is not repeated; an empty one
  // counts as a newline. Temperature 0 takes the likeliest byte. Since positions are learned and
  // absolute, a full context restarts from the text's last context() / 2 bytes, rounded up; so does
  // a prompt longer than the context. Throws std::invalid_argument for a negative or NaN
  // temperature.
  std::string generate(std::string_view prompt, std::size_t bytes, double temperature,
                       std::uint64_t seed) const;

 private:
  struct Workspace;

  Gpt(Loader loader, Eigen::Index heads);
  void forward(std::span<const std::uint8_t> tokens, Eigen::Index past, Workspace& work) const;

  const Matrix* embed_;
  const Matrix* position_;
  Transformer trunk_;
};

}  // namespace char_gpt
