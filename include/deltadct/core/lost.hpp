// What is lost of values that are too small for the type they are stored in.
#pragma once

#include <deltadct/core/lanes.hpp>

#include <limits>

namespace deltadct::inline DELTADCT_ABI::detail {

/// How far apart a value is from what is stored for it, where that is more than rounding: it was
/// too small for the stored type.
template <class T>
DELTADCT_HD T lost_of(T value, T stored) noexcept {
  const T size = Lanes<T>::abs(value);
  const T apart = Lanes<T>::abs(value - stored);
  return apart > size / 16 && size <= std::numeric_limits<T>::max() / 2 ? apart : T(0);
}

/// Whether it matters that so much was lost, beside the largest that decodes.
inline bool is_lost(double lost, double largest) noexcept {
  return lost > largest / 1024;
}

inline constexpr const char* kLostText =
    "it is too small for what would be stored; --exclude keeps a tensor without loss";

}  // namespace deltadct::inline DELTADCT_ABI::detail
