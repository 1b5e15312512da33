// Codes for groups of coefficients: which one is the largest, and its sign.
#include "../support/vectors.hpp"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <doctest/doctest.h>

using namespace deltadct;
using namespace test;

namespace {

/// Reads numbers of `bits` bits that lie one after another in the bytes, lowest bits first.
std::vector<int> numbers_in(const std::vector<std::byte>& bytes, int bits, int count) {
  std::vector<int> numbers;
  for (int j = 0; j < count; ++j) {
    int number = 0;
    for (int b = 0; b < bits; ++b) {
      const int at = j * bits + b;
      const int bit = std::to_integer<int>(bytes[static_cast<std::size_t>(at / 8)]) >> (at % 8) & 1;
      number |= bit << b;
    }
    numbers.push_back(number);
  }
  return numbers;
}

/// The codes by definition: 2 i + sign, where i is the first of the largest in each group.
template <class T>
std::vector<int> codes_by_definition(int k, const T* x, int n) {
  const int groups = n >> k;
  std::vector<int> codes;
  for (int j = 0; j < groups; ++j) {
    int largest = 0;
    for (int i = 1; i < 1 << k; ++i) {
      if (std::abs(x[i * groups + j]) > std::abs(x[largest * groups + j])) largest = i;
    }
    codes.push_back(2 * largest + (x[largest * groups + j] < 0));
  }
  return codes;
}

/// Calls fn(LargestOf<k>{}).
template <class Fn>
auto with_group(int k, Fn fn) {
  switch (k) {
    case 2:
      return fn(LargestOf<2>{});
    case 3:
      return fn(LargestOf<3>{});
    case 4:
      return fn(LargestOf<4>{});
    case 5:
      return fn(LargestOf<5>{});
    case 6:
      return fn(LargestOf<6>{});
    default:
      return fn(LargestOf<7>{});
  }
}

template <class V, class T>
T encode(int k, const T* x, int n, std::byte* codes) {
  return with_group(k, [&]<class Q>(Q) { return Q::template encode<V>(x, n, codes).step(); });
}

template <class Fn>
void for_each_shape(Fn fn) {
  for (const int n : {16, 64, 144, 256, 1024, 4096}) {
    for (int k = 2; k <= 7; ++k) {
      if (is_bit_width_of(-k, static_cast<std::size_t>(n))) fn(k, n);
    }
  }
}

/// Encodes and decodes, compares both with the definition, and returns the step.
template <class V, class T>
T check(int k, const T* x, int n) {
  CAPTURE(k);
  CAPTURE(n);
  const int groups = n >> k;
  std::vector<std::byte> codes(code_bytes(-k, static_cast<std::size_t>(n)), std::byte{0xFF});
  const T step = encode<V>(k, x, n, codes.data());
  const auto found = numbers_in(codes, k + 1, groups);
  CHECK(found == codes_by_definition(k, x, n));
  const auto used = static_cast<std::size_t>(groups * (k + 1));
  const int unused = used % 8 == 0 ? 0 : std::to_integer<int>(codes.back()) >> (used % 8);
  CHECK(unused == 0);

  Values<T> back;
  for (T& y : back.x) y = std::numeric_limits<T>::quiet_NaN();
  with_group(k, [&]<class Q>(Q) {
    Q::decode(codes.data(), step, back.x, n);
    CHECK(Q::is_padded(codes.data(), n));
    // One group at a time, as devices encode.
    for (int j = 0; j < groups; ++j) {
      const auto choice = Q::choose([&](int i) { return x[i * groups + j]; });
      CHECK(static_cast<int>(choice.code) == found[static_cast<std::size_t>(j)]);
      for (int i = 0; i < Q::group; ++i) {
        CHECK(Q::level(choice.code, i, step) == back.x[i * groups + j]);
      }
    }
  });
  double square = 0;
  double product = 0;
  double peak = 0;
  for (int s = 0; s < n; ++s) peak = std::max(peak, std::abs(static_cast<double>(x[s])));
  for (int s = 0; s < n; ++s) {
    const int code = found[static_cast<std::size_t>(s % groups)];
    const T expected = code / 2 != s / groups ? T(0) : code % 2 == 0 ? step : -step;
    CHECK(back.x[s] == expected);
    square += static_cast<double>(x[s]) / peak * static_cast<double>(x[s]) / peak;
    product += static_cast<double>(x[s]) / peak * static_cast<double>(back.x[s]) / peak;
  }
  CHECK(product / square == doctest::Approx(1).epsilon(1e-5));
  return step;
}

}  // namespace

