// Where a thread's patch lies, and the delta that the thread reads there.
#pragma once

#include <deltadct/backend/cuda/columns.hpp>
#include <deltadct/core/arithmetic.hpp>
#include <deltadct/core/matrix_view.hpp>

#include <cstddef>
#include <cstdint>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// A part of a matrix, the patches that cover it, and how blocks divide these patches: each block
/// takes some neighbours of one grid row.
struct DeviceRegion {
  std::int64_t row;  ///< row of the matrix where the region begins
  std::int64_t col;
  std::int64_t rows;
  std::int64_t cols;
  std::uint32_t grid_cols;  ///< patches in a row of the matrix
  std::uint32_t first_row;  ///< first row of the grid; the next two are columns of the grid
  std::uint32_t first_col;
  std::uint32_t end_col;
  std::uint32_t blocks_across;
  std::uint32_t blocks;

  /// The region must lie inside the matrix, which must have at most PatchPlace::kMaxSlots patches.
  DeviceRegion(std::size_t matrix_cols, std::size_t row_, std::size_t col_, std::size_t rows_,
               std::size_t cols_, int patch, int block_patches) noexcept {
    const auto p = static_cast<std::size_t>(patch);
    const auto narrow = [](std::size_t n) { return static_cast<std::uint32_t>(n); };
    row = static_cast<std::int64_t>(row_);
    col = static_cast<std::int64_t>(col_);
    rows = static_cast<std::int64_t>(rows_);
    cols = static_cast<std::int64_t>(cols_);
    grid_cols = narrow(ceil_div(matrix_cols, p));
    first_row = narrow(row_ / p);
    first_col = narrow(col_ / p);
    end_col = narrow(ceil_div(col_ + cols_, p));
    blocks_across = ceil_div(end_col - first_col, static_cast<std::uint32_t>(block_patches));
    const std::size_t grid_rows = ceil_div(row_ + rows_, p) - row_ / p;
    blocks = rows_ == 0 || cols_ == 0 ? 0 : narrow(grid_rows) * blocks_across;
  }
};

/// A thread's patch, and the thread's part of it.
template <class T, int P>
struct PatchOfThread {
  using Threads = PatchThreads<T, P>;

  int slot;           ///< index of the patch in its block
  int t;              ///< index of the thread in its patch
  bool exists;        ///< false for the threads of a block that have no patch
  std::size_t index;  ///< index of the patch in the matrix
  std::int64_t i;     ///< the patch's first row, relative to the region; may be negative
  std::int64_t j;     ///< the thread's first column, relative to the region; may be negative

  DELTADCT_HD DELTADCT_INLINE PatchOfThread(const DeviceRegion& region, unsigned block,
                                            int thread) noexcept {
    t = thread % Threads::per_patch;
    slot = thread / Threads::per_patch;
    const std::uint32_t grid_row = region.first_row + block / region.blocks_across;
    const std::uint32_t grid_col = region.first_col +
                                   block % region.blocks_across * Threads::patches +
                                   static_cast<unsigned>(slot);
    exists = grid_col < region.end_col;
    index = std::size_t{grid_row} * region.grid_cols + grid_col;
    i = std::int64_t{grid_row} * P - region.row;
    j = std::int64_t{grid_col} * P - region.col + Threads::spatial_column(t, 0);
  }

  /// How many of the patch's elements lie in the region, which must begin where a patch does.
  DELTADCT_HD DELTADCT_INLINE std::int64_t elements(const DeviceRegion& region) const noexcept {
    const auto within = [](std::int64_t rest) { return rest < P ? rest : P; };
    return within(region.rows - i) * within(region.cols - (j - Threads::spatial_column(t, 0)));
  }

  /// Whether all of the thread's elements are in the region.
  DELTADCT_HD DELTADCT_INLINE bool is_inside(const DeviceRegion& region) const noexcept {
    return i >= 0 && i + P <= region.rows && j >= 0 && j + Threads::lanes <= region.cols;
  }
};

/// Whether `lanes` neighbours of a row, from any multiple of `lanes` on, can be accessed as a
/// Packed.
template <class U>
bool is_packed(const MatrixView<U>& view, int lanes) noexcept {
  const auto step = static_cast<std::ptrdiff_t>(lanes);
  return view.col_stride == 1 && view.row_stride % step == 0 &&
         reinterpret_cast<std::uintptr_t>(view.data) %
                 (static_cast<std::size_t>(lanes) * sizeof(U)) ==
             0;
}

/// The delta of the matrix that is encoded: tuned - base, or `tuned` itself if that is the delta.
template <class Compute, concepts::Element U, bool Subtracts>
struct DeviceDelta {
  MatrixView<const U> base;
  MatrixView<const U> tuned;

  /// Loads rows first, first + 1, ... of the thread's columns. The region must be the whole matrix;
  /// elements beyond its edges are zero.
  template <int P, class V, int Rows>
  DELTADCT_HD DELTADCT_INLINE void load(const PatchOfThread<Compute, P>& patch,
                                        const DeviceRegion& region, bool packed, int first,
                                        V (&x)[Rows]) const noexcept {
    constexpr int lanes = Lanes<V>::count;
    const std::int64_t i = patch.i + first;
    if (packed && patch.is_inside(region)) {
      const U* tuned_at = tuned.data + i * tuned.row_stride + patch.j;
      const U* base_at = base.data + (Subtracts ? i * base.row_stride + patch.j : 0);
      Packed<U, lanes> tuned_rows[Rows];
      Packed<U, lanes> base_rows[Subtracts ? Rows : 1];
      repeat<Rows>([&](int r) DELTADCT_INLINE_LAMBDA {
        tuned_rows[r] = load_packed<lanes>(tuned_at + r * tuned.row_stride);
        if constexpr (Subtracts) base_rows[r] = load_packed<lanes>(base_at + r * base.row_stride);
      });
      repeat<Rows>([&](int r) DELTADCT_INLINE_LAMBDA {
        x[r] = unpack_elements<V>(tuned_rows[r]);
        if constexpr (Subtracts) x[r] = x[r] - unpack_elements<V>(base_rows[r]);
      });
    } else {
      repeat<Rows>([&](int r) DELTADCT_INLINE_LAMBDA {
        for (int l = 0; l < lanes; ++l) {
          const bool exists = i + r < region.rows && patch.j + l < region.cols;
          lane(x[r], l) = exists ? at(i + r, patch.j + l) : Compute(0);
        }
      });
    }
  }

  DELTADCT_HD DELTADCT_INLINE Compute at(std::int64_t i, std::int64_t j) const noexcept {
    auto x = static_cast<Compute>(tuned.data[i * tuned.row_stride + j * tuned.col_stride]);
    if constexpr (Subtracts) {
      x = x - static_cast<Compute>(base.data[i * base.row_stride + j * base.col_stride]);
    }
    return x;
  }
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
