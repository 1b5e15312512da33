// The section of an archive that holds the delta of one tensor: its matrices, one after another.
// Their headers are in the manifest.
//
//   bounds      as in memory (compressed_tensor.hpp)
//   width map   the class of every patch, row-major over the grid, in 0, 1, 2 or 4 bits
//   codes       as in memory
//
// Each part is padded with zeros to a multiple of 8 bytes. A matrix without patches has only codes.
#pragma once

#include <deltadct/compressed_tensor.hpp>
#include <deltadct/io/padding.hpp>
#include <deltadct/io/tensor_bytes.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// Rows and columns of one matrix of a tensor.
struct Block {
  std::size_t matrix = 0;
  std::size_t row = 0;
  std::size_t col = 0;
  std::size_t rows = 0;
  std::size_t cols = 0;
};

/// The bits that identify a patch's class in the packed width map: 0, 1, 2 or 4.
constexpr int width_map_bits(std::size_t classes) noexcept {
  return classes <= 1 ? 0 : classes == 2 ? 1 : classes <= 4 ? 2 : 4;
}

namespace detail {

using deltadct::detail::fail_validation;

/// Bytes of the packed width map.
inline std::size_t width_map_bytes(std::size_t patches, std::size_t classes) noexcept {
  const auto bits = static_cast<std::size_t>(width_map_bits(classes));
  return padded(ceil_div<std::size_t>(patches * bits, 8));
}

/// Class indices of the patches, packed lowest bits first.
inline std::vector<std::byte> pack_widths(std::span<const PatchPlace> places, std::size_t classes) {
  const auto bits = static_cast<std::size_t>(width_map_bits(classes));
  std::vector<std::byte> map(width_map_bytes(places.size(), classes));
  if (bits == 0) return map;
  for (std::size_t i = 0; i < places.size(); ++i) {
    map[i * bits / 8] |= static_cast<std::byte>(places[i].width_class() << (i * bits % 8));
  }
  return map;
}

/// Throws corrupt_data if bits beyond the last patch are set.
inline std::vector<PatchPlace> unpack_widths(std::span<const std::byte> map, std::size_t patches,
                                             std::size_t classes) {
  const auto bits = static_cast<std::size_t>(width_map_bits(classes));
  std::vector<PatchPlace> places(patches, PatchPlace{0});
  if (bits != 0) {
    for (std::size_t i = 0; i < patches; ++i) {
      const auto byte = static_cast<std::uint32_t>(map[i * bits / 8]);
      places[i] = {(byte >> (i * bits % 8)) & ((1u << bits) - 1u)};
    }
  }
  const std::size_t used = patches * bits;
  const bool partial = used % 8 != 0 && (map[used / 8] >> (used % 8)) != std::byte{0};
  if (partial || !is_zero(map.subspan(ceil_div<std::size_t>(used, 8)))) {
    fail_validation("padding is not zero");
  }
  return places;
}

/// Padded bytes of each part of a matrix in its section.
struct MatrixLayout {
  std::size_t bounds = 0;
  std::size_t widths = 0;
  std::size_t codes = 0;

  std::size_t bytes() const noexcept { return bounds + widths + codes; }
};

/// Sets the header's layout. The header has been validated, so no part overflows; the parts of an
/// implausible header add up to more than any section.
inline MatrixLayout lay_out(TensorHeader& header) noexcept {
  const auto [bounds, codes] = header.lay_out();
  return {padded(bounds), width_map_bytes(header.patches(), header.classes.size()), padded(codes)};
}

/// Assigns places to patches whose classes are known. Throws corrupt_data if the number of patches
/// in a class is not the header's.
inline void place_patches(std::vector<PatchPlace>& places, const TensorHeader& header) {
  std::vector<WidthClass> counted = header.classes;
  assign_slots(places, counted);
  for (std::size_t k = 0; k < counted.size(); ++k) {
    if (counted[k].patches != header.classes[k].patches)
      fail_validation("patches of a width class");
  }
}

/// The patches that a block touches, as rows and columns of the grid.
struct PatchRange {
  std::size_t first_row = 0;
  std::size_t end_row = 0;
  std::size_t first_col = 0;
  std::size_t end_col = 0;
};

/// Throws bad_range if the block leaves the matrix.
inline void check_block(const Block& block, const TensorHeader& header) {
  if (block.row > header.rows || block.rows > header.rows - block.row || block.col > header.cols ||
      block.cols > header.cols - block.col) {
    throw Error(Errc::bad_range, "block");
  }
}

inline PatchRange patches_around(const Block& block, const TensorHeader& header) noexcept {
  const auto side = static_cast<std::size_t>(header.patch);
  return {block.row / side, ceil_div(block.row + block.rows, side), block.col / side,
          ceil_div(block.col + block.cols, side)};
}

/// Copies the items in the given slots, which must ascend. Neighbouring slots take one read.
template <class Read>
void gather_slots(Read& read, std::uint64_t begin, std::size_t stride,
                  std::span<const std::uint32_t> slots, std::span<std::byte> out,
                  TensorBytes& part) {
  if (stride == 0) return;
  for (std::size_t i = 0; i < slots.size();) {
    std::size_t end = i + 1;
    while (end < slots.size() && slots[end] == slots[end - 1] + 1) ++end;
    read(begin + std::uint64_t{slots[i]} * stride, std::uint64_t{end - i} * stride, part);
    std::ranges::copy(part.bytes(), out.begin());
    out = out.subspan(part.size());
    i = end;
  }
}

}  // namespace detail

