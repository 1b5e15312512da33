// The grid of patches over matrices of any shape, and what loading a patch reads.
#include <deltadct/codec/ends.hpp>
#include <deltadct/stage/patchifier.hpp>

#include <vector>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

// Element (i, j) is 100 i + j + 1.
struct Numbered {
  std::size_t rows;
  std::size_t cols;
  std::vector<float> values;

  Numbered(std::size_t rows_, std::size_t cols_) : rows(rows_), cols(cols_) {
    for (std::size_t i = 0; i < rows; ++i) {
      for (std::size_t j = 0; j < cols; ++j) values.push_back(static_cast<float>(100 * i + j + 1));
    }
  }
  MatrixView<const float> view() const { return {values.data(), rows, cols}; }
};

template <int P>
void check_grid(std::size_t rows, std::size_t cols) {
  const Patchifier<float, P> patches(rows, cols);
  CAPTURE(rows);
  CAPTURE(cols);
  std::size_t elements = 0;
  std::size_t full = 0;
  if (patches.count() > 0) {
    for (std::size_t i = 0; i < patches.grid_rows(); ++i) {
      for (std::size_t j = 0; j < patches.grid_cols(); ++j) {
        const PatchExtent at = patches.extent(i, j);
        CHECK(at.row == i * P);
        CHECK(at.col == j * P);
        CHECK(at.rows >= 1);
        CHECK(at.rows <= P);
        elements += at.elements();
        full += at.elements() == P * P;
      }
    }
  }
  CHECK(elements == rows * cols);
  CHECK(full == (rows / P) * (cols / P));
}

constexpr float kGuard = -5;

// Checks that every value of a loaded patch is an element of the matrix, or zero for padding.
template <int P>
void check_load(std::size_t rows, std::size_t cols) {
  const Numbered matrix(rows, cols);
  const Patchifier<float, P> patches(rows, cols);
  const DeltaSource<float> source{matrix.view()};
  const std::size_t across = patches.grid_cols();
  int wrong = 0;
  for (std::size_t row = 0; row < patches.grid_rows(); ++row) {
    for (std::size_t k = 0; k < across; ++k) {
      std::vector<float> loaded(P * P + 1, kGuard);
      patches.load(source, row, k, loaded.data());
      for (std::size_t s = 0; s < P * P; ++s) {
        const std::size_t i = row * P + s / P;
        const std::size_t j = k * P + s % P;
        const bool real = i < rows && j < cols;
        wrong += loaded[s] != (real ? matrix.view()(i, j) : 0);
      }
      CHECK(loaded.back() == kGuard);
    }
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("patchifier: the grid covers every element once") {
  for (const std::size_t rows : {1u, 3u, 4u, 5u, 63u, 64u, 65u, 97u}) {
    for (const std::size_t cols : {1u, 4u, 31u, 64u, 100u}) {
      check_grid<4>(rows, cols);
      check_grid<12>(rows, cols);
      check_grid<64>(rows, cols);
    }
  }
}

TEST_CASE("patchifier: an empty matrix has no patches") {
  CHECK(Patchifier<float, 8>(0, 5).count() == 0);
  CHECK(Patchifier<float, 8>(5, 0).count() == 0);
  CHECK(Patchifier<float, 8>(0, 0).count() == 0);
  CHECK(Patchifier<float, 8>(1, 1).count() == 1);
}

TEST_CASE("patchifier: patches are row-major and padded with zeros on the right and bottom") {
  check_load<4>(9, 14);
  check_load<8>(8, 16);
  check_load<8>(1, 1);
  check_load<12>(13, 37);
  check_load<16>(17, 15);
  check_load<32>(31, 65);
  check_load<64>(65, 3);
}

TEST_CASE("patchifier: a patch of a transposed matrix is read along its stride") {
  const Numbered matrix(19, 21);
  const Patchifier<float, 8> patches(21, 19);
  std::vector<float> loaded(64, kGuard);
  patches.load(DeltaSource<float>{matrix.view().transposed()}, 1, 1, loaded.data());
  for (std::size_t s = 0; s < loaded.size(); ++s) {
    CHECK(loaded[s] == matrix.view()(8 + s % 8, 8 + s / 8));
  }
}

TEST_CASE("patchifier: sources read along any stride and widen") {
  std::vector<half> memory;
  for (int k = 0; k < 200; ++k) memory.emplace_back(static_cast<float>(k));
  const MatrixView<const half> view(memory.data(), 9, 10, 20, 2);
  const DeltaSource<half> rows{view};
  const DeltaSource<half> columns{view.transposed()};
  float to[4] = {};
  rows.read(2, 3, 4, to);
  CHECK(to[0] == 46);
  CHECK(to[3] == 52);
  columns.read(3, 2, 4, to);
  CHECK(to[0] == 46);
  CHECK(to[3] == 106);
}

TEST_CASE("patchifier: a difference is taken in the compute type") {
  const half tuned[] = {half(1.5F), half(2048.0F), half(0x1p-24F)};
  const bfloat16 base[] = {bfloat16(0.5F), bfloat16(0.5F), bfloat16(-1.0F)};
  const DifferenceSource<bfloat16, half> source{{base, 1, 3}, {tuned, 1, 3}};
  float to[3] = {};
  source.read(0, 0, 3, to);
  CHECK(to[0] == 1);
  CHECK(to[1] == 2047.5F);
  CHECK(to[2] == 1 + 0x1p-24F);
}

TEST_CASE("patchifier: prefetching beside the grid does nothing") {
  const Numbered matrix(9, 9);
  const Patchifier<float, 8> patches(9, 9);
  const DeltaSource<float> source{matrix.view()};
  CHECK_NOTHROW(patches.prefetch(source, 0, 0));
  CHECK_NOTHROW(patches.prefetch(source, 1, 1));
  CHECK_NOTHROW(patches.prefetch(source, 1, 2));
}
