// Each stage, replaced by one line of a policy, and the effect.
#include "odd_stages.hpp"
#include "support.hpp"

using namespace test;

namespace {

using Paper = DefaultPolicy<float, 8>;

// Stages do not depend on the backend, and this one compiles fastest.
template <class Policy>
using Codec = DeltaCodec<Policy, Serial>;

// Four bits for every other patch and one for the rest, whatever the scores.
struct Alternate {
  static constexpr int kWidths[] = {4, 1};

  std::span<const int> widths() const { return kWidths; }

  template <class Score>
  void allocate(std::span<const Score>, std::span<std::uint32_t>,
                std::span<std::uint32_t> classes) const {
    for (std::size_t k = 0; k < classes.size(); ++k) classes[k] = k % 2;
  }
};

// Five bits, which the format does not have.
struct Unheard {
  static constexpr int kWidths[] = {5};

  std::span<const int> widths() const { return kWidths; }

  template <class Score>
  void allocate(std::span<const Score>, std::span<std::uint32_t>, std::span<std::uint32_t>) const {}
};

struct WithPeak : Paper {
  using Scorer = LargestWeight;
};
struct WithAlternate : Paper {
  using Allocator = Alternate;
};
struct WithoutRescale : Paper {
  using Rescale = NoRescale;
};
struct WithUnitGain : Paper {
  using Rescale = UnitGain;
};
struct WithHalfBounds : Paper {
  using Bound = half;
};
struct WithBrainBounds : Paper {
  using Bound = bfloat16;
};
struct WithSymmetric : Paper {
  template <int Bits>
  using Quantizer = Symmetric<Bits>;
};

std::vector<int> widths_of(const CompressedTensor& c) {
  std::vector<int> widths;
  for (const PatchPlace place : c.places) {
    widths.push_back(CompressedView(c).width_class(place).bits);
  }
  return widths;
}

const auto kDelta = random_matrix<float>(77, 90, 1);

template <class Policy>
void check_narrow_bounds(double precision) {
  const Codec<Policy> codec{RatioAllocator(kWideMix)};
  const Codec<Paper> paper{RatioAllocator(kWideMix)};
  using Bound = typename Policy::Bound;
  const auto c = codec.encode(kDelta.view());
  const auto wide = paper.encode(kDelta.view());
  CHECK(c.header.bound == dtype_of<Bound>());
  CHECK(2 * c.bounds.size() == wide.bounds.size());
  CHECK(c.codes.size() == wide.codes.size());
  const Content found = read<Bound>(c);
  Tally tally;
  tally.compare(found, encode_by_definition<Bound>(values_of(kDelta), 77, 90, 8, kWideMix));
  tally.check();
  CHECK(bounds_error(found, read(wide)) < precision);
  CHECK(nmse(decoded(codec, c), decode_by_definition(found)) < 1e-10);
  // The tensor says the dtype of its bounds, so a codec with a different one can decode it.
  CHECK(decoded(paper, c) == decoded(codec, c));
}

}  // namespace

TEST_CASE("policies: a scorer decides which patches get the bits") {
  // Patch 0 has one large value, patch 1 many of middling size.
  Matrix<float> delta(8, 16);
  fill(delta, 1, 0);
  delta.view()(3, 3) = 4;
  for (std::size_t i = 0; i < 8; ++i) {
    for (std::size_t j = 8; j < 16; ++j) delta.view()(i, j) = 1;
  }
  CHECK(widths_of(Codec<Paper>().encode(delta.view())) == std::vector<int>{0, 2});
  CHECK(widths_of(Codec<WithPeak>().encode(delta.view())) == std::vector<int>{2, 0});
}

TEST_CASE("policies: an allocator decides the widths") {
  const Codec<WithAlternate> codec;
  const auto c = codec.encode(kDelta.view());
  const auto widths = widths_of(c);
  for (std::size_t k = 0; k < widths.size(); ++k) CHECK(widths[k] == (k % 2 == 0 ? 4 : 1));
  const Content found = read(c);
  CHECK(nmse(decoded(codec, c), decode_by_definition(found)) < 1e-10);
  CHECK(c.bytes() <= codec.max_compressed_bytes(77, 90));
}

