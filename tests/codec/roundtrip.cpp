// Encodes and decodes with every patch size, compared with the pipeline written out in double.
#include "support.hpp"

using namespace test;

namespace {

struct Shape {
  std::size_t rows;
  std::size_t cols;
};

template <class Codec>
void check_against_definition(Shape shape, const Mix& mix, std::uint32_t seed, Tally& tally) {
  CAPTURE(shape.rows);
  CAPTURE(shape.cols);
  const Codec codec{RatioAllocator(mix)};
  const auto delta = random_matrix<float>(shape.rows, shape.cols, seed, Layout::dense, 1e-3);
  const CompressedTensor c = codec.encode(delta.view());
  const Content found = read(c);
  const Content expected =
      encode_by_definition(values_of(delta), shape.rows, shape.cols, Codec::patch, mix);
  tally.compare(found, expected);
  CHECK(bounds_error(found, expected) < 3e-6);
  CHECK(found.scale == doctest::Approx(scale_by_definition(found, values_of(delta))).epsilon(1e-5));
  CHECK(nmse(decoded(codec, c), decode_by_definition(found)) < 1e-10);
  CHECK(c.bytes() <= codec.max_compressed_bytes(shape.rows, shape.cols));
}

template <int P>
std::vector<Shape> shapes() {
  const std::size_t p = P;
  return {{1, 1},   {1, 7},     {7, 1},         {1, 3 * p + 1}, {2 * p, 1},
          {p, p},   {p, p - 1}, {p + 1, 2 * p}, {2 * p, 3 * p}, {3 * p + 1, 5 * p + p / 2},
          {37, 53}, {0, 5},     {5, 0},         {0, 0},         {2 * p + 3, 131}};
}

template <int P_>
struct Size {
  static constexpr int P = P_;
  using Codec = DeltaCodec<DefaultPolicy<float, P>>;
};

}  // namespace

#define SIZES Size<4>, Size<8>, Size<12>, Size<16>, Size<32>, Size<64>

TEST_CASE_TEMPLATE("roundtrip: a mix of widths is encoded and decoded as defined", S, SIZES) {
  Tally tally;
  std::uint32_t seed = 1;
  for (const Shape shape : shapes<S::P>()) {
    check_against_definition<typename S::Codec>(shape, kWideMix, seed++, tally);
  }
  check_against_definition<typename S::Codec>({131, 509}, kWideMix, seed, tally);
  tally.check();
}

TEST_CASE_TEMPLATE("roundtrip: every single width is encoded and decoded as defined", S, SIZES) {
  Tally tally;
  for (const int bits : kBitWidths) {
    CAPTURE(bits);
    check_against_definition<typename S::Codec>({67, 149}, {{bits, 1.0}}, 5, tally);
  }
  tally.check();
}

TEST_CASE_TEMPLATE("roundtrip: eight bits bring the delta back", S, SIZES) {
  const typename S::Codec codec{RatioAllocator{{8, 1.0}}};
  const auto delta = random_matrix<float>(96, 80, 3);
  // A step is at most 1/255 of the patch's range, and the error at most half a step.
  CHECK(nmse(decoded(codec, codec.encode(delta.view())), values_of(delta)) < 1e-3);
}

TEST_CASE_TEMPLATE("roundtrip: a delta of zeros comes back as zeros", S, SIZES) {
  for (const int bits : kBitWidths) {
    const typename S::Codec codec{RatioAllocator{{bits, 1.0}}};
    Matrix<float> zeros(33, 47);
    fill(zeros, 1, 0);
    const CompressedTensor c = codec.encode(zeros.view());
    CHECK(c.header.scale == 1);
    CHECK(nmse(decoded(codec, c), values_of(zeros)) == 0);
  }
}

TEST_CASE("roundtrip: empty matrices hold no bytes and keep their shape") {
  const DeltaCodec<DefaultPolicy<float, 8>> codec;
  for (const Shape shape : {Shape{0, 5}, Shape{5, 0}, Shape{0, 0}}) {
    const CompressedTensor c =
        codec.encode(MatrixView<const float>(nullptr, shape.rows, shape.cols));
    validate(c);
    CHECK(c.bytes() == 0);
    CHECK(codec.max_compressed_bytes(shape.rows, shape.cols) == 0);
    CHECK(c.header.rows == shape.rows);
    CHECK(c.header.cols == shape.cols);
    CHECK(c.header.scale == 1);
    codec.decode(c, MatrixView<float>(nullptr, shape.rows, shape.cols));
    codec.decode_add(c, MatrixView<float>(nullptr, shape.rows, shape.cols));
  }
}
