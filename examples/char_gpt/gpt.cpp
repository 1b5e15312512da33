// The forward pass, its loss and its sampling; see gpt.hpp for the contract.

#include "gpt.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>
#include <stdexcept>
#include <utility>

namespace char_gpt {
namespace {

using Eigen::Index;
using Bytes = std::span<const std::uint8_t>;
using Rows = Eigen::Ref<Matrix>;
using ConstRows = Eigen::Ref<const Matrix>;

constexpr Index vocabulary = 256;

// Queries taken together: enough rows for a matrix product, few enough that the products of a block
// with the keys after it, which causality discards, stay small.
constexpr Index query_block = 64;

std::string shape(Index rows, Index cols) {
  return std::to_string(rows) + " x " + std::to_string(cols);
}

// Takes tensors out of the map by name and remembers which, so that none is left over unnoticed.
class Loader {
 public:
  explicit Loader(const Weights& weights) : weights_(weights) {}

  const Matrix* take(const std::string& name) {
    const auto found = weights_.find(name);
    if (found == weights_.end()) throw std::invalid_argument("char_gpt: no tensor " + name);
    taken_.insert(name);
    return &found->second;
  }

  const Matrix* take(const std::string& name, Index rows, Index cols) {
    const Matrix* tensor = take(name);
    if (tensor->rows() != rows || tensor->cols() != cols)
      throw std::invalid_argument("char_gpt: tensor " + name + " is " +
                                  shape(tensor->rows(), tensor->cols()) + ", not " +
                                  shape(rows, cols));
    return tensor;
  }

  bool any_under(const std::string& prefix) const {
    const auto first = weights_.lower_bound(prefix);
    return first != weights_.end() && first->first.starts_with(prefix);
  }

  void expect_all_taken(std::size_t blocks) const {
    for (const auto& [name, tensor] : weights_)
      if (!taken_.contains(name))
        throw std::invalid_argument("char_gpt: unknown tensor " + name + " in a model of " +
                                    std::to_string(blocks) + " block(s)");
  }

 private:
  const Weights& weights_;
  std::set<std::string> taken_;
};

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

// Row r becomes softmax(scale * row) over its first visible + r entries, and zero after them.
void causal_softmax(Rows scores, float scale, Index visible) {
  for (Index r = 0; r < scores.rows(); ++r) {
    auto row = scores.row(r).head(visible + r).array();
    row = (scale * (row - row.maxCoeff())).exp();
    row *= 1.0f / row.sum();
    scores.row(r).tail(scores.cols() - visible - r).setZero();
  }
}

float negative_log_likelihood(const ConstRows& logits, Index row, std::uint8_t target) {
  const auto scores = logits.row(row).array();
  const float largest = scores.maxCoeff();
  return std::log((scores - largest).exp().sum()) + largest - scores(target);
}

// Uniform on [0, 1): the engine's sequence is fixed by the standard, std's distributions are not.
double uniform(std::mt19937_64& random) {
  return static_cast<double>(random() >> 11) * 0x1.0p-53;
}

char sample(std::span<const float> logits, double temperature, std::mt19937_64& random) {
  const auto likeliest = std::max_element(logits.begin(), logits.end());
  const auto byte_at = [&](auto position) { return static_cast<char>(position - logits.begin()); };
  if (temperature == 0) return byte_at(likeliest);

  std::vector<double> cumulative;
  cumulative.reserve(logits.size());
  double total = 0;
  for (const float logit : logits)
    cumulative.push_back(total += std::exp((double{logit} - double{*likeliest}) / temperature));
  const auto drawn =
      std::upper_bound(cumulative.begin(), cumulative.end(), total * uniform(random));
  if (drawn == cumulative.end()) return byte_at(likeliest);  // the product rounded up to the total
  return static_cast<char>(drawn - cumulative.begin());
}

}  // namespace

// What one window needs besides the weights, allocated once and reused for every layer and window.
// A layer's qkv rows double as its key/value cache.
struct Gpt::Workspace {
  Workspace(const Gpt& gpt, Index capacity)
      : residual(capacity, gpt.width()),
        normed(capacity, gpt.width()),
        attended(capacity, gpt.width()),
        hidden(capacity, 4 * gpt.width()),
        scores(std::min(capacity, query_block), capacity),
        logits(capacity, vocabulary),
        qkv(gpt.blocks_.size(), Matrix(capacity, 3 * gpt.width())) {}

