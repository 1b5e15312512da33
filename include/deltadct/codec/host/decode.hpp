// Decoding: turns the patches of a region into rows of a destination, tile by tile.
#pragma once

#include <deltadct/codec/ends.hpp>
#include <deltadct/codec/host/dequantize.hpp>
#include <deltadct/codec/host/tile.hpp>
#include <deltadct/core/executor.hpp>
#include <deltadct/core/prefetch.hpp>

#include <algorithm>
#include <span>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// Writes a patch into a tile. With every store it prefetches the same place of the next tile's
/// target. Prefetches that are spread over the arithmetic hide most of the memory latency. Most
/// cache lines are requested twice, but this pays: with one prefetch per line, decode_add at P = 32
/// takes 1.2 times as long (Zen 3).
template <class T, int Stride>
struct TileSink {
  T* to;
  Ahead ahead;

  template <class V>
  DELTADCT_HD DELTADCT_INLINE void store(int i, int j, V x) const noexcept {
    Lanes<V>::store_elements(to + i * Stride + j, x);
    ahead.prefetch(i, j);
  }
};

/// The sinks of a tile's patches. They do not depend on the element type of the matrix, so that all
/// types share one copy of the kernels.
template <class T, int P, int Stride>
struct TileSinks {
  T* tile;
  Ahead ahead;

  DELTADCT_INLINE TileSink<T, Stride> operator()(std::size_t k) const noexcept {
    return {tile + k * P, ahead.columns_on(k * P)};
  }
};

/// Writes a patch straight to the destination.
template <class Rows>
struct RowsSink {
  Rows rows;

  template <class V>
  DELTADCT_HD DELTADCT_INLINE void store(int i, int j, V x) const noexcept {
    rows.row(static_cast<std::size_t>(i), 0).write(static_cast<std::size_t>(j), x);
  }
};

template <class Policy, class Backend>
class RegionDecoder {
  using Codec = PatchDecoder<Policy, Backend>;
  using T = typename Codec::T;
  using Wide = typename Codec::Wide;
  static constexpr int P = Codec::P;
  static constexpr auto side = static_cast<std::size_t>(P);
  static constexpr std::size_t kStride = kDecodeStride<T, P>;
  using Walk = TileWalk<kDecodeUnit<T, P>, kDecodeTile<T, P>>;
  using Sinks = TileSinks<T, P, static_cast<int>(kStride)>;

 public:
  /// Decoded values are multiplied by `factor`.
  RegionDecoder(const typename Codec::Kernel& kernel, const CompressedView& compressed,
                const Region& region, T factor) noexcept
      : kernel_(kernel),
        compressed_(compressed),
        region_(region),
        patches_(compressed.header->rows, compressed.header->cols),
        factor_(factor) {}

  /// Writes all values of the region to rows.row(i, j), where (i, j) counts from the region's
  /// corner.
  template <class Rows, concepts::Executor Executor>
  void run(const Rows& rows, const Executor& executor) const {
    if (region_.rows == 0 || region_.cols == 0) return;
    const Walk walk{region_.row / side, ceil_div(region_.row + region_.rows, side),
                    region_.col / side, ceil_div(region_.col + region_.cols, side)};
    executor.parallel_for(walk.units(), [&](std::size_t unit) {
      walk.for_each_tile(unit, [&](const TileSpan& span, const TileSpan& next) {
        if constexpr (kDecodesInPlace<T, P>)
          decode_in_place(span, rows);
        else
          decode_by_tile(span, next, rows);
      });
    });
  }

 private:
  /// Patches that lie wholly in the region, and whose rows are contiguous, are decoded straight
  /// into the destination; others go through a copy. Both use the same code. Different code could
  /// round differently, because compilers fuse a product with a sum wherever they see both.
  template <class Rows>
  void decode_in_place(const TileSpan& span, const Rows& rows) const noexcept {
    const TileSpan whole = whole_of(span);
    if (!rows.is_dense() || whole.count == 0) return decode_copy(span, rows);
    const std::size_t end = span.first + span.count;
    const std::size_t whole_end = whole.first + whole.count;
    decode_copy({span.grid_row, span.first, whole.first - span.first}, rows);
    decode_rows(whole,
                rows.from(span.grid_row * side - region_.row, whole.first * side - region_.col));
    decode_copy({span.grid_row, whole_end, end - whole_end}, rows);
  }

