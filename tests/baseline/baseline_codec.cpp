// What every baseline must do behind the interface of DeltaCodec: shapes, element types, ranges,
// bad input. The values themselves are checked in golden/baselines.
#include "../support/caught.hpp"
#include "../support/largest_request.hpp"

#include <deltadct/baseline/any_baseline.hpp>

#include <limits>
#include <numeric>
#include <random>

#include <doctest/doctest.h>

using namespace deltadct;
using test::caught;

namespace {

template <class T>
struct Dense {
  std::vector<T> values;
  std::size_t rows;
  std::size_t cols;

  MatrixView<T> view() { return {values.data(), rows, cols}; }
  MatrixView<const T> view() const { return {values.data(), rows, cols}; }
};

template <class T>
Dense<T> zeros(std::size_t rows, std::size_t cols) {
  return {std::vector<T>(rows * cols), rows, cols};
}

template <class T>
Dense<T> noise(std::size_t rows, std::size_t cols, double size = 0.01, unsigned seed = 1) {
  Dense<T> matrix = zeros<T>(rows, cols);
  std::mt19937 random(seed);
  for (T& x : matrix.values) {
    x = static_cast<T>(
        static_cast<compute_t<T>>(size * (static_cast<double>(random()) * 0x1p-31 - 1)));
  }
  return matrix;
}

template <class T, class Codec>
Dense<T> decoded(const Codec& codec, const CompressedTensor& packed) {
  Dense<T> out = zeros<T>(packed.header.rows, packed.header.cols);
  codec.decode(packed, out.view());
  return out;
}

template <class T>
double dot(const Dense<T>& a, const Dense<T>& b) {
  double sum = 0;
  for (std::size_t s = 0; s < a.values.size(); ++s) {
    sum += static_cast<double>(a.values[s]) * static_cast<double>(b.values[s]);
  }
  return sum;
}

template <class Fn>
void for_each_method(Fn fn) {
  fn(BitDelta{});
  fn(BitDelta{BitDelta::Axis::row});
  fn(BitDelta{BitDelta::Axis::column});
  fn(DeltaCome{});
  fn(Dare{});
  fn(UltraDelta{.groups = {{{.sparsity = 0.5}}}});
}

}  // namespace

TEST_CASE("baseline: any shape comes back finite, within the size that was promised") {
  const std::pair<std::size_t, std::size_t> shapes[] = {
      {1, 1}, {1, 37}, {37, 1}, {0, 5}, {5, 0}, {64, 48}, {131, 29}, {7, 300}, {257, 2}};
  for_each_method([&](const auto& method) {
    CAPTURE(method.name);
    for (const auto& shape : shapes) {
      const std::size_t rows = shape.first;
      const std::size_t cols = shape.second;
      CAPTURE(rows);
      CAPTURE(cols);
      const BaselineCodec<std::remove_cvref_t<decltype(method)>> codec(method);
      const auto delta = noise<float>(rows, cols);
      const CompressedTensor packed = codec.encode(delta.view());
      CHECK(packed.bytes() <= codec.max_compressed_bytes(rows, cols));
      CHECK(packed.header.whole_bytes == packed.codes.size());
      codec.validate(packed);
      for (const float x : decoded<float>(codec, packed).values) CHECK(std::isfinite(x));
    }
  });
}

TEST_CASE("baseline: sizes that would wrap are refused, and rows of nothing cost nothing") {
  for_each_method([&](const auto& method) {
    CAPTURE(method.name);
    const BaselineCodec<std::remove_cvref_t<decltype(method)>> codec(method);
    const std::pair<std::size_t, std::size_t> vast[] = {
        {SIZE_MAX, SIZE_MAX},
        {std::size_t{1} << 33, std::size_t{1} << 33},
        {std::size_t{1} << 32, std::size_t{1} << 31},
        {SIZE_MAX, 1},
        {1, SIZE_MAX}};
    for (const auto& shape : vast) {
      const std::size_t rows = shape.first;
      const std::size_t cols = shape.second;
      CAPTURE(rows);
      CAPTURE(cols);
      CHECK(caught([&] { codec.max_compressed_bytes(rows, cols); }).code() == Errc::too_large);
      CHECK(caught([&] { codec.encode_workspace_bytes(rows, cols); }).code() == Errc::too_large);
      CHECK(caught([&] { codec.method().template max_bytes<float>(rows, cols); }).code() ==
            Errc::too_large);
    }
    const MatrixView<const float> nothing(nullptr, SIZE_MAX, 0);
    const CompressedTensor packed = codec.encode(nothing);
    CHECK(packed.header.rows == SIZE_MAX);
    CHECK(packed.bytes() == 0);
    CHECK(codec.max_compressed_bytes(SIZE_MAX, 0) == 0);
    codec.validate(packed);
    CHECK_NOTHROW(codec.encode(nothing, nothing));
    CHECK_NOTHROW(codec.decode_add(packed, MatrixView<float>(nullptr, SIZE_MAX, 0)));
  });
}

