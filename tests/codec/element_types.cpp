// Matrices of every element type, in any layout: base and tuned, destinations, slices.
#include "support.hpp"

using namespace test;

namespace {

template <class T>
using Policy = DefaultPolicy<compute_t<T>, 8>;

template <class T>
using Codec = DeltaCodec<Policy<T>>;

bool same(const CompressedTensor& a, const CompressedTensor& b) {
  const auto packed = [](const CompressedTensor& c) {
    std::vector<std::uint32_t> all;
    for (const PatchPlace place : c.places) all.push_back(place.packed);
    return all;
  };
  return a.codes == b.codes && a.bounds == b.bounds && packed(a) == packed(b) &&
         a.header.scale == b.header.scale && a.header.rows == b.header.rows &&
         a.header.cols == b.header.cols;
}

// For the 2-byte floats, half a unit in the last place for values up to 8; for the others, the
// rounding of arithmetic.
template <class T>
constexpr double rounding() {
  if constexpr (std::same_as<T, half>) return 1.001 * 0x1p-9;
  if constexpr (std::same_as<T, bfloat16>) return 1.001 * 0x1p-6;
  if constexpr (std::same_as<T, float>) return 2e-6;
  return 1e-14;
}

double greatest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double greatest = 0;
  for (std::size_t s = 0; s < a.size(); ++s) greatest = std::max(greatest, std::abs(a[s] - b[s]));
  return greatest;
}

std::vector<double> sum_of(std::vector<double> base, const std::vector<double>& delta,
                           double alpha) {
  for (std::size_t s = 0; s < base.size(); ++s) base[s] += alpha * delta[s];
  return base;
}

template <class T>
compute_t<T> as_compute(T x) {
  return static_cast<compute_t<T>>(x);
}

constexpr std::size_t kRows = 45;
constexpr std::size_t kCols = 83;

template <class T>
CompressedTensor compressed(std::uint32_t seed = 3) {
  const auto delta = random_matrix<T>(kRows, kCols, seed, Layout::dense, 0.1);
  return Codec<T>{RatioAllocator(kWideMix)}.encode(delta.view());
}

}  // namespace

#define ELEMENTS float, half, bfloat16, double

TEST_CASE_TEMPLATE("elements: tuned - base is encoded as defined, in any layout", T, ELEMENTS) {
  const Codec<T> codec{RatioAllocator(kWideMix)};
  Tally tally;
  CompressedTensor first;
  for (const Layout base_layout : kLayouts) {
    for (const Layout tuned_layout : kLayouts) {
      const auto base = random_matrix<T>(kRows, kCols, 1, base_layout);
      const auto tuned = random_matrix<T>(kRows, kCols, 2, tuned_layout);
      const CompressedTensor c = codec.encode(base.view(), tuned.view());
      if (first.codes.empty()) {
        first = c;
        const Content found = read<compute_t<T>>(c);
        const auto delta = difference_of(base, tuned);
        tally.compare(found, encode_by_definition<compute_t<T>>(delta, kRows, kCols, 8, kWideMix));
        CHECK(found.scale == doctest::Approx(scale_by_definition(found, delta)).epsilon(1e-5));
      }
      CHECK(same(c, first));
    }
  }
  tally.check();
}

TEST_CASE_TEMPLATE("elements: with a base of zeros the delta is the tuned matrix", T, ELEMENTS) {
  const Codec<T> codec{RatioAllocator(kWideMix)};
  Matrix<T> zeros(kRows, kCols);
  fill(zeros, 1, 0);
  for (const Layout layout : kLayouts) {
    const auto tuned = random_matrix<T>(kRows, kCols, 2, layout);
    CHECK(same(codec.encode(zeros.view(), tuned.view()), codec.encode(tuned.view())));
  }
}

TEST_CASE("elements: base and tuned may differ in type") {
  const Codec<float> codec{RatioAllocator(kWideMix)};
  const auto base = random_matrix<bfloat16>(kRows, kCols, 1);
  const auto tuned = random_matrix<half>(kRows, kCols, 2, Layout::transposed);
  const CompressedTensor c = codec.encode(base.view(), tuned.view());
  Tally tally;
  tally.compare(read(c),
                encode_by_definition(difference_of(base, tuned), kRows, kCols, 8, kWideMix));
  tally.check();
}

