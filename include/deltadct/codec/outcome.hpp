// What encoding a matrix came to, whoever ran it: the rescale factor, or why there is none.
#pragma once

#include <deltadct/codec/plan.hpp>
#include <deltadct/core/finite.hpp>
#include <deltadct/core/lost.hpp>

#include <cmath>
#include <string>

namespace deltadct::inline DELTADCT_ABI::detail {

/// What patches add up to. All zero as PatchSums{}; not by default, for blocks of a device share
/// values of this type.
struct PatchSums {
  double original;       ///< of Rescale, over the delta
  double reconstructed;  ///< of Rescale, over what decodes, without the factor
  double largest;        ///< no value that decodes exceeds it, without the factor
  double lost;           ///< how far some are off, for being too small to be stored

  DELTADCT_HD void add(const PatchSums& more) noexcept {
    original += more.original;
    reconstructed += more.reconstructed;
    largest = largest < more.largest ? more.largest : largest;
    lost = lost < more.lost ? more.lost : lost;
  }
};

/// Of a patch without codes, of that many elements, which stores `stored` for their mean.
template <class Policy, class T>
DELTADCT_HD void add_constant(PatchSums& sums, T mean, T stored, double elements) noexcept {
  const auto constant = static_cast<double>(stored);
  sums.add({0,
            Policy::Rescale::reconstructed_constant(static_cast<double>(mean) * elements, elements,
                                                    constant),
            std::abs(constant), static_cast<double>(lost_of(mean, stored))});
}

/// What no element of a patch exceeds whose largest coefficient is that: the norm of the patch is
/// at most P times as much.
template <class Policy, class T>
DELTADCT_HD double largest_element(T coefficient) noexcept {
  return Policy::patch * static_cast<double>(coefficient);
}

/// How far an element may be off where gain times the coefficients is off by that.
template <class Policy, class T>
DELTADCT_HD double lost_element(T coefficient) noexcept {
  constexpr double gain = Policy::Transform::template gain<Policy::patch>;
  return Policy::patch * static_cast<double>(coefficient) / gain;
}

/// The place of a patch, for people.
inline std::string patch_text(const TensorHeader& header, std::size_t patch) {
  const auto p = static_cast<std::size_t>(header.patch);
  const std::size_t across = ceil_div(header.cols, p);
  return "patch at element (" + std::to_string(patch / across * p) + ", " +
         std::to_string(patch % across * p) + ")";
}

/// Throws out_of_range: of a patch whose bounds cannot be stored, or computed with.
[[noreturn]] inline void fail_bounds(const TensorHeader& header, std::size_t patch) {
  throw Error(
      Errc::out_of_range, patch_text(header, patch),
      "its coefficients exceed the range of the bounds; --exclude keeps a tensor without loss");
}

/// The rescale factor; 1 where nothing was reconstructed to be scaled. Throws out_of_range where
/// what decodes leaves the range of the compute type, or too much was lost.
template <class Policy>
double rescale_factor(const PatchSums& sums) {
  using T = compute_t<typename Policy::Element>;
  const double factor = sums.original / sums.reconstructed;
  // Not every double that is finite is so in the type that decoders multiply by it.
  const double scale = Policy::Rescale::enabled && is_within<T>(factor) ? factor : 1;
  if (!is_within<T>(scale * sums.largest)) {
    throw Error(Errc::out_of_range, "delta",
                "it exceeds the range of the compute type; --exclude keeps a tensor without loss");
  }
  if (is_lost(sums.lost, sums.largest)) throw Error(Errc::out_of_range, "delta", kLostText);
  return scale;
}

}  // namespace deltadct::inline DELTADCT_ABI::detail
