// Elements converted from one dtype to another, rounded to nearest or at random.
#include <deltadct/io/convert.hpp>

#include "support.hpp"

using namespace io_test;
using deltadct::bfloat16;
using deltadct::half;
using deltadct::SerialExecutor;
using io::Rounding;
using io::detail::convert_elements;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// The mean, over many seeds, of a value rounded to T at random.
template <class T>
double mean_of(float value, int draws) {
  double sum = 0;
  for (int i = 0; i < draws; ++i) {
    sum += static_cast<double>(static_cast<float>(io::detail::round_stochastically<T>(
        value, deltadct::random_bits(7, static_cast<std::uint64_t>(i)))));
  }
  return sum / draws;
}

}  // namespace

TEST_CASE("convert: every pair of dtypes, as the elements themselves do it") {
  for (const DType from : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
    for (const DType to : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
      const Tensor tensor = noise("w", from, {3, 1001}, 1);
      Bytes converted(3003 * deltadct::dtype_bytes(to));
      convert_elements(tensor.bytes, from, to, converted, SerialExecutor{});
      Tensor expected = noise("w", to, {3, 1001}, 2);
      const auto all = values(from, tensor.bytes);
      for (std::size_t i = 0; i < all.size(); ++i) expected.set(i, all[i]);
      CHECK(converted == expected.bytes);
    }
  }
}

TEST_CASE("convert: rounding at random keeps the mean, and what is exact") {
  for (const float value : {1.001F, -1.001F, 1e-3F, 0.3F, -123.4F, 1e-6F, 65503.0F}) {
    // The spacing of BF16 and F16 is at most 2^-7 of a value, or 2^-24.
    const double spacing = std::max(std::abs(static_cast<double>(value)) * 0x1p-7, 0x1p-24);
    CHECK(std::abs(mean_of<bfloat16>(value, 20000) - static_cast<double>(value)) < spacing / 50);
    CHECK(std::abs(mean_of<half>(value, 20000) - static_cast<double>(value)) < spacing / 50);
  }
  for (const double value : {0.0, -0.0, 1.0, -0.5, kInfinity, -kInfinity}) {
    const auto x = static_cast<float>(value);
    CHECK(io::detail::round_stochastically<half>(x, ~std::uint64_t{0}).bits == half(x).bits);
    CHECK(io::detail::round_stochastically<bfloat16>(x, 0).bits == bfloat16(x).bits);
  }
  const auto nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(static_cast<float>(io::detail::round_stochastically<bfloat16>(nan, 1))));
}

TEST_CASE("convert: rounding at random never makes a finite value infinite") {
  for (std::uint64_t lot = 0; lot < 64; ++lot) {
    const std::uint64_t random = deltadct::random_bits(3, lot);
    const half x = io::detail::round_stochastically<half>(65510.0F, random);
    CHECK(std::isfinite(static_cast<float>(x)));
    const bfloat16 y = io::detail::round_stochastically<bfloat16>(3.3895e38F, random);
    CHECK(std::isfinite(static_cast<float>(y)));
  }
}

TEST_CASE("convert: what is drawn depends on the seed and the place alone") {
  const Tensor tensor = noise("w", DType::f32, {300, 1000}, 1);
  const auto rounded = [&](std::uint64_t seed) {
    Bytes out(tensor.bytes.size() / 2);
    convert_elements(tensor.bytes, DType::f32, DType::bf16, out, SerialExecutor{},
                     Rounding::stochastic, seed);
    return out;
  };
  CHECK(rounded(1) == rounded(1));
  CHECK(rounded(1) != rounded(2));
}

TEST_CASE("convert: a finite value that becomes infinite is found, an infinite one is not") {
  Tensor tensor = noise("w", DType::f32, {4}, 1);
  CHECK_FALSE(io::detail::find_beyond_range(tensor.bytes, DType::f32, DType::f16).has_value());
  CHECK_FALSE(io::detail::find_non_finite(tensor.bytes, DType::f32).has_value());
  tensor.set(2, 1e6);
  CHECK(io::detail::find_beyond_range(tensor.bytes, DType::f32, DType::f16) == 2);
  CHECK_FALSE(io::detail::find_beyond_range(tensor.bytes, DType::f32, DType::bf16).has_value());
  tensor.set(2, kInfinity);
  CHECK_FALSE(io::detail::find_beyond_range(tensor.bytes, DType::f32, DType::f16).has_value());
  CHECK(io::detail::find_non_finite(tensor.bytes, DType::f32) == 2);
}
