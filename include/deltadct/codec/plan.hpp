// What is known about encoding a matrix before any element is read, on a host and on a device
// alike: the header, what must be measured, the width classes, and sizes.
#pragma once

#include <deltadct/codec/width.hpp>
#include <deltadct/compressed_tensor.hpp>
#include <deltadct/policy.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

template <class Policy>
struct Plan {
  using Allocator = typename Policy::Allocator;
  using Bound = typename Policy::Bound;
  using Rescale = typename Policy::Rescale;
  using T = compute_t<typename Policy::Element>;
  static constexpr int P = Policy::patch;
  static constexpr int N = P * P;

  static bool has_width(int bits) noexcept {
    return detail::has_width<Policy::template Quantizer, N>(bits);
  }
  static int bound_count(int bits) noexcept {
    return detail::bound_count<Policy::template Quantizer, N>(bits);
  }

  /// Whether Rescale's sums are the same over coefficients as over elements, so that no patch has
  /// to be transformed back. This holds for sums of products under an orthogonal transform: the
  /// padding of the original is zero and adds nothing.
  static constexpr bool compares_coefficients = requires {
    requires Rescale::is_product;
    requires Policy::Transform::is_orthogonal;
  };

  /// Whether Rescale's sum over the delta is taken over its elements. Otherwise it is taken over
  /// the coefficients while they are quantized, or not at all.
  static constexpr bool sums_originals = Rescale::enabled && !compares_coefficients;

  /// Whether anything needs the measurements. Nothing does if all patches have one width, that
  /// width has codes, and Rescale does not sum elements.
  static bool measures(const Allocator& allocator) {
    const std::span<const int> widths = allocator.widths();
    return sums_originals || widths.size() != 1 || widths[0] == 0;
  }

  /// The number of patches of a matrix. Throws too_large if a PatchPlace cannot number them.
  static std::size_t patches(std::size_t rows, std::size_t cols) {
    return count_patches(rows, cols, std::size_t{P});
  }

  /// Turns a header into that of a matrix, with one empty class for each width of the allocator.
  /// The header's memory is reused. Throws bad_mix if the widths are not valid, not descending, or
  /// more than a matrix can have.
  static void begin(TensorHeader& header, std::size_t rows, std::size_t cols,
                    const Allocator& allocator) {
    begin(header, rows, cols);
    for (const int bits : allocator.widths()) {
      if (!is_bit_width(bits) || (!header.classes.empty() && bits >= header.classes.back().bits)) {
        throw Error(Errc::bad_mix, "allocator", "widths must be valid and descending");
      }
      if (header.classes.size() == kMaxWidthClasses) {
        throw Error(Errc::bad_mix, "allocator", "more widths than a matrix can have");
      }
      header.classes.push_back({.bits = bits, .bound_count = bound_count(bits)});
    }
  }

  /// The same, without classes.
  static void begin(TensorHeader& header, std::size_t rows, std::size_t cols) {
    header.rows = rows;
    header.cols = cols;
    header.patch = P;
    header.transform = Policy::Transform::name;
    header.quantizer = Policy::template Quantizer<0>::name;
    header.bound = dtype_of<Bound>();
    header.classes.clear();
  }

  /// Gives every patch its class and its place by its score. `order` and `classes` are workspace,
  /// one entry per patch. Classes without patches are dropped from the header. Throws what the
  /// allocator throws, and bad_mix if the quantizer lacks a width.
  static void allocate(const Allocator& allocator, std::span<const T> scores,
                       std::span<std::uint32_t> order, std::span<std::uint32_t> classes,
                       TensorHeader& header, std::span<PatchPlace> places) {
    if constexpr (requires(PatchGrid grid) { allocator.allocate(grid, scores, order, classes); })
      allocator.allocate(PatchGrid{P, sizeof(Bound)}, scores, order, classes);
    else
      allocator.allocate(scores, order, classes);
    std::transform(classes.begin(), classes.end(), places.begin(),
                   [](std::uint32_t k) { return PatchPlace{k}; });
    assign_slots(places, header.classes);
    drop_empty_classes(header.classes, places);
    check_widths(header);
  }

  /// Whether an allocator assigns widths by rank alone, so that class sizes are known without
  /// scores.
  static constexpr bool allocates_by_rank = requires(const Allocator& allocator, std::size_t n) {
    { allocator.counts(n) } -> std::convertible_to<std::vector<std::size_t>>;
  };

  /// Gives each class as many patches as such an allocator says, and drops classes without patches.
  /// Throws bad_mix if the counts do not sum to the number of patches, or if the quantizer lacks a
  /// width.
  static void count(const Allocator& allocator, TensorHeader& header) requires(allocates_by_rank) {
    std::size_t left = header.patches();
    const std::vector<std::size_t> counts = allocator.counts(left);
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
    check_widths(header);
  }

  /// An upper bound of CompressedTensor::bytes() for any matrix of that shape.
  static std::size_t max_bytes(const Allocator& allocator, std::size_t rows, std::size_t cols) {
    std::size_t most = 0;
    for (const int bits : allocator.widths()) {
      most = std::max(most, code_bytes(bits, std::size_t{N}) +
                                static_cast<std::size_t>(bound_count(bits)) * sizeof(Bound));
    }
    return checked_size(SaturatingSize(patches(rows, cols)) * (most + sizeof(PatchPlace)), rows,
                        cols);
  }

 private:
  static void check_widths(const TensorHeader& header) {
    for (const WidthClass& k : header.classes) {
      if (has_width(k.bits)) continue;
      throw Error(Errc::bad_mix, "allocator",
                  "the quantizer has no width " + std::to_string(k.bits) + " for such patches");
    }
  }
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