  Matrix residual, normed, attended, hidden, scores, logits;
  std::vector<Matrix> qkv;
};

Gpt::Gpt(const Weights& weights, Index heads) : heads_(heads) {
  Loader loader(weights);
  const Index width = loader.take("embed.weight")->cols();
  if (heads < 1 || width < 1 || width % heads != 0)
    throw std::invalid_argument("char_gpt: tensor embed.weight has width " + std::to_string(width) +
                                ", which " + std::to_string(heads) + " heads do not divide");
  const Index context = std::max<Index>(loader.take("position.weight")->rows(), 1);
  embed_ = loader.take("embed.weight", vocabulary, width);
  position_ = loader.take("position.weight", context, width);
  norm_ = loader.take("norm.weight", 1, width);
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
  loader.expect_all_taken(blocks_.size());
}

// Rows [past, past + count) of qkv attend to rows [0, own], into the first rows of work.attended.
void Gpt::attend(Index past, Index count, const Matrix& qkv, Workspace& work) const {
  const Index size = width() / heads_;
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  for (Index head = 0; head < heads_; ++head) {
    for (Index first = 0; first < count; first += query_block) {
      const Index rows = std::min(query_block, count - first);
      const Index keys = past + first + rows;
      auto scores = work.scores.topLeftCorner(rows, keys);
      scores.noalias() = qkv.block(past + first, head * size, rows, size) *
                         qkv.block(0, width() + head * size, keys, size).transpose();
      causal_softmax(scores, scale, past + first + 1);
      work.attended.block(first, head * size, rows, size).noalias() =
          scores * qkv.block(0, 2 * width() + head * size, keys, size);
    }
  }
}

// Runs tokens at positions past, past + 1, ...; those before are in the cache. Leaves the head's
// input in the first rows of work.normed.
void Gpt::forward(Bytes tokens, Index past, Workspace& work) const {
  const Index count = static_cast<Index>(tokens.size());
  auto residual = work.residual.topRows(count);
  auto normed = work.normed.topRows(count);
  auto hidden = work.hidden.topRows(count);
  for (Index t = 0; t < count; ++t)
    residual.row(t) = embed_->row(tokens[static_cast<std::size_t>(t)]) + position_->row(past + t);
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

Matrix Gpt::logits(Bytes tokens) const {
  const Index count = static_cast<Index>(tokens.size());
  if (count > context())
    throw std::invalid_argument("char_gpt: " + std::to_string(count) +
                                " tokens exceed the context of " + std::to_string(context()));
  Workspace work(*this, count);
  forward(tokens, 0, work);
  work.logits.noalias() = work.normed * embed_->transpose();
  return std::move(work.logits);
}

// The summed loss of one window, whose last byte is a target only.
double Gpt::window_loss(Bytes window, Workspace& work) const {
  forward(window.first(window.size() - 1), 0, work);
  work.logits.noalias() = work.normed * embed_->transpose();
  double loss = 0;
  for (Index t = 0; t < work.logits.rows(); ++t)
    loss +=
        double{negative_log_likelihood(work.logits, t, window[static_cast<std::size_t>(t) + 1])};
  return loss;
}

double Gpt::cross_entropy(Bytes text, std::size_t windows) const {
  const std::size_t length = static_cast<std::size_t>(context());
  const std::size_t held = text.empty() ? 0 : (text.size() - 1) / length;
  const std::size_t count = std::min(windows, held);
  if (count == 0)
    throw std::invalid_argument("char_gpt: cross_entropy needs a window of " +
                                std::to_string(length) + " bytes and the byte after it");
  std::vector<double> losses(count);
#ifdef _OPENMP
  #pragma omp parallel
#endif
  {
    Workspace work(*this, context());
#ifdef _OPENMP
  #pragma omp for
#endif
    for (std::size_t w = 0; w < count; ++w)
      losses[w] = window_loss(text.subspan(w * length, length + 1), work);
  }
  return std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(count * length);
}

std::string Gpt::generate(std::string_view prompt, std::size_t bytes, double temperature,
                          std::uint64_t seed) const {
  if (!(temperature >= 0))
    throw std::invalid_argument("char_gpt: the temperature must not be negative");
  std::mt19937_64 random(seed);
  std::string text(prompt.empty() ? "\n" : prompt);
  const std::size_t begin = text.size();
  Workspace work(*this, context());
  Index past = 0;
  for (std::size_t fed = 0; text.size() < begin + bytes;) {
    Index fresh = static_cast<Index>(text.size() - fed);
    if (past + fresh > context()) {
      past = 0;
      fresh = (context() + 1) / 2;
    }
    fed = text.size();
    const auto* end = reinterpret_cast<const std::uint8_t*>(text.data()) + text.size();
    forward({end - fresh, end}, past, work);
    past += fresh;
    auto scores = work.logits.topRows(1);
    scores.noalias() = work.normed.row(fresh - 1) * embed_->transpose();
    text += sample({scores.data(), static_cast<std::size_t>(vocabulary)}, temperature, random);
  }
  return text.substr(begin);
}

}  // namespace char_gpt
