// The unit-gain codec, compared with its definition in double, and the gain that it promises.
#include "support.hpp"

#include <limits>

using namespace test;

namespace {

template <class T, int P>
using Codec = DeltaCodec<UnitGainPolicy<T, P>>;

/// 2 u (1 + bend u^2), for the code of a coefficient.
double level(int bits, int code) {
  constexpr double kBend[] = {0, 0, 0.05677368, 0.02457252, 0.00872127};
  const double u = code - ((1 << bits) - 1) / 2.0;
  return 2 * u * (1 + kBend[bits] * u * u);
}

/// The n coefficients of a patch, in the order in which they are stored.
std::vector<double> coefficients_by_definition(const std::byte* codes, int bits, int n,
                                               double step) {
  std::vector<double> f(static_cast<std::size_t>(n));
  if (bits > 0) {
    for (int s = 0; s < n; ++s) {
      f[static_cast<std::size_t>(s)] = step * level(bits, read_code(codes, bits, n, s));
    }
    return f;
  }
  const int groups = n >> -bits;
  for (int j = 0; j < groups; ++j) {
    int code = 0;
    for (int b = 0; b <= -bits; ++b) {
      const int at = j * (1 - bits) + b;
      code |= (std::to_integer<int>(codes[at / 8]) >> (at % 8) & 1) << b;
    }
    f[static_cast<std::size_t>(code / 2 * groups + j)] = code % 2 == 0 ? step : -step;
  }
  return f;
}

/// Bit j of number i of SplitMix64 with seed 0.
bool is_negated(std::size_t i, std::size_t j) {
  std::uint64_t x = 0x9E3779B97F4A7C15u * (i + 1);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return ((x ^ (x >> 31)) >> j & 1) != 0;
}

std::vector<double> decode_by_definition(const CompressedTensor& c) {
  const auto p = static_cast<std::size_t>(c.header.patch);
  const CompressedView view = c;
  Content shape;
  shape.rows = c.header.rows;
  shape.cols = c.header.cols;
  shape.p = c.header.patch;
  std::vector<std::vector<double>> patches;
  for (const PatchPlace place : c.places) {
    const double step = detail::load_bound<double>(view.bounds_of(place), c.header.bound, 0);
    const auto stored = coefficients_by_definition(
        view.codes_of(place), view.width_class(place).bits, c.header.patch * c.header.patch, step);
    std::vector<double> f(p * p);
    for (std::size_t s = 0; s < p * p; ++s) f[s % p * p + s / p] = stored[s];
    std::vector<double> x = transform(f, c.header.patch, true);
    for (std::size_t s = 0; s < p * p; ++s) {
      if (is_negated(s / p, s % p)) x[s] = -x[s];
    }
    patches.push_back(x);
  }
  std::vector<double> out(c.header.rows * c.header.cols);
  for_each_element(shape, [&](std::size_t patch, std::size_t at, std::size_t index) {
    out[index] = c.header.scale * patches[patch][at];
  });
  return out;
}

double gain(const std::vector<double>& delta, const std::vector<double>& found) {
  double product = 0;
  double square = 0;
  double peak = 0;
  for (const double x : delta) peak = std::max(peak, std::abs(x));
  for (std::size_t s = 0; s < delta.size(); ++s) {
    product += delta[s] / peak * (found[s] / peak);
    square += delta[s] / peak * (delta[s] / peak);
  }
  return product / square;
}

template <class T, int P>
void for_each_width(auto fn) {
  for (const int bits : {4, 3, 2, 1, -2, -3, -4, -5, -6, -7}) {
    if (!is_bit_width_of(bits, std::size_t{P} * P)) continue;
    CAPTURE(bits);
    fn(Codec<T, P>{RatioAllocator{{bits, 1.0}}});
  }
}

template <class T_, int P_>
struct Case {
  using T = T_;
  static constexpr int P = P_;
};

}  // namespace

#define CASES                                                                        \
  Case<float, 4>, Case<float, 8>, Case<float, 12>, Case<float, 16>, Case<float, 32>, \
      Case<float, 64>, Case<double, 16>

TEST_CASE_TEMPLATE("unit gain: every width decodes as defined, and has the gain 1", C, CASES) {
  using T = typename C::T;
  constexpr std::size_t p = C::P;
  const double tolerance = sizeof(T) == 4 ? 1e-10 : 1e-25;
  for_each_width<T, C::P>([&](const auto& codec) {
    for (const auto& [rows, cols] :
         {std::pair<std::size_t, std::size_t>{1, 1}, {1, 3 * p + 1}, {p, p}, {2 * p + 3, 131}}) {
      const auto delta = random_matrix<T>(rows, cols, 3, Layout::dense, 1e-3);
      const CompressedTensor c = codec.encode(delta.view());
      codec.validate(c);
      const auto found = decoded<T>(codec, c);
      CHECK(nmse(found, decode_by_definition(c)) < tolerance);
      CHECK(gain(values_of(delta), found) == doctest::Approx(1).epsilon(1e-5));
      CHECK(c.header.scale == doctest::Approx(1).epsilon(0.005));
      CHECK(c.bytes() <= codec.max_compressed_bytes(rows, cols));
    }
  });
}

