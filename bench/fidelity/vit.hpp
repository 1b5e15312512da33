// Inference of the vision transformer that train.py trains, over a map of named weights.
//
//     x = embed * patch + position       of 16 patches of 7 x 7 pixels
//     logits = head * mean over patches of transformer(x)
#pragma once

#include "../../examples/char_gpt/transformer.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace fidelity {

inline constexpr Eigen::Index kImageSide = 28;
inline constexpr std::size_t kImageBytes = kImageSide * kImageSide;

struct Images {
  std::vector<std::uint8_t> pixels;  // kImageBytes each
  std::vector<std::uint8_t> labels;
};

/// A view of the map's matrices, like char_gpt::Gpt.
class VisionTransformer {
 public:
  explicit VisionTransformer(const char_gpt::Weights& weights);

  /// Images run in parallel under OpenMP. The result does not depend on the number of threads.
  char_gpt::Judgement judge(const Images& images) const;

 private:
  explicit VisionTransformer(char_gpt::Loader loader);

  const char_gpt::Matrix* embed_;
  const char_gpt::Matrix* position_;
  const char_gpt::Matrix* head_;
  char_gpt::Transformer trunk_;
};

}  // namespace fidelity
