// What every baseline must do behind the interface of DeltaCodec: shapes, element types, ranges,
// bad input. The values themselves are checked in golden/baselines.
#include <deltadct/baseline/baseline_codec.hpp>

#include "../support/largest_request.hpp"
#include "support.hpp"

#include <limits>
#include <numeric>
#include <random>

using namespace baseline_test;

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
