// Encoding on a device, step by step:
//
//     1. measure    every patch: finite or not, score, mean, the rescale factor's sums
//     2. rank       a stable sort by score gives ranks, then classes and places
//     3. quantize   transform, fit, quantize, pack, compare
//     4. refuse     why the first patch that cannot be stored cannot
//     5. sum        the sums of all patches, for the rescale factor
//
// The caller supplies the queue: on a device, it runs kernels on a stream and sorts with CUB.
#pragma once

#include <deltadct/codec/device/quantize.hpp>
#include <deltadct/codec/device/rank.hpp>
#include <deltadct/core/error.hpp>

#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// The workspace of an encode, in device memory.
template <class T>
struct DeviceWorkspace {
  T* scores;
  T* sorted_scores;
  T* means;
  std::uint32_t* index;
  std::uint32_t* order;
  std::uint32_t* classes;
  std::uint32_t* sorted_classes;
  PatchSums* sums;
  PatchSums* block_sums[2];
  DeviceOutcome* outcome;
  std::byte* sorting;
  std::size_t sorting_bytes;
  std::size_t bytes;

  /// Lays the arrays out from `memory` on, which must be aligned.
  DeviceWorkspace(std::byte* memory, std::size_t patches, std::size_t sorting_bytes_) noexcept
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

/// Encodes one matrix. A Queue has these members:
///   launch(kernel)                                  runs a kernel after all earlier work
///   sort_scores(scores, sorted, index, order, n)    stable, descending
///   sort_classes(classes, sorted, index, order, n)  stable, ascending
///   fill(memory, byte, n)                           fills device memory
///   copy(to, from, n)                               from or to the host; waits
template <class Policy, concepts::Element U, bool Subtracts>
class DeviceEncoder {
 public:
  using T = compute_t<typename Policy::Element>;
  using Allocator = typename Policy::Allocator;
  using Quantize = QuantizeKernel<Policy, U, Subtracts>;
  using Plan = detail::Plan<Policy>;
  static constexpr int P = Policy::patch;

  /// Throws too_large if the matrix has too many patches.
  DeviceEncoder(const DeviceDelta<T, U, Subtracts>& delta)
      : delta_(delta), patches_(patches_of(delta.tuned.rows, delta.tuned.cols)) {}

  /// The number of patches of a matrix. Throws too_large.
  static std::uint32_t patches_of(std::size_t rows, std::size_t cols) {
    return static_cast<std::uint32_t>(Plan::patches(rows, cols));
  }

  /// Enqueues all steps. lay_out(header) returns the arrays for a header whose classes are known,
  /// and throws if its memory is too small. An allocator that assigns bits by rank alone is asked
  /// before anything is enqueued, and so is lay_out. Any other allocator is called with the scores,
  /// for which this waits.
  template <class Queue, class LayOut>
  void run(const Queue& queue, const Allocator& allocator, const DeviceWorkspace<T>& workspace,
           TensorHeader& header, const LayOut& lay_out) const {
    Plan::begin(header, delta_.tuned.rows, delta_.tuned.cols, allocator);
    DeviceArrays arrays;
    if constexpr (Plan::allocates_by_rank) {
      Plan::count(allocator, header);
      arrays = lay_out(header);
    }
    queue.fill(workspace.outcome, 0xFF, sizeof(DeviceOutcome));
    const DeviceRegion region(delta_.tuned.cols, 0, 0, delta_.tuned.rows, delta_.tuned.cols, P,
                              Quantize::Threads::patches);
    constexpr int lanes = Quantize::Threads::lanes;
    const bool packed =
        is_packed(delta_.tuned, lanes) && (!Subtracts || is_packed(delta_.base, lanes));
    if (Plan::measures(allocator)) {
      queue.launch(MeasureKernel<Policy, U, Subtracts>{delta_, region, packed, workspace.scores,
                                                       workspace.means, workspace.sums,
                                                       &workspace.outcome->not_finite});
      queue.launch(RemeasureKernel<Policy, U, Subtracts>{delta_, region, patches_, workspace.scores,
                                                         workspace.sums});
    }
    if constexpr (Plan::allocates_by_rank) {
      rank(queue, workspace, header, const_cast<PatchPlace*>(arrays.places));
    } else {
      const std::vector<PatchPlace> places = allocate(queue, allocator, workspace, header);
      arrays = lay_out(header);
      queue.copy(const_cast<PatchPlace*>(arrays.places), places.data(),
                 places.size() * sizeof(PatchPlace));
    }
    queue.launch(Quantize{delta_, region, packed, arrays, workspace.means, workspace.sums,
                          workspace.outcome});
    queue.launch(RefusalKernel<Policy, U, Subtracts>{delta_, region, workspace.outcome});
    sum(queue, workspace);
  }

  /// The rescale factor of what was encoded. Throws non_finite, naming the patch, or out_of_range.
  static double scale_of(const DeviceOutcome& outcome, const TensorHeader& header) {
    if (outcome.not_finite != DeviceOutcome::kNone) {
      throw Error(Errc::non_finite, patch_text(header, outcome.not_finite),
                  "it holds a value that is not finite");
    }
    if (outcome.failed != DeviceOutcome::kNone) fail_bounds(header, outcome.failed);
    return header.patches() == 0 ? 1 : rescale_factor<Policy>(outcome.sums);
  }

 private:
  template <class Queue>
  std::vector<PatchPlace> allocate(const Queue& queue, const Allocator& allocator,
                                   const DeviceWorkspace<T>& workspace,
                                   TensorHeader& header) const {
    std::vector<T> scores(patches_);
    std::vector<std::uint32_t> order(patches_);
    std::vector<std::uint32_t> classes(patches_);
    std::vector<PatchPlace> places(patches_);
    if (Plan::measures(allocator)) {
      queue.copy(scores.data(), workspace.scores, scores.size() * sizeof(T));
    }
    Plan::allocate(allocator, scores, order, classes, header, places);
    return places;
  }

  template <class Queue>
  void rank(const Queue& queue, const DeviceWorkspace<T>& workspace, const TensorHeader& header,
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
    queue.launch(CountKernel{{ranks}, workspace.index});
    const std::uint32_t* grouped = workspace.index;
    if (header.classes.size() > 1) {
      queue.sort_scores(workspace.scores, workspace.sorted_scores, workspace.index, workspace.order,
                        patches_);
      queue.launch(RankKernel{{ranks}, workspace.order, workspace.classes});
      queue.sort_classes(workspace.classes, workspace.sorted_classes, workspace.index,
                         workspace.order, patches_);
      grouped = workspace.order;
    }
    queue.launch(PlaceKernel{{ranks}, grouped, places});
  }

  template <class Queue>
  void sum(const Queue& queue, const DeviceWorkspace<T>& workspace) const {
    const PatchSums* from = workspace.sums;
    std::uint32_t count = patches_;
    for (int turn = 0; count > 0; turn = 1 - turn) {
      const bool is_last = count <= SumKernel::kPerBlock;
      PatchSums* to = is_last ? &workspace.outcome->sums : workspace.block_sums[turn];
      queue.launch(SumKernel{from, to, count});
      from = to;
      count = is_last ? 0 : ceil_div(count, SumKernel::kPerBlock);
    }
  }

  DeviceDelta<T, U, Subtracts> delta_;
  std::uint32_t patches_;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
