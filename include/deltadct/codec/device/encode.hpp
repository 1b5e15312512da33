// Encoding on a device, step by step:
//
//     1. measure    every patch: finite? score, mean, what the rescale factor needs
//     2. select     ranks by a stable sort of the scores, classes, places
//     3. quantize   transform, fit, quantize, pack, compare
//     4. sum        what the rescale factor is made of
//
// Whoever runs it brings the means: on a device, kernels on a stream and CUB's sorts.
#pragma once

#include <deltadct/backend/serial/serial.hpp>
#include <deltadct/codec/allocate.hpp>
#include <deltadct/codec/device/quantize.hpp>
#include <deltadct/codec/device/select.hpp>
#include <deltadct/core/error.hpp>

#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace deltadct::inline DELTADCT_ABI::detail {

/// What encoding leaves in the device's memory beside the arrays.
struct DeviceOutcome {
  static constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

  DeviceSums sums;
  std::uint32_t not_finite;  ///< the first patch that holds such a value, or kNone
  std::uint32_t failed;      ///< the first patch whose coefficients leave the range of the bounds
};

/// An allocator that needs nothing but ranks, whose counts are known beforehand.
template <class A>
concept RankAllocator = requires(const A& allocator, std::size_t n) {
  { allocator.counts(n) } -> std::convertible_to<std::vector<std::size_t>>;
};

/// Scratch of an encode, in the device's memory.
template <class T>
struct DeviceScratch {
  T* scores;
  T* sorted_scores;
  T* means;
  std::uint32_t* index;
  std::uint32_t* order;
  std::uint32_t* classes;
  std::uint32_t* sorted_classes;
  DeviceSums* sums;
  DeviceSums* block_sums[2];
  DeviceOutcome* outcome;
  std::byte* sorting;
  std::size_t sorting_bytes;
  std::size_t bytes;

  /// Lays the arrays out from `memory` on, which is aligned.
  DeviceScratch(std::byte* memory, std::size_t patches, std::size_t sorting_bytes_) noexcept
      : sorting_bytes(sorting_bytes_) {
    std::size_t end = 0;
    const auto take = [&]<class X>(X*& array, std::size_t n) {
      array = reinterpret_cast<X*>(memory + end);
      end += align_up(n * sizeof(X));
    };
    const std::size_t blocks = ceil_div(patches, std::size_t{SumKernel::kPerBlock});
    take(scores, patches);
    take(sorted_scores, patches);
    take(means, patches);
    take(index, patches);
    take(order, patches);
    take(classes, patches);
    take(sorted_classes, patches);
    take(sums, patches);
    take(block_sums[0], blocks);
    take(block_sums[1], blocks);
    take(outcome, 1);
    take(sorting, sorting_bytes);
    bytes = end;
  }
};

/// Encodes one matrix. Means gives
///   launch(kernel)                                  runs a kernel, after what came before
///   sort_scores(scores, sorted, index, order, n)    stable, descending
///   sort_classes(classes, sorted, index, order, n)  stable, ascending
///   fill(memory, byte, n)                           of the device's memory
///   copy(to, from, n)                               from or to the host; waits
template <class Policy, concepts::Element U, bool Subtracts>
class DeviceEncoder {
 public:
  using T = compute_t<typename Policy::Element>;
  using Allocator = typename Policy::Allocator;
  using Quantize = QuantizeKernel<Policy, U, Subtracts>;
  static constexpr int P = Policy::patch;

  /// Throws too_large where the matrix has too many patches.
  DeviceEncoder(const DeviceDelta<T, U, Subtracts>& delta)
      : delta_(delta), patches_(patches_of(delta.tuned.rows, delta.tuned.cols)) {}

  /// The patches of a matrix; throws too_large.
  static std::uint32_t patches_of(std::size_t rows, std::size_t cols) {
    return static_cast<std::uint32_t>(count_patches(rows, cols, P));
  }

  /// Whether anything asks for what is measured: else all patches have one width, and it has codes.
  static bool measures(const Allocator& allocator) {
    const std::span<const int> widths = allocator.widths();
    return (Policy::Rescale::enabled && !compares_coefficients<Policy>) || widths.size() != 1 ||
           widths[0] == 0;
  }

  /// Enqueues all. lay_out(header) yields the arrays of a header whose classes are known, and
  /// throws where its memory is not enough. An allocator that is no RankAllocator is called with
  /// the scores, for which this waits; any other is asked, as lay_out is, before all else.
  template <class Means, class LayOut>
  void run(const Means& means, const Allocator& allocator, const DeviceScratch<T>& scratch,
           TensorHeader& header, const LayOut& lay_out) const {
    begin_header<Policy>(header, delta_.tuned.rows, delta_.tuned.cols);
    Allocation::list_classes(allocator, header);
    DeviceArrays arrays;
    if constexpr (RankAllocator<Allocator>) {
      count_classes(allocator.counts(patches_), header);
      arrays = lay_out(header);
    }
    means.fill(scratch.outcome, 0xFF, sizeof(DeviceOutcome));
    const DeviceRegion region(delta_.tuned.cols, 0, 0, delta_.tuned.rows, delta_.tuned.cols, P,
                              Quantize::Threads::patches);
    constexpr int lanes = Quantize::Threads::lanes;
    const bool packed =
        is_packed(delta_.tuned, lanes) && (!Subtracts || is_packed(delta_.base, lanes));
    if (measures(allocator)) {
      means.launch(MeasureKernel<Policy, U, Subtracts>{delta_, region, packed, scratch.scores,
                                                       scratch.means, scratch.sums,
                                                       &scratch.outcome->not_finite});
      means.launch(RemeasureKernel<Policy, U, Subtracts>{delta_, region, patches_, scratch.scores,
                                                         scratch.sums});
    }
    if constexpr (RankAllocator<Allocator>) {
      select(means, scratch, header, const_cast<PatchPlace*>(arrays.places));
    } else {
      const std::vector<PatchPlace> places = allocate(means, allocator, scratch, header);
      arrays = lay_out(header);
      means.copy(const_cast<PatchPlace*>(arrays.places), places.data(),
                 places.size() * sizeof(PatchPlace));
    }
    means.launch(Quantize{delta_, region, packed, arrays, scratch.means, scratch.sums,
                          &scratch.outcome->failed});
    sum(means, scratch);
  }

