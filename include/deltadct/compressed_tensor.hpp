// The compressed form of one matrix in memory: plain arrays, owned or viewed.
//
//     classes   widths, descending; class k has `patches` patches of `bits` bits
//     places    per patch, row-major over the grid: class (3 bits), slot within the class (29 bits)
//     bounds    class by class, slot by slot: bound_count bounds of dtype `bound`
//     codes     class by class, slot by slot: P * P codes of `bits` bits (core/bits.hpp); if `bits`
//               is negative, one code per group of coefficients (stage/quantizer/largest.hpp)
//     outliers  single elements, row-major, that are added to what the patches decode to
//
// Within a class, slots follow the order of the grid. So a patch's codes and bounds are found in
// O(1), and the places can be rebuilt from the widths alone.
//
// A method without patches (baseline/) has only `codes`, in a form of its own.
#pragma once

#include <deltadct/core/arithmetic.hpp>
#include <deltadct/core/bits.hpp>
#include <deltadct/core/dtype.hpp>
#include <deltadct/core/error.hpp>
#include <deltadct/core/finite.hpp>
#include <deltadct/core/matrix_view.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI {

/// Where a patch's codes and bounds lie: its width class, and its slot within that class.
struct PatchPlace {
  static constexpr int kSlotBits = 29;
  static constexpr std::uint32_t kMaxSlots = 1u << kSlotBits;

  std::uint32_t packed;

  static constexpr PatchPlace make(std::uint32_t width_class, std::uint32_t slot) noexcept {
    return {(width_class << kSlotBits) | slot};
  }
  DELTADCT_HD constexpr std::uint32_t width_class() const noexcept { return packed >> kSlotBits; }
  DELTADCT_HD constexpr std::uint32_t slot() const noexcept { return packed & (kMaxSlots - 1); }
};
static_assert(sizeof(PatchPlace) == 4);

/// The number of p x p patches that a matrix is cut into. Throws too_large if a PatchPlace cannot
/// number them.
inline std::size_t count_patches(std::size_t rows, std::size_t cols, std::size_t p) {
  const SaturatingSize patches = SaturatingSize(ceil_div(rows, p)) * ceil_div(cols, p);
  if (patches.value() > PatchPlace::kMaxSlots) {
    throw Error(Errc::too_large, "matrix", shape_text(rows, cols) + " has too many patches");
  }
  return patches.value();
}

/// Patches that share a bit width.
struct WidthClass {
  int bits = 0;
  int bound_count = 1;  ///< bounds per patch
  std::size_t patches = 0;
  std::size_t bounds_at = 0;  ///< byte where the class begins in bounds
  std::size_t codes_at = 0;   ///< byte where the class begins in codes
};

/// An element so large that it would drown its patch in noise. It is kept out of the patches;
/// decoding adds `value` to what the patches give there.
struct Outlier {
  std::size_t row = 0;
  std::size_t col = 0;
  double value = 0;

  bool operator==(const Outlier&) const = default;
};

/// The shape, and what a decoder must know about the encoder.
struct TensorHeader {
  std::size_t rows = 0;
  std::size_t cols = 0;
  int patch = 0;             ///< P; 0 for a method without patches
  std::string transform;     ///< Transform::name of the policy; the method's name if patch is 0
  std::string quantizer;     ///< Quantizer::name of the policy; empty if patch is 0
  DType bound = DType::f32;  ///< dtype of the bounds
  double scale = 1;          ///< the rescale factor
  std::vector<WidthClass> classes;
  std::size_t whole_bytes = 0;  ///< bytes of the codes if patch is 0

  /// Throws too_large, as count_patches() does.
  std::size_t patches() const {
    return patch == 0 ? 0 : count_patches(rows, cols, static_cast<std::size_t>(patch));
  }
  std::size_t codes_stride(const WidthClass& k) const noexcept {
    return code_bytes(k.bits, static_cast<std::size_t>(patch) * static_cast<std::size_t>(patch));
  }
  std::size_t bounds_stride(const WidthClass& k) const noexcept {
    return static_cast<std::size_t>(k.bound_count) * dtype_bytes(bound);
  }

