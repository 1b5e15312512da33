// Arithmetic on the lanes of scalars and registers.
#include <deltadct/core/lanes.hpp>

#include "../support/vectors.hpp"

#include <limits>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

/// Applies fn to registers that begin with the values, and returns lane 0.
template <class V, class Fn, class... T>
auto first_lane(Fn fn, T... x) {
  alignas(64) typename Lanes<V>::scalar lane[Lanes<V>::count];
  Lanes<V>::store(lane, fn(V(x)...));
  for (const auto& other : lane) CHECK(other == lane[0]);
  return lane[0];
}

}  // namespace

TEST_CASE_TEMPLATE("lanes: what is loaded is stored", V, VECTORS) {
  using L = Lanes<V>;
  using T = typename L::scalar;
  const auto values = test::normal<T>(1);
  T stored[L::count + 1];
  L::store_elements(stored + 1, L::load_elements(values.x + 1));  // of any address
  for (int i = 0; i < L::count; ++i) CHECK(stored[1 + i] == values.x[1 + i]);
}

TEST_CASE_TEMPLATE("lanes: minimum, maximum, magnitude and selection", V, VECTORS) {
  using L = Lanes<V>;
  using T = typename L::scalar;
  CHECK(first_lane<V>([](V a, V b) { return L::min(a, b); }, T(-2), T(1)) == -2);
  CHECK(first_lane<V>([](V a, V b) { return L::max(a, b); }, T(-2), T(1)) == 1);
  CHECK(first_lane<V>([](V a) { return L::abs(a); }, T(-2)) == 2);
  const auto less = [](V a, V b) { return L::select_less(a, b, V(T(3)), V(T(4))); };
  CHECK(first_lane<V>(less, T(1), T(2)) == 3);
  CHECK(first_lane<V>(less, T(2), T(2)) == 4);
  CHECK(first_lane<V>(less, T(2), T(1)) == 4);
}

TEST_CASE_TEMPLATE("lanes: ties round to even", V, VECTORS) {
  using T = typename Lanes<V>::scalar;
  const auto round = [](T x) { return first_lane<V>([](V v) { return Lanes<V>::round(v); }, x); };
  CHECK(round(T(0.5)) == 0);
  CHECK(round(T(1.5)) == 2);
  CHECK(round(T(2.5)) == 2);
  CHECK(round(T(-1.5)) == -2);
  CHECK(round(T(2.25)) == 2);
}

TEST_CASE_TEMPLATE("lanes: a tile is transposed", V, VECTORS) {
  using L = Lanes<V>;
  using T = typename L::scalar;
  constexpr int n = L::count;
  const auto values = test::normal<T>(1);
  V tile[n];
  for (int i = 0; i < n; ++i) tile[i] = L::load(values.x + i * n);
  L::transpose(tile);
  for (int i = 0; i < n; ++i) {
    alignas(64) T row[n];
    L::store(row, tile[i]);
    for (int j = 0; j < n; ++j) CHECK(row[j] == values.x[j * n + i]);
  }
}

TEST_CASE_TEMPLATE("lanes: reduce_lanes() goes from the first lane to the last", V, VECTORS) {
  using L = Lanes<V>;
  using T = typename L::scalar;
  alignas(64) T lane[L::count];
  T expected = 0;
  for (int i = 0; i < L::count; ++i) {
    lane[i] = static_cast<T>(i + 1);
    expected = i == 0 ? lane[0] : 2 * expected + lane[i];
  }
  CHECK(reduce_lanes(L::load(lane), [](T a, T b) { return 2 * a + b; }) == expected);
}
