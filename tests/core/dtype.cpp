// The 2-byte floats: every value both ways, rounding, and agreement with their counterparts.
#include <deltadct/core/dtype.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#if __has_include(<Eigen/Core>)
  #include <Eigen/Core>
  #define TEST_WITH_EIGEN
#elif __has_include(<eigen3/Eigen/Core>)
  #include <eigen3/Eigen/Core>
  #define TEST_WITH_EIGEN
#endif

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

constexpr int kValues = 65536;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <class H>
H nth(int i) {
  return H::from_bits(static_cast<std::uint16_t>(i));
}

template <class H>
float widened(int i) {
  return static_cast<float>(nth<H>(i));
}

template <class H>
std::uint16_t rounded(float x) {
  return H(x).bits;
}

// Computed by the formula from the sign, exponent and mantissa of each format.
double by_formula(int i, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (i >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const double mantissa = std::ldexp(i & ((1 << mantissa_bits) - 1), -mantissa_bits);
  const double sign = i >> 15 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa == 0 ? sign * static_cast<double>(kInfinity) : std::nan("");
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias);
  return sign * std::ldexp(1 + mantissa, exponent - bias);
}

template <class H>
double by_formula(int i) {
  return std::same_as<H, half> ? by_formula(i, 5, 10) : by_formula(i, 8, 7);
}

// The nearer of the two neighbours of |x| among the positive values; ties go to the even one.
template <class H>
std::uint16_t round_by_search(float x) {
  const int infinity = std::same_as<H, half> ? 0x7C00 : 0x7F80;
  const double magnitude = std::abs(static_cast<double>(x));
  int below = 0;
  for (int step = 1 << 14; step > 0; step /= 2) {
    if (below + step < infinity && by_formula<H>(below + step) <= magnitude) below += step;
  }
  // Infinity takes the place where the next exponent would begin.
  const double lower = by_formula<H>(below);
  const double upper =
      below + 1 == infinity ? 2 * lower - by_formula<H>(below - 1) : by_formula<H>(below + 1);
  const double down = magnitude - lower;
  const double up = upper - magnitude;
  const int nearest = down < up || (down == up && below % 2 == 0) ? below : below + 1;
  return static_cast<std::uint16_t>(nearest | (std::signbit(x) ? 0x8000 : 0));
}

std::vector<float> sample() {
  std::mt19937 bits(1);
  std::vector<float> values;
  while (values.size() < 20000) {
    const auto x = std::bit_cast<float>(static_cast<std::uint32_t>(bits()));
    if (std::isfinite(x)) values.push_back(x);
  }
  // Most floats are beyond half's range, so adds as many around 1 and as many small ones.
  for (int i = 0; i < 20000; ++i) {
    values.push_back(static_cast<float>(static_cast<double>(bits()) * 0x1p-28 - 8));
    values.push_back(static_cast<float>(static_cast<double>(bits()) * 0x1p-47));
  }
  return values;
}

// What the constant evaluator makes of bit patterns that cover the whole range.
template <class H>
constexpr std::array<float, 256> widened_at_compile_time() {
  std::array<float, 256> values{};
  for (unsigned i = 0; i < 256; ++i) {
    values[i] = static_cast<float>(H::from_bits(static_cast<std::uint16_t>(257 * i)));
  }
  return values;
}

template <class H>
constexpr std::array<std::uint16_t, 256> rounded_at_compile_time() {
  std::array<std::uint16_t, 256> values{};
  for (unsigned i = 0; i < 256; ++i) values[i] = H(std::bit_cast<float>(i * 0x01010101u)).bits;
  return values;
}

}  // namespace