TEST_CASE("unit gain: a bit for every coefficient, unless told otherwise") {
  const DeltaCodec<UnitGainPolicy<float, 16>> codec;
  const CompressedTensor c = codec.encode(random_matrix<float>(64, 64, 1).view());
  REQUIRE(c.header.classes.size() == 1);
  CHECK(c.header.classes[0].bits == 1);
  CHECK(c.codes.size() == 64 * 64 / 8);
  CHECK(c.bounds.size() == 16 * 2);
}

TEST_CASE("unit gain: widths above and below a bit mix") {
  const Codec<float, 16> codec{RatioAllocator{{3, 0.1}, {1, 0.4}, {-3, 0.3}, {-6, 0.2}}};
  const auto delta = random_matrix<float>(190, 210, 7);
  const CompressedTensor c = codec.encode(delta.view());
  codec.validate(c);
  CHECK(c.header.classes.size() == 4);
  CHECK(nmse(decoded<float>(codec, c), decode_by_definition(c)) < 1e-10);
  CHECK(gain(values_of(delta), decoded<float>(codec, c)) == doctest::Approx(1).epsilon(1e-5));
}

TEST_CASE_TEMPLATE("unit gain: half and bfloat16 are rounded from the float result", T, half,
                   bfloat16) {
  for (const int bits : {2, 1, -4}) {
    const DeltaCodec<UnitGainPolicy<T, 32>> codec{RatioAllocator{{bits, 1.0}}};
    const auto base = random_matrix<T>(70, 100, 1);
    auto tuned = random_matrix<T>(70, 100, 2);
    const CompressedTensor c = codec.encode(base.view(), tuned.view());
    Matrix<float> exact(70, 100);
    codec.decode(c, exact.view());
    auto weights = random_matrix<T>(70, 100, 1);
    codec.decode_add(c, weights.view());
    const auto delta = values_of(exact);
    const auto before = values_of(base);
    const auto after = values_of(weights);
    for (std::size_t s = 0; s < delta.size(); ++s) {
      const T expected(static_cast<float>(before[s]) + static_cast<float>(delta[s]));
      CHECK(after[s] == static_cast<double>(static_cast<float>(expected)));
    }
  }
}

TEST_CASE("unit gain: blocks are those of the whole") {
  const Codec<float, 16> codec{RatioAllocator{{1, 0.5}, {-4, 0.5}}};
  const auto delta = random_matrix<float>(90, 110, 5);
  const CompressedTensor c = codec.encode(delta.view());
  const auto whole = decoded<float>(codec, c);
  Matrix<float> zeros(37, 51);
  fill(zeros, 1, 0);
  codec.decode_add_block(c, 11, 20, zeros.view());
  const auto found = values_of(zeros);
  for (std::size_t i = 0; i < 37; ++i) {
    for (std::size_t j = 0; j < 51; ++j) {
      CHECK(found[i * 51 + j] == doctest::Approx(whole[(i + 11) * 110 + j + 20]).epsilon(1e-6));
    }
  }
}

TEST_CASE("unit gain: constants, one weight alone and any range keep their gain") {
  for_each_width<float, 16>([](const auto& codec) {
    const auto check = [&](const Matrix<float>& delta) {
      const CompressedTensor c = codec.encode(delta.view());
      codec.validate(c);
      CHECK(gain(values_of(delta), decoded<float>(codec, c)) == doctest::Approx(1).epsilon(1e-3));
    };
    Matrix<float> delta(40, 40);
    for (const double size : {1e-30, 1.0, 1e30}) {
      fill(delta, 4, size);
      check(delta);
    }
    // The size varies from patch to patch, between 1e-30 and 1e30.
    for (std::size_t i = 0; i < 40; ++i) {
      for (std::size_t j = 0; j < 40; ++j) {
        delta.view()(i, j) *= std::pow(10.0f, static_cast<float>(i / 16 * 3 + j / 16) * 7.5f - 60);
      }
    }
    check(delta);
    fill(delta, 4, 0);
    delta.view()(20, 33) = -2e-5f;
    check(delta);
    for (std::size_t i = 0; i < 40; ++i) {
      for (std::size_t j = 0; j < 40; ++j) delta.view()(i, j) = 0.125f;
    }
    check(delta);
  });
}