/// Appends a matrix to the section of its tensor.
inline void append_matrix(std::vector<std::byte>& section, const CompressedTensor& matrix) {
  const auto append = [&](std::span<const std::byte> bytes) {
    section.insert(section.end(), bytes.begin(), bytes.end());
    section.resize(detail::padded(section.size()));
  };
  append(matrix.bounds);
  append(detail::pack_widths(matrix.places, matrix.header.classes.size()));
  append(matrix.codes);
}

/// Compressed matrices read from an archive. Their arrays lie in the archive's memory map or in
/// their own storage. If mapped, they keep the archive's file open.
class StoredDelta {
 public:
  /// The matrices of a section, validated. Throws corrupt_data.
  static StoredDelta of_section(TensorBytes section, std::span<const TensorHeader> headers) {
    StoredDelta delta;
    delta.bytes_ = std::move(section);
    std::span<const std::byte> rest = delta.bytes_.bytes();
    for (const TensorHeader& header : headers) {
      delta.matrices_.push_back(take_matrix(header, rest));
    }
    if (!rest.empty()) detail::fail_validation("size of the section");
    return delta;
  }

  /// The patches of one matrix that a block needs, validated. In the result, the block begins at
  /// TensorHeader::within_patch() of its row and column. read(offset, length, into) must put a
  /// range of the section into a TensorBytes. It is called for the whole width map, but only for
  /// those patches' bounds and codes; a matrix without patches is read whole. `headers` must
  /// include the matrix. Throws bad_range, corrupt_data.
  template <class Read>
  static StoredDelta of_block(std::span<const TensorHeader> headers, std::uint64_t section_bytes,
                              const Block& block, Read&& read) {
    std::uint64_t at = 0;
    for (TensorHeader before : headers.first(block.matrix)) at += detail::lay_out(before).bytes();
    TensorHeader whole = headers[block.matrix];
    const detail::MatrixLayout layout = detail::lay_out(whole);
    if (at > section_bytes || layout.bytes() > section_bytes - at) {
      detail::fail_validation("size of the section");
    }
    detail::check_block(block, whole);
    StoredDelta delta;
    if (whole.patch == 0) {
      read(at, layout.codes, delta.bytes_);
      std::span<const std::byte> matrix = delta.bytes_.bytes();
      delta.matrices_.push_back(take_matrix(whole, matrix));
      return delta;
    }
    const detail::PatchRange range = detail::patches_around(block, whole);
    read(at + layout.bounds, layout.widths, delta.bytes_);
    auto places =
        detail::unpack_widths(delta.bytes_.bytes(), whole.patches(), whole.classes.size());
    detail::place_patches(places, whole);
    const auto side = static_cast<std::size_t>(whole.patch);
    const std::size_t grid_cols = ceil_div(whole.cols, side);
    std::vector<PatchPlace> wanted;
    for (std::size_t i = range.first_row; i < range.end_row; ++i) {
      for (std::size_t j = range.first_col; j < range.end_col; ++j) {
        wanted.push_back(places[i * grid_cols + j]);
      }
    }

    delta.matrices_.push_back({whole, {}, {}, {}, {}});
    Matrix& matrix = delta.matrices_.back();
    const auto extent = [&](std::size_t first, std::size_t end, std::size_t all) {
      return std::min(end * side, all) - std::min(first * side, all);
    };
    matrix.header.rows = extent(range.first_row, range.end_row, whole.rows);
    matrix.header.cols = extent(range.first_col, range.end_col, whole.cols);
    for (const PatchPlace place : wanted) matrix.places.push_back({place.width_class()});
    assign_slots(matrix.places, matrix.header.classes);
    delta.gather(whole, wanted, at, at + layout.bounds + layout.widths, read);
    validate({&matrix.header, matrix.places, matrix.bounds, matrix.codes});
    return delta;
  }

