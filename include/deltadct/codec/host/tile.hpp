// How a matrix is walked: in tiles of neighbouring patches, and in units of tiles that run in
// parallel.
#pragma once

#include <deltadct/stage/patchifier.hpp>

#include <algorithm>
#include <cstddef>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

// Measured on one core of an AMD EPYC 7003 (Zen 3, AVX2), 4096 x 4096 float, 2 bits.

/// Patches whose rows are at most half a cache line are decoded straight into the matrix. Through a
/// tile, decode_add at P = 8 takes 1.15 times as long; without a tile, at P = 16, it takes twice as
/// long. On the x87 every patch goes through a tile, because storing to it rounds away the
/// registers' excess precision.
template <class T, int P>
inline constexpr bool kDecodesInPlace = P * sizeof(T) <= 32 && !kExcessPrecision;

/// Other patches are first decoded into a tile, whose rows are then added to the matrix. A tile is
/// a run of patches of one grid row that fits the near caches (512 bytes a row, at most 32 KiB).
/// Rows of a matrix are often pages apart: written patch by patch, they would all fall into one set
/// of the cache.
template <class T, int P>
inline constexpr std::size_t kDecodeTile =
    std::max<std::size_t>(1, std::min(512 / (P * sizeof(T)), 32768 / (P * P * sizeof(T))));

/// The stride of the rows of a decoded tile, in values.
template <class T, int P>
inline constexpr std::size_t kDecodeStride = ceil_div(kDecodeTile<T, P>* P * sizeof(T),
                                                      std::size_t{64}) *
                                             64 / sizeof(T);

/// Encoding measures patches by sums over the columns of a run of patches. The sums stay in memory
/// while the rows stream past. Runs are long, so that prefetchers can follow (three sums of 16 KiB
/// each).
template <class T, int P>
inline constexpr std::size_t kEncodeRun = 16384 / (P * sizeof(T));

/// The patches of a unit of decoding, which is the work that an executor hands out at a time.
template <class T, int P>
inline constexpr std::size_t kDecodeUnit = std::max(kDecodeTile<T, P>, 8192 / (P * sizeof(T)));

/// The patches [first, first + count) of a grid row.
struct TileSpan {
  std::size_t grid_row = 0;
  std::size_t first = 0;
  std::size_t count = 0;
};

/// Cuts the patches of grid rows [row_begin, row_end) and columns [col_begin, col_end) into units
/// of UnitPatches, and units into tiles of TilePatches. The cut depends only on the region, never
/// on the executor.
template <std::size_t UnitPatches, std::size_t TilePatches>
struct TileWalk {
  std::size_t row_begin;
  std::size_t row_end;
  std::size_t col_begin;
  std::size_t col_end;

  std::size_t units_across() const noexcept { return ceil_div(col_end - col_begin, UnitPatches); }
  std::size_t units() const noexcept { return (row_end - row_begin) * units_across(); }

  TileSpan unit(std::size_t index) const noexcept {
    const std::size_t first = col_begin + index % units_across() * UnitPatches;
    return {row_begin + index / units_across(), first, std::min(UnitPatches, col_end - first)};
  }

  /// Calls fn(tile, next) for the tiles of a unit. `next` is the tile that follows: after the last
  /// tile of a unit, the first tile of the next unit; after the last tile of all, a tile without
  /// patches.
  template <class Fn>
  void for_each_tile(std::size_t index, Fn&& fn) const {
    const TileSpan whole = unit(index);
    TileSpan tile = part(whole, 0);
    for (std::size_t end = TilePatches; tile.count != 0; end += TilePatches) {
      const bool is_last = end >= whole.count;
      const TileSpan next = !is_last              ? part(whole, end)
                            : index + 1 < units() ? part(unit(index + 1), 0)
                                                  : TileSpan{};
      fn(tile, next);
      tile = is_last ? TileSpan{} : next;
    }
  }

 private:
  static TileSpan part(const TileSpan& whole, std::size_t at) noexcept {
    return {whole.grid_row, whole.first + at, std::min(TilePatches, whole.count - at)};
  }
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
