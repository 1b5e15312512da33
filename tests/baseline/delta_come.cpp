// Delta-CoMe: the triplets that it keeps, and bytes that stand for none.
#include <deltadct/baseline/delta_come.hpp>

#include "support.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <initializer_list>
#include <numeric>

using namespace baseline_test;

TEST_CASE("baseline: a matrix of low rank is Delta-CoMe's own") {
  const auto left = noise<double>(200, 2, 1, 5);
  const auto right = noise<double>(2, 130, 1, 6);
  auto delta = zeros<float>(200, 130);
  for (std::size_t i = 0; i < 200; ++i) {
    for (std::size_t j = 0; j < 130; ++j) {
      delta.values[i * 130 + j] = static_cast<float>(
          left.values[2 * i] * right.values[j] + left.values[2 * i + 1] * right.values[130 + j]);
    }
  }
  const BaselineCodec<DeltaCome> codec;
  const CompressedTensor packed = codec.encode(delta.view());
  const auto back = decoded<float>(codec, packed);
  const double error = dot(delta, delta) - 2 * dot(delta, back) + dot(back, back);
  CHECK(error < 1e-3 * dot(delta, delta));
  CHECK(packed.bytes() * 8 < 200 * 130);
}

TEST_CASE("baseline: Delta-CoMe of a large matrix, whose decomposition is randomized") {
  const auto left = noise<float>(1030, 4, 1, 5);
  const auto right = noise<float>(4, 1040, 1, 6);
  auto delta = noise<float>(1030, 1040, 1e-3, 7);
  for (std::size_t i = 0; i < 1030; ++i) {
    for (std::size_t j = 0; j < 1040; ++j) {
      for (std::size_t k = 0; k < 4; ++k) {
        delta.values[i * 1040 + j] += left.values[i * 4 + k] * right.values[k * 1040 + j];
      }
    }
  }
  const BaselineCodec<DeltaCome> codec(DeltaCome{.bits_per_weight = 0.1});
  const CompressedTensor packed = codec.encode(delta.view());
  CHECK(static_cast<double>(packed.bytes()) * 8 <= 0.1 * 1030 * 1040);
  const auto back = decoded<float>(codec, packed);
  CHECK(dot(delta, back) / std::sqrt(dot(delta, delta) * dot(back, back)) > 0.85);
}

TEST_CASE("baseline: Delta-CoMe of sparse matrices is as near as its ranks can be") {
  for (const std::size_t n : {64u, 128u, 256u}) {
    for (unsigned seed = 1; seed <= 40; ++seed) {
      CAPTURE(n);
      CAPTURE(seed);
      auto delta = zeros<float>(n, n);
      std::mt19937 random(seed);
      for (std::size_t k = 0; k < n / 2; ++k) {
        delta.values[random() % (n * n)] = static_cast<float>(random()) * 0x1p-31F - 1;
      }
      const BaselineCodec<DeltaCome> codec;
      const auto back = decoded<float>(codec, codec.encode(delta.view()));
      // The 34 largest elements alone are a matrix of that rank.
      std::vector<float> squares;
      for (const float x : delta.values) squares.push_back(x * x);
      std::ranges::sort(squares, std::greater{});
      const double most = std::accumulate(squares.begin() + 34, squares.end(), 0.0);
      const double error = dot(delta, delta) - 2 * dot(delta, back) + dot(back, back);
      CHECK(error <= most + 0.05 * dot(delta, delta));
    }
  }
}

