// Measures every patch on a device before bits are allocated.
#pragma once

#include <deltadct/backend/cuda/phases.hpp>
#include <deltadct/codec/device/parts.hpp>
#include <deltadct/codec/device/place.hpp>
#include <deltadct/codec/outcome.hpp>
#include <deltadct/policy.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// What encoding leaves in device memory beside the arrays.
struct DeviceOutcome {
  static constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

  PatchSums sums;
  std::uint32_t not_finite;  ///< the first patch that holds a value that is not finite, or kNone
  std::uint32_t failed;      ///< the first patch whose bounds are out of range, or kNone
};

/// Measures scores, means and Rescale's sums over the original, patch by patch. It writes NaN for a
/// score that it cannot compute; RemeasureKernel then computes that score.
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
  /// Rows in flight at once, 64 bytes per thread: enough to hide the memory latency, few enough for
  /// the registers.
  static constexpr int kRows =
      P == 12 ? P : std::min({P, 16, static_cast<int>(64 / sizeof(Packed<U, Threads::lanes>))});

  struct Thread {};
  static constexpr bool sums_terms = requires(T x) { Scorer::term(x); };
  struct Measured {
    T terms;
    T mean;
    T originals;
    Magnitudes<T> values;
  };
  struct Shared {
    Measured parts[threads];
  };

  DeviceDelta<T, U, Subtracts> delta;
  DeviceRegion region;
  bool packed;
  T* scores;
  T* means;
  PatchSums* sums;
  std::uint32_t* failed;  ///< the first patch with a value that is not finite

  unsigned blocks() const noexcept { return region.blocks; }

  template <int Phase>
  DELTADCT_HD DELTADCT_INLINE void run(unsigned block, int thread, Thread&,
                                       Shared& shared) const noexcept {
    const Patch patch(region, block, thread);
    if (!patch.exists) return;
    if constexpr (Phase == 0) {
      shared.parts[thread] = part_of(patch, reciprocal(patch));
    } else {
      if (patch.t == 0) finish(patch, shared.parts + thread);
    }
  }

 private:
  /// Elements are divided before they are summed, so that the mean of values near the type's limit
  /// does not overflow.
  DELTADCT_HD DELTADCT_INLINE T reciprocal(const Patch& patch) const noexcept {
    return T(1) / static_cast<T>(patch.elements(region));
  }

  DELTADCT_HD DELTADCT_INLINE Measured part_of(const Patch& patch, T reciprocal) const noexcept {
    V terms(T(0));
    V mean(T(0));
    V originals(T(0));
    Magnitudes<T> values{};
    repeat<P / kRows>([&](int n) DELTADCT_INLINE_LAMBDA {
      V x[kRows];
      delta.load(patch, region, packed, n * kRows, x);
      repeat<kRows>([&](int r) DELTADCT_INLINE_LAMBDA {
        if constexpr (sums_terms) terms = terms + Scorer::term(x[r]);
        mean = mean + x[r] * V(reciprocal);
        if constexpr (Rescale::enabled) originals = originals + Rescale::original(x[r]);
        values.see(x[r]);
      });
    });
    return {sum_lanes(terms), sum_lanes(mean), sum_lanes(originals), values};
  }

  DELTADCT_HD void finish(const Patch& patch, const Measured* parts) const noexcept {
    Measured all{};
    for (int t = 0; t < Threads::per_patch; ++t) {
      all.terms += parts[t].terms;
      all.mean += parts[t].mean;
      all.originals += parts[t].originals;
      all.values.see(parts[t].values);
    }
    T score = 0;
    bool is_measured = false;
    if constexpr (sums_terms) {
      is_measured = Scorer::from_sum(all.terms, score);
      if constexpr (Plan<Policy>::compares_coefficients) {
        is_measured = is_measured && is_within_range(all.originals);
      }
      is_measured = is_measured || all.values.are_zero();  // scaling would not help
    }
    if (!all.values.are_finite()) {  // such a patch is refused later
      keep_least(failed, static_cast<std::uint32_t>(patch.index));
      score = 0;
      is_measured = true;
    }
    scores[patch.index] = is_measured ? rankable(score) : std::numeric_limits<T>::quiet_NaN();
    means[patch.index] = all.mean;
    sums[patch.index].original = static_cast<double>(all.originals);
  }
};

