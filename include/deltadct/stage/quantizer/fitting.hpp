// What a quantizer's bounds are computed from.
#pragma once

#include <deltadct/config.hpp>

namespace deltadct { inline namespace DELTADCT_ABI {

/// What must be known of a patch before its bounds can be computed. This matters on a device, where
/// many threads hold the coefficients. A quantizer names one of the first two as `fitting`.
enum class Fitting {
  extremes,      ///< two bounds: the least and the greatest coefficient
  energy,        ///< one bound: the step that gives unit gain. Codes are found before it, by an
                 ///< Encoder(1 / root mean square), or by the sign alone for one bit
  coefficients,  ///< all coefficients, which each thread then reads
};

/// The fitting of a quantizer, or Fitting::coefficients if it names none.
template <class Q>
constexpr Fitting fitting_of() noexcept {
  if constexpr (requires { Q::fitting; })
    return Q::fitting;
  else
    return Fitting::coefficients;
}

}}  // namespace deltadct::inline DELTADCT_ABI