  /// Where a row or column of the matrix lies within its patch; within the matrix if there are no
  /// patches.
  std::size_t within_patch(std::size_t at) const noexcept {
    return patch == 0 ? at : at % static_cast<std::size_t>(patch);
  }

  /// The sizes in bytes of {bounds, codes}. Throws too_large if no array can be that large.
  std::pair<std::size_t, std::size_t> array_bytes() const {
    SaturatingSize bounds = 0;
    SaturatingSize codes = whole_bytes;
    for (const WidthClass& k : classes) {
      bounds = bounds + SaturatingSize(k.patches) * bounds_stride(k);
      codes = codes + SaturatingSize(k.patches) * codes_stride(k);
    }
    return {checked_size(bounds, rows, cols), checked_size(codes, rows, cols)};
  }

  /// Sets the offsets of all classes. Returns array_bytes().
  std::pair<std::size_t, std::size_t> lay_out() {
    const auto bytes = array_bytes();
    std::size_t bounds_end = 0;
    std::size_t codes_end = whole_bytes;
    for (WidthClass& k : classes) {
      k.bounds_at = bounds_end;
      k.codes_at = codes_end;
      bounds_end += k.patches * bounds_stride(k);
      codes_end += k.patches * codes_stride(k);
    }
    return bytes;
  }
};

/// A compressed matrix whose arrays are owned and kept alive elsewhere, such as by a
/// CompressedTensor or an archive's mapping. Copying it allocates nothing.
struct CompressedView {
  const TensorHeader* header = nullptr;
  std::span<const PatchPlace> places;
  std::span<const std::byte> bounds;
  std::span<const std::byte> codes;
  std::span<const Outlier> outliers{};  ///< ascending by row, then column

  const WidthClass& width_class(PatchPlace place) const noexcept {
    return header->classes[place.width_class()];
  }
  const std::byte* bounds_of(PatchPlace place) const noexcept {
    const WidthClass& k = width_class(place);
    return bounds.data() + k.bounds_at + place.slot() * header->bounds_stride(k);
  }
  const std::byte* codes_of(PatchPlace place) const noexcept {
    const WidthClass& k = width_class(place);
    return codes.data() + k.codes_at + place.slot() * header->codes_stride(k);
  }
};

/// A compressed matrix that owns its arrays.
struct CompressedTensor {
  TensorHeader header;
  std::vector<PatchPlace> places;
  std::vector<std::byte> bounds;
  std::vector<std::byte> codes;
  std::vector<Outlier> outliers;

  operator CompressedView() const& noexcept { return {&header, places, bounds, codes, outliers}; }
  operator CompressedView() const&& = delete;  ///< the view would outlive a temporary

  /// Bytes held in memory.
  std::size_t bytes() const noexcept {
    return places.size() * sizeof(PatchPlace) + bounds.size() + codes.size() +
           outliers.size() * sizeof(Outlier);
  }
};

/// Gives every patch its slot, in the grid's order within its class, and counts the patches of each
/// class in `classes`. On entry, places[i] holds only a class index. Throws corrupt_data if there
/// is no such class, and too_large if a class has more patches than slots.
inline void assign_slots(std::span<PatchPlace> places, std::vector<WidthClass>& classes) {
  for (WidthClass& k : classes) k.patches = 0;
  for (PatchPlace& place : places) {
    if (place.packed >= classes.size()) throw Error(Errc::corrupt_data, "width class of a patch");
    WidthClass& k = classes[place.packed];
    if (k.patches == PatchPlace::kMaxSlots)
      throw Error(Errc::too_large, "patches of a width class");
    place = PatchPlace::make(place.packed, static_cast<std::uint32_t>(k.patches++));
  }
}