/// Calls fn(row, column, element) for the elements of a patch.
template <int P, class Delta, class Fn>
DELTADCT_HD void for_each_element(const Delta& delta, const DeviceRegion& region,
                                  std::uint32_t index, const Fn& fn) noexcept {
  const std::int64_t i = std::int64_t{index / region.grid_cols} * P;
  const std::int64_t j = std::int64_t{index % region.grid_cols} * P;
  for (int r = 0; r < P && i + r < region.rows; ++r) {
    for (int c = 0; c < P && j + c < region.cols; ++c) fn(r, c, delta.at(i + r, j + c));
  }
}

/// Measures the patches that MeasureKernel could not. Those are the few whose terms leave the range
/// of T, which are scaled first; or all patches, if the scorer has no terms. One thread per patch.
template <class Policy, concepts::Element U, bool Subtracts>
struct RemeasureKernel {
  using T = compute_t<typename Policy::Element>;
  using Scorer = typename Policy::Scorer;
  using Rescale = typename Policy::Rescale;
  static constexpr int P = Policy::patch;
  static constexpr int threads = 128;
  static constexpr int phases = 1;
  static constexpr bool is_warp_wide = true;
  struct Thread {};
  struct Shared {};

  DeviceDelta<T, U, Subtracts> delta;
  DeviceRegion region;
  std::uint32_t patches;
  T* scores;
  PatchSums* sums;

  unsigned blocks() const noexcept { return ceil_div(patches, std::uint32_t{threads}); }

  template <int>
  DELTADCT_HD void run(unsigned block, int thread, Thread&, Shared&) const noexcept {
    const std::uint32_t index = block * threads + static_cast<unsigned>(thread);
    if (index >= patches || !std::isnan(scores[index])) return;
    T peak = 0;
    double original = 0;
    for_each_element<P>(delta, region, index, [&](int, int, T x) {
      peak = Lanes<T>::max(peak, Lanes<T>::abs(x));
      original += Rescale::original(static_cast<double>(x));
    });
    // Before the score, whose root is a call that would spill it.
    sums[index].original = original;
    scores[index] = rankable(score_of(index, unit_of(peak)));
  }

 private:
  DELTADCT_HD T score_of(std::uint32_t index, [[maybe_unused]] T unit) const noexcept {
    if constexpr (requires { Scorer::term(unit); }) {
      T terms = 0;
      for_each_element<P>(delta, region, index,
                          [&](int, int, T x) { terms += Scorer::term(x * unit); });
      T score = 0;
      static_cast<void>(Scorer::from_sum(terms, score));
      // The score of unit times the patch is unit^degree times that of the patch. Units are powers
      // of two; a division is a call, around which registers are spilled.
      const T inverse = std::ldexp(T(1), -std::ilogb(unit));
      for (int n = 0; n < Scorer::degree; ++n) score = score * inverse;
      return score;
    } else {
      constexpr auto area = static_cast<std::size_t>(P) * P;
      alignas(64) T patch[area] = {};
      for_each_element<P>(delta, region, index, [&](int r, int c, T x) { patch[r * P + c] = x; });
      return static_cast<T>(
          Scorer{}.template operator()<P, T>(std::span<const T, area>(patch, area)));
    }
  }
};

/// Looks at the first patch that could not be stored, after all others: whether it holds a value
/// that is not finite. One thread does that, so that the kernel that found it keeps its registers.
template <class Policy, concepts::Element U, bool Subtracts>
struct RefusalKernel {
  using T = compute_t<typename Policy::Element>;
  static constexpr int threads = 32;
  static constexpr int phases = 1;
  static constexpr bool is_warp_wide = true;
  struct Thread {};
  struct Shared {};

  DeviceDelta<T, U, Subtracts> delta;
  DeviceRegion region;
  DeviceOutcome* outcome;

  unsigned blocks() const noexcept { return region.blocks == 0 ? 0 : 1; }

  template <int>
  DELTADCT_HD void run(unsigned, int thread, Thread&, Shared&) const noexcept {
    if (thread != 0 || outcome->failed == DeviceOutcome::kNone) return;
    Magnitudes<T> elements{};
    for_each_element<Policy::patch>(delta, region, outcome->failed,
                                    [&](int, int, T x) { elements.see(x); });
    if (!elements.are_finite()) keep_least(&outcome->not_finite, outcome->failed);
  }
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
