// The ends of the codec: what encoders read a delta from, and what decoders write one to.
//
// A read end yields elements in the compute type, one at a time or a register at a time. A write
// end accepts values in the same way. Both know whether their rows are contiguous, which whole
// registers require.
#pragma once

#include <deltadct/compressed_tensor.hpp>
#include <deltadct/core/lanes.hpp>
#include <deltadct/core/matrix_view.hpp>
#include <deltadct/core/prefetch.hpp>

#include <algorithm>
#include <cmath>
#include <span>

namespace deltadct { inline namespace DELTADCT_ABI {

/// A delta that is stored as one matrix.
template <concepts::Element U>
struct DeltaSource {
  using compute = compute_t<U>;
  MatrixView<const U> delta;

  /// A row, starting at some column.
  struct Row {
    const U* delta;

    /// Elements k, k + 1, ... of the row.
    template <class V>
    DELTADCT_INLINE V lanes(std::size_t k) const noexcept {
      return Lanes<V>::load_elements(delta + k);
    }
  };

  /// Whether rows are contiguous. Only then may row() be called.
  bool is_dense() const noexcept { return delta.col_stride == 1; }
  DELTADCT_HD DELTADCT_INLINE Row row(std::size_t i, std::size_t j) const noexcept {
    return {&delta(i, j)};
  }

  void read(std::size_t i, std::size_t j, std::size_t n, compute* to) const {
    for (std::size_t k = 0; k < n; ++k) to[k] = static_cast<compute>(delta(i, j + k));
  }

  void prefetch(std::size_t i, std::size_t j, std::size_t n) const noexcept {
    detail::prefetch_run(&delta(i, j), n);
  }
};

/// A delta that is computed as tuned - base, in the compute type.
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
  DELTADCT_HD DELTADCT_INLINE Row row(std::size_t i, std::size_t j) const noexcept {
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

namespace detail {

/// to = from, along rows or along columns, whichever has the smaller stride.
template <class U>
void copy_elements(MatrixView<const U> from, MatrixView<U> to) noexcept {
  if (std::abs(from.row_stride) < std::abs(from.col_stride) ||
      std::abs(to.row_stride) < std::abs(to.col_stride)) {
    from = from.transposed();
    to = to.transposed();
  }
  for (std::size_t i = 0; i < to.rows; ++i) {
    if (from.col_stride == 1 && to.col_stride == 1) {
      std::copy_n(&from(i, 0), to.cols, &to(i, 0));
    } else {
      for (std::size_t j = 0; j < to.cols; ++j) to(i, j) = from(i, j);
    }
  }
}

/// out = delta^.
template <concepts::Element U>
struct StoreRows {
  using Element = U;

  MatrixView<U> out;

  /// A row, starting at some column.
  struct Row {
    U* out;

    /// Writes values to the elements k, k + 1, ... of the row.
    template <class V>
    DELTADCT_HD DELTADCT_INLINE void write(std::size_t k, V values) const noexcept {
      Lanes<V>::store_elements(out + k, values);
    }
  };

  /// The same operation, starting at row i, column j.
  StoreRows from(std::size_t i, std::size_t j) const noexcept { return {out.block(i, j, 0, 0)}; }
  /// The same operation on a copy of the elements. read() must fill the copy first; here it does
  /// nothing, because the old values do not matter.
  StoreRows of_copy(MatrixView<U> copy) const noexcept { return {copy}; }
  void read(std::size_t, std::size_t, MatrixView<U>) const noexcept {}
  /// Whether rows are contiguous. Only then may row() write whole registers.
  bool is_dense() const noexcept { return out.col_stride == 1; }
  DELTADCT_HD DELTADCT_INLINE Row row(std::size_t i, std::size_t j) const noexcept {
    return {&out(i, j)};
  }
  /// What to prefetch: the elements from row i, column j on.
  Ahead ahead(std::size_t i, std::size_t j) const noexcept { return Ahead(out, i, j); }
};

/// out = base + delta^; base and out are the same elements or do not overlap.
template <concepts::Element U>
struct AddRows {
  using Element = U;

  MatrixView<const U> base;
  MatrixView<U> out;

  struct Row {
    const U* base;
    U* out;

    template <class V>
    DELTADCT_HD DELTADCT_INLINE void write(std::size_t k, V values) const noexcept {
      Lanes<V>::store_elements(out + k, Lanes<V>::load_elements(base + k) + values);
    }
  };

  AddRows from(std::size_t i, std::size_t j) const noexcept {
    return {base.block(i, j, 0, 0), out.block(i, j, 0, 0)};
  }
  AddRows of_copy(MatrixView<U> copy) const noexcept { return {copy, copy}; }
  void read(std::size_t i, std::size_t j, MatrixView<U> copy) const noexcept {
    copy_elements<U>(base.block(i, j, copy.rows, copy.cols), copy);
  }

  bool is_dense() const noexcept { return base.col_stride == 1 && out.col_stride == 1; }

  DELTADCT_HD DELTADCT_INLINE Row row(std::size_t i, std::size_t j) const noexcept {
    return {&base(i, j), &out(i, j)};
  }
  Ahead ahead(std::size_t i, std::size_t j) const noexcept { return Ahead(base, i, j); }
};

/// The elements [row, row + rows) x [col, col + cols) of the tensor.
struct Region {
  std::size_t row;
  std::size_t col;
  std::size_t rows;
  std::size_t cols;
};

/// out += alpha * the outliers of a region. out(0, 0) is the region's first element.
template <concepts::Element U>
void add_outliers(std::span<const Outlier> outliers, const Region& region, double alpha,
                  MatrixView<U> out) noexcept {
  using T = compute_t<U>;
  auto at = std::ranges::lower_bound(outliers, region.row, {}, &Outlier::row);
  for (; at != outliers.end() && at->row < region.row + region.rows; ++at) {
    if (at->col < region.col || at->col >= region.col + region.cols) continue;
    U& x = out(at->row - region.row, at->col - region.col);
    x = static_cast<U>(static_cast<T>(x) + static_cast<T>(alpha * at->value));
  }
}

}  // namespace detail

}}  // namespace deltadct::inline DELTADCT_ABI