TEST_CASE("baseline: a factor that is not finite is refused before anything is written") {
  const double infinity = std::numeric_limits<double>::infinity();
  for_each_method([&](const auto& method) {
    CAPTURE(method.name);
    const BaselineCodec<std::remove_cvref_t<decltype(method)>> codec(method);
    const CompressedTensor packed = codec.encode(noise<float>(20, 30).view());
    for (const double alpha : {std::nan(""), infinity, -infinity, 1e300}) {
      auto out = zeros<float>(20, 30);
      const Error error = caught([&] { codec.decode_add(packed, out.view(), alpha); });
      CHECK(error.code() == Errc::non_finite);
      CHECK(error.where() == "alpha");
      CHECK(caught([&] { codec.decode_add_block(packed, 0, 0, out.view(), alpha); }).code() ==
            Errc::non_finite);
      CHECK(out.values == zeros<float>(20, 30).values);
    }
  });
}

TEST_CASE("baseline: a view of nothing is refused by whatever is given it") {
  for_each_method([&](const auto& method) {
    CAPTURE(method.name);
    const BaselineCodec<std::remove_cvref_t<decltype(method)>> codec(method);
    auto out = zeros<float>(3, 3);
    const auto refuse = [](auto fn) { CHECK(caught(fn).code() == Errc::corrupt_data); };
    refuse([&] { codec.check({}); });
    refuse([&] { codec.validate({}); });
    refuse([&] { codec.decode({}, out.view()); });
    refuse([&] { codec.decode_add({}, out.view()); });
    refuse([&] { codec.decode_add_block({}, 0, 0, out.view()); });
  });
}

TEST_CASE("baseline: a block is that part of the whole, in any layout and element type") {
  for_each_method([&](const auto& method) {
    CAPTURE(method.name);
    using Method = std::remove_cvref_t<decltype(method)>;
    const BaselineCodec<Method> codec(method);
    const auto base = noise<bfloat16>(70, 300, 1, 2);
    auto tuned = base;
    const auto delta = noise<float>(70, 300, 0.25, 3);
    for (std::size_t s = 0; s < tuned.values.size(); ++s) {
      tuned.values[s] = bfloat16(static_cast<float>(tuned.values[s]) + delta.values[s]);
    }
    const CompressedTensor packed = codec.encode(base.view(), tuned.view());
    const auto whole = decoded<float>(codec, packed);

    auto added = base;
    codec.decode_add(packed, added.view());
    for (std::size_t s = 0; s < added.values.size(); ++s) {
      const bfloat16 expected(static_cast<float>(base.values[s]) + whole.values[s]);
      REQUIRE(added.values[s].bits == expected.bits);
    }
    auto block = zeros<float>(150, 41);  // read as its transpose
    codec.decode_add_block(packed, 13, 129, MatrixView<float>(block.values.data(), 41, 150, 1, 41),
                           -2.0);
    for (std::size_t i = 0; i < 41; ++i) {
      for (std::size_t j = 0; j < 150; ++j) {
        REQUIRE(block.values[j * 41 + i] == -2.0f * whole.values[(13 + i) * 300 + 129 + j]);
      }
    }
  });
}

TEST_CASE("baseline: the gain is what the method is known for") {
  const auto delta = noise<float>(400, 300);
  const auto gain = [&](const auto& method) {
    const BaselineCodec<std::remove_cvref_t<decltype(method)>> codec(method);
    return dot(delta, decoded<float>(codec, codec.encode(delta.view()))) / dot(delta, delta);
  };
  // For uniform elements: (E|x|)^2 / E x^2.
  CHECK(gain(BitDelta{}) == doctest::Approx(0.75).epsilon(0.01));
  CHECK(gain(Dare{}) == doctest::Approx(1).epsilon(0.05));
  CHECK(gain(UltraDelta{}) == doctest::Approx(1).epsilon(0.05));
  CHECK(gain(DeltaCome{}) < 0.9);
}

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

