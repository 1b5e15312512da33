// How a matrix is walked: tiles of neighbouring patches, and units of tiles that run in parallel.
#pragma once

#include <deltadct/stage/patchifier.hpp>

#include <algorithm>
#include <cstddef>

namespace deltadct::inline DELTADCT_ABI::detail {

/// A tile is a run of patches of one grid row, decoded into the first-level cache (8 KiB, 512 bytes
/// a row) before its rows are added: rows of a matrix are often pages apart, and written patch by
/// patch would fall into one set of the cache.
template <class T, int P>
inline constexpr std::size_t kDecodeTile =
    std::max<std::size_t>(1, std::min(512 / (P * sizeof(T)), 8192 / (P * P * sizeof(T))));

/// Encoding measures patches by sums over the columns of a run of them, kept in memory while their
/// rows pass by: long runs, so that prefetchers follow (three sums of 16 KiB each).
template <class T, int P>
inline constexpr std::size_t kEncodeRun = 16384 / (P * sizeof(T));

/// The patches of a unit when decoding: the work between two visits to the executor.
template <class T, int P>
inline constexpr std::size_t kDecodeUnit = std::max(kDecodeTile<T, P>, 8192 / (P * sizeof(T)));

/// The patches [first, first + count) of a grid row.
struct TileSpan {
  std::size_t grid_row;
  std::size_t first;
  std::size_t count;
};

/// Cuts the patches of grid rows [row_begin, row_end), columns [col_begin, col_end) into units of
/// UnitPatches and those into tiles of TilePatches. The cut depends on the region alone, never on
/// who runs it.
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

  template <class Fn>
  void for_each_tile(std::size_t index, Fn&& fn) const {
    const TileSpan whole = unit(index);
    for (std::size_t k = 0; k < whole.count; k += TilePatches) {
      fn(TileSpan{whole.grid_row, whole.first + k, std::min(TilePatches, whole.count - k)});
    }
  }
};

}  // namespace deltadct::inline DELTADCT_ABI::detail
