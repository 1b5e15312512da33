// From scores to the width classes and the places of a matrix's patches.
#pragma once

#include <deltadct/codec/patch_codec.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>

namespace deltadct::inline DELTADCT_ABI::detail {

/// Allocation of bits, for encoders on the host and on devices.
template <class Policy, class Backend>
class WidthAllocation {
  using Codec = PatchCodec<Policy, Backend>;
  using Allocator = typename Policy::Allocator;
  using T = typename Codec::T;

 public:
  /// Gives a header that has none the classes of an allocator's widths, without patches. Throws
  /// bad_mix where they are not descending, no widths, or more than a matrix can have.
  static void list_classes(const Allocator& allocator, TensorHeader& header) {
    for (const int bits : allocator.widths()) {
      if (!is_bit_width(bits) || (!header.classes.empty() && bits >= header.classes.back().bits)) {
        throw Error(Errc::bad_mix, "allocator", "widths must be valid and descending");
      }
      if (header.classes.size() == kMaxWidthClasses) {
        throw Error(Errc::bad_mix, "allocator", "more widths than a matrix can have");
      }
      header.classes.push_back({.bits = bits, .side_values = Codec::side_values(bits)});
    }
  }

  /// Gives every patch its class and place by its score; `order` and `classes` are scratch of as
  /// many. The header's classes are those of list_classes() on entry, on return those that have
  /// patches. Throws what the allocator throws, and bad_mix where the quantizer lacks a width.
  static void allocate(const Allocator& allocator, std::span<const T> scores,
                       std::span<std::uint32_t> order, std::span<std::uint32_t> classes,
                       TensorHeader& header, std::span<PatchPlace> places) {
    if constexpr (requires(PatchGrid grid) { allocator.allocate(grid, scores, order, classes); }) {
      const PatchGrid grid{Policy::patch, sizeof(typename Policy::Bound)};
      allocator.allocate(grid, scores, order, classes);
    } else {
      allocator.allocate(scores, order, classes);
    }
    std::transform(classes.begin(), classes.end(), places.begin(),
                   [](std::uint32_t k) { return PatchPlace{k}; });
    assign_slots(places, header.classes);
    drop_empty_classes(header.classes, places);
    check_widths(header);
  }

  /// Throws bad_mix where the quantizer lacks a class's width.
  static void check_widths(const TensorHeader& header) {
    for (const WidthClass& k : header.classes) {
      if (Codec::has_width(k.bits)) continue;
      throw Error(Errc::bad_mix, "allocator",
                  "the quantizer has no width " + std::to_string(k.bits) + " for such patches");
    }
  }
};

}  // namespace deltadct::inline DELTADCT_ABI::detail
