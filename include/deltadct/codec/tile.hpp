// How a matrix is walked: tiles of neighbouring patches, and units of tiles that run in parallel.
#pragma once

#include <deltadct/stage/patchifier.hpp>

#include <algorithm>
#include <cstddef>

namespace deltadct::inline DELTADCT_ABI::detail {

/// A tile is a run of patches of one grid row; its matrix rows are read or written RowBytes at a
/// time.
///
/// Decoding writes 512 bytes a row: the decoded patches, 8 KiB, stay in the first-level cache until
/// they are added. Encoding reads two matrices, 2 P streams at once; from P = 16 on prefetchers
/// follow them only in longer runs, at the price of patches that wait in the second-level cache.
/// (Medians on an AMD EPYC, 32 KiB L1d, 1 MiB L2, 4096 x 4096 float, encode with 512 / 4096 bytes:
/// P = 8 42 / 62 ms, 12 48 / 58, 16 55 / 43, 32 43 / 39, 64 46 / 43; decode with 4096 is 20 %
/// slower.)
inline constexpr std::size_t kDecodeRowBytes = 512;
template <int P>
inline constexpr std::size_t kEncodeRowBytes = P < 16 ? 512 : 4096;

template <class T, int P, std::size_t RowBytes>
inline constexpr std::size_t kTilePatches = std::max<std::size_t>(
    1, std::min<std::size_t>(RowBytes / (P * sizeof(T)), 16 * RowBytes / (P * P * sizeof(T))));

/// A unit is the work between two visits to the executor: this much of one grid row.
inline constexpr std::size_t kUnitRowBytes = 8192;

/// The patches [first, first + count) of a grid row.
struct TileSpan {
  std::size_t grid_row;
  std::size_t first;
  std::size_t count;
};

/// Cuts the patches of grid rows [row_begin, row_end), columns [col_begin, col_end) into units and
/// those into tiles. The cut depends on the region alone, never on who runs it.
template <class T, int P, std::size_t RowBytes>
struct TileWalk {
  std::size_t row_begin;
  std::size_t row_end;
  std::size_t col_begin;
  std::size_t col_end;

  static constexpr std::size_t tile_patches = kTilePatches<T, P, RowBytes>;
  static constexpr std::size_t unit_patches =
      tile_patches * std::max<std::size_t>(1, kUnitRowBytes / RowBytes);

  std::size_t units_across() const noexcept { return ceil_div(col_end - col_begin, unit_patches); }
  std::size_t units() const noexcept { return (row_end - row_begin) * units_across(); }

  template <class Fn>
  void for_each_tile(std::size_t unit, Fn&& fn) const {
    const std::size_t grid_row = row_begin + unit / units_across();
    const std::size_t begin = col_begin + unit % units_across() * unit_patches;
    const std::size_t end = std::min(begin + unit_patches, col_end);
    for (std::size_t first = begin; first < end; first += tile_patches) {
      fn(TileSpan{grid_row, first, std::min(tile_patches, end - first)});
    }
  }
};

}  // namespace deltadct::inline DELTADCT_ABI::detail
