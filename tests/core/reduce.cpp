// Sums over patches.
#include <deltadct/core/reduce.hpp>

#include <doctest/doctest.h>

using namespace deltadct::detail;

namespace {

template <int P>
void check_patch() {
  CAPTURE(P);
  int patch[P * P];
  int expected = 0;
  for (int i = 0; i < P * P; ++i) {
    patch[i] = i % 7;
    expected += 3 * patch[i];
  }
  CHECK(sum_patch<P, int>(patch, [](int x) { return 3 * x; }) == expected);
}

}  // namespace

TEST_CASE("reduce: a patch of any size is summed") {
  check_patch<4>();
  check_patch<8>();
  check_patch<12>();
  check_patch<16>();
  check_patch<32>();
  check_patch<64>();
}

TEST_CASE("reduce: columns are added by halves") {
  // 2^-24 vanishes beside 1, unless it is first added to its like.
  constexpr float small = 0x1p-24f;
  float column[4] = {1, small, 0, small};
  CHECK(fold_columns<4>(column) == 1 + 2 * small);
}
