#include "vit.hpp"

namespace fidelity {

using char_gpt::Answer;
using char_gpt::Judgement;
using char_gpt::Loader;
using char_gpt::Matrix;
using char_gpt::Transformer;
using Eigen::Index;

namespace {

constexpr Index kSide = 7;  // side of a patch
constexpr Index kGrid = kImageSide / kSide;
constexpr Index kPatches = kGrid * kGrid;

void cut(std::span<const std::uint8_t> image, Matrix& patches) {
  for (Index row = 0; row < kImageSide; ++row) {
    for (Index col = 0; col < kImageSide; ++col) {
      const auto pixel =
          static_cast<float>(image[static_cast<std::size_t>(row * kImageSide + col)]);
      patches(row / kSide * kGrid + col / kSide, row % kSide * kSide + col % kSide) =
          pixel / 127.5f - 1;
    }
  }
}

}  // namespace

VisionTransformer::VisionTransformer(const char_gpt::Weights& weights)
    : VisionTransformer(Loader(weights)) {}

VisionTransformer::VisionTransformer(Loader loader)
    : embed_(loader.take("embed.weight")),
      position_(loader.take("position.weight", kPatches, embed_->rows())),
      head_(loader.take("head.weight")),
      trunk_(loader, embed_->rows(), 4, Transformer::Attention::full) {
  loader.take("embed.weight", trunk_.width(), kSide * kSide);
  loader.take("head.weight", head_->rows(), trunk_.width());
  loader.expect_all_taken();
}

Judgement VisionTransformer::judge(const Images& images) const {
  const std::size_t count = images.labels.size();
  Judgement result;
  result.losses.resize(count);
  std::size_t right = 0;
#ifdef _OPENMP
  #pragma omp parallel reduction(+ : right)
#endif
  {
    Transformer::Workspace work(trunk_, kPatches);
    Matrix patches(kPatches, kSide * kSide);
    Matrix logits(1, head_->rows());
#ifdef _OPENMP
  #pragma omp for
#endif
    for (std::size_t i = 0; i < count; ++i) {
      cut(std::span(images.pixels).subspan(i * kImageBytes, kImageBytes), patches);
      work.residual.noalias() = patches * embed_->transpose();
      work.residual += *position_;
      trunk_.forward(0, kPatches, work);
      logits.noalias() = work.normed.colwise().mean() * head_->transpose();
      const Answer found = char_gpt::answer(logits, 0, images.labels[i]);
      result.losses[i] = found.loss;
      right += found.right ? 1 : 0;
    }
  }
  result.right = static_cast<double>(right) / static_cast<double>(count);
  return result;
}

}  // namespace fidelity