TEST_CASE("baseline: zeros and constants") {
  for_each_method([&](const auto& method) {
    CAPTURE(method.name);
    const BaselineCodec<std::remove_cvref_t<decltype(method)>> codec(method);
    const auto none = zeros<float>(40, 50);
    for (const float x : decoded<float>(codec, codec.encode(none.view())).values) CHECK(x == 0);
    auto constant = zeros<float>(40, 50);
    std::ranges::fill(constant.values, -0.5f);
    const auto back = decoded<float>(codec, codec.encode(constant.view()));
    CHECK(dot(constant, back) / dot(constant, constant) == doctest::Approx(1).epsilon(0.5));
    auto single = zeros<float>(40, 50);
    single.values[77] = 3;
    for (const float x : decoded<float>(codec, codec.encode(single.view())).values) {
      CHECK(std::isfinite(x));
    }
  });
}

TEST_CASE_TEMPLATE("baseline: elements of any size", T, float, double) {
  for (const double size : {1e-30, 1e30}) {
    for_each_method([&](const auto& method) {
      CAPTURE(method.name);
      CAPTURE(size);
      const BaselineCodec<std::remove_cvref_t<decltype(method)>, T> codec(method);
      auto delta = noise<T>(40, 50, size);
      delta.values[3] = static_cast<T>(1e-3 * size);
      const auto back = decoded<T>(codec, codec.encode(delta.view()));
      auto unit = noise<T>(40, 50, 1);
      auto of_unit = decoded<T>(codec, codec.encode(unit.view()));
      double sum = 0;
      for (std::size_t s = 0; s < back.values.size(); ++s) {
        sum += std::abs(static_cast<double>(back.values[s])) / size;
      }
      const double expected = std::accumulate(
          of_unit.values.begin(), of_unit.values.end(), 0.0,
          [](double total, T x) { return total + std::abs(static_cast<double>(x)); });
      CHECK(sum == doctest::Approx(expected).epsilon(0.25));
    });
  }
}

