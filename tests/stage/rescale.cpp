// What each rescaling sums over the delta and its reconstruction.
#include <deltadct/codec.hpp>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

constexpr double kDelta[] = {1, -2, 0.5, 0};
constexpr double kBack[] = {0.5, -1.5, -0.25, 0.25};

template <class R>
double factor() {
  double original = 0;
  double compared = 0;
  for (int k = 0; k < 4; ++k) {
    original += R::original(kDelta[k]);
    compared += R::reconstructed(kDelta[k], kBack[k]);
  }
  return original / compared;
}

}  // namespace

TEST_CASE("rescale: the factors are those of the formulas") {
  CHECK(factor<MeanAbs>() == doctest::Approx(3.5 / 2.5));
  CHECK(factor<UnitGain>() == doctest::Approx(5.25 / 3.375));
}

TEST_CASE("rescale: only NoRescale is not enabled") {
  CHECK(MeanAbs::enabled);
  CHECK(UnitGain::enabled);
  CHECK(!NoRescale::enabled);
  CHECK(NoRescale::original(3.0) == 0);
  CHECK(NoRescale::reconstructed(3.0, 2.0) == 0);
}

TEST_CASE("rescale: names differ") {
  CHECK(MeanAbs::name != UnitGain::name);
  CHECK(UnitGain::name != NoRescale::name);
}

TEST_CASE("rescale: the stages of the library are what the policies ask for") {
  static_assert(concepts::Rescale<MeanAbs>);
  static_assert(concepts::Rescale<UnitGain>);
  static_assert(concepts::Rescale<NoRescale>);
  static_assert(concepts::Quantizer<DefaultPolicy<float, 8>>);
  static_assert(concepts::Transform<Dct, float, 8>);
  static_assert(concepts::Transform<Identity, double, 12>);
  static_assert(concepts::ImportanceScorer<L2Norm, float, 16>);
  static_assert(concepts::BitAllocator<RatioAllocator, double>);
  static_assert(concepts::Policy<DefaultPolicy<half, 64>>);
  static_assert(concepts::Policy<PaperPolicy<double, 4>>);
  static_assert(concepts::Transform<RandomizedDct, float, 64>);
  static_assert(concepts::Backend<Serial>);
  static_assert(!concepts::Backend<int>);
  static_assert(!concepts::Rescale<int>);
  static_assert(!concepts::ImportanceScorer<int, float, 8>);
  CHECK(true);
}
