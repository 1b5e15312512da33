// The loss of values that are too small for the type in which they are stored.
#pragma once

#include <deltadct/core/lanes.hpp>

#include <limits>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// The distance between a value and what is stored for it, if that is more than rounding, which
/// means that the value was too small for the stored type; otherwise 0.
template <class T>
DELTADCT_HD T lost_of(T value, T stored) noexcept {
  const T size = Lanes<T>::abs(value);
  const T apart = Lanes<T>::abs(value - stored);
  return apart > size / 16 && size <= std::numeric_limits<T>::max() / 2 ? apart : T(0);
}

/// Whether such a loss matters compared with the largest decoded value.
inline bool is_lost(double lost, double largest) noexcept {
  return lost > largest / 1024;
}

inline constexpr const char* kLostText =
    "too small to be stored; --exclude keeps a tensor without loss";

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
