// The forward pass of the blocks; see transformer.hpp for the contract.

#include "transformer.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

namespace char_gpt {
namespace {

using Eigen::Index;
using Rows = Eigen::Ref<Matrix>;
using ConstRows = Eigen::Ref<const Matrix>;

// Queries processed together: enough rows for a matrix product, but few enough that their products
// with later keys in the block, which causality discards, stay few.
constexpr Index query_block = 64;

std::string shape(Index rows, Index cols) {
  return std::to_string(rows) + " x " + std::to_string(cols);
}

void rms_norm(const ConstRows& x, const Matrix& weight, Rows out) {
  const float width = static_cast<float>(x.cols());
  for (Index r = 0; r < x.rows(); ++r) {
    const float scale = 1.0f / std::sqrt(x.row(r).squaredNorm() / width + 1e-5f);
    out.row(r) = scale * x.row(r).cwiseProduct(weight.row(0));
  }
}

// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), in place.
void gelu(Rows x) {
  constexpr float root = 0.7978845608f;
  for (Index r = 0; r < x.rows(); ++r) {
    auto row = x.row(r).array();
    row = 0.5f * row * (1.0f + (row * (root + root * 0.044715f * row.square())).tanh());
  }
}

// Row r becomes softmax(scale * row) over its first visible + r * more entries, and zero after
// them.
void softmax(Rows scores, float scale, Index visible, Index more) {
  for (Index r = 0; r < scores.rows(); ++r) {
    const Index seen = visible + r * more;
    auto row = scores.row(r).head(seen).array();
    row = (scale * (row - row.maxCoeff())).exp();
    row *= 1.0f / row.sum();
    scores.row(r).tail(scores.cols() - seen).setZero();
  }
}

}  // namespace

const Matrix* Loader::take(const std::string& name) {
  const auto found = weights_.find(name);
  if (found == weights_.end()) throw std::invalid_argument("char_gpt: no tensor " + name);
  taken_.insert(name);
  return &found->second;
}

const Matrix* Loader::take(const std::string& name, Index rows, Index cols) {
  const Matrix* tensor = take(name);
  if (tensor->rows() != rows || tensor->cols() != cols)
    throw std::invalid_argument("char_gpt: tensor " + name + " is " +
                                shape(tensor->rows(), tensor->cols()) + ", not " +
                                shape(rows, cols));
  return tensor;
}

bool Loader::any_under(const std::string& prefix) const {
  const auto first = weights_.lower_bound(prefix);
  return first != weights_.end() && first->first.starts_with(prefix);
}

void Loader::expect_all_taken() const {
  for (const auto& [name, tensor] : weights_)
    if (!taken_.contains(name)) throw std::invalid_argument("char_gpt: unknown tensor " + name);
}

double Judgement::loss() const {
  return std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
}

Answer answer(const ConstRows& logits, Index row, Index target) {
  const auto scores = logits.row(row).array();
  Index likeliest = 0;
  const float largest = scores.maxCoeff(&likeliest);
  return {double{std::log((scores - largest).exp().sum()) + largest - scores(target)},
          likeliest == target};
}

Transformer::Workspace::Workspace(const Transformer& model, Index capacity)
    : residual(capacity, model.width()),
      normed(capacity, model.width()),
      attended(capacity, model.width()),
      hidden(capacity, 4 * model.width()),
      scores(std::min(capacity, query_block), capacity),
      qkv(model.blocks_.size(), Matrix(capacity, 3 * model.width())) {}

Transformer::Transformer(Loader& loader, Index width, Index heads, Attention attention)
    : norm_(loader.take("norm.weight", 1, width)), heads_(heads), attention_(attention) {
  if (heads < 1 || width < 1 || width % heads != 0)
    throw std::invalid_argument("char_gpt: a width of " + std::to_string(width) + ", which " +
                                std::to_string(heads) + " heads do not divide");
  std::string prefix = "blocks.0.";
  do {
    blocks_.push_back({.norm1 = loader.take(prefix + "norm1.weight", 1, width),
                       .qkv = loader.take(prefix + "qkv.weight", 3 * width, width),
                       .proj = loader.take(prefix + "proj.weight", width, width),
                       .norm2 = loader.take(prefix + "norm2.weight", 1, width),
                       .up = loader.take(prefix + "up.weight", 4 * width, width),
                       .down = loader.take(prefix + "down.weight", width, 4 * width)});
    prefix = "blocks." + std::to_string(blocks_.size()) + ".";
  } while (loader.any_under(prefix));
}

// Lets rows [past, past + count) of qkv attend to all rows up to themselves (causal), or to all
// rows, and writes the result to the first rows of work.attended.
void Transformer::attend(Index past, Index count, const Matrix& qkv, Workspace& work) const {
  const bool causal = attention_ == Attention::causal;
  const Index size = width() / heads_;
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  for (Index head = 0; head < heads_; ++head) {
    for (Index first = 0; first < count; first += query_block) {
      const Index rows = std::min(query_block, count - first);
      const Index keys = past + (causal ? first + rows : count);
      auto scores = work.scores.topLeftCorner(rows, keys);
      scores.noalias() = qkv.block(past + first, head * size, rows, size) *
                         qkv.block(0, width() + head * size, keys, size).transpose();
      softmax(scores, scale, causal ? past + first + 1 : keys, causal ? 1 : 0);
      work.attended.block(first, head * size, rows, size).noalias() =
          scores * qkv.block(0, 2 * width() + head * size, keys, size);
    }
  }
}

void Transformer::forward(Index past, Index count, Workspace& work) const {
  auto residual = work.residual.topRows(count);
  auto normed = work.normed.topRows(count);
  auto hidden = work.hidden.topRows(count);
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const Block& block = blocks_[layer];
    rms_norm(residual, *block.norm1, normed);
    work.qkv[layer].middleRows(past, count).noalias() = normed * block.qkv->transpose();
    attend(past, count, work.qkv[layer], work);
    residual.noalias() += work.attended.topRows(count) * block.proj->transpose();
    rms_norm(residual, *block.norm2, normed);
    hidden.noalias() = normed * block.up->transpose();
    gelu(hidden);
    residual.noalias() += hidden * block.down->transpose();
  }
  rms_norm(residual, *norm_, normed);
}

}  // namespace char_gpt
