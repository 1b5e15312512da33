// A view of a matrix that the caller owns: pointer, shape and element strides.
#pragma once

#include <deltadct/core/arithmetic.hpp>
#include <deltadct/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

namespace deltadct { inline namespace DELTADCT_ABI {

/// rows x cols elements; element (i, j) is at data[i * row_stride + j * col_stride]. Strides are in
/// elements and positive. To transpose a matrix, exchange the strides of its view. The elements of
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

  /// A view of mutable elements converts to a view of constant ones.
  template <class C>
  requires(std::is_same_v<C, const T> && !std::is_const_v<T>) constexpr operator MatrixView<C>()
      const noexcept {
    return {data, rows, cols, row_stride, col_stride};
  }

  constexpr T& operator()(std::size_t i, std::size_t j) const noexcept {
    return data[static_cast<std::ptrdiff_t>(i) * row_stride +
                static_cast<std::ptrdiff_t>(j) * col_stride];
  }

  constexpr MatrixView transposed() const noexcept {
    return {data, cols, rows, col_stride, row_stride};
  }

  /// The rows_ x cols_ elements from (row, col) on. The caller must stay within the matrix.
  constexpr MatrixView block(std::size_t row, std::size_t col, std::size_t rows_,
                             std::size_t cols_) const noexcept {
    return {&(*this)(row, col), rows_, cols_, row_stride, col_stride};
  }

  constexpr bool empty() const noexcept { return rows == 0 || cols == 0; }
};

/// "rows x cols", for messages.
inline std::string shape_text(std::size_t rows, std::size_t cols) {
  return std::to_string(rows) + " x " + std::to_string(cols);
}

/// A size or count derived from a rows x cols matrix. Throws too_large, naming the shape, if no
/// array can have that many bytes.
inline std::size_t checked_size(SaturatingSize size, std::size_t rows, std::size_t cols) {
  if (!size.fits()) throw Error(Errc::too_large, "matrix", shape_text(rows, cols));
  return size.value();
}

/// The number of elements of a matrix. Throws too_large.
inline std::size_t count_elements(std::size_t rows, std::size_t cols) {
  return checked_size(SaturatingSize(rows) * cols, rows, cols);
}

namespace detail {

// A view without its element type, so that the checks of views are compiled only once.
struct Layout {
  std::uintptr_t begin;
  std::size_t rows;
  std::size_t cols;
  std::ptrdiff_t row_stride;
  std::ptrdiff_t col_stride;
  std::size_t element_bytes;

  template <class T>
  explicit Layout(const MatrixView<T>& view) noexcept
      : begin(reinterpret_cast<std::uintptr_t>(view.data)),
        rows(view.rows),
        cols(view.cols),
        row_stride(view.row_stride),
        col_stride(view.col_stride),
        element_bytes(sizeof(T)) {}

  bool empty() const noexcept { return rows == 0 || cols == 0; }

  // Bytes from the first element to the end of the last one. The view must not be empty, and its
  // strides must be positive in dimensions longer than one.
  SaturatingSize bytes() const noexcept {
    const auto reach = [](std::size_t count, std::ptrdiff_t stride) {
      return count == 1 ? SaturatingSize(0)
                        : SaturatingSize(count - 1) * static_cast<std::size_t>(stride);
    };
    return (reach(rows, row_stride) + reach(cols, col_stride) + 1) * element_bytes;
  }

