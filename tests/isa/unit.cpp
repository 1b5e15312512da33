// One translation unit of a pair: a function named UNIT returns a codec's decoded result as a
// number.
#include <deltadct/codec.hpp>

#include <cstdint>

std::uint64_t UNIT() {
  using Policy = deltadct::DefaultPolicy<float, 8>;
  const deltadct::DeltaCodec<Policy, deltadct::Serial> codec{deltadct::RatioAllocator{{8, 1.0}}};
  float values[32 * 32];
  std::uint32_t random = 1;
  for (float& x : values) {
    random = random * 1664525u + 1013904223u;
    x = static_cast<float>(random >> 8) * 0x1p-24F;
  }
  const deltadct::MatrixView<float> matrix(values, 32, 32);
  const deltadct::CompressedTensor tensor = codec.encode(matrix);
  codec.decode(tensor, matrix);
  std::uint64_t hash = 0;
  for (const float x : values) hash = hash * 31 + std::bit_cast<std::uint32_t>(x);
  return hash;
}