TEST_CASE("baseline: Delta-CoMe of a wide matrix keeps what is small in it") {
  auto delta = zeros<float>(2, 300'000);
  std::mt19937 random(5);
  for (std::size_t j = 0; j < delta.cols; ++j) {
    delta.values[j] = random() % 2 == 0 ? 1.0F : -1.0F;
    delta.values[delta.cols + j] = random() % 2 == 0 ? 0.01F : -0.01F;
  }
  const BaselineCodec<DeltaCome> codec;
  const auto back = decoded<float>(codec, codec.encode(delta.view()));
  double product = 0;
  for (std::size_t j = 0; j < delta.cols; ++j) {
    product += static_cast<double>(delta.values[delta.cols + j] * back.values[delta.cols + j]);
  }
  CHECK(product == doctest::Approx(1e-4 * static_cast<double>(delta.cols)).epsilon(0.05));
}

TEST_CASE("baseline: Delta-CoMe keeps one triplet, however small its budget is") {
  const auto delta = noise<float>(40, 50);
  const BaselineCodec<DeltaCome> codec(DeltaCome{.bits_per_weight = 1e-4});
  const CompressedTensor least = codec.encode(delta.view());
  CHECK(least.codes.size() == codec.max_compressed_bytes(40, 50));
  CHECK(least.codes.size() < BaselineCodec<DeltaCome>{}.encode(delta.view()).codes.size());
  const auto back = decoded<float>(codec, least);
  CHECK(std::ranges::any_of(back.values, [](float x) { return x != 0; }));
}

TEST_CASE("baseline: Delta-CoMe's bytes may not stand for what is not finite") {
  // Two triplets of 8 bits. The second has the largest singular value and a row of zeros.
  const auto tensor_of = [](std::int16_t exponent) {
    CompressedTensor tensor = BaselineCodec<DeltaCome>{}.encode(zeros<float>(4, 4).view());
    tensor.codes.clear();
    detail::PackedWriter writer(tensor.codes);
    const auto put_factor = [&](std::initializer_list<float> steps) {
      for (const float step : steps) {
        writer.put(half(step));
        writer.put(half(0.0F));
      }
      std::ranges::fill(writer.room(8), std::byte{1});
    };
    writer.put(std::array<std::uint32_t, 3>{2, 0, 0});
    writer.put(exponent);
    writer.put_bfloat16(1e-38, "singular value");
    writer.put_bfloat16(1e38, "singular value");
    put_factor({1, 1, 1, 1});
    put_factor({1, 0});
    tensor.header.whole_bytes = tensor.codes.size();
    return tensor;
  };
  const BaselineCodec<DeltaCome> codec;
  for (const float x : decoded<float>(codec, tensor_of(0)).values) CHECK(std::isfinite(x));
  const CompressedTensor beyond = tensor_of(200);
  CHECK(caught([&] { codec.validate(beyond); }).code() == Errc::corrupt_data);
}

TEST_CASE("baseline: nothing is done for the rows of a matrix of which nothing is stored") {
  CompressedTensor tensor = BaselineCodec<DeltaCome>{}.encode(zeros<float>(4, 1).view());
  REQUIRE(tensor.codes.size() == 14);
  // Walking through these rows would take hours.
  tensor.header.rows = std::size_t{1} << 43;
  BaselineCodec<DeltaCome>::validate(tensor);
}

TEST_CASE("baseline: matrices whose product takes too long for their bytes are refused") {
  // Rank 1: a few bytes per row and column, but one product per element.
  const auto of_shape = [](std::size_t rows, std::size_t cols) {
    CompressedTensor tensor;
    tensor.header.rows = rows;
    tensor.header.cols = cols;
    tensor.header.transform = DeltaCome::name;
    detail::PackedWriter writer(tensor.codes);
    writer.put(std::array<std::uint32_t, 3>{0, 0, 1});
    writer.put(std::int16_t{0});
    writer.put_bfloat16(1.0, "singular value");
    writer.room(4 * rows + (2 * rows + 7) / 8 + 4 * ceil_div(cols, std::size_t{128}) +
                (2 * cols + 7) / 8);
    tensor.header.whole_bytes = tensor.codes.size();
    return tensor;
  };
  const auto validate_shape = [&](std::size_t rows, std::size_t cols) {
    const CompressedTensor tensor = of_shape(rows, cols);
    BaselineCodec<DeltaCome>::validate(tensor);
  };
  validate_shape(60'000, 60'000);
  validate_shape(1'000, 1'000'000);
  const Error error = caught([&] { validate_shape(1'000'000, 10'000'000); });
  CHECK(error.code() == Errc::corrupt_data);
  CHECK(test::names(error, "products for a byte"));
}