TEST_CASE("baseline: what cannot be stored is refused") {
  constexpr float most = std::numeric_limits<float>::max();
  const auto refused = [](const auto& method, const auto& delta) {
    const BaselineCodec<std::remove_cvref_t<decltype(method)>> codec(method);
    return caught([&] { codec.encode(delta.view()); }).code();
  };
  auto delta = noise<float>(40, 50);
  delta.values[51] = std::numeric_limits<float>::quiet_NaN();
  for_each_method([&](const auto& method) {
    const BaselineCodec<std::remove_cvref_t<decltype(method)>> codec(method);
    const Error error = caught([&] { codec.encode(delta.view()); });
    CHECK(error.code() == Errc::non_finite);
    CHECK(std::string(error.what()).find("(1, 1)") != std::string::npos);
  });
  std::ranges::fill(delta.values, most);
  CHECK(refused(BitDelta{}, delta) == Errc::out_of_range);
  CHECK(refused(Dare{}, delta) == Errc::out_of_range);
  CHECK(refused(UltraDelta{}, delta) == Errc::out_of_range);
  CHECK(refused(DeltaCome{}, delta) == Errc::out_of_range);

  // Multiples of the smallest representable number: all would be lost.
  delta = noise<float>(40, 50, 1e-44);
  CHECK(refused(BitDelta{}, delta) == Errc::out_of_range);
  CHECK(refused(DeltaCome{}, delta) == Errc::out_of_range);
  for (const double size : {1e-100, 1e-322}) {
    const BaselineCodec<BitDelta, double> codec;
    const auto tiny = noise<double>(40, 50, size);
    CHECK(caught([&] { codec.encode(tiny.view()); }).code() == Errc::out_of_range);
  }
  // Beside larger elements their loss does not matter.
  delta = noise<float>(40, 50);
  for (std::size_t j = 0; j < 50; ++j) delta.values[j] *= 1e-42F;
  BaselineCodec<BitDelta>(BitDelta{BitDelta::Axis::row}).encode(delta.view());

  const auto small = noise<float>(40, 50);
  for (const double p : {-0.1, 1.0, 1.5, std::numeric_limits<double>::quiet_NaN()}) {
    CHECK(refused(Dare{.drop = p}, small) == Errc::bad_range);
    CHECK(refused(UltraDelta{.groups = {{{.sparsity = p}}}}, small) == Errc::bad_range);
  }
  for (const double budget : {-1.0, std::numeric_limits<double>::quiet_NaN()}) {
    CHECK(refused(DeltaCome{.bits_per_weight = budget}, small) == Errc::bad_mix);
  }
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

TEST_CASE("baseline: validating takes no memory by the elements") {
  for_each_method([&](const auto& method) {
    CAPTURE(method.name);
    using Method = std::remove_cvref_t<decltype(method)>;
    const BaselineCodec<Method> codec(method);
    const CompressedTensor packed = codec.encode(noise<float>(500, 400).view());
    test::largest_request = 0;
    codec.validate(packed);
    CHECK(test::largest_request <= std::max<std::size_t>(4096, packed.codes.size() / 4));
  });
}

TEST_CASE("baseline: decode() takes a destination of the matrix's shape alone") {
  for_each_method([&](const auto& method) {
    const BaselineCodec<std::remove_cvref_t<decltype(method)>> codec(method);
    const CompressedTensor packed = codec.encode(noise<float>(16, 16).view());
    for (const std::size_t n : {2u, 17u}) {
      auto out = zeros<float>(n, n);
      CHECK(caught([&] { codec.decode(packed, out.view()); }).code() == Errc::shape_mismatch);
    }
  });
}

TEST_CASE("baseline: bytes that encode() cannot have written are refused") {
  const auto delta = noise<float>(130, 70);
  for_each_method([&](const auto& method) {
    CAPTURE(method.name);
    const BaselineCodec<std::remove_cvref_t<decltype(method)>> codec(method);
    const CompressedTensor packed = codec.encode(delta.view());
    const auto code_of = [&](const CompressedTensor& broken) {
      return caught([&] { codec.validate(broken); }).code();
    };
    for (std::size_t size = 0; size < packed.codes.size(); size += 1 + size / 16) {
      CompressedTensor cut = packed;
      cut.codes.resize(size);
      cut.header.whole_bytes = size;
      CHECK(code_of(cut) == Errc::corrupt_data);
    }
    CompressedTensor longer = packed;
    longer.codes.resize(packed.codes.size() + 64);
    CHECK(code_of(longer) == Errc::corrupt_data);
    longer.header.whole_bytes = longer.codes.size();
    CHECK(code_of(longer) == Errc::corrupt_data);
    CompressedTensor huge = packed;
    huge.header.rows = std::size_t{1} << 40;
    CHECK(code_of(huge) == Errc::corrupt_data);
    CompressedTensor other = packed;
    other.header.transform = "dct";
    CHECK(code_of(other) == Errc::codec_mismatch);

    // Whatever value a byte gets, decoding is refused or yields finite numbers.
    std::mt19937 random(9);
    for (int round = 0; round < 300; ++round) {
      CompressedTensor broken = packed;
      broken.codes[random() % std::min<std::size_t>(broken.codes.size(), round < 200 ? 90 : 5000)] =
          static_cast<std::byte>(random());
      auto out = zeros<float>(130, 70);
      try {
        codec.decode(broken, out.view());
      } catch (const Error& error) {
        CHECK(error.code() == Errc::corrupt_data);
      }
      CHECK(std::ranges::all_of(out.values, [](float x) { return std::isfinite(x); }));
    }
  });
}

TEST_CASE("baseline: an empty matrix has no codes") {
  const BaselineCodec<BitDelta> codec;
  CompressedTensor packed = codec.encode(zeros<float>(0, 5).view());
  CHECK(packed.codes.empty());
  packed.codes.resize(1);
  packed.header.whole_bytes = 1;
  CHECK(caught([&] { codec.validate(packed); }).code() == Errc::corrupt_data);
}

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
  const UltraDelta two = UltraDelta::survey({DeltaSpread::of(std::span<const float>(even.values)),
                                             DeltaSpread::of(std::span<const float>(wide.values))},
                                            0.5, 0.4);
  const BaselineCodec<UltraDelta> codec(two);
  CHECK(codec.encode(even.view()).bytes() * 2 < codec.encode(wide.view()).bytes());
}

TEST_CASE("baseline: any codec by its name, with the settings that were chosen") {
  const auto delta = noise<float>(64, 64);
  const auto base = zeros<float>(64, 64);
  const auto bytes = [&](const AnyBaseline& chosen, const CodecSpec& spec) {
    CompressedTensor out;
    std::vector<std::byte> workspace;
    const CodecFactory factory = with_baselines(make_codec<Serial>, chosen);
    factory(spec)->encode_into(out, workspace, DType::f32, base.values.data(), delta.values.data(),
                               64, 64, SerialExecutor{});
    return out.bytes();
  };
  const AnyBaseline rows = BitDelta{BitDelta::Axis::row};
  CHECK(bytes(rows, baseline_spec(rows)) == 1 + 128 + 512);
  CHECK(bytes(rows, baseline_spec(Dare{})) < 1000);
  CHECK(baseline_spec(UltraDelta{}).transform == "ultra_delta");
  CodecSpec unknown = baseline_spec(rows);
  unknown.transform = "zip";
  CHECK(caught([&] { make_baseline_codec(unknown); }).code() == Errc::codec_mismatch);
  CHECK(make_baseline_codec(baseline_spec(rows), rows)->build() !=
        make_baseline_codec(baseline_spec(rows))->build());
}
