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
#include <deltadct/codec/device/quantize.hpp>
#include <deltadct/codec/device/select.hpp>
#include <deltadct/codec/patch_codec.hpp>
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
///   fill(memory, byte, n)    copy(to, from, n)      of the device's memory; copy also from the
///   host fetch(to, from, n)                              to the host, and waits for it
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
    if (rows == 0 || cols == 0) return 0;
    const std::size_t across = ceil_div(cols, std::size_t{P});
    const std::size_t down = ceil_div(rows, std::size_t{P});
    if (down > PatchPlace::kMaxSlots / across) {
      throw Error(Errc::too_large, "matrix", shape_text(rows, cols) + " has too many patches");
    }
    return static_cast<std::uint32_t>(down * across);
  }

  /// Whether anything asks for what is measured: else all patches have one width, and it has codes.
  static bool measures(const Allocator& allocator) {
    const std::span<const int> widths = allocator.widths();
    return (Policy::Rescale::enabled && !compares_coefficients<Policy>) || widths.size() != 1 ||
           widths[0] == 0;
  }

  /// Enqueues all. lay_out(header) yields the arrays of a header whose classes are known, and
  /// throws where its memory is not enough. Waits for the device where the allocator needs the
  /// scores on the host, that is where it is no RankAllocator.
  template <class Means, class LayOut>
  void run(const Means& means, const Allocator& allocator, const DeviceScratch<T>& scratch,
           TensorHeader& header, const LayOut& lay_out) const {
    begin_header<Policy>(header, delta_.tuned.rows, delta_.tuned.cols);
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
      means.launch(RescoreKernel<Policy, U, Subtracts>{delta_, region, patches_, scratch.scores});
    }
    std::vector<PatchPlace> places;
    if constexpr (RankAllocator<Allocator>)
      count_classes(allocator.widths(), allocator.counts(patches_), header);
    else
      places = allocate(means, allocator, scratch, header);
    check_widths(header);
    const DeviceArrays arrays = lay_out(header);
    auto* to = const_cast<PatchPlace*>(arrays.places);
    if constexpr (RankAllocator<Allocator>)
      select(means, scratch, header, to);
    else
      means.copy(to, places.data(), places.size() * sizeof(PatchPlace));
    means.launch(Quantize{delta_, region, packed, arrays, scratch.means, scratch.sums,
                          &scratch.outcome->failed});
    sum(means, scratch);
  }

  /// The rescale factor of what was encoded. Throws non_finite, with the patch where there is one.
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
    const double scale =
        Policy::Rescale::enabled && factor <= std::numeric_limits<T>::max() ? factor : 1;
    if (!(std::abs(scale * outcome.sums.largest) <= std::numeric_limits<T>::max())) {
      throw Error(Errc::non_finite, "delta", "it exceeds the range of the compute type");
    }
    return scale;
  }

 private:
  using HostCodec = PatchCodec<Policy, Serial>;

  static WidthClass class_of(int bits) noexcept {
    return {.bits = bits, .side_values = HostCodec::side_values(bits)};
  }

  static void check_widths(const TensorHeader& header) {
    for (const WidthClass& k : header.classes) {
      if (HostCodec::has_width(k.bits)) continue;
      throw Error(Errc::bad_mix, "allocator",
                  "the quantizer has no width " + std::to_string(k.bits) + " for such patches");
    }
  }

  /// The classes that have patches.
  static void count_classes(std::span<const int> widths, const std::vector<std::size_t>& counts,
                            TensorHeader& header) {
    for (std::size_t k = 0; k < widths.size(); ++k) {
      if (counts[k] == 0) continue;
      header.classes.push_back(class_of(widths[k]));
      header.classes.back().patches = counts[k];
    }
    if (header.classes.size() > kMaxWidthClasses) {
      throw Error(Errc::bad_mix, "allocator", "more widths than a matrix can have");
    }
  }

  template <class Means>
  std::vector<PatchPlace> allocate(const Means& means, const Allocator& allocator,
                                   const DeviceScratch<T>& scratch, TensorHeader& header) const {
    std::vector<T> scores(patches_);
    std::vector<std::uint32_t> order(patches_);
    std::vector<std::uint32_t> classes(patches_);
    means.fetch(scores.data(), scratch.scores, scores.size() * sizeof(T));
    for (const int bits : allocator.widths()) header.classes.push_back(class_of(bits));
    const std::span<const T> all = scores;
    if constexpr (requires(PatchGrid grid) { allocator.allocate(grid, all, order, classes); })
      allocator.allocate(PatchGrid{P, sizeof(typename Policy::Bound)}, all,
                         std::span<std::uint32_t>(order), std::span<std::uint32_t>(classes));
    else
      allocator.allocate(all, std::span<std::uint32_t>(order), std::span<std::uint32_t>(classes));
    std::vector<PatchPlace> places;
    for (const std::uint32_t k : classes) places.push_back(PatchPlace{k});
    assign_slots(places, header.classes);
    drop_empty_classes(header.classes, places);
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