TEST_CASE("policies: without a transform the weights are quantized as they are") {
  const Codec<WithoutDct<float, 8>> codec{RatioAllocator(kWideMix)};
  const auto c = codec.encode(kDelta.view());
  CHECK(c.header.transform == "identity");
  const Content found = read(c);
  Tally tally;
  tally.compare(found, encode_by_definition(values_of(kDelta), 77, 90, 8, kWideMix, false));
  tally.check();
  CHECK(nmse(decoded(codec, c), decode_by_definition(found)) < 1e-10);
  const Error error = caught([&] { decoded(Codec<Paper>(), c); });
  CHECK(error.code() == Errc::codec_mismatch);
}

TEST_CASE("policies: without a rescale the factor is 1 and nothing else changes") {
  const RatioAllocator mix(kWideMix);
  const auto c = Codec<WithoutRescale>(mix).encode(kDelta.view());
  const auto paper = Codec<Paper>(mix).encode(kDelta.view());
  CHECK(c.header.scale == 1);
  CHECK(paper.header.scale > 1);
  CHECK(c.codes == paper.codes);
  CHECK(c.bounds == paper.bounds);
}

TEST_CASE("policies: the paper's rescale matches the mean magnitude") {
  const Codec<Paper> codec;
  const auto magnitude = [](const std::vector<double>& x) {
    return std::accumulate(x.begin(), x.end(), 0.0,
                           [](double a, double b) { return a + std::abs(b); });
  };
  const auto back = decoded(codec, codec.encode(kDelta.view()));
  CHECK(magnitude(back) == doctest::Approx(magnitude(values_of(kDelta))).epsilon(1e-5));
}

TEST_CASE("policies: unit gain matches the projection on the delta") {
  const auto delta = values_of(kDelta);
  for (const Mix& mix : {Mix{{2, 0.5}, {0, 0.5}}, Mix{{1, 1.0}}, kWideMix}) {
    const Codec<WithUnitGain> codec{RatioAllocator(mix)};
    const auto back = decoded(codec, codec.encode(kDelta.view()));
    CHECK(dot(delta, back) == doctest::Approx(dot(delta, delta)).epsilon(1e-3));
  }
}

TEST_CASE("policies: bounds kept as half or bfloat16 take half the bytes") {
  check_narrow_bounds<WithHalfBounds>(0x1p-11);
  check_narrow_bounds<WithBrainBounds>(0x1p-8);
}

TEST_CASE("policies: bounds that half cannot hold are refused") {
  const Codec<WithHalfBounds> codec{RatioAllocator{{2, 0.5}, {0, 0.5}}};
  const auto large = random_matrix<float>(16, 16, 1, Layout::dense, 1e6);
  const Error error = caught([&] { codec.encode(large.view()); });
  CHECK(error.code() == Errc::out_of_range);
  CHECK(error.where().starts_with("patch at element ("));
}

TEST_CASE("policies: a quantizer of the user's own") {
  const DeltaCodec<WithSymmetric> codec{RatioAllocator{{8, 0.5}, {6, 0.5}}};
  const auto c = codec.encode(kDelta.view());
  validate(c);
  CHECK(c.header.quantizer == "symmetric");
  CHECK(c.bounds.size() == c.places.size() * sizeof(float));
  CHECK(c.bytes() == c.codes.size() + c.bounds.size() + 4 * c.places.size());
  CHECK(nmse(decoded(codec, c), values_of(kDelta)) < 2e-3);
  const Error error = caught([&] { decoded(Codec<Paper>(), c); });
  CHECK(error.code() == Errc::codec_mismatch);
  CHECK(error.where() == "quantizer");
}

TEST_CASE("policies: an allocator of widths that no format has is refused") {
  struct Policy : Paper {
    using Allocator = Unheard;
  };
  const auto delta = random_matrix<float>(16, 16, 1);
  CHECK(caught([&] { Codec<Policy>().encode(delta.view()); }).code() == Errc::bad_mix);
}