  StoredDelta(StoredDelta&&) = default;
  StoredDelta& operator=(StoredDelta&&) = default;

  /// Sets the outliers of the k-th matrix. They must lie in the matrix and ascend.
  void set_outliers(std::size_t k, std::vector<Outlier> outliers) noexcept {
    matrices_[k].outliers = std::move(outliers);
  }

  std::size_t size() const noexcept { return matrices_.size(); }

  /// The k-th matrix; valid until this object is assigned to or destroyed.
  CompressedView view(std::size_t k = 0) const& noexcept {
    const Matrix& matrix = matrices_[k];
    return {&matrix.header, matrix.places, matrix.bounds, matrix.codes, matrix.outliers};
  }
  CompressedView view(std::size_t k = 0) const&& = delete;

  /// Marks the bytes as no longer needed by a forward pass. See InputFile::release().
  void release() const noexcept { bytes_.release(); }

 private:
  struct Matrix {
    TensorHeader header;
    std::vector<PatchPlace> places;
    std::span<const std::byte> bounds;
    std::span<const std::byte> codes;
    std::vector<Outlier> outliers;
  };

  StoredDelta() = default;

  /// Takes a matrix from the front of `rest`, the remainder of its section.
  static Matrix take_matrix(const TensorHeader& with, std::span<const std::byte>& rest) {
    Matrix matrix{with, {}, {}, {}, {}};
    TensorHeader& header = matrix.header;
    const detail::MatrixLayout layout = detail::lay_out(header);
    if (layout.bytes() > rest.size()) detail::fail_validation("size of the section");
    const auto [bounds, codes] = header.lay_out();
    const auto take = [&](std::size_t bytes) {
      const auto front = rest.first(bytes);
      rest = rest.subspan(bytes);
      return front;
    };
    const auto padded_bounds = take(layout.bounds);
    const auto widths = take(layout.widths);
    const auto padded_codes = take(layout.codes);
    if (!detail::is_zero(padded_bounds.subspan(bounds)) ||
        !detail::is_zero(padded_codes.subspan(codes))) {
      detail::fail_validation("padding is not zero");
    }
    matrix.bounds = padded_bounds.first(bounds);
    matrix.codes = padded_codes.first(codes);
    matrix.places = detail::unpack_widths(widths, header.patches(), header.classes.size());
    detail::place_patches(matrix.places, header);
    validate({&header, matrix.places, matrix.bounds, matrix.codes});
    return matrix;
  }

  /// Copies the bounds and codes of the patches at `places` of a whole matrix into the only matrix
  /// of this object. In the section, the whole matrix has its bounds at bounds_at and its codes at
  /// codes_at.
  template <class Read>
  void gather(const TensorHeader& whole, std::span<const PatchPlace> places,
              std::uint64_t bounds_at, std::uint64_t codes_at, Read& read) {
    Matrix& matrix = matrices_.back();
    const auto [bounds, codes] = matrix.header.lay_out();
    bounds_.resize(bounds);
    codes_.resize(codes);
    TensorBytes part;
    for (std::size_t k = 0; k < whole.classes.size(); ++k) {
      const WidthClass& from = whole.classes[k];
      const WidthClass& to = matrix.header.classes[k];
      std::vector<std::uint32_t> slots;
      for (const PatchPlace place : places) {
        if (place.width_class() == k) slots.push_back(place.slot());
      }
      detail::gather_slots(read, bounds_at + from.bounds_at, whole.bounds_stride(from), slots,
                           std::span(bounds_).subspan(to.bounds_at), part);
      detail::gather_slots(read, codes_at + from.codes_at, whole.codes_stride(from), slots,
                           std::span(codes_).subspan(to.codes_at), part);
    }
    matrix.bounds = bounds_;
    matrix.codes = codes_;
  }

  std::vector<Matrix> matrices_;
  TensorBytes bytes_;
  std::vector<std::byte> bounds_;  // gathered by of_block()
  std::vector<std::byte> codes_;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
