// UltraDelta: how sparsities are shared out among matrices.
#include <deltadct/baseline/ultra_delta.hpp>

#include "support.hpp"

#include <cmath>
#include <limits>
#include <span>

using namespace baseline_test;

TEST_CASE("baseline: UltraDelta keeps least of the matrices that vary least") {
  const auto method = UltraDelta::survey({{3, 100}, {1, 200}, {2, 100}, {4, 200}}, 0.9, 0.05, 7);
  CHECK(method.seed == 7);
  CHECK(method.groups[0].deviation == 1);
  CHECK(method.groups[0].sparsity == doctest::Approx(0.95));
  CHECK(method.groups[1].deviation == 3);
  CHECK(method.groups[1].sparsity == doctest::Approx(0.9));
  CHECK(method.groups[2].sparsity == doctest::Approx(0.85));

  const auto clamped = UltraDelta::survey({{1, 1}, {2, 1}, {3, 1}}, 0.985, 0.02);
  CHECK(clamped.groups[0].sparsity == doctest::Approx(0.99));
  CHECK(clamped.groups[2].sparsity == doctest::Approx(0.98));

  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto others = UltraDelta::survey(
      {{3, 100}, {nan, 50}, {1, 200}, {nan, 900}, {2, 100}, {HUGE_VAL, 10}, {4, 200}}, 0.9, 0.05);
  for (std::size_t k = 0; k < 3; ++k) {
    CHECK(others.groups[k].deviation == method.groups[k].deviation);
    CHECK(others.groups[k].sparsity == method.groups[k].sparsity);
  }

  const auto single = UltraDelta::survey({{1, 1}});
  CHECK(single.groups[0].sparsity == doctest::Approx(0.98));
  CHECK(UltraDelta::survey({}).groups[2].sparsity == doctest::Approx(0.97));

  // The groups are chosen by deviation: every matrix must find its own.
  const auto even = noise<float>(100, 100, 1);
  const auto wide = noise<float>(100, 100, 2);
  const UltraDelta two =
      UltraDelta::survey({DeltaStatistics::of(std::span<const float>(even.values)),
                          DeltaStatistics::of(std::span<const float>(wide.values))},
                         0.5, 0.4);
  const BaselineCodec<UltraDelta> codec(two);
  CHECK(codec.encode(even.view()).bytes() * 2 < codec.encode(wide.view()).bytes());
}
