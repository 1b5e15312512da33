// A compressed matrix in device memory, in the form in which kernels receive it.
#pragma once

#include <deltadct/compressed_tensor.hpp>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// Where the patches of a width begin, and how many bytes each takes.
struct DeviceClass {
  int bits;
  std::uint32_t patches;
  std::uint32_t bounds_stride;
  std::uint32_t codes_stride;
  std::size_t bounds_at;
  std::size_t codes_at;
};

/// Classes begin at multiples of this many bytes, so that all loads from them are aligned.
inline constexpr std::size_t kDeviceAlignment = 256;

constexpr std::size_t align_up(std::size_t bytes) noexcept {
  return ceil_div(bytes, kDeviceAlignment) * kDeviceAlignment;
}

/// Places, then the bounds and the codes of each class in turn, all in one piece of device memory.
/// Unlike in CompressedTensor, every class is aligned.
struct DeviceArrays {
  const PatchPlace* places;
  const std::byte* data;
  std::uint32_t class_count;
  DeviceClass classes[kMaxWidthClasses];

  DELTADCT_HD const DeviceClass& width_class(PatchPlace place) const noexcept {
    return classes[place.width_class()];
  }
  template <class Bound>
  DELTADCT_HD const Bound* bounds_of(PatchPlace place, const DeviceClass& k) const noexcept {
    const std::size_t at = k.bounds_at + std::size_t{place.slot()} * k.bounds_stride;
    return reinterpret_cast<const Bound*>(data + at);
  }
  DELTADCT_HD const std::byte* codes_of(PatchPlace place, const DeviceClass& k) const noexcept {
    return data + k.codes_at + std::size_t{place.slot()} * k.codes_stride;
  }
};

/// Lays out what a valid header describes from `memory` on, which must be aligned. Returns the
/// number of bytes.
inline std::size_t lay_out_on_device(const TensorHeader& header, const std::byte* memory,
                                     DeviceArrays& arrays) noexcept {
  std::size_t end = align_up(header.patches() * sizeof(PatchPlace));
  arrays.places = reinterpret_cast<const PatchPlace*>(memory);
  arrays.data = memory;
  arrays.class_count = 0;
  for (const WidthClass& width : header.classes) {
    DeviceClass& to = arrays.classes[arrays.class_count++];
    to.bits = width.bits;
    to.patches = static_cast<std::uint32_t>(width.patches);
    to.bounds_stride = static_cast<std::uint32_t>(header.bounds_stride(width));
    to.codes_stride = static_cast<std::uint32_t>(header.codes_stride(width));
    to.bounds_at = end;
    end += align_up(width.patches * to.bounds_stride);
    to.codes_at = end;
    end += align_up(width.patches * to.codes_stride);
  }
  return end;
}

/// The classes of the header that was laid out. `bound` is the dtype of its bounds.
inline std::vector<WidthClass> classes_on_device(const DeviceArrays& arrays, DType bound) {
  std::vector<WidthClass> classes;
  for (std::uint32_t k = 0; k < arrays.class_count; ++k) {
    const DeviceClass& from = arrays.classes[k];
    classes.push_back({.bits = from.bits,
                       .bound_count = static_cast<int>(from.bounds_stride / dtype_bytes(bound)),
                       .patches = from.patches});
  }
  return classes;
}

/// Calls copy(on_host, on_device, bytes) for each array of a compressed tensor, view or owner.
/// on_device is an offset from the memory that was laid out.
template <class Tensor, class Copy>
void for_each_copy(Tensor& tensor, const TensorHeader& header, const DeviceArrays& arrays,
                   const Copy& copy) {
  copy(tensor.places.data(), std::size_t{0}, tensor.places.size() * sizeof(PatchPlace));
  for (std::size_t k = 0; k < header.classes.size(); ++k) {
    const WidthClass& width = header.classes[k];
    copy(tensor.bounds.data() + width.bounds_at, arrays.classes[k].bounds_at,
         width.patches * header.bounds_stride(width));
    copy(tensor.codes.data() + width.codes_at, arrays.classes[k].codes_at,
         width.patches * header.codes_stride(width));
  }
}

/// Resizes an owner's arrays to the sizes that its header gives.
inline void resize_arrays(CompressedTensor& tensor) {
  const auto [bounds, codes] = tensor.header.lay_out();
  tensor.places.resize(tensor.header.patches());
  tensor.bounds.resize(bounds);
  tensor.codes.resize(codes);
}

}  // namespace detail
}}  // namespace deltadct::inline DELTADCT_ABI
