// Compresses the difference between two matrices, adds it to live weights, and prints what it cost.
#include <deltadct/codec.hpp>

#include <cstdio>
#include <random>
#include <vector>

int main() {
  constexpr std::size_t rows = 1024, cols = 768;
  std::mt19937 random(1);
  std::normal_distribution<float> weight(0.0F, 0.02F), change(0.0F, 0.001F);
  std::vector<float> base(rows * cols), tuned(rows * cols);
  for (std::size_t i = 0; i < base.size(); ++i) {
    base[i] = weight(random);
    tuned[i] = base[i] + change(random);
  }

  const deltadct::DeltaCodec<deltadct::DefaultPolicy<float, 16>> codec;
  const deltadct::CompressedTensor delta =
      codec.encode(deltadct::MatrixView<const float>(base.data(), rows, cols),
                   deltadct::MatrixView<const float>(tuned.data(), rows, cols));

  std::vector<float> live = base;  // the engine's weights
  codec.decode_add(delta, deltadct::MatrixView<float>(live.data(), rows, cols));

  double moved = 0, wanted = 0;
  for (std::size_t i = 0; i < base.size(); ++i) {
    wanted += double(tuned[i] - base[i]) * (tuned[i] - base[i]);
    moved += double(live[i] - base[i]) * (tuned[i] - base[i]);
  }
  std::printf("%.3f bits per weight recover %.0f %% of the delta's length along it\n",
              8.0 * double(delta.codes.size() + delta.bounds.size()) / double(base.size()),
              100 * moved / wanted);
}
