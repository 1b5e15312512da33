// Decoding: patches of a region become rows of a destination, tile by tile.
#pragma once

#include <deltadct/codec/patch_codec.hpp>
#include <deltadct/codec/tile.hpp>
#include <deltadct/core/executor.hpp>

namespace deltadct::inline DELTADCT_ABI::detail {

/// out = delta^.
template <concepts::Element U>
struct StoreRows {
  MatrixView<U> out;

  template <class Count>
  DELTADCT_INLINE void write(std::size_t i, std::size_t j, Count n,
                             const compute_t<U>* values) const noexcept {
    narrow_run(values, n, &out(i, j), out.col_stride);
  }
};

/// out = base + delta^; base and out are the same elements or do not overlap.
template <concepts::Element U>
struct AddRows {
  MatrixView<const U> base;
  MatrixView<U> out;

  template <class Count>
  DELTADCT_INLINE void write(std::size_t i, std::size_t j, Count n,
                             const compute_t<U>* values) const noexcept {
    compute_t<U> run[64];  // no run is longer than the largest P
    visit_run(&base(i, j), base.col_stride, n,
              [&](std::size_t k, compute_t<U> x) { run[k] = x + values[k]; });
    narrow_run(run, n, &out(i, j), out.col_stride);
  }
};

/// The elements [row, row + rows) x [col, col + cols) of the tensor.
struct Region {
  std::size_t row;
  std::size_t col;
  std::size_t rows;
  std::size_t cols;
};

template <class Policy, class Backend>
class RegionDecoder {
  using Codec = PatchCodec<Policy, Backend>;
  using T = typename Codec::T;
  static constexpr int P = Codec::P;
  static constexpr auto side = static_cast<std::size_t>(P);
  using Walk = TileWalk<T, P, kDecodeRowBytes>;

 public:
  RegionDecoder(const CompressedView& compressed, const Region& region, double alpha) noexcept
      : compressed_(compressed),
        region_(region),
        patches_(compressed.header->rows, compressed.header->cols),
        factor_(static_cast<T>(alpha * compressed.header->scale)) {}

  /// Hands every row of every patch of the region to rows.write(i, j, n, values), (i, j) counted
  /// from the region's corner.
  template <class Rows, concepts::Executor Executor>
  void run(const Rows& rows, const Executor& executor) const {
    if (region_.rows == 0 || region_.cols == 0) return;
    const Walk walk{region_.row / side, ceil_div(region_.row + region_.rows, side),
                    region_.col / side, ceil_div(region_.col + region_.cols, side)};
    executor.parallel_for(walk.units(), [&](std::size_t unit) {
      alignas(64) T tile[Walk::tile_patches * side * side];
      walk.for_each_tile(unit, [&](const TileSpan& span) {
        decode_tile(span, tile);
        write_tile(span, tile, rows);
      });
    });
  }

 private:
  void decode_tile(const TileSpan& span, T* tile) const noexcept {
    const std::size_t index = span.grid_row * patches_.grid_cols() + span.first;
    for (std::size_t k = 0; k < span.count; ++k) {
      const PatchPlace place = compressed_.places[index + k];
      const std::byte* codes = compressed_.codes_of(place);
      const std::byte* bounds = compressed_.bounds_of(place);
      T* patch = tile + k * side * side;
      with_bits(compressed_.width_class(place).bits, [&]<int Bits>() {
        Codec::template decode<Bits>(codes, bounds, compressed_.header->bound, factor_, patch);
      });
    }
  }

  template <class Rows>
  void write_tile(const TileSpan& span, const T* tile, const Rows& rows) const noexcept {
    const std::size_t top = std::max(span.grid_row * side, region_.row);
    const std::size_t bottom = std::min(span.grid_row * side + side, region_.row + region_.rows);
    for (std::size_t i = top; i < bottom; ++i) {
      for (std::size_t k = 0; k < span.count; ++k) {
        const std::size_t origin = (span.first + k) * side;
        const std::size_t left = std::max(origin, region_.col);
        const std::size_t right = std::min(origin + side, region_.col + region_.cols);
        const T* values = tile + (k * side + i % side) * side + (left - origin);
        if (right - left == side) {
          rows.write(i - region_.row, left - region_.col,
                     std::integral_constant<std::size_t, side>{}, values);
        } else {
          rows.write(i - region_.row, left - region_.col, right - left, values);
        }
      }
    }
  }

  CompressedView compressed_;
  Region region_;
  typename Policy::Patches patches_;
  T factor_;
};

}  // namespace deltadct::inline DELTADCT_ABI::detail
