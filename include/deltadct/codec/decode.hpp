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

  /// A row from some column on.
  struct Row {
    U* out;

    /// Values for the elements k, k + 1, ... of the row.
    template <class V>
    DELTADCT_INLINE void write(std::size_t k, V values) const noexcept {
      Lanes<V>::store_elements(out + k, values);
    }
  };

  /// Whether rows are contiguous, so that values may be whole registers.
  bool is_dense() const noexcept { return out.col_stride == 1; }
  DELTADCT_INLINE Row row(std::size_t i, std::size_t j) const noexcept { return {&out(i, j)}; }
};

/// out = base + delta^; base and out are the same elements or do not overlap.
template <concepts::Element U>
struct AddRows {
  MatrixView<const U> base;
  MatrixView<U> out;

  struct Row {
    const U* base;
    U* out;

    template <class V>
    DELTADCT_INLINE void write(std::size_t k, V values) const noexcept {
      Lanes<V>::store_elements(out + k, Lanes<V>::load_elements(base + k) + values);
    }
  };

  bool is_dense() const noexcept { return base.col_stride == 1 && out.col_stride == 1; }

  DELTADCT_INLINE Row row(std::size_t i, std::size_t j) const noexcept {
    return {&base(i, j), &out(i, j)};
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
  using V = typename Codec::V;
  static constexpr int P = Codec::P;
  static constexpr auto side = static_cast<std::size_t>(P);
  using Walk = TileWalk<kDecodeUnit<T, P>, kDecodeTile<T, P>>;

 public:
  RegionDecoder(const typename Codec::Kernel& kernel, const CompressedView& compressed,
                const Region& region, double alpha) noexcept
      : kernel_(kernel),
        compressed_(compressed),
        region_(region),
        patches_(compressed.header->rows, compressed.header->cols),
        factor_(static_cast<T>(alpha * compressed.header->scale)) {}

  /// Hands all values of the region to rows.write(i, j, values), (i, j) counted from its corner.
  template <class Rows, concepts::Executor Executor>
  void run(const Rows& rows, const Executor& executor) const {
    if (region_.rows == 0 || region_.cols == 0) return;
    const Walk walk{region_.row / side, ceil_div(region_.row + region_.rows, side),
                    region_.col / side, ceil_div(region_.col + region_.cols, side)};
    executor.parallel_for(walk.units(), [&](std::size_t unit) {
      alignas(64) T tile[kDecodeTile<T, P> * side * side];
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
        Codec::template decode<Bits>(kernel_, codes, bounds, compressed_.header->bound, factor_,
                                     patch);
      });
    }
  }

  template <class Rows>
  void write_tile(const TileSpan& span, const T* tile, const Rows& rows) const noexcept {
    const std::size_t top = std::max(span.grid_row * side, region_.row);
    const std::size_t bottom = std::min(span.grid_row * side + side, region_.row + region_.rows);
    const std::size_t left = span.first * side;
    const std::size_t right = left + span.count * side;
    if (rows.is_dense() && left >= region_.col && right <= region_.col + region_.cols) {
      for (std::size_t i = top; i < bottom; ++i) {
        const auto row = rows.row(i - region_.row, left - region_.col);
        const T* values = tile + i % side * side;
        for (std::size_t k = 0; k < span.count; ++k) {
          for (std::size_t s = 0; s < side; s += Lanes<V>::count) {
            row.write(k * side + s, Lanes<V>::load(values + k * side * side + s));
          }
        }
      }
      return;
    }
    for (std::size_t i = top; i < bottom; ++i) {
      const std::size_t end = std::min(right, region_.col + region_.cols);
      for (std::size_t j = std::max(left, region_.col); j < end; ++j) {
        const std::size_t k = j / side - span.first;
        rows.row(i - region_.row, j - region_.col)
            .write(0, tile[(k * side + i % side) * side + j % side]);
      }
    }
  }

  const typename Codec::Kernel& kernel_;
  CompressedView compressed_;
  Region region_;
  typename Policy::Patches patches_;
  T factor_;
};

}  // namespace deltadct::inline DELTADCT_ABI::detail
