// The outcome of encoding a matrix, on a host or on a device: the rescale factor, or why there is
// none.
#pragma once

#include <deltadct/codec/plan.hpp>
#include <deltadct/core/finite.hpp>
#include <deltadct/core/lost.hpp>

#include <cmath>
#include <string>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// Sums over patches. PatchSums{} is all zero. The members have no default values, because blocks
/// of a device share values of this type.
struct PatchSums {
  double original;       ///< Rescale's sum over the delta
  double reconstructed;  ///< Rescale's sum over the decoded values, without the factor
  double largest;        ///< an upper bound of the decoded magnitudes, without the factor
  double lost;           ///< the largest error of a value that is too small to be stored

  DELTADCT_HD void add(const PatchSums& more) noexcept {
    original += more.original;
    reconstructed += more.reconstructed;
    largest = largest < more.largest ? more.largest : largest;
    lost = lost < more.lost ? more.lost : lost;
  }
};

/// The sums of a patch without codes that has that many elements. They decode to `stored`, the
/// stored form of their mean. `original` is 0: it is summed elsewhere.
template <class Policy, class T>
DELTADCT_HD PatchSums constant_sums(T mean, T stored, double elements) noexcept {
  const auto constant = static_cast<double>(stored);
  return {0,
          Policy::Rescale::reconstructed_constant(static_cast<double>(mean) * elements, elements,
                                                  constant),
          std::abs(constant), static_cast<double>(lost_of(mean, stored))};
}

/// An upper bound of the elements of a patch, given its largest coefficient: the norm of the patch
/// is at most P times that coefficient.
template <class Policy, class T>
DELTADCT_HD double largest_element(T coefficient) noexcept {
  return Policy::patch * static_cast<double>(coefficient);
}

/// An upper bound of the error of an element, given the largest error of gain times a coefficient.
template <class Policy, class T>
DELTADCT_HD double lost_element(T coefficient) noexcept {
  constexpr double factor =
      Policy::patch / static_cast<double>(Policy::Transform::template gain<Policy::patch>);
  return factor * static_cast<double>(coefficient);
}

/// The place of a patch, for messages.
inline std::string patch_text(const TensorHeader& header, std::size_t patch) {
  const auto p = static_cast<std::size_t>(header.patch);
  const std::size_t across = ceil_div(header.cols, p);
  return "patch at element (" + std::to_string(patch / across * p) + ", " +
         std::to_string(patch % across * p) + ")";
}

/// Throws out_of_range for a patch whose bounds cannot be stored or computed with.
[[noreturn]] inline void fail_bounds(const TensorHeader& header, std::size_t patch) {
  throw Error(
      Errc::out_of_range, patch_text(header, patch),
      "its coefficients exceed the range of the bounds; --exclude keeps a tensor without loss");
}

/// The rescale factor, or 1 if the quotient is not finite, as when nothing was reconstructed.
/// Throws out_of_range if the decoded values exceed the range of the compute type, or if too much
/// was lost.
template <class Policy>
double rescale_factor(const PatchSums& sums) {
  using T = compute_t<typename Policy::Element>;
  const double factor = sums.original / sums.reconstructed;
  // A finite double may still overflow in the type with which decoders multiply.
  const double scale = Policy::Rescale::enabled && is_within<T>(factor) ? factor : 1;
  if (!is_within<T>(scale * sums.largest)) {
    throw Error(Errc::out_of_range, "delta",
                "it exceeds the range of the compute type; --exclude keeps a tensor without loss");
  }
  if (is_lost(sums.lost, sums.largest)) throw Error(Errc::out_of_range, "delta", kLostText);
  return scale;
}

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