TEST_CASE("unit gain: zeros come back as zeros, in one form") {
  for_each_width<float, 32>([](const auto& codec) {
    Matrix<float> zeros(70, 70);
    fill(zeros, 1, 0);
    const CompressedTensor c = codec.encode(zeros.view());
    codec.validate(c);
    CHECK(c.header.scale == 1);
    for (const std::byte b : c.codes) CHECK(b == std::byte{0});
    for (const double x : decoded<float>(codec, c)) CHECK(x == 0);
  });
}

TEST_CASE("unit gain: what is not finite, or grows beyond the range, is refused") {
  for_each_width<float, 16>([](const auto& codec) {
    auto delta = random_matrix<float>(40, 40, 1);
    delta.view()(17, 3) = std::numeric_limits<float>::infinity();
    CHECK(caught([&] { codec.encode(delta.view()); }).code() == Errc::non_finite);
    fill(delta, 1, 3e37);
    CHECK(caught([&] { codec.encode(delta.view()); }).code() == Errc::out_of_range);
  });
}

TEST_CASE("unit gain: what is too small for a step is refused, not lost") {
  const auto check = [](const auto& codec, auto delta, double size) {
    CAPTURE(size);
    fill(delta, 1, size);
    const Error error = caught([&] { codec.encode(delta.view()); });
    CHECK(error.code() == Errc::out_of_range);
    CHECK(error.where() == "delta");
    CHECK(error.detail().find("--exclude") != std::string::npos);
  };
  for_each_width<float, 16>([&](const auto& codec) {
    for (const double size : {1e-44, 1e-42, 1e-41}) check(codec, Matrix<float>(40, 40), size);
  });
  for_each_width<double, 16>([&](const auto& codec) {
    for (const double size : {1e-322, 1e-310, 1e-300, 1e-100, 1e-41}) {
      check(codec, Matrix<double>(40, 40), size);
    }
  });
}

TEST_CASE("unit gain: tensors that nobody could have encoded are refused") {
  const Codec<float, 16> codec{RatioAllocator{{2, 0.5}, {-3, 0.5}}};
  const auto delta = random_matrix<float>(64, 64, 1);
  const CompressedTensor good = codec.encode(delta.view());
  const auto refuse = [&](Errc code, auto spoil) {
    CompressedTensor bad = good;
    spoil(bad);
    CHECK(caught([&] { codec.validate(bad); }).code() == code);
  };
  const auto set_bound = [](CompressedTensor& c, std::size_t patch, float value) {
    detail::store_bound<bfloat16>(c.bounds.data(), static_cast<int>(patch), value);
  };
  refuse(Errc::corrupt_data, [&](auto& c) { set_bound(c, 0, -1); });
  refuse(Errc::corrupt_data, [&](auto& c) { set_bound(c, 15, -1); });
  refuse(Errc::corrupt_data, [&](auto& c) { set_bound(c, 0, 0); });
  refuse(Errc::corrupt_data, [&](auto& c) { set_bound(c, 15, 0); });
  refuse(Errc::corrupt_data, [&](auto& c) { set_bound(c, 0, 3e38f); });
  refuse(Errc::corrupt_data, [&](auto& c) { set_bound(c, 15, 3e38f); });
  refuse(Errc::codec_mismatch, [](auto& c) { c.header.classes[0].bits = 8; });
  refuse(Errc::codec_mismatch, [](auto& c) { c.header.transform = "dct"; });
  refuse(Errc::codec_mismatch, [](auto& c) { c.header.quantizer = "min_max"; });
  const DeltaCodec<DefaultPolicy<float, 16>> paper;
  CHECK(caught([&] { paper.validate(good); }).code() == Errc::codec_mismatch);
}

TEST_CASE("unit gain: bits of no code are zero") {
  const Codec<float, 12> codec{RatioAllocator{{-4, 1.0}}};  // 9 codes of 5 bits
  CompressedTensor c = codec.encode(random_matrix<float>(12, 24, 1).view());
  REQUIRE(c.codes.size() == 12);
  codec.validate(c);
  for (const std::size_t at : {std::size_t{5}, std::size_t{11}}) {
    for (const int bit : {5, 7}) {
      c.codes[at] ^= std::byte{1} << bit;
      CHECK(caught([&] { codec.validate(c); }).code() == Errc::corrupt_data);
      c.codes[at] ^= std::byte{1} << bit;
    }
  }
  codec.validate(c);
}

TEST_CASE("unit gain: widths that a quantizer has not are refused by name") {
  const auto delta = random_matrix<float>(40, 40, 1);
  const auto code = [&](const auto& codec) {
    return caught([&] { codec.encode(delta.view()); }).code();
  };
  CHECK(code(Codec<float, 16>{RatioAllocator{{8, 1.0}}}) == Errc::bad_mix);
  CHECK(code(Codec<float, 12>{RatioAllocator{{-5, 1.0}}}) == Errc::bad_mix);
  CHECK(code(DeltaCodec<DefaultPolicy<float, 16>>{RatioAllocator{{-3, 1.0}}}) == Errc::bad_mix);
}
