// A matrix seen as a grid of P x P patches, row-major, padded with zeros on the right and bottom.
#pragma once

#include <deltadct/core/arithmetic.hpp>
#include <deltadct/core/lanes.hpp>
#include <deltadct/core/matrix_view.hpp>
#include <deltadct/core/prefetch.hpp>
#include <deltadct/dct/butterfly.hpp>

#include <algorithm>
#include <type_traits>

namespace deltadct::inline DELTADCT_ABI {

/// The delta as it is: element (i, j) of one matrix.
template <concepts::Element U>
struct DeltaSource {
  using compute = compute_t<U>;
  MatrixView<const U> delta;

  /// A row from some column on.
  struct Row {
    const U* delta;

    /// The elements k, k + 1, ... of the row.
    template <class V>
    DELTADCT_INLINE V lanes(std::size_t k) const noexcept {
      return Lanes<V>::load_elements(delta + k);
    }
  };

  /// Whether rows are contiguous, so that there are Rows.
  bool is_dense() const noexcept { return delta.col_stride == 1; }
  DELTADCT_INLINE Row row(std::size_t i, std::size_t j) const noexcept { return {&delta(i, j)}; }

  void read(std::size_t i, std::size_t j, std::size_t n, compute* to) const {
    for (std::size_t k = 0; k < n; ++k) to[k] = static_cast<compute>(delta(i, j + k));
  }

  void prefetch(std::size_t i, std::size_t j, std::size_t n) const noexcept {
    detail::prefetch_run(&delta(i, j), n);
  }
};

/// The delta as a difference: tuned - base, computed in the compute type.
template <concepts::Element U, concepts::Element W>
requires std::same_as<compute_t<U>, compute_t<W>>
struct DifferenceSource {
  using compute = compute_t<U>;
  MatrixView<const U> base;
  MatrixView<const W> tuned;

  struct Row {
    const U* base;
    const W* tuned;

    template <class V>
    DELTADCT_INLINE V lanes(std::size_t k) const noexcept {
      return Lanes<V>::load_elements(tuned + k) - Lanes<V>::load_elements(base + k);
    }
  };

  bool is_dense() const noexcept { return base.col_stride == 1 && tuned.col_stride == 1; }
  DELTADCT_INLINE Row row(std::size_t i, std::size_t j) const noexcept {
    return {&base(i, j), &tuned(i, j)};
  }

  void read(std::size_t i, std::size_t j, std::size_t n, compute* to) const {
    for (std::size_t k = 0; k < n; ++k) {
      to[k] = static_cast<compute>(tuned(i, j + k)) - static_cast<compute>(base(i, j + k));
    }
  }

  void prefetch(std::size_t i, std::size_t j, std::size_t n) const noexcept {
    detail::prefetch_run(&tuned(i, j), n);
    detail::prefetch_run(&base(i, j), n);
  }
};

/// Which elements of the matrix a patch covers; rows and cols are less than P at the edges.
struct PatchExtent {
  std::size_t row;
  std::size_t col;
  std::size_t rows;
  std::size_t cols;

  std::size_t elements() const noexcept { return rows * cols; }
};

/// The grid of a rows x cols matrix of T (paper, section 3.1). In memory patches are P * P values
/// of compute_t<T>, row-major, one after another.
template <concepts::Element T, int P>
class Patchifier {
  static_assert(is_patch_size(P), "P must be 4, 8, 12, 16, 32 or 64");

 public:
  using compute = compute_t<T>;
  static constexpr std::size_t side = P;
  static constexpr std::size_t area = side * side;

  Patchifier(std::size_t rows, std::size_t cols) noexcept : rows_(rows), cols_(cols) {}

  std::size_t grid_rows() const noexcept { return ceil_div(rows_, side); }
  std::size_t grid_cols() const noexcept { return ceil_div(cols_, side); }
  /// Throws too_large where no array could have one for each.
  std::size_t count() const {
    return checked_size(SaturatingSize(grid_rows()) * grid_cols(), rows_, cols_);
  }

  PatchExtent extent(std::size_t grid_row, std::size_t grid_col) const noexcept {
    const std::size_t row = grid_row * side;
    const std::size_t col = grid_col * side;
    return {row, col, std::min(side, rows_ - row), std::min(side, cols_ - col)};
  }

  /// Asks for the rows of a patch that load() will read soon; not past the grid, nor where rows are
  /// not contiguous.
  template <class Source>
  void prefetch(const Source& source, std::size_t grid_row, std::size_t grid_col) const noexcept {
    if (grid_col >= grid_cols() || !source.is_dense()) return;
    const PatchExtent at = extent(grid_row, grid_col);
    for (std::size_t i = 0; i < at.rows; ++i) source.prefetch(at.row + i, at.col, at.cols);
  }

  /// Reads a patch into P * P values aligned to 64 bytes, V at a time where it can.
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

}  // namespace deltadct::inline DELTADCT_ABI
