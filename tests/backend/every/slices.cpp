// A decoded slice is bit-identical to that part of the whole, wherever base, whole and slice lie in
// memory. Also compiled at -O3, where compilers fuse a product with a sum wherever they see both.
#include "case.hpp"

using namespace test;

namespace {

/// A policy whose values are products until they are added to a base.
template <class T, int P>
struct GaussianWithoutDct : WithoutDct<T, P> {
  template <int Bits>
  using Quantizer = Gaussian<Bits>;
};

/// Numbers that are the same on every platform.
class Random {
 public:
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(random_()) % n; }
  double value() { return static_cast<double>(random_()) * 0x1p-31 - 1; }

 private:
  std::mt19937 random_{3};
};

/// A tensor of random codes and bounds, so that no encoder has to be compiled. It has every width,
/// in runs of patches of one width.
template <class Policy>
CompressedTensor random_tensor(std::size_t rows, std::size_t cols) {
  using Plan = detail::Plan<Policy>;
  Random random;
  CompressedTensor c;
  Plan::begin(c.header, rows, cols);
  c.header.scale = 1.3;
  for (const int bits : {8, 6, 4, 3, 2, 1, 0, -2, -4}) {
    if (Plan::has_width(bits)) {
      c.header.classes.push_back({.bits = bits, .bound_count = Plan::bound_count(bits)});
    }
  }
  std::uint32_t width_class = 0;
  for (std::size_t k = 0; k < c.header.patches(); ++k) {
    if (random.below(2) == 0) {
      width_class = static_cast<std::uint32_t>(random.below(c.header.classes.size()));
    }
    c.places.push_back({width_class});
  }
  assign_slots(c.places, c.header.classes);
  const auto [bounds_bytes, codes_bytes] = c.header.lay_out();
  c.bounds.resize(bounds_bytes);
  c.codes.resize(codes_bytes);
  using Bound = typename Policy::Bound;
  for (std::size_t at = 0; at < bounds_bytes; at += sizeof(Bound)) {
    detail::store_bound<Bound>(c.bounds.data() + at, 0,
                               static_cast<compute_t<Bound>>(random.value()));
  }
  for (std::byte& codes : c.codes) codes = static_cast<std::byte>(random.below(256));
  for (std::size_t i = 0; i < rows; ++i)
    c.outliers.push_back({i, random.below(cols), random.value()});
  return c;
}

/// The number of elements whose bits differ.
template <class U>
std::size_t differences(MatrixView<const U> a, MatrixView<const U> b) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < a.rows; ++i) {
    for (std::size_t j = 0; j < a.cols; ++j) {
      count += std::memcmp(&a(i, j), &b(i, j), sizeof(U)) != 0;
    }
  }
  return count;
}

template <class U>
void copy(MatrixView<const U> from, MatrixView<U> to) {
  for (std::size_t i = 0; i < from.rows; ++i) {
    for (std::size_t j = 0; j < from.cols; ++j) to(i, j) = from(i, j);
  }
}

struct Slice {
  std::size_t row, col, rows, cols;

  template <class U>
  MatrixView<const U> of(const Matrix<U>& matrix) const {
    return matrix.view().block(row, col, rows, cols);
  }
};

/// Slices that begin and end within a patch, between two patches, and at the edges.
std::vector<Slice> slices_of(std::size_t rows, std::size_t cols, std::size_t side) {
  std::vector<Slice> slices = {
      {0, 0, rows, cols},     {0, 0, rows, cols / side * side}, {side, side, side, cols - 2 * side},
      {1, 0, rows - 1, cols}, {0, 1, rows, cols - 2},           {rows - 1, cols - 1, 1, 1}};
  Random random;
  for (int k = 0; k < 6; ++k) {
    const std::size_t row = random.below(rows);
    const std::size_t col = random.below(cols);
    slices.push_back({row, col, 1 + random.below(rows - row), 1 + random.below(cols - col)});
  }
  return slices;
}

template <class U, class Codec>
void check_slices(const Codec& codec, const CompressedTensor& c) {
  constexpr double alpha = 0.7;
  const auto base = random_matrix<U>(c.header.rows, c.header.cols, 8);
  auto whole = base;
  codec.decode_add(c, whole.view(), alpha);
  for (const Layout layout : kLayouts) {
    Matrix<U> out(c.header.rows, c.header.cols, layout);
    codec.decode_add(c, base.view(), out.view(), alpha);
    CHECK(differences<U>(out.view(), whole.view()) == 0);
    for (const Slice& s : slices_of(c.header.rows, c.header.cols, Codec::patch)) {
      CAPTURE(s.row);
      CAPTURE(s.col);
      CAPTURE(s.rows);
      CAPTURE(s.cols);
      Matrix<U> block(s.rows, s.cols, layout);
      copy(s.of(base), block.view());
      codec.decode_add_block(c, s.row, s.col, block.view(), alpha);
      CHECK(differences<U>(block.view(), s.of(whole)) == 0);
      CHECK(block.margins_untouched());
    }
  }
}

template <class Policy>
void check_policy() {
  using T = compute_t<typename Policy::Element>;
  constexpr std::size_t side = Policy::patch;
  // Several tiles, the last one incomplete.
  const std::size_t across = 2 * detail::kDecodeTile<T, Policy::patch> + 5;
  const CompressedTensor c = random_tensor<Policy>(3 * side - 1, across * side - 3);
  const DeltaCodec<Policy, Backend> codec;
  check_slices<T>(codec, c);
  if constexpr (std::same_as<T, float>) {
    check_slices<bfloat16>(codec, c);
    if constexpr (Policy::patch == 4) check_slices<half>(codec, c);
  }
}

#ifndef TEST_CASES
  #define TEST_CASES Case<float, 4>, Case<float, 8>, Case<float, 16>, Case<double, 4>
#endif

}  // namespace

TEST_CASE_TEMPLATE("slices are those of the whole: min-max", C, TEST_CASES) {
  check_policy<DefaultPolicy<typename C::T, C::P>>();
}

TEST_CASE_TEMPLATE("slices are those of the whole: unit gain", C, TEST_CASES) {
  check_policy<UnitGainPolicy<typename C::T, C::P>>();
}

TEST_CASE("slices are those of the whole: without a transform") {
  check_policy<WithoutDct<float, 4>>();
  check_policy<GaussianWithoutDct<float, 4>>();
}
