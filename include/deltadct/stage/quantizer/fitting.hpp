// What the bounds of a quantizer follow.
#pragma once

#include <deltadct/config.hpp>

namespace deltadct::inline DELTADCT_ABI {

/// What must be gathered of a patch before its bounds are known. On a device its coefficients lie
/// with many threads, so it matters there. A quantizer names one of the first two as `fitting`.
enum class Fitting {
  extremes,      ///< two bounds, the least and the greatest coefficient
  energy,        ///< one bound, the step that gives unit gain: codes are found before it, by an
                 ///< Encoder(1 / root mean square), those of one bit by the sign
  coefficients,  ///< all coefficients, by one thread
};

/// That of a quantizer; Fitting::coefficients where it names none.
template <class Q>
constexpr Fitting fitting_of() noexcept {
  if constexpr (requires { Q::fitting; })
    return Q::fitting;
  else
    return Fitting::coefficients;
}

}  // namespace deltadct::inline DELTADCT_ABI
