// The forward pass, its loss and its sampling; see gpt.hpp for the contract.

#include "gpt.hpp"

#include <algorithm>
#include <cmath>
#include <random>
#include <stdexcept>
#include <utility>

namespace char_gpt {
namespace {

using Eigen::Index;
using Bytes = std::span<const std::uint8_t>;

constexpr Index vocabulary = 256;

// Uniform on [0, 1). The standard fixes the engine's sequence, but not those of std's
// distributions.
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
  if (drawn == cumulative.end()) return byte_at(likeliest);  // rounded up to the total
  return static_cast<char>(drawn - cumulative.begin());
}

}  // namespace

struct Gpt::Workspace : Transformer::Workspace {
  Workspace(const Gpt& gpt, Index capacity)
      : Transformer::Workspace(gpt.trunk_, capacity), logits(capacity, vocabulary) {}

  Matrix logits;
};

Gpt::Gpt(const Weights& weights, Index heads) : Gpt(Loader(weights), heads) {}

Gpt::Gpt(Loader loader, Index heads)
    : embed_(loader.take("embed.weight")),
      position_(loader.take("position.weight")),
      trunk_(loader, embed_->cols(), heads, Transformer::Attention::causal) {
  loader.take("embed.weight", vocabulary, width());
  loader.take("position.weight", std::max<Index>(context(), 1), width());
  loader.expect_all_taken();
}

// Runs tokens at positions past, past + 1, ...; earlier ones are in the cache.
void Gpt::forward(Bytes tokens, Index past, Workspace& work) const {
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    const auto row = static_cast<Index>(t);
    work.residual.row(row) = embed_->row(tokens[t]) + position_->row(past + row);
  }
  trunk_.forward(past, static_cast<Index>(tokens.size()), work);
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

Judgement Gpt::judge(Bytes text, std::size_t windows) const {
  const std::size_t length = static_cast<std::size_t>(context());
  const std::size_t held = text.empty() ? 0 : (text.size() - 1) / length;
  const std::size_t count = std::min(windows, held);
  if (count == 0)
    throw std::invalid_argument("char_gpt: a judgement needs a window of " +
                                std::to_string(length) + " bytes and the byte after it");
  Judgement result;
  result.losses.resize(count);
  std::size_t right = 0;
#ifdef _OPENMP
  #pragma omp parallel reduction(+ : right)
#endif
  {
    Workspace work(*this, context());
#ifdef _OPENMP
  #pragma omp for
#endif
    for (std::size_t w = 0; w < count; ++w) {
      const Bytes window = text.subspan(w * length, length);
      forward(window, 0, work);
      work.logits.noalias() = work.normed * embed_->transpose();
      double loss = 0;
      for (std::size_t t = 0; t < length; ++t) {
        const Answer found = answer(work.logits, static_cast<Index>(t), text[w * length + t + 1]);
        loss += found.loss;
        right += found.right ? 1 : 0;
      }
      result.losses[w] = loss / static_cast<double>(length);
    }
  }
  result.right = static_cast<double>(right) / static_cast<double>(count * length);
  return result;
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