TEST_CASE("elements: a transposed view is encoded as the transposed matrix") {
  const Codec<float> codec;
  const auto matrix = random_matrix<float>(kRows, kCols, 4);
  Matrix<float> turned(kCols, kRows);
  for (std::size_t i = 0; i < kRows; ++i) {
    for (std::size_t j = 0; j < kCols; ++j) turned.view()(j, i) = matrix.view()(i, j);
  }
  CHECK(same(codec.encode(matrix.view().transposed()), codec.encode(turned.view())));
}

TEST_CASE_TEMPLATE("elements: decode writes the rounded reconstruction in any layout", T,
                   ELEMENTS) {
  const Codec<T> codec;
  const CompressedTensor c = compressed<T>();
  const auto expected = decode_by_definition(read<compute_t<T>>(c));
  for (const Layout layout : kLayouts) {
    Matrix<T> out(kRows, kCols, layout);
    codec.decode(c, out.view());
    CHECK(greatest_difference(values_of(out), expected) < rounding<T>());
    CHECK(out.margins_untouched());
  }
}

TEST_CASE_TEMPLATE("elements: decode_add adds alpha times the reconstruction in place", T,
                   ELEMENTS) {
  const Codec<T> codec;
  const CompressedTensor c = compressed<T>();
  const auto delta = decode_by_definition(read<compute_t<T>>(c));
  for (const Layout layout : kLayouts) {
    for (const double alpha : {1.0, -0.5, 0.0, 2.25}) {
      auto weights = random_matrix<T>(kRows, kCols, 6, layout);
      const auto expected = sum_of(values_of(weights), delta, alpha);
      codec.decode_add(c, weights.view(), alpha);
      CHECK(greatest_difference(values_of(weights), expected) < rounding<T>());
      CHECK(weights.margins_untouched());
    }
  }
}

TEST_CASE_TEMPLATE("elements: decode_add out of place equals in place", T, ELEMENTS) {
  const Codec<T> codec;
  const CompressedTensor c = compressed<T>();
  for (const Layout base_layout : kLayouts) {
    for (const Layout out_layout : kLayouts) {
      const auto base = random_matrix<T>(kRows, kCols, 6, base_layout);
      auto in_place = base;
      Matrix<T> out(kRows, kCols, out_layout);
      codec.decode_add(c, in_place.view(), 0.75);
      codec.decode_add(c, base.view(), out.view(), 0.75);
      CHECK(values_of(out) == values_of(in_place));
      CHECK(out.margins_untouched());
    }
  }
}

TEST_CASE_TEMPLATE("elements: decode_add_block is the slice of the whole", T, ELEMENTS) {
  const Codec<T> codec;
  const CompressedTensor c = compressed<T>();
  const auto base = random_matrix<T>(kRows, kCols, 8);
  auto whole = base;
  codec.decode_add(c, whole.view(), 1.5);
  std::mt19937 random(1);
  const auto below = [&](std::size_t n) { return random() % n; };
  for (int k = 0; k < 60; ++k) {
    const std::size_t row = below(kRows + 1);
    const std::size_t col = below(kCols + 1);
    const std::size_t rows = below(kRows - row + 1);
    const std::size_t cols = below(kCols - col + 1);
    Matrix<T> block(rows, cols, kLayouts[below(4)]);
    for (std::size_t i = 0; i < rows; ++i) {
      for (std::size_t j = 0; j < cols; ++j) block.view()(i, j) = base.view()(row + i, col + j);
    }
    codec.decode_add_block(c, row, col, block.view(), 1.5);
    bool equal = true;
    for (std::size_t i = 0; i < rows; ++i) {
      for (std::size_t j = 0; j < cols; ++j) {
        equal &= as_compute(block.view()(i, j)) == as_compute(whole.view()(row + i, col + j));
      }
    }
    CAPTURE(row);
    CAPTURE(col);
    CAPTURE(rows);
    CAPTURE(cols);
    CHECK(equal);
    CHECK(block.margins_untouched());
  }
}