  template <class Rows>
  void decode_copy(const TileSpan& span, const Rows& rows) const noexcept {
    if (span.count == 0) return;
    using U = typename Rows::Element;
    alignas(64) U elements[side * kStride];
    const MatrixView<U> whole(elements, side, span.count * side);
    const Region part = part_of(span);
    const MatrixView<U> copy =
        whole.block(part.row % side, part.col - span.first * side, part.rows, part.cols);
    const std::size_t i = part.row - region_.row;
    const std::size_t j = part.col - region_.col;
    std::fill_n(elements, whole.rows * whole.cols, U(0));
    rows.read(i, j, copy);
    decode_rows(span, rows.of_copy(whole));
    copy_elements<U>(copy, rows.out.block(i, j, part.rows, part.cols));
  }

  /// Decodes whole patches into rows that begin with the first patch.
  template <class Rows>
  void decode_rows(const TileSpan& span, const Rows& rows) const noexcept {
    decode_patches(span, [&](std::size_t k) DELTADCT_INLINE_LAMBDA {
      return RowsSink<Rows>{rows.from(0, k * side)};
    });
  }

  template <class Rows>
  void decode_by_tile(const TileSpan& span, const TileSpan& next, const Rows& rows) const noexcept {
    alignas(64) T tile[side * kStride];
    const bool can_prefetch = rows.is_dense() && next.count >= span.count && is_inside(next);
    const Ahead ahead = can_prefetch ? rows.ahead(next.grid_row * side - region_.row,
                                                  next.first * side - region_.col)
                                     : Ahead(tile);
    decode_patches(span, Sinks{tile, ahead});
    write_tile(span, tile, rows);
  }

  /// Decodes patch k of a tile into sinks(k). Adjacent patches of one width are decoded in one
  /// call.
  template <class SinksOf>
  void decode_patches(const TileSpan& span, const SinksOf& sinks) const noexcept {
    const PatchPlace* places =
        compressed_.places.data() + span.grid_row * patches_.grid_cols() + span.first;
    std::size_t end = 0;
    for (std::size_t k = 0; k < span.count; k = end) {
      const std::uint32_t width_class = places[k].width_class();
      end = k + 1;
      while (end < span.count && places[end].width_class() == width_class) ++end;
      const PatchRun run{compressed_.header->classes[width_class].bits,
                         compressed_.codes_of(places[k]), compressed_.bounds_of(places[k]),
                         compressed_.header->bound, end - k};
      Codec::decode(kernel_, run, factor_,
                    [&](std::size_t n) DELTADCT_INLINE_LAMBDA { return sinks(k + n); });
    }
  }

  /// The part of a tile that lies in the region.
  Region part_of(const TileSpan& span) const noexcept {
    const std::size_t top = std::max(span.grid_row * side, region_.row);
    const std::size_t bottom = std::min(span.grid_row * side + side, region_.row + region_.rows);
    const std::size_t left = std::max(span.first * side, region_.col);
    const std::size_t right =
        std::min((span.first + span.count) * side, region_.col + region_.cols);
    return {top, left, bottom - top, right - left};
  }

  /// The patches of a tile that lie wholly in the region.
  TileSpan whole_of(const TileSpan& span) const noexcept {
    const Region part = part_of(span);
    const std::size_t first = ceil_div(part.col, side);
    const std::size_t end = (part.col + part.cols) / side;
    return {span.grid_row, first, part.rows == side && first < end ? end - first : 0};
  }

  /// Whether all patches of a tile do.
  bool is_inside(const TileSpan& span) const noexcept { return whole_of(span).count == span.count; }

  template <class Rows>
  void write_tile(const TileSpan& span, const T* tile, const Rows& rows) const noexcept {
    const Region part = part_of(span);
    const std::size_t j = part.col - region_.col;
    for (std::size_t r = 0; r < part.rows; ++r) {
      const std::size_t i = part.row + r - region_.row;
      const T* values = tile + (part.row + r) % side * kStride + (part.col - span.first * side);
      if (rows.is_dense()) {
        const auto row = rows.row(i, j);
        std::size_t k = 0;
        for (; k + Lanes<Wide>::count <= part.cols; k += Lanes<Wide>::count) {
          row.write(k, Lanes<Wide>::load_elements(values + k));
        }
        if constexpr (Lanes<Wide>::count > 1) {
          for (; k < part.cols; ++k) row.write(k, values[k]);
        }
      } else {
        for (std::size_t k = 0; k < part.cols; ++k) rows.row(i, j + k).write(0, values[k]);
      }
    }
  }

  const typename Codec::Kernel& kernel_;
  CompressedView compressed_;
  Region region_;
  Patchifier<typename Policy::Element, P> patches_;
  T factor_;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
