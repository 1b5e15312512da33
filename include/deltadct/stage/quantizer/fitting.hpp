// What a quantizer's levels follow.
#pragma once

#include <deltadct/config.hpp>

namespace deltadct::inline DELTADCT_ABI {

/// What a device must gather of a patch before its bounds are known: its coefficients lie with many
/// threads there. A quantizer that declares nothing is given all coefficients, by one thread.
enum class Fitting {
  extremes,  ///< the bounds are the least and the greatest coefficient
  energy,    ///< one bound, the step that gives unit gain, from the sum of squares
};

}  // namespace deltadct::inline DELTADCT_ABI
