// What a safetensors container says about its tensors: their names, dtypes and shapes, how many
// bytes they have, and how errors name them.
#pragma once

#include <deltadct/core/printable.hpp>
#include <deltadct/core/stored_dtype.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

using Metadata = std::map<std::string, std::string>;

/// One tensor of a container. begin and end are byte offsets within the data section.
struct TensorInfo {
  std::string name;
  StoredDType dtype = DType::f32;
  std::vector<std::uint64_t> shape;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;

  /// Product of the shape: 1 for rank 0.
  std::uint64_t elements() const noexcept {
    return std::accumulate(shape.begin(), shape.end(), std::uint64_t{1}, std::multiplies<>{});
  }
  std::uint64_t bytes() const noexcept { return end - begin; }
};

/// The largest number in a header. It also fits the signed integers that other readers use.
inline constexpr auto kMaxNumber =
    static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

namespace detail {

inline bool has_elements(std::span<const std::uint64_t> shape) noexcept {
  return std::ranges::find(shape, std::uint64_t{0}) == shape.end();
}

/// Product of the extents that are not 0; nothing if it exceeds kMaxNumber.
inline std::optional<std::uint64_t> extent_product(std::span<const std::uint64_t> shape) noexcept {
  std::uint64_t product = 1;
  for (const std::uint64_t extent : shape) {
    if (extent == 0) continue;
    if (product > kMaxNumber / extent) return std::nullopt;
    product *= extent;
  }
  return product;
}

/// Bytes of that many elements; nothing if they exceed kMaxNumber or end within a byte.
inline std::optional<std::uint64_t> packed_bytes(std::uint64_t elements, unsigned bits) noexcept {
  const std::uint64_t tail_bits = elements % 8 * bits;
  const std::uint64_t tail = tail_bits / 8;
  if (tail_bits % 8 != 0 || elements / 8 > (kMaxNumber - tail) / bits) return std::nullopt;
  return elements / 8 * bits + tail;
}

}  // namespace detail

/// Bytes of a tensor; nothing if they exceed 2^63 - 1, or if elements smaller than a byte end
/// within one. Extents of 0 are left out of the overflow check, so that the result for [2^40, 2^40,
/// 0] does not depend on the order of the extents: a shape whose strides overflow is never
/// accepted.
inline std::optional<std::uint64_t> tensor_bytes(const StoredDType& dtype,
                                                 std::span<const std::uint64_t> shape) noexcept {
  const auto elements = detail::extent_product(shape);
  if (!elements || *elements / 8 > kMaxNumber / dtype.bits()) return std::nullopt;
  if (!detail::has_elements(shape)) return 0;
  return detail::packed_bytes(*elements, dtype.bits());
}

namespace detail {

using deltadct::detail::shortened;

inline constexpr const char* kMetadataKey = "__metadata__";
inline constexpr const char* kBadSize = "the shape's size overflows, or ends within a byte";

inline std::string tensor_place(std::string_view file, std::string_view tensor) {
  return std::string(file) + ": " + shortened(tensor);
}

}  // namespace detail

}}}  // namespace deltadct::inline DELTADCT_ABI::io