  std::string strides_text() const {
    return "strides " + std::to_string(row_stride) + ", " + std::to_string(col_stride);
  }
};

inline void check_view(const Layout& view, const char* what) {
  if (view.empty()) return;
  if (view.begin == 0) throw Error(Errc::bad_view, what, "null pointer");
  const bool rows_move = view.rows == 1 || view.row_stride > 0;
  const bool cols_move = view.cols == 1 || view.col_stride > 0;
  if (!rows_move || !cols_move) {
    throw Error(Errc::bad_view, what, view.strides_text() + " are not positive");
  }
  if (const auto bytes = view.bytes(); !bytes.fits() || bytes.value() > UINTPTR_MAX - view.begin) {
    throw Error(Errc::bad_view, what,
                shape_text(view.rows, view.cols) + " elements leave the address space");
  }
}

inline void check_destination(const Layout& view, const char* what) {
  check_view(view, what);
  if (view.rows < 2 || view.cols < 2) return;
  const auto wide = [](std::ptrdiff_t outer, std::ptrdiff_t inner, std::size_t count) {
    return static_cast<std::size_t>((outer - 1) / inner) >= count - 1;
  };
  if (!wide(view.row_stride, view.col_stride, view.cols) &&
      !wide(view.col_stride, view.row_stride, view.rows)) {
    throw Error(Errc::bad_view, what, "elements overlap with " + view.strides_text());
  }
}

// Whether two views of the same shape and strides, `shift` elements apart, share an element. The
// elements of one view do not overlap, so only the outer steps next to shift / outer can match.
// Nothing overflows: both views, and so the shift and every step, lie within the address space.
inline bool share_elements(std::ptrdiff_t shift, std::ptrdiff_t outer, std::ptrdiff_t outer_count,
                           std::ptrdiff_t inner, std::ptrdiff_t inner_count) noexcept {
  const auto within = [](std::ptrdiff_t n, std::ptrdiff_t count) {
    return -count < n && n < count;
  };
  const std::ptrdiff_t nearest = outer == 0 ? 0 : shift / outer;
  for (std::ptrdiff_t step = nearest - 1; step <= nearest + 1; ++step) {
    if (!within(step, outer_count)) continue;
    const std::ptrdiff_t rest = shift - step * outer;
    if (inner == 0 ? rest == 0 : rest % inner == 0 && within(rest / inner, inner_count))
      return true;
  }
  return false;
}

// Whether two views share a byte in any way other than being the same elements in the same places.
// If their strides differ, overlapping address ranges count as sharing. Both views have the same
// shape and element size, have been checked, and are not empty.
inline bool share_bytes(Layout a, Layout b) noexcept {
  const auto end = [](const Layout& view) { return view.begin + view.bytes().value(); };
  if (end(a) <= b.begin || end(b) <= a.begin) return false;
  const auto rows = static_cast<std::ptrdiff_t>(a.rows);
  const auto cols = static_cast<std::ptrdiff_t>(a.cols);
  // The stride of a dimension of length one has no meaning.
  if (rows == 1) a.row_stride = b.row_stride = 0;
  if (cols == 1) a.col_stride = b.col_stride = 0;
  if (a.row_stride != b.row_stride || a.col_stride != b.col_stride) return true;
  if (a.begin == b.begin) return false;
  const auto shift = static_cast<std::ptrdiff_t>(b.begin - a.begin);
  const auto bytes = static_cast<std::ptrdiff_t>(a.element_bytes);
  if (shift % bytes != 0) return true;
  return a.row_stride >= a.col_stride
             ? share_elements(shift / bytes, a.row_stride, rows, a.col_stride, cols)
             : share_elements(shift / bytes, a.col_stride, cols, a.row_stride, rows);
}

inline void check_shape(const Layout& view, std::size_t rows, std::size_t cols, const char* what) {
  if (view.rows != rows || view.cols != cols) {
    throw Error(
        Errc::shape_mismatch, what,
        shape_text(view.rows, view.cols) + " where " + shape_text(rows, cols) + " is expected");
  }
}

/// Throws bad_range unless the rows x cols elements from (row, col) on lie within the matrix.
inline void check_block(std::size_t row, std::size_t col, std::size_t rows, std::size_t cols,
                        std::size_t matrix_rows, std::size_t matrix_cols) {
  if (row > matrix_rows || rows > matrix_rows - row || col > matrix_cols ||
      cols > matrix_cols - col) {
    throw Error(Errc::bad_range, "block",
                shape_text(rows, cols) + " at (" + std::to_string(row) + ", " +
                    std::to_string(col) + ") of " + shape_text(matrix_rows, matrix_cols));
  }
}

}  // namespace detail

/// Throws bad_view, naming `what`, unless the view can be read. An empty view always can. Otherwise
/// it needs a pointer, strides of at least one in dimensions longer than one, and all its elements
/// within the address space.
template <class T>
void check_view(const MatrixView<T>& view, const char* what) {
  detail::check_view(detail::Layout(view), what);
}

/// As check_view(), and throws bad_view also if elements of the destination overlap. Strides that
/// interleave the rows and columns count as overlapping.
template <class T>
void check_destination(const MatrixView<T>& view, const char* what) {
  detail::check_destination(detail::Layout(view), what);
}

/// Throws bad_view, naming `what`, if `out` overlaps `base` in any way other than being the same
/// elements in the same places. Views whose strides differ count as overlapping if their address
/// ranges do. Both views have the same shape and have been checked, `out` as a destination.
template <class T>
void check_apart(const MatrixView<const T>& base, const MatrixView<T>& out, const char* what) {
  if (!out.empty() && detail::share_bytes(detail::Layout(base), detail::Layout(out))) {
    throw Error(Errc::bad_view, what, "overlaps the base without being the same elements");
  }
}

/// Throws shape_mismatch, naming `what`, unless the view is rows x cols.
template <class T>
void check_shape(const MatrixView<T>& view, std::size_t rows, std::size_t cols, const char* what) {
  detail::check_shape(detail::Layout(view), rows, cols, what);
}

}}  // namespace deltadct::inline DELTADCT_ABI
