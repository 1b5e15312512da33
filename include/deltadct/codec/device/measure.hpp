// What encoding must know of every patch before bits are allocated, measured on a device.
#pragma once

#include <deltadct/backend/cuda/phases.hpp>
#include <deltadct/codec/device/fit.hpp>
#include <deltadct/codec/device/source.hpp>
#include <deltadct/policy.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace deltadct::inline DELTADCT_ABI::detail {

/// What a patch adds to the sums that the rescale factor is made of; what no value that decodes
/// from it exceeds, and how far some are off, for being too small to be stored.
struct DeviceSums {
  double original;
  double reconstructed;
  double largest;
  double lost;
};

/// What stands for the score of a patch that is left to RemeasureKernel.
template <class T>
inline constexpr T kToBeMeasured = T(-1);

/// Scores, means and what Rescale sums over the original, patch by patch.
template <class Policy, concepts::Element U, bool Subtracts>
struct MeasureKernel {
  using T = compute_t<typename Policy::Element>;
  static constexpr int P = Policy::patch;
  using Patch = PatchOfThread<T, P>;
  using Threads = PatchThreads<T, P>;
  using V = typename Threads::V;
  using Scorer = typename Policy::Scorer;
  using Rescale = typename Policy::Rescale;
  static constexpr int threads = Threads::per_block;
  static constexpr int phases = 2;
  static constexpr bool is_warp_wide = Threads::is_warp_wide;
  static constexpr int min_blocks = Threads::template min_blocks<U>;
  /// Rows that are under way at once, of 64 bytes a thread: enough to hide the memory's latency,
  /// few enough for registers.
  static constexpr int kRows =
      P == 12 ? P : std::min({P, 16, static_cast<int>(64 / sizeof(Packed<U, Threads::lanes>))});

  struct Thread {};
  struct Part {
    T terms;
    T shares;
    T originals;
    Magnitudes<T> values;
  };
  struct Shared {
    Part parts[threads];
  };

  DeviceDelta<T, U, Subtracts> delta;
  DeviceRegion region;
  bool packed;
  T* scores;
  T* means;
  DeviceSums* sums;
  std::uint32_t* failed;  ///< the first patch with a value that is not finite

  unsigned blocks() const noexcept { return region.blocks; }

  template <int Phase>
  DELTADCT_HD DELTADCT_INLINE void run(unsigned block, int thread, Thread&,
                                       Shared& shared) const noexcept {
    const Patch patch(region, block, thread);
    if (!patch.exists) return;
    if constexpr (Phase == 0) {
      shared.parts[thread] = part_of(patch, share(patch));
    } else {
      if (patch.t == 0) finish(patch, shared.parts + thread);
    }
  }

 private:
  /// The mean is summed in shares: the sum of values near the type's limit does not leave it.
  DELTADCT_HD DELTADCT_INLINE T share(const Patch& patch) const noexcept {
    const auto within = [](std::int64_t rest) { return rest < P ? rest : P; };
    const std::int64_t first_col = patch.j - Threads::spatial_column(patch.t, 0);
    return T(1) / static_cast<T>(within(region.rows - patch.i) * within(region.cols - first_col));
  }

  DELTADCT_HD DELTADCT_INLINE Part part_of(const Patch& patch, T share) const noexcept {
    V terms(T(0));
    V shares(T(0));
    V originals(T(0));
    Magnitudes<T> values{};
    repeat<P / kRows>([&](int n) DELTADCT_INLINE_LAMBDA {
      V x[kRows];
      delta.load(patch, region, packed, n * kRows, x);
      repeat<kRows>([&](int r) DELTADCT_INLINE_LAMBDA {
        terms = terms + Scorer::term(x[r]);
        shares = shares + x[r] * V(share);
        if constexpr (Rescale::enabled) originals = originals + Rescale::original(x[r]);
        values.see(x[r]);
      });
    });
    const auto sum = [](const V& v) {
      T all = lane(v, 0);
      for (int l = 1; l < Threads::lanes; ++l) all = all + lane(v, l);
      return all;
    };
    return {sum(terms), sum(shares), sum(originals), values};
  }

  DELTADCT_HD void finish(const Patch& patch, const Part* parts) const noexcept {
    Part all{};
    for (int t = 0; t < Threads::per_patch; ++t) {
      all.terms += parts[t].terms;
      all.shares += parts[t].shares;
      all.originals += parts[t].originals;
      all.values.see(parts[t].values);
    }
    T score = 0;
    bool is_measured = Scorer::from_sum(all.terms, score);
    if constexpr (compares_coefficients<Policy>) {
      is_measured = is_measured && is_within_range(all.originals);
    }
    // No unit does better for zeros, and what is not finite is refused.
    if (!all.values.are_finite()) {
      keep_least(failed, static_cast<std::uint32_t>(patch.index));
      score = 0;
      is_measured = true;
    } else if (all.values.are_zero()) {
      is_measured = true;
    }
    scores[patch.index] = is_measured ? rankable(score) : kToBeMeasured<T>;
    means[patch.index] = all.shares;
    sums[patch.index].original = static_cast<double>(all.originals);
  }
};

/// Measures the patches that MeasureKernel could not: those whose terms leave the range of T, in
/// another unit. A thread a patch, as there are few.
template <class Policy, concepts::Element U, bool Subtracts>
struct RemeasureKernel {
  using T = compute_t<typename Policy::Element>;
  using Scorer = typename Policy::Scorer;
  using Rescale = typename Policy::Rescale;
  static constexpr int P = Policy::patch;
  static constexpr int threads = 256;
  static constexpr int phases = 1;
  static constexpr bool is_warp_wide = true;
  struct Thread {};
  struct Shared {};

  DeviceDelta<T, U, Subtracts> delta;
  DeviceRegion region;
  std::uint32_t patches;
  T* scores;
  DeviceSums* sums;

  unsigned blocks() const noexcept { return ceil_div(patches, std::uint32_t{threads}); }

  template <int>
  DELTADCT_HD void run(unsigned block, int thread, Thread&, Shared&) const noexcept {
    const std::uint32_t index = block * threads + static_cast<unsigned>(thread);
    if (index >= patches || scores[index] != kToBeMeasured<T>) return;
    T peak = 0;
    double original = 0;
    for_each(index, [&](T x) {
      peak = Lanes<T>::max(peak, Lanes<T>::abs(x));
      original += Rescale::original(static_cast<double>(x));
    });
    const T unit = unit_of(peak);
    T terms = 0;
    for_each(index, [&](T x) { terms += Scorer::term(x * unit); });
    T score = 0;
    static_cast<void>(Scorer::from_sum(terms, score));
    scores[index] = rankable(score / unit);
    sums[index].original = original;
  }

 private:
  /// Calls fn for the elements of a patch.
  template <class Fn>
  DELTADCT_HD void for_each(std::uint32_t index, const Fn& fn) const noexcept {
    const std::int64_t i = std::int64_t{index / region.grid_cols} * P;
    const std::int64_t j = std::int64_t{index % region.grid_cols} * P;
    for (std::int64_t r = i; r < i + P && r < region.rows; ++r) {
      for (std::int64_t c = j; c < j + P && c < region.cols; ++c) fn(delta.at(r, c));
    }
  }
};

}  // namespace deltadct::inline DELTADCT_ABI::detail
