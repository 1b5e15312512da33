// The DCT of a patch with changed signs: which signs change, and that the inverse restores them.
#include <deltadct/codec.hpp>

#include <random>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

/// Tests both directions on a patch. Coefficients lie at [k_column * P + k_row].
template <int P, class V>
void check_patch() {
  using T = typename Lanes<V>::scalar;
  alignas(64) T patch[P * P];
  alignas(64) T changed[P * P];
  alignas(64) T expected[P * P];
  alignas(64) T found[P * P];
  alignas(64) T back[P * P];
  std::mt19937 random(P);
  std::normal_distribution<double> draw;
  for (int i = 0; i < P; ++i) {
    for (int j = 0; j < P; ++j) {
      const auto x = static_cast<T>(draw(random));
      patch[i * P + j] = x;
      changed[i * P + j] = (random_bits(0, static_cast<std::uint64_t>(i)) >> j & 1) != 0 ? -x : x;
    }
  }
  Dct::forward<P, V>(ArraySource<T, P>{changed}, ArraySink<T, P>{expected});
  RandomizedDct::forward<P, V>(ArraySource<T, P>{patch}, ArraySink<T, P>{found});
  for (int s = 0; s < P * P; ++s) CHECK(found[s] == expected[s]);
  RandomizedDct::inverse<P, V>(ArraySource<T, P>{found}, ArraySink<T, P>{back});
  for (int s = 0; s < P * P; ++s) {
    const double gain = RandomizedDct::gain<P>;
    CHECK(static_cast<double>(back[s]) / gain / gain ==
          doctest::Approx(static_cast<double>(patch[s])).epsilon(1e-4));
  }
}

}  // namespace

TEST_CASE("randomized: signs are those of SplitMix64") {
  // The first numbers of that generator with seed 0.
  CHECK(random_bits(0, 0) == 0xE220A8397B1DCDAFu);
  CHECK(random_bits(0, 1) == 0x6E789E6AA1B965F4u);
  CHECK(random_bits(0, 2) == 0x06C45D188009454Fu);
  CHECK(detail::kSigns<float, 16>.factor[0] == -1);
  CHECK(detail::kSigns<float, 16>.factor[4] == 1);
  CHECK(detail::kSigns<double, 64>.factor[64 + 62] == -1);
}

TEST_CASE_TEMPLATE("randomized: the DCT of the patch with other signs, and back", T, float,
                   double) {
  check_patch<4, T>();
  check_patch<12, T>();
  check_patch<16, T>();
  check_patch<64, T>();
}

#if DELTADCT_HAS_SIMD
TEST_CASE("randomized: in registers, too") {
  check_patch<4, DctKernel<Simd>::Vector<float, 4>>();
  check_patch<12, DctKernel<Simd>::Vector<float, 12>>();
  check_patch<16, DctKernel<Simd>::Vector<float, 16>>();
  check_patch<64, DctKernel<Simd>::Vector<float, 64>>();
  check_patch<32, DctKernel<Simd>::Vector<double, 32>>();
}
#endif
