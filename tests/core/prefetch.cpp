// Prefetching never faults and moves as the matrix does.
#include <deltadct/core/prefetch.hpp>

#include <vector>

#include <doctest/doctest.h>

using namespace deltadct;

TEST_CASE("prefetch: any address is allowed") {
  std::vector<float> weights(64 * 64);
  const MatrixView<const float> view(weights.data(), 64, 64);
  detail::Ahead ahead(view, 60, 60);
  ahead.columns_on(1000).prefetch(100, 100);
  detail::Ahead(nullptr).prefetch(0, 0);
  detail::prefetch_run(weights.data() + weights.size(), 1000);
  CHECK(weights.front() == 0);
}