namespace detail {

/// Drops the classes without patches, so that fewer bits tell the rest apart.
inline void drop_empty_classes(std::vector<WidthClass>& classes,
                               std::span<PatchPlace> places) noexcept {
  std::uint32_t index[kMaxWidthClasses] = {};
  std::uint32_t kept = 0;
  for (std::size_t k = 0; k < classes.size(); ++k) {
    index[k] = kept;
    if (classes[k].patches != 0) classes[kept++] = classes[k];
  }
  if (kept == classes.size()) return;
  classes.resize(kept);
  for (PatchPlace& place : places) {
    place = PatchPlace::make(index[place.width_class()], place.slot());
  }
}

// The k-th bound of a patch, in the compute type.
template <class T>
DELTADCT_INLINE T load_bound(const std::byte* bounds, DType dtype, int k) noexcept {
  const auto read = [&]<class B>() {
    B value;
    std::memcpy(&value, bounds + static_cast<std::size_t>(k) * sizeof(B), sizeof(B));
    if constexpr (std::same_as<compute_t<B>, float>)
      return static_cast<T>(static_cast<float>(value));
    else
      return static_cast<T>(value);
  };
  return with_element(dtype, read);
}

// Rounds a value to the dtype of the bounds and stores it. Returns it as a decoder will see it.
template <class B, class T>
DELTADCT_INLINE T store_bound(std::byte* bounds, int k, T value) noexcept {
  const B stored = static_cast<B>(static_cast<compute_t<B>>(value));
  std::memcpy(bounds + static_cast<std::size_t>(k) * sizeof(B), &stored, sizeof(B));
  return static_cast<T>(static_cast<compute_t<B>>(stored));
}

/// alpha times a tensor's scale. Throws non_finite if alpha is not finite or T cannot hold the
/// product.
template <class T>
T checked_factor(const double& alpha, const double& scale) {
  if (!is_finite(alpha)) throw Error(Errc::non_finite, "alpha");
  const double factor = alpha * scale;
  if (!is_within<T>(factor)) {
    throw Error(Errc::non_finite, "alpha", "times the tensor's scale, in the compute type");
  }
  return static_cast<T>(factor);
}

[[noreturn]] inline void fail_validation(std::string_view what) {
  throw Error(Errc::corrupt_data, what);
}

/// Throws corrupt_data unless bounds can have that dtype.
inline void check_bound_dtype(DType bound) {
  if (!is_element(bound)) {
    throw Error(Errc::corrupt_data, "dtype of the bounds", dtype_text(bound));
  }
}

/// The header of a view. Throws corrupt_data if it has none, like a default-constructed view.
inline const TensorHeader& header_of(const CompressedView& compressed) {
  if (compressed.header == nullptr) fail_validation("header, which is missing");
  return *compressed.header;
}

/// Throws corrupt_data unless the arrays have the sizes that the header gives. The header's classes
/// and the dtype of its bounds must have been checked.
inline void check_arrays(const CompressedView& compressed) {
  const TensorHeader& header = header_of(compressed);
  const auto [bounds_bytes, codes_bytes] = header.array_bytes();
  if (compressed.bounds.size() != bounds_bytes) fail_validation("size of the bounds");
  if (compressed.codes.size() != codes_bytes) fail_validation("size of the codes");
  if (compressed.places.size() != header.patches()) fail_validation("number of places");
}

}  // namespace detail

