// The steps of encoding on a device that treat each patch as a whole: places from ranks or classes,
// and sums in an order that does not depend on how threads are scheduled.
#pragma once

#include <deltadct/backend/cuda/phases.hpp>
#include <deltadct/codec/device/measure.hpp>
#include <deltadct/compressed_tensor.hpp>

#include <cstdint>
#include <limits>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// The ranks of each class: those of class k begin at begin[k].
struct ClassRanks {
  std::uint32_t begin[kMaxWidthClasses];
  std::uint32_t classes;
  std::uint32_t patches;

  DELTADCT_HD std::uint32_t class_of(std::uint32_t rank) const noexcept {
    std::uint32_t k = 0;
    while (k + 1 < classes && rank >= begin[k + 1]) ++k;
    return k;
  }
};

/// A kernel of one phase, with one thread per patch.
struct PatchwiseKernel {
  static constexpr int threads = 256;
  static constexpr int phases = 1;
  static constexpr bool is_warp_wide = true;
  struct Thread {};
  struct Shared {};

  ClassRanks ranks;

  unsigned blocks() const noexcept { return ceil_div(ranks.patches, std::uint32_t{threads}); }
};

/// index[r] = r.
struct CountKernel : PatchwiseKernel {
  std::uint32_t* index;

  template <int>
  DELTADCT_HD void run(unsigned block, int thread, Thread&, Shared&) const noexcept {
    const std::uint32_t r = block * threads + static_cast<unsigned>(thread);
    if (r < ranks.patches) index[r] = r;
  }
};

/// classes[order[r]] = the class of rank r.
struct RankKernel : PatchwiseKernel {
  const std::uint32_t* order;
  std::uint32_t* classes;

  template <int>
  DELTADCT_HD void run(unsigned block, int thread, Thread&, Shared&) const noexcept {
    const std::uint32_t r = block * threads + static_cast<unsigned>(thread);
    if (r < ranks.patches) classes[order[r]] = ranks.class_of(r);
  }
};

/// Writes the places of patches. `grouped` lists the patches by class, each class in the grid's
/// order.
struct PlaceKernel : PatchwiseKernel {
  const std::uint32_t* grouped;
  PatchPlace* places;

  template <int>
  DELTADCT_HD void run(unsigned block, int thread, Thread&, Shared&) const noexcept {
    const std::uint32_t r = block * threads + static_cast<unsigned>(thread);
    if (r >= ranks.patches) return;
    const std::uint32_t k = ranks.class_of(r);
    places[grouped[r]] = PatchPlace::make(k, r - ranks.begin[k]);
  }
};

/// Each block sums kPerBlock patches, or as many of the sums of earlier blocks.
struct SumKernel {
  static constexpr int threads = 256;
  static constexpr int phases = 3;
  static constexpr bool is_warp_wide = false;
  static constexpr std::uint32_t kPerThread = 16;
  static constexpr std::uint32_t kPerBlock = threads * kPerThread;
  static constexpr int kRow = 16;  // the threads' sums are added in two steps of 16

  struct Thread {};
  struct Shared {
    PatchSums sums[threads];
  };

  const PatchSums* from;
  PatchSums* to;
  std::uint32_t count;

  unsigned blocks() const noexcept { return ceil_div(count, kPerBlock); }

  template <int Phase>
  DELTADCT_HD void run(unsigned block, int thread, Thread&, Shared& shared) const noexcept {
    if constexpr (Phase == 0) {
      PatchSums sum{};
      for (std::uint32_t n = 0; n < kPerThread; ++n) {
        const std::uint32_t at = block * kPerBlock + n * threads + static_cast<unsigned>(thread);
        if (at < count) sum.add(from[at]);
      }
      shared.sums[thread] = sum;
    } else if constexpr (Phase == 1) {
      // The last thread of a row stores the row's sum in its own place, which no other thread
      // reads.
      if (thread % kRow != kRow - 1) return;
      PatchSums sum{};
      for (int n = 1 - kRow; n <= 0; ++n) sum.add(shared.sums[thread + n]);
      shared.sums[thread] = sum;
    } else {
      if (thread != 0) return;
      PatchSums sum{};
      for (int n = kRow - 1; n < threads; n += kRow) sum.add(shared.sums[n]);
      to[block] = sum;
    }
  }
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