TEST_CASE_TEMPLATE("dtype: every value is what its bits say and rounds to itself", H, half,
                   bfloat16) {
  int wrong = 0;
  for (int i = 0; i < kValues; ++i) {
    const float x = widened<H>(i);
    const double expected = by_formula<H>(i);
    if (std::isnan(expected)) {
      wrong += !std::isnan(x) || !std::isnan(static_cast<float>(H(x)));
    } else {
      wrong += static_cast<double>(x) != expected || std::signbit(x) != (i >= 0x8000);
      wrong += rounded<H>(x) != i;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("dtype: halfway between neighbours rounds to the even one", H, half, bfloat16) {
  int wrong = 0;
  const int largest = std::same_as<H, half> ? 0x7BFF : 0x7F7F;
  for (int i = 0; i < largest; ++i) {
    // Exact in float, because both formats have fewer digits.
    const auto middle = static_cast<float>((by_formula<H>(i) + by_formula<H>(i + 1)) / 2);
    const auto even = static_cast<std::uint16_t>(i + i % 2);
    wrong += rounded<H>(middle) != even;
    wrong += rounded<H>(-middle) != (even | 0x8000);
    wrong += rounded<H>(std::nextafter(middle, 0.0F)) != i;
    wrong += rounded<H>(std::nextafter(middle, kInfinity)) != i + 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("dtype: any float rounds to the nearest value", H, half, bfloat16) {
  int wrong = 0;
  for (const float x : sample()) wrong += rounded<H>(x) != round_by_search<H>(x);
  CHECK(wrong == 0);
}

TEST_CASE("dtype: what exceeds the range becomes infinity") {
  CHECK(rounded<half>(65504.0F) == 0x7BFF);
  CHECK(rounded<half>(65519.996F) == 0x7BFF);
  CHECK(rounded<half>(65520.0F) == 0x7C00);
  CHECK(rounded<half>(-1e30F) == 0xFC00);
  CHECK(rounded<half>(kInfinity) == 0x7C00);
  CHECK(rounded<bfloat16>(std::numeric_limits<float>::max()) == 0x7F80);
  CHECK(rounded<bfloat16>(-kInfinity) == 0xFF80);
}

TEST_CASE("dtype: subnormals and signed zeros are kept") {
  CHECK(rounded<half>(0x1p-24F) == 1);
  CHECK(rounded<half>(0x1p-25F) == 0);
  CHECK(rounded<half>(0x1.000002p-25F) == 1);
  CHECK(rounded<half>(-0.0F) == 0x8000);
  CHECK(rounded<half>(std::numeric_limits<float>::denorm_min()) == 0);
  CHECK(rounded<bfloat16>(-0.0F) == 0x8000);
  CHECK(rounded<bfloat16>(0x1p-133F) == 1);
}

TEST_CASE_TEMPLATE("dtype: NaN stays NaN and keeps its sign, whatever its payload", H, half,
                   bfloat16) {
  for (const std::uint32_t bits : {0x7FC00000u, 0x7F800001u, 0x7FBFFFFFu, 0x7FFFFFFFu}) {
    for (const std::uint32_t sign : {0u, 0x80000000u}) {
      const H h(std::bit_cast<float>(bits | sign));
      CHECK(std::isnan(static_cast<float>(h)));
      CHECK((h.bits >> 15) == (sign >> 31));
    }
  }
}

TEST_CASE_TEMPLATE("dtype: compile time and run time agree", H, half, bfloat16) {
  static constexpr auto widened_then = widened_at_compile_time<H>();
  static constexpr auto rounded_then = rounded_at_compile_time<H>();
  for (unsigned i = 0; i < 256; ++i) {
    CHECK(std::bit_cast<std::uint32_t>(widened_then[i]) ==
          std::bit_cast<std::uint32_t>(widened<H>(static_cast<int>(257 * i))));
    CHECK(rounded_then[i] == rounded<H>(std::bit_cast<float>(i * 0x01010101u)));
  }
}

TEST_CASE("dtype: names, sizes and types belong together") {
  for (int k = 0; k <= static_cast<int>(DType::boolean); ++k) {
    const auto dtype = static_cast<DType>(k);
    CHECK(parse_dtype(dtype_name(dtype)) == dtype);
    CHECK(dtype_bits(dtype) >= 4);
    CHECK(dtype_bytes(dtype) == (dtype_bits(dtype) + 7) / 8);
  }
  CHECK(dtype_bits(DType::f4) == 4);
  CHECK(dtype_bits(DType::f6_e2m3) == 6);
  CHECK(dtype_bits(DType::f6_e3m2) == 6);
  CHECK(dtype_bits(DType::f8_e8m0) == 8);
  CHECK(dtype_bits(DType::boolean) == 8);
  CHECK(dtype_bits(DType::c64) == 64);
  CHECK(dtype_bytes(DType::f4) == 1);
  CHECK(parse_dtype("F8_E4M3FNUZ") == DType::f8_e4m3fnuz);
  CHECK(parse_dtype("F8_E5M2FNUZ") == DType::f8_e5m2fnuz);
  CHECK(dtype_name(DType::bf16) == "BF16");
  CHECK(!parse_dtype("bf16").has_value());
  CHECK(!parse_dtype("").has_value());
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
    CHECK(is_element(dtype));
    with_element(dtype, [&]<class T>() {
      CHECK(dtype_of<T>() == dtype);
      CHECK(sizeof(T) == dtype_bytes(dtype));
    });
  }
  CHECK(!is_element(DType::f8_e4m3));
  CHECK(!is_element(DType::i32));
}

#if defined(TEST_WITH_EIGEN)

TEST_CASE("dtype: bits are those of Eigen's half and bfloat16") {
  int wrong = 0;
  for (int i = 0; i < kValues; ++i) {
    const auto h = Eigen::numext::bit_cast<Eigen::half>(static_cast<std::uint16_t>(i));
    const auto b = Eigen::numext::bit_cast<Eigen::bfloat16>(static_cast<std::uint16_t>(i));
    const auto differ = [](float x, float y) {
      return std::isnan(x) ? !std::isnan(y)
                           : std::bit_cast<std::uint32_t>(x) != std::bit_cast<std::uint32_t>(y);
    };
    wrong += differ(widened<half>(i), static_cast<float>(h));
    wrong += differ(widened<bfloat16>(i), static_cast<float>(b));
  }
  for (const float x : sample()) {
    wrong += rounded<half>(x) != Eigen::numext::bit_cast<std::uint16_t>(Eigen::half(x));
    wrong += rounded<bfloat16>(x) != Eigen::numext::bit_cast<std::uint16_t>(Eigen::bfloat16(x));
  }
  CHECK(wrong == 0);
}

#endif
