// The trunk of the demo's GPT, over a map of named weights. The vision transformer of
// bench/fidelity shares it.
//
//     x = x + proj(attention(qkv(norm1(x)))),  x = x + down(gelu(up(norm2(x))))     for each block
//     norm(x)
//
// RMSNorm (eps 1e-5), tanh-GELU, no biases.
#pragma once

#include <Eigen/Core>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace char_gpt {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Tensors by state-dict name; a linear layer is [out x in], a vector is 1 x n.
using Weights = std::map<std::string, Matrix, std::less<>>;

// Takes tensors out of the map by name and remembers which, so that leftover ones are noticed.
// Throws std::invalid_argument, naming the tensor, if one is missing, misshapen or unknown.
class Loader {
 public:
  explicit Loader(const Weights& weights) : weights_(weights) {}

  const Matrix* take(const std::string& name);
  const Matrix* take(const std::string& name, Eigen::Index rows, Eigen::Index cols);
  bool any_under(const std::string& prefix) const;
  void expect_all_taken() const;

 private:
  const Weights& weights_;
  std::set<std::string> taken_;
};

// How a model did on held-out text or images.
struct Judgement {
  std::vector<double> losses;  // in nats, of one image or window (its mean) each
  double right = 0;            // share of bytes or images whose likeliest answer was right

  double loss() const;
};

// The loss in nats of the target under the scores of row r, and whether the target is the
// likeliest.
struct Answer {
  double loss;
  bool right;
};
Answer answer(const Eigen::Ref<const Matrix>& logits, Eigen::Index row, Eigen::Index target);

// A view, like Gpt: it points at the map's matrices.
class Transformer {
 public:
  enum class Attention { causal, full };

  // Takes blocks.N.* and norm.weight.
  Transformer(Loader& loader, Eigen::Index width, Eigen::Index heads, Attention attention);

  Eigen::Index width() const { return norm_->cols(); }
  Eigen::Index layers() const { return static_cast<Eigen::Index>(blocks_.size()); }
  Eigen::Index heads() const { return heads_; }

  // What one sequence needs besides the weights. It is allocated once and reused for every layer
  // and sequence. A layer's qkv rows double as its key/value cache.
  struct Workspace {
    Workspace(const Transformer& model, Eigen::Index capacity);

    Matrix residual, normed, attended, hidden, scores;
    std::vector<Matrix> qkv;
  };

  // Runs the first `count` rows of work.residual at positions past, past + 1, ...; earlier ones are
  // in the cache. Leaves the output of the last norm in the first rows of work.normed.
  void forward(Eigen::Index past, Eigen::Index count, Workspace& work) const;

 private:
  struct Block {
    const Matrix* norm1;
    const Matrix* qkv;
    const Matrix* proj;
    const Matrix* norm2;
    const Matrix* up;
    const Matrix* down;
  };

  void attend(Eigen::Index past, Eigen::Index count, const Matrix& qkv, Workspace& work) const;

  const Matrix* norm_;
  std::vector<Block> blocks_;
  Eigen::Index heads_;
  Attention attention_;
};

}  // namespace char_gpt
