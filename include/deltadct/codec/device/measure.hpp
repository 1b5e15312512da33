// What encoding must know of every patch before bits are allocated, measured on a device.
#pragma once

#include <deltadct/backend/cuda/phases.hpp>
#include <deltadct/codec/device/fit.hpp>
#include <deltadct/codec/device/source.hpp>
#include <deltadct/policy.hpp>

namespace deltadct::inline DELTADCT_ABI::detail {

/// What a patch adds to the sums that the rescale factor is made of, and what no value that decodes
/// from it exceeds.
struct DeviceSums {
  double original;
  double reconstructed;
  double largest;
};

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

  struct Thread {};
  struct Part {
    T terms;
    T shares;
    T originals;
    bool is_finite;
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
      V x[P];
      delta.load(patch, region, packed, x);
      shared.parts[thread] = part_of(x, share(patch));
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

  DELTADCT_HD DELTADCT_INLINE static Part part_of(const V (&x)[P], T share) noexcept {
    V terms(T(0));
    V shares(T(0));
    V originals(T(0));
    bool is_finite = true;
    repeat<P>([&](int r) DELTADCT_INLINE_LAMBDA {
      terms = terms + Scorer::term(x[r]);
      shares = shares + x[r] * V(share);
      if constexpr (Rescale::enabled) originals = originals + Rescale::original(x[r]);
      for (int l = 0; l < Threads::lanes; ++l) {
        is_finite = is_finite && is_finite_value(lane(x[r], l));
      }
    });
    const auto sum = [](const V& v) {
      T all = lane(v, 0);
      for (int l = 1; l < Threads::lanes; ++l) all = all + lane(v, l);
      return all;
    };
    return {sum(terms), sum(shares), sum(originals), is_finite};
  }

  DELTADCT_HD void finish(const Patch& patch, const Part* parts) const noexcept {
    Part all{T(0), T(0), T(0), true};
    for (int t = 0; t < Threads::per_patch; ++t) {
      all.terms += parts[t].terms;
      all.shares += parts[t].shares;
      all.originals += parts[t].originals;
      all.is_finite = all.is_finite && parts[t].is_finite;
    }
    if (!all.is_finite) keep_least(failed, static_cast<std::uint32_t>(patch.index));
    T score;
    if (!Scorer::from_sum(all.terms, score)) score = scaled_score(patch);
    scores[patch.index] = score;
    means[patch.index] = all.shares;
    sums[patch.index].original = static_cast<double>(all.originals);
  }

  /// The score of a patch whose terms leave the range of T: that of the patch in another unit.
  DELTADCT_HD T scaled_score(const Patch& patch) const noexcept {
    const auto for_each = [&](const auto& fn) {
      for (int r = 0; r < P && patch.i + r < region.rows; ++r) {
        for (int c = 0; c < P && patch.j + c < region.cols; ++c) {
          fn(delta.at(patch.i + r, patch.j + c));
        }
      }
    };
    T peak = 0;
    for_each([&](T x) { peak = Lanes<T>::max(peak, Lanes<T>::abs(x)); });
    if (peak == 0 || !is_finite_value(peak)) return 0;
    const T unit = unit_of(peak);
    T terms = 0;
    for_each([&](T x) { terms += Scorer::term(x * unit); });
    T score;
    static_cast<void>(Scorer::from_sum(terms, score));
    return score / unit;
  }
};

}  // namespace deltadct::inline DELTADCT_ABI::detail
