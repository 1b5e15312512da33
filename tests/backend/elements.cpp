// Elements to and from lanes give the same as one by one, for every bit pattern and at any address.
#include <deltadct/codec.hpp>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

template <class T, int P>
using Register = typename DctKernel<DefaultBackend>::template Vector<T, P>;

/// Loads and stores n elements from an odd address on, and compares with single elements.
template <class V, class U>
void check(const std::vector<U>& from, const std::vector<typename Lanes<V>::scalar>& values) {
  using L = Lanes<V>;
  using T = typename L::scalar;
  constexpr auto count = static_cast<std::size_t>(L::count);
  int wrong = 0;
  for (std::size_t s = 1; s + count <= from.size(); s += count) {
    alignas(64) T lane[count];
    L::store(lane, L::template load_elements<U>(from.data() + s));
    for (std::size_t l = 0; l < count; ++l) {
      const T expected = static_cast<T>(from[s + l]);
      wrong += std::memcmp(&lane[l], &expected, sizeof(T)) != 0;
    }
  }
  std::vector<U> to(count + 2, U(T(0)));
  for (std::size_t s = 0; s + count <= values.size(); s += count) {
    alignas(64) T lane[count];
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(s), count, lane);
    L::template store_elements<U>(to.data() + 1, L::load(lane));
    for (std::size_t l = 0; l < count; ++l) {
      const U expected(lane[l]);
      wrong += std::memcmp(&to[1 + l], &expected, sizeof(U)) != 0;
    }
    wrong += static_cast<T>(to.front()) != 0 || static_cast<T>(to.back()) != 0;
  }
  CHECK(wrong == 0);
}

std::vector<float> floats() {
  std::vector<float> values{0.0F,
                            -0.0F,
                            65504.0F,
                            65519.9F,
                            65520.0F,
                            3.4e38F,
                            -3.4e38F,
                            std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()};
  std::mt19937 random(1);
  for (int k = 0; k < 200'000; ++k) {
    const float x = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    values.push_back(x);
    // Ties between two neighbours, and the values beside them.
    const std::uint32_t tie = (static_cast<std::uint32_t>(random()) & 0xFFFF0000u) | 0x8000u;
    for (const std::uint32_t near : {tie - 1, tie, tie + 1}) {
      values.push_back(std::bit_cast<float>(near));
    }
  }
  return values;
}

template <class H>
std::vector<H> patterns() {
  std::vector<H> result;
  for (unsigned bits = 0; bits < 65'536 + 17; ++bits) {
    result.push_back(H::from_bits(static_cast<std::uint16_t>(bits)));
  }
  return result;
}

}  // namespace

TEST_CASE_TEMPLATE("elements: half and bfloat16 widen and round as one by one", H, half, bfloat16) {
  check<Register<float, 4>, H>(patterns<H>(), floats());
  check<Register<float, 8>, H>(patterns<H>(), floats());
  check<Register<float, 64>, H>(patterns<H>(), floats());
  check<float, H>(patterns<H>(), floats());
}

TEST_CASE("elements: float and double come and go as they are") {
  check<Register<float, 8>, float>(floats(), floats());
  const std::vector<double> doubles(1000, 0x1.23456789abcdep-5);
  check<Register<double, 8>, double>(doubles, doubles);
  check<Register<double, 4>, double>(doubles, doubles);
}
