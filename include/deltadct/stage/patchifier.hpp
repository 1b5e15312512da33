// A matrix seen as a grid of P x P patches, row-major, padded with zeros on the right and bottom.
#pragma once

#include <deltadct/core/arithmetic.hpp>
#include <deltadct/core/lanes.hpp>
#include <deltadct/core/matrix_view.hpp>
#include <deltadct/core/prefetch.hpp>
#include <deltadct/dct/butterfly.hpp>

#include <algorithm>
#include <type_traits>

namespace deltadct { inline namespace DELTADCT_ABI {

/// Which elements of the matrix a patch covers; rows and cols are less than P at the edges.
struct PatchExtent {
  std::size_t row;
  std::size_t col;
  std::size_t rows;
  std::size_t cols;

  std::size_t elements() const noexcept { return rows * cols; }
};

/// The grid of a rows x cols matrix of T (paper, section 3.1). In memory, a patch is P * P values
/// of compute_t<T>, row-major; patches follow one another.
template <concepts::Element T, int P>
class Patchifier {
  static_assert(is_patch_size(P), "P must be 4, 8, 12, 16, 32 or 64");

 public:
  using compute = compute_t<T>;
  static constexpr std::size_t side = P;
  static constexpr std::size_t area = side * side;

  Patchifier(std::size_t rows, std::size_t cols) noexcept : rows_(rows), cols_(cols) {}

  std::size_t rows() const noexcept { return rows_; }
  std::size_t cols() const noexcept { return cols_; }
  std::size_t grid_rows() const noexcept { return ceil_div(rows_, side); }
  std::size_t grid_cols() const noexcept { return ceil_div(cols_, side); }
  /// The number of grid columns whose patches need no padding on the right.
  std::size_t whole_cols() const noexcept { return cols_ / side; }
  /// The number of patches. Throws too_large if no array could have one entry per patch.
  std::size_t count() const {
    return checked_size(SaturatingSize(grid_rows()) * grid_cols(), rows_, cols_);
  }

  PatchExtent extent(std::size_t grid_row, std::size_t grid_col) const noexcept {
    const std::size_t row = grid_row * side;
    const std::size_t col = grid_col * side;
    return {row, col, std::min(side, rows_ - row), std::min(side, cols_ - col)};
  }

  /// Prefetches the rows of a patch that load() will read soon. Does nothing past the end of the
  /// grid, or if rows are not contiguous.
  template <class Source>
  void prefetch(const Source& source, std::size_t grid_row, std::size_t grid_col) const noexcept {
    if (grid_col >= grid_cols() || !source.is_dense()) return;
    const PatchExtent at = extent(grid_row, grid_col);
    for (std::size_t i = 0; i < at.rows; ++i) source.prefetch(at.row + i, at.col, at.cols);
  }

  /// Reads a patch into P * P values aligned to 64 bytes, one V at a time if possible.
  template <class V = compute, class Source>
  void load(const Source& source, std::size_t grid_row, std::size_t grid_col,
            compute* patch) const {
    const PatchExtent at = extent(grid_row, grid_col);
    if (at.elements() == area && source.is_dense()) {
      for (std::size_t i = 0; i < side; ++i, patch += side) {
        const auto row = source.row(at.row + i, at.col);
        for (std::size_t j = 0; j < side; j += Lanes<V>::count) {
          Lanes<V>::store(patch + j, row.template lanes<V>(j));
        }
      }
      return;
    }
    std::fill_n(patch, area, compute(0));
    for (std::size_t i = 0; i < at.rows; ++i) {
      source.read(at.row + i, at.col, at.cols, patch + i * side);
    }
  }

 private:
  std::size_t rows_;
  std::size_t cols_;
};

}}  // namespace deltadct::inline DELTADCT_ABI