TEST_CASE("largest: sizes of codes, and which patches can have them") {
  CHECK(code_bytes(-3, 4096) == 256);  // 512 codes of 4 bits
  CHECK(code_bytes(-7, 4096) == 32);   // 32 codes of 8 bits
  CHECK(code_bytes(-4, 144) == 6);     // 9 codes of 5 bits, padded
  CHECK(code_bytes(-2, 16) == 2);      // 4 codes of 3 bits, padded
  CHECK(is_bit_width_of(-4, 144));
  CHECK_FALSE(is_bit_width_of(-5, 144));
  CHECK_FALSE(is_bit_width_of(-7, 64));
  CHECK_FALSE(is_bit_width(-1));
  CHECK_FALSE(is_bit_width(-8));
}

TEST_CASE_TEMPLATE("largest: codes and reconstructions are as defined", V, VECTORS) {
  using T = typename Lanes<V>::scalar;
  for_each_shape(
      [](int k, int n) { check<V>(k, normal<T>(0.01, static_cast<std::uint32_t>(n + k)).x, n); });
}

TEST_CASE_TEMPLATE("largest: of equals the first is taken", V, VECTORS) {
  using T = typename Lanes<V>::scalar;
  for_each_shape([](int k, int n) {
    Values<T> values;
    for (int s = 0; s < n; ++s) values.x[s] = s % 2 == 0 ? T(-2) : T(2);
    CHECK(check<V>(k, values.x, n) == doctest::Approx(2 * (1 << k)));
  });
}

TEST_CASE_TEMPLATE("largest: one coefficient alone comes back exactly, wherever it is", V,
                   VECTORS) {
  using T = typename Lanes<V>::scalar;
  for (int at = 0; at < 256; ++at) {
    Values<T> values;
    values.x[at] = at % 2 == 0 ? T(-3e-6) : T(3e-6);
    for (const int k : {2, 5, 7}) {
      CHECK(check<V>(k, values.x, 256) == doctest::Approx(3e-6));
    }
  }
}

TEST_CASE_TEMPLATE("largest: any range has unit gain, zeros have codes of zero", V, VECTORS) {
  using T = typename Lanes<V>::scalar;
  for (const double spread :
       {1e-30, 1e30, 1e3 * static_cast<double>(std::numeric_limits<T>::min())}) {
    check<V>(3, normal<T>(spread).x, 1024);
  }
  const Values<T> zeros;
  std::vector<std::byte> codes(code_bytes(-3, 256), std::byte{0xFF});
  CHECK(encode<V>(3, zeros.x, 256, codes.data()) == 0);
  for (const std::byte b : codes) CHECK(b == std::byte{0});
}

TEST_CASE("largest: the noise of draws from the normal distribution") {
  // 2^k / E[max |x|]^2 - 1 for 2^k values x, found by simulation.
  constexpr double kNoise[] = {0, 0, 0.867, 1.514, 2.710, 4.808, 8.482, 14.97};
  for (int k = 2; k <= 7; ++k) {
    double noise = 0;
    for (std::uint32_t seed = 1; seed <= 30; ++seed) {
      const auto values = normal<float>(1, seed);
      std::vector<std::byte> codes(code_bytes(-k, Values<float>::size));
      const float step = encode<float>(k, values.x, Values<float>::size, codes.data());
      double square = 0;
      for (const float x : values.x) square += static_cast<double>(x) * static_cast<double>(x);
      noise += (static_cast<double>(step) * static_cast<double>(step) * (Values<float>::size >> k) /
                    square -
                1) /
               30;
    }
    CAPTURE(k);
    CHECK(noise == doctest::Approx(kNoise[k]).epsilon(0.05));
  }
}
