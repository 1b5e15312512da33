// A matrix that somebody else owns: pointer, shape and element strides.
#pragma once

#include <deltadct/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

namespace deltadct::inline DELTADCT_ABI {

/// rows x cols elements; element (i, j) lies at data[i * row_stride + j * col_stride]. Strides are
/// in elements and positive; a transposed matrix is a view with its strides exchanged. Elements of
/// a view that is written to must not overlap.
template <class T>
struct MatrixView {
  T* data = nullptr;
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::ptrdiff_t row_stride = 0;
  std::ptrdiff_t col_stride = 1;

  constexpr MatrixView() = default;

  /// A dense row-major matrix.
  constexpr MatrixView(T* data_, std::size_t rows_, std::size_t cols_) noexcept
      : MatrixView(data_, rows_, cols_, static_cast<std::ptrdiff_t>(cols_)) {}

  constexpr MatrixView(T* data_, std::size_t rows_, std::size_t cols_, std::ptrdiff_t row_stride_,
                       std::ptrdiff_t col_stride_ = 1) noexcept
      : data(data_), rows(rows_), cols(cols_), row_stride(row_stride_), col_stride(col_stride_) {}

  /// A view of mutable elements reads as a view of constant ones.
  constexpr operator MatrixView<const T>() const noexcept requires(!std::is_const_v<T>) {
    return {data, rows, cols, row_stride, col_stride};
  }

  constexpr T& operator()(std::size_t i, std::size_t j) const noexcept {
    return data[static_cast<std::ptrdiff_t>(i) * row_stride +
                static_cast<std::ptrdiff_t>(j) * col_stride];
  }

  constexpr MatrixView transposed() const noexcept {
    return {data, cols, rows, col_stride, row_stride};
  }

  /// The rows_ x cols_ elements from (row, col) on; the caller keeps within the matrix.
  constexpr MatrixView block(std::size_t row, std::size_t col, std::size_t rows_,
                             std::size_t cols_) const noexcept {
    return {&(*this)(row, col), rows_, cols_, row_stride, col_stride};
  }

  constexpr bool empty() const noexcept { return rows == 0 || cols == 0; }
};

/// Throws bad_view, naming `what`, unless the view can be read: it has a pointer where it has
/// elements, and strides of at least one.
template <class T>
void check_view(const MatrixView<T>& view, const char* what) {
  if (view.empty()) return;
  if (view.data == nullptr) throw Error(Errc::bad_view, what, "null pointer");
  const bool rows_move = view.rows == 1 || view.row_stride > 0;
  const bool cols_move = view.cols == 1 || view.col_stride > 0;
  if (!rows_move || !cols_move) {
    throw Error(Errc::bad_view, what,
                "strides " + std::to_string(view.row_stride) + ", " +
                    std::to_string(view.col_stride) + " are not positive");
  }
}

/// Throws bad_view also where two elements share an address, which a destination must not.
template <class T>
void check_destination(const MatrixView<T>& view, const char* what) {
  check_view(view, what);
  if (view.rows < 2 || view.cols < 2) return;
  const auto wide = [](std::ptrdiff_t outer, std::ptrdiff_t inner, std::size_t count) {
    return outer >= inner && static_cast<std::size_t>(outer / inner) >= count;
  };
  if (!wide(view.row_stride, view.col_stride, view.cols) &&
      !wide(view.col_stride, view.row_stride, view.rows)) {
    throw Error(Errc::bad_view, what,
                "elements overlap with strides " + std::to_string(view.row_stride) + ", " +
                    std::to_string(view.col_stride));
  }
}

namespace detail {

// Whether two views of one shape and one pair of strides, `shift` elements apart, have an element
// in common. Elements of a view do not overlap: of its outer dimension two steps at most come near.
inline bool share_elements(std::ptrdiff_t shift, std::ptrdiff_t outer, std::ptrdiff_t outer_count,
                           std::ptrdiff_t inner, std::ptrdiff_t inner_count) noexcept {
  const auto within = [](std::ptrdiff_t n, std::ptrdiff_t count) {
    return -count < n && n < count;
  };
  const std::ptrdiff_t near = outer == 0 ? 0 : shift / outer;
  for (std::ptrdiff_t step = near - 1; step <= near + 1; ++step) {
    const std::ptrdiff_t rest = shift - step * outer;
    const bool meets =
        inner == 0 ? rest == 0 : rest % inner == 0 && within(rest / inner, inner_count);
    if (meets && within(step, outer_count)) return true;
  }
  return false;
}

}  // namespace detail

/// Throws bad_view, naming `what`, where `out` overlaps `base` in any other way than being the same
/// elements in the same places. Both are of one shape, and `out` is a destination.
template <class T>
void check_apart(const MatrixView<const T>& base, const MatrixView<T>& out, const char* what) {
  if (out.empty()) return;
  struct Layout {
    std::uintptr_t begin;
    std::ptrdiff_t row;
    std::ptrdiff_t col;
  };
  const auto rows = static_cast<std::ptrdiff_t>(out.rows);
  const auto cols = static_cast<std::ptrdiff_t>(out.cols);
  // Strides of a dimension of one mean nothing.
  const auto layout = [&](const auto& view) -> Layout {
    return {reinterpret_cast<std::uintptr_t>(view.data), rows > 1 ? view.row_stride : 0,
            cols > 1 ? view.col_stride : 0};
  };
  const auto end = [&](const Layout& a) {
    return a.begin +
           static_cast<std::uintptr_t>((rows - 1) * a.row + (cols - 1) * a.col + 1) * sizeof(T);
  };
  const Layout a = layout(base);
  const Layout b = layout(out);
  if (end(a) <= b.begin || end(b) <= a.begin) return;
  if (a.row == b.row && a.col == b.col) {
    if (a.begin == b.begin) return;
    const auto bytes = static_cast<std::ptrdiff_t>(b.begin - a.begin);
    const auto size = static_cast<std::ptrdiff_t>(sizeof(T));
    const bool by_rows = a.row >= a.col;
    if (bytes % size == 0 &&
        !(by_rows ? detail::share_elements(bytes / size, a.row, rows, a.col, cols)
                  : detail::share_elements(bytes / size, a.col, cols, a.row, rows))) {
      return;
    }
  }
  throw Error(Errc::bad_view, what, "it overlaps the base, and is not the same elements");
}

/// "rows x cols", for messages.
inline std::string shape_text(std::size_t rows, std::size_t cols) {
  return std::to_string(rows) + " x " + std::to_string(cols);
}

/// Throws shape_mismatch, naming `what`, unless the view is rows x cols.
template <class T>
void check_shape(const MatrixView<T>& view, std::size_t rows, std::size_t cols, const char* what) {
  if (view.rows != rows || view.cols != cols) {
    throw Error(
        Errc::shape_mismatch, what,
        shape_text(view.rows, view.cols) + " where " + shape_text(rows, cols) + " is expected");
  }
}

}  // namespace deltadct::inline DELTADCT_ABI
