// How a matrix is walked: tiles of neighbouring patches, and units of tiles that run in parallel.
#pragma once

#include <deltadct/stage/patchifier.hpp>

#include <algorithm>
#include <cstddef>

namespace deltadct::inline DELTADCT_ABI::detail {

/// A tile is a run of patches of one grid row. Its matrix rows are read and written 512 bytes at a
/// time, long enough for the prefetcher, while the patches themselves stay within 8 KiB.
/// (512 bytes and 8 KiB: best of 128 ... 1024 and 4 ... 32 KiB on an AMD EPYC with 32 KiB L1d.)
template <class T, int P>
inline constexpr std::size_t kTilePatches = std::max<std::size_t>(
    1, std::min<std::size_t>(512 / (P * sizeof(T)), 8192 / (P * P * sizeof(T))));

/// A unit is the work between two visits to the executor: up to this many tiles of one grid row.
inline constexpr std::size_t kUnitTiles = 16;

/// The patches [first, first + count) of a grid row.
struct TileSpan {
  std::size_t grid_row;
  std::size_t first;
  std::size_t count;
};

/// Cuts the patches of grid rows [row_begin, row_end), columns [col_begin, col_end) into units and
/// those into tiles. The cut depends on the region alone, never on who runs it.
template <class T, int P>
struct TileWalk {
  std::size_t row_begin;
  std::size_t row_end;
  std::size_t col_begin;
  std::size_t col_end;

  static constexpr std::size_t unit_patches = kTilePatches<T, P> * kUnitTiles;

  std::size_t units_across() const noexcept {
    return (col_end - col_begin + unit_patches - 1) / unit_patches;
  }
  std::size_t units() const noexcept { return (row_end - row_begin) * units_across(); }

  template <class Fn>
  void for_each_tile(std::size_t unit, Fn&& fn) const {
    const std::size_t grid_row = row_begin + unit / units_across();
    const std::size_t begin = col_begin + unit % units_across() * unit_patches;
    const std::size_t end = std::min(begin + unit_patches, col_end);
    for (std::size_t first = begin; first < end; first += kTilePatches<T, P>) {
      fn(TileSpan{grid_row, first, std::min(kTilePatches<T, P>, end - first)});
    }
  }
};

}  // namespace deltadct::inline DELTADCT_ABI::detail
