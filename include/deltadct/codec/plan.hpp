// What encoding a matrix comes to before any element is read, whoever runs it: the header, what
// must be measured, the classes of widths, and sizes.
#pragma once

#include <deltadct/codec/width.hpp>
#include <deltadct/compressed_tensor.hpp>
#include <deltadct/policy.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace deltadct::inline DELTADCT_ABI::detail {

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

  /// Whether what Rescale compares is the same for coefficients, so that none need be transformed
  /// back: products of patches, of which the original's padding is zero.
  static constexpr bool compares_coefficients = requires {
    requires Rescale::is_product;
    requires Policy::Transform::is_orthogonal;
  };

  /// Whether Rescale's sum over the delta is made of its elements: else, of its coefficients, when
  /// they are quantized.
  static constexpr bool sums_originals = Rescale::enabled && !compares_coefficients;

  /// Whether anything asks for what is measured: else all patches have one width, and it has codes.
  static bool measures(const Allocator& allocator) {
    const std::span<const int> widths = allocator.widths();
    return sums_originals || widths.size() != 1 || widths[0] == 0;
  }

  /// The patches of a matrix. Throws too_large where places cannot tell them apart.
  static std::size_t patches(std::size_t rows, std::size_t cols) {
    return count_patches(rows, cols, std::size_t{P});
  }

  /// Makes a header that of a matrix, with the classes of the allocator's widths, without patches;
  /// its memory is kept. Throws bad_mix where the widths are not descending, not widths, or more
  /// than a matrix can have.
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

  /// The same without classes.
  static void begin(TensorHeader& header, std::size_t rows, std::size_t cols) {
    header.rows = rows;
    header.cols = cols;
    header.patch = P;
    header.transform = Policy::Transform::name;
    header.quantizer = Policy::template Quantizer<0>::name;
    header.bound = dtype_of<Bound>();
    header.classes.clear();
  }

  /// Gives every patch its class and place by its score; `order` and `classes` are scratch of as
  /// many. Of the header's classes, those that have patches are left. Throws what the allocator
  /// throws, and bad_mix where the quantizer lacks a width.
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

  /// Whether an allocator gives out bits by rank alone, so that it needs no scores.
  static constexpr bool allocates_by_rank = requires(const Allocator& allocator, std::size_t n) {
    { allocator.counts(n) } -> std::convertible_to<std::vector<std::size_t>>;
  };

  /// Gives the classes as many patches as such an allocator says, and leaves those that have any.
  /// Throws bad_mix where its counts do not sum to all patches, or the quantizer lacks a width.
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

  /// An upper bound of CompressedTensor::bytes() for a matrix of that shape, whatever it holds.
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

}  // namespace deltadct::inline DELTADCT_ABI::detail
