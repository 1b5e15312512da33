// A matrix seen as a grid of P x P patches, row-major, padded with zeros on the right and bottom.
#pragma once

#include <deltadct/core/arithmetic.hpp>
#include <deltadct/core/convert.hpp>
#include <deltadct/core/matrix_view.hpp>
#include <deltadct/core/prefetch.hpp>
#include <deltadct/dct/butterfly.hpp>

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace deltadct::inline DELTADCT_ABI {

/// The delta as it is: element (i, j) of one matrix.
template <concepts::Element U>
struct DeltaSource {
  using compute = compute_t<U>;
  MatrixView<const U> delta;

  template <class Count>
  DELTADCT_INLINE void read(std::size_t i, std::size_t j, Count n, compute* to) const {
    visit_run(&delta(i, j), delta.col_stride, n, [to](std::size_t k, compute x) { to[k] = x; });
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

  template <class Count>
  DELTADCT_INLINE void read(std::size_t i, std::size_t j, Count n, compute* to) const {
    visit_run(&tuned(i, j), tuned.col_stride, n,
              [to](std::size_t k, compute x) DELTADCT_INLINE_LAMBDA { to[k] = x; });
    visit_run(&base(i, j), base.col_stride, n,
              [to](std::size_t k, compute x) DELTADCT_INLINE_LAMBDA { to[k] -= x; });
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
  std::size_t count() const noexcept {
    return rows_ == 0 || cols_ == 0 ? 0 : grid_rows() * grid_cols();
  }

  PatchExtent extent(std::size_t grid_row, std::size_t grid_col) const noexcept {
    const std::size_t row = grid_row * side;
    const std::size_t col = grid_col * side;
    return {row, col, std::min(side, rows_ - row), std::min(side, cols_ - col)};
  }

  /// Asks for the rows of a patch that load() will read soon. Spread over the arithmetic of the
  /// patches before it, this hides most of the memory's latency; nothing happens past the grid.
  template <class Source>
  void prefetch(const Source& source, std::size_t grid_row, std::size_t grid_col) const noexcept {
    if (grid_col >= grid_cols()) return;
    const PatchExtent at = extent(grid_row, grid_col);
    for (std::size_t i = 0; i < at.rows; ++i) source.prefetch(at.row + i, at.col, at.cols);
  }

  /// Reads the patches (grid_row, first) ... (grid_row, first + n - 1) for which wanted(k),
  /// k = 0 ... n - 1, holds into patches[k * area]. Row by row across the patches: a run of
  /// neighbouring rows is a stride of whole pages, which caches and prefetchers dislike.
  template <class Source, class Wanted>
  void load(const Source& source, std::size_t grid_row, std::size_t first, std::size_t n,
            Wanted wanted, compute* patches) const {
    const PatchExtent corner = extent(grid_row, first);
    const std::size_t whole = std::min(n, (cols_ - corner.col) / side);
    for (std::size_t i = 0; i < side; ++i) {
      compute* to = patches + i * side;
      for (std::size_t k = 0; k < n; ++k, to += area) {
        if (!wanted(k)) continue;
        const std::size_t col = corner.col + k * side;
        if (i >= corner.rows) {
          std::memset(to, 0, side * sizeof(compute));
        } else if (k < whole) {
          // By way of a local array: nothing the source reads can lie in it, so loops vectorise.
          compute run[side];
          source.read(corner.row + i, col, std::integral_constant<std::size_t, side>{}, run);
          std::memcpy(to, run, sizeof run);
        } else {
          source.read(corner.row + i, col, cols_ - col, to);
          std::memset(to + (cols_ - col), 0, (side - (cols_ - col)) * sizeof(compute));
        }
      }
    }
  }

 private:
  std::size_t rows_;
  std::size_t cols_;
};

}  // namespace deltadct::inline DELTADCT_ABI
