// Repeating with indices.
#include <deltadct/core/repeat.hpp>

#include <vector>

#include <doctest/doctest.h>

namespace {

template <int N>
void check_indices() {
  std::vector<int> indices;
  deltadct::repeat<N>([&](int i) { indices.push_back(i); });
  REQUIRE(indices.size() == N);
  for (int i = 0; i < N; ++i) CHECK(indices[static_cast<std::size_t>(i)] == i);
}

}  // namespace

TEST_CASE("repeat: every index once, in order, unrolled or not") {
  check_indices<1>();
  check_indices<16>();
  check_indices<17>();
  check_indices<64>();
}
