// The sections of a delta archive: their names, and the bytes of those that a tensor has.
#pragma once

#include <deltadct/config.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

namespace detail {

inline constexpr const char* kDeltaPrefix = "delta:";
inline constexpr const char* kOutliersPrefix = "outliers:";
inline constexpr const char* kLosslessPrefix = "lossless:";
inline constexpr const char* kFilePrefix = "file:";
inline constexpr const char* kManifestPrefix = "manifest:";

}  // namespace detail

/// The stored sections of a tensor. Sections that its mode does not have are empty.
struct Sections {
  std::vector<std::byte> delta;
  std::vector<std::byte> outliers;  ///< also empty for a delta without outliers
  std::vector<std::byte> lossless;

  std::uint64_t bytes() const noexcept { return delta.size() + outliers.size() + lossless.size(); }
  void clear() noexcept {
    delta.clear();
    outliers.clear();
    lossless.clear();
  }
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