/// Throws corrupt_data, naming the reason, unless encode could have made the header, offsets aside.
/// For a header that passes, lay_out() cannot overflow, and the patches of the classes sum to those
/// of the grid.
inline void validate_header(const TensorHeader& h) {
  using detail::fail_validation;
  constexpr std::uint64_t kMaxBytes = std::numeric_limits<std::size_t>::max();
  constexpr std::uint64_t kMaxWholeBytes = std::min(std::uint64_t{1} << 40, kMaxBytes);
  if (h.patch < 0 || h.patch > 64) fail_validation("patch size");
  if (h.whole_bytes > (h.patch == 0 ? kMaxWholeBytes : 0)) fail_validation("size of the codes");
  if (!detail::is_finite(h.scale)) fail_validation("scale");
  detail::check_bound_dtype(h.bound);
  if (h.classes.size() > kMaxWidthClasses) fail_validation("width classes");
  if (h.patch == 0) {
    if (!h.classes.empty()) fail_validation("width classes");
    constexpr std::uint64_t kMaxElements = std::min(std::uint64_t{1} << 56, kMaxBytes);
    if (h.cols != 0 && h.rows > kMaxElements / h.cols) fail_validation("number of elements");
    return;
  }
  const auto p = static_cast<std::size_t>(h.patch);
  const std::size_t grid_rows = ceil_div(h.rows, p);
  const std::size_t grid_cols = ceil_div(h.cols, p);
  if (grid_cols != 0 && grid_rows > PatchPlace::kMaxSlots / grid_cols) {
    fail_validation("number of patches");
  }
  std::size_t patches = 0;
  std::uint64_t bytes = 0;
  for (std::size_t k = 0; k < h.classes.size(); ++k) {
    const WidthClass& width = h.classes[k];
    if (!is_bit_width_of(width.bits, p * p)) fail_validation("bit width");
    if (k > 0 && width.bits >= h.classes[k - 1].bits) fail_validation("order of the width classes");
    if (width.bound_count < 1 || width.bound_count > 8) fail_validation("bounds of a patch");
    if (width.patches > h.patches() - patches) fail_validation("patches of a width class");
    patches += width.patches;
    bytes += std::uint64_t{width.patches} * (h.bounds_stride(width) + h.codes_stride(width));
  }
  if (patches != h.patches()) fail_validation("patches of the width classes");
  // Possible only with addresses of 32 bits.
  if (bytes > kMaxBytes) throw Error(Errc::too_large, "codes and bounds");
}

namespace detail {

/// Throws corrupt_data unless the outliers lie in the matrix, are in order, and are finite.
inline void validate_outliers(std::span<const Outlier> outliers, const TensorHeader& header) {
  const Outlier* before = nullptr;
  for (const Outlier& outlier : outliers) {
    const bool inside = outlier.row < header.rows && outlier.col < header.cols;
    const bool ordered = before == nullptr ||
                         std::pair(before->row, before->col) < std::pair(outlier.row, outlier.col);
    if (!inside || !ordered) fail_validation("places of the outliers");
    if (!all_finite(&outlier.value, 1)) fail_validation("value of an outlier");
    before = &outlier;
  }
}

}  // namespace detail

/// Throws corrupt_data, naming the reason, unless encode could have made the tensor. Decoding a
/// tensor that passes stays within its arrays, and its stored values are finite. Takes time linear
/// in the number of patches. A tensor from anywhere but encode() must be validated once, before its
/// first decode. This works under -ffast-math, too.
inline void validate(const CompressedView& c) {
  using detail::fail_validation;
  const TensorHeader& h = detail::header_of(c);
  validate_header(h);
  detail::check_arrays(c);
  TensorHeader expected = h;
  expected.lay_out();

  std::size_t next[kMaxWidthClasses] = {};
  for (const PatchPlace place : c.places) {
    const std::uint32_t k = place.width_class();
    if (k >= h.classes.size() || place.slot() != next[k]) fail_validation("place of a patch");
    ++next[k];
  }
  for (std::size_t k = 0; k < h.classes.size(); ++k) {
    const WidthClass& width = h.classes[k];
    if (next[k] != width.patches) fail_validation("patches of a width class");
    if (width.bounds_at != expected.classes[k].bounds_at ||
        width.codes_at != expected.classes[k].codes_at) {
      fail_validation("offset of a width class");
    }
  }
  // Test the values as stored: compilers may assume that anything computed from them is finite.
  with_element(h.bound, [&]<class B>() {
    for (std::size_t at = 0; at < c.bounds.size(); at += sizeof(B)) {
      B value;
      std::memcpy(&value, c.bounds.data() + at, sizeof(B));
      if (!detail::all_finite(&value, 1)) fail_validation("bounds");
    }
  });
  detail::validate_outliers(c.outliers, h);
}

}}  // namespace deltadct::inline DELTADCT_ABI
