// Replaces one stage: scores patches by their largest weight instead of their norm.
#include <deltadct/codec.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

// A scorer is any type that can be called with a patch: P * P values, row-major.
struct LargestWeight {
  template <int P, class T>
  T operator()(std::span<const T, static_cast<std::size_t>(P) * P> patch) const {
    T largest = 0;
    for (const T x : patch) largest = std::max(largest, std::abs(x));
    return largest;
  }
};

struct MyPolicy : deltadct::DefaultPolicy<float, 8> {
  using Scorer = LargestWeight;
};

// The number of patches whose largest weight is an outlier and that were given bits.
template <class Policy>
int outliers_kept(const std::vector<float>& delta, std::size_t side) {
  const deltadct::DeltaCodec<Policy> codec({{2, 0.02}, {0, 0.98}});
  const auto compressed = codec.encode(deltadct::MatrixView<const float>(delta.data(), side, side));
  int kept = 0;
  const std::size_t grid = side / Policy::patch;
  for (std::size_t patch = 0; patch < compressed.places.size(); ++patch) {
    const std::size_t corner = patch / grid * Policy::patch * side + patch % grid * Policy::patch;
    const bool outlier = delta[corner] == 1.0F;
    kept += outlier && compressed.header.classes[compressed.places[patch].width_class()].bits == 2;
  }
  return kept;
}

int main() {
  constexpr std::size_t side = 256;
  std::mt19937 random(1);
  std::normal_distribution<float> change(0.0F, 0.3F);
  std::vector<float> delta(side * side);
  for (float& x : delta) x = std::clamp(change(random), -0.9F, 0.9F);
  // Twenty patches that are zero except for one weight each.
  for (std::size_t k = 0; k < 20; ++k) {
    const std::size_t corner = k * 8 * side + k * 8;
    for (std::size_t i = 0; i < 64; ++i) delta[corner + i / 8 * side + i % 8] = 0;
    delta[corner] = 1.0F;
  }
  std::printf("outliers given bits, of 20: %d by norm, %d by largest weight\n",
              outliers_kept<deltadct::DefaultPolicy<float, 8>>(delta, side),
              outliers_kept<MyPolicy>(delta, side));
}