  /// The rescale factor of what was encoded. Throws non_finite, with the patch where there is one,
  /// and out_of_range.
  static double scale_of(const DeviceOutcome& outcome, const TensorHeader& header) {
    const auto fail = [&](std::uint32_t patch, const char* why) {
      const std::size_t across = ceil_div(header.cols, std::size_t{P});
      throw Error(Errc::non_finite,
                  "patch at element (" + std::to_string(patch / across * P) + ", " +
                      std::to_string(patch % across * P) + ")",
                  why);
    };
    if (outcome.not_finite != DeviceOutcome::kNone) {
      fail(outcome.not_finite, "it holds a value that is not finite");
    }
    if (outcome.failed != DeviceOutcome::kNone) {
      fail(outcome.failed,
           "it holds a value that is not finite, or its coefficients exceed the range of the "
           "bounds");
    }
    if (header.patches() == 0) return 1;
    const double factor = outcome.sums.original / outcome.sums.reconstructed;
    const double scale = Policy::Rescale::enabled && is_within<T>(factor) ? factor : 1;
    if (!is_within<T>(scale * outcome.sums.largest)) {
      throw Error(Errc::out_of_range, "delta", "it exceeds the range of the compute type");
    }
    if (is_lost(outcome.sums.lost, outcome.sums.largest)) {
      throw Error(Errc::out_of_range, "delta", kLostText);
    }
    return scale;
  }

 private:
  using Allocation = WidthAllocation<Policy, Serial>;

  /// Leaves the classes that have patches.
  void count_classes(const std::vector<std::size_t>& counts, TensorHeader& header) const {
    std::size_t left = patches_;
    bool is_division = counts.size() == header.classes.size();
    for (std::size_t k = 0; is_division && k < counts.size(); ++k) {
      is_division = counts[k] <= left;
      header.classes[k].patches = counts[k];
      left -= counts[k];
    }
    if (!is_division || left != 0) {
      throw Error(Errc::bad_mix, "allocator", "counts do not divide the patches among the widths");
    }
    drop_empty_classes(header.classes, {});
    Allocation::check_widths(header);
  }

  template <class Means>
  std::vector<PatchPlace> allocate(const Means& means, const Allocator& allocator,
                                   const DeviceScratch<T>& scratch, TensorHeader& header) const {
    std::vector<T> scores(patches_);
    std::vector<std::uint32_t> order(patches_);
    std::vector<std::uint32_t> classes(patches_);
    std::vector<PatchPlace> places(patches_);
    if (measures(allocator)) {
      means.copy(scores.data(), scratch.scores, scores.size() * sizeof(T));
    }
    Allocation::allocate(allocator, scores, order, classes, header, places);
    return places;
  }

  template <class Means>
  void select(const Means& means, const DeviceScratch<T>& scratch, const TensorHeader& header,
              PatchPlace* places) const {
    ClassRanks ranks{};
    ranks.patches = patches_;
    for (const WidthClass& k : header.classes) {
      if (ranks.classes + 1 < kMaxWidthClasses) {
        ranks.begin[ranks.classes + 1] =
            ranks.begin[ranks.classes] + static_cast<std::uint32_t>(k.patches);
      }
      ++ranks.classes;
    }
    means.launch(CountKernel{{ranks}, scratch.index});
    const std::uint32_t* grouped = scratch.index;
    if (header.classes.size() > 1) {
      means.sort_scores(scratch.scores, scratch.sorted_scores, scratch.index, scratch.order,
                        patches_);
      means.launch(RankKernel{{ranks}, scratch.order, scratch.classes});
      means.sort_classes(scratch.classes, scratch.sorted_classes, scratch.index, scratch.order,
                         patches_);
      grouped = scratch.order;
    }
    means.launch(PlaceKernel{{ranks}, grouped, places});
  }

  template <class Means>
  void sum(const Means& means, const DeviceScratch<T>& scratch) const {
    const DeviceSums* from = scratch.sums;
    std::uint32_t count = patches_;
    for (int turn = 0; count > 0; turn = 1 - turn) {
      const bool is_last = count <= SumKernel::kPerBlock;
      DeviceSums* to = is_last ? &scratch.outcome->sums : scratch.block_sums[turn];
      means.launch(SumKernel{from, to, count});
      from = to;
      count = is_last ? 0 : ceil_div(count, SumKernel::kPerBlock);
    }
  }

  DeviceDelta<T, U, Subtracts> delta_;
  std::uint32_t patches_;
};

}  // namespace deltadct::inline DELTADCT_ABI::detail
