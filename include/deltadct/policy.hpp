// Policies: which stages a codec is made of. A policy is a struct of named aliases; derive from
// DefaultPolicy<T, P> and override one line to replace one stage.
#pragma once

#include <deltadct/dct/randomized.hpp>
#include <deltadct/stage/bit_allocator.hpp>
#include <deltadct/stage/budget_allocator.hpp>
#include <deltadct/stage/gaussian.hpp>
#include <deltadct/stage/importance.hpp>
#include <deltadct/stage/largest.hpp>
#include <deltadct/stage/patchifier.hpp>
#include <deltadct/stage/quantizer.hpp>
#include <deltadct/stage/rescale.hpp>

namespace deltadct::inline DELTADCT_ABI {

/// The paper's pipeline (arXiv 2503.06676, section 3) for matrices of T cut into P x P patches.
/// Views may hold any element type with the compute type of T.
template <concepts::Element T, int P>
struct DefaultPolicy {
  static_assert(is_patch_size(P), "P must be 4, 8, 12, 16, 32 or 64");

  using Element = T;
  using Patches = Patchifier<T, P>;  ///< matrix -> patches
  using Scorer = L2Norm;             ///< patch -> score
  using Allocator = RatioAllocator;  ///< scores -> bit widths
  using Transform = Dct;             ///< patch <-> coefficients
  template <int Bits>
  using Quantizer = MinMax<Bits>;  ///< coefficients <-> codes
  using Rescale = MeanAbs;         ///< one factor a tensor
  using Bound = compute_t<T>;      ///< how a patch's stored values are kept

  static constexpr int patch = P;
};

/// The paper as published; DefaultPolicy under its own name.
template <concepts::Element T, int P>
struct PaperPolicy : DefaultPolicy<T, P> {};

/// Beyond the paper: signs changed at random before the DCT, levels for the normal distribution,
/// and unit gain in every patch, none of which is dropped (docs/method.md). A patch stores one
/// number of 16 bits, which has the range of float, of doubles too.
template <concepts::Element T, int P>
struct UnitGainPolicy : DefaultPolicy<T, P> {
  using Allocator = OneBitAllocator;
  using Transform = RandomizedDct;
  template <int Bits>
  using Quantizer = Gaussian<Bits>;
  using Rescale = UnitGain;
  using Bound = bfloat16;
};

/// The paper's ablation "without DCT".
template <concepts::Element T, int P>
struct WithoutDct : DefaultPolicy<T, P> {
  using Transform = Identity;
};

namespace concepts {

template <class S, class T, int P>
concept Scorer = std::default_initializable<S> &&
    requires(const S& scorer, std::span<const T, static_cast<std::size_t>(P) * P> patch) {
  { scorer.template operator()<P, T>(patch) } -> std::convertible_to<T>;
};

/// Gives every patch the class of a width, the wider the higher its score. A NaN counts as the
/// lowest score, as minus infinity does: no patch is given less. Codecs hand the lowest finite
/// number over in the place of both.
template <class A, class T>
concept Allocator = std::copy_constructible<A> && requires(const A& allocator) {
  { allocator.widths() } -> std::convertible_to<std::span<const int>>;
} &&(
    requires(const A& allocator, std::span<const T> scores, std::span<std::uint32_t> out) {
      allocator.allocate(scores, out, out);
    } ||
    requires(const A& allocator, PatchGrid grid, std::span<const T> scores,
             std::span<std::uint32_t> out) { allocator.allocate(grid, scores, out, out); });

template <class R>
concept Rescale = requires(double x) {
  { R::enabled } -> std::convertible_to<bool>;
  { R::original(x) } -> std::convertible_to<double>;
  { R::pair(x, x) } -> std::convertible_to<double>;
  { R::constant(x, x, x) } -> std::convertible_to<double>;
};

template <class T>
concept Transform = requires {
  { T::name } -> std::convertible_to<std::string_view>;
  { T::template gain<4> } -> std::convertible_to<int>;
};

// Of a policy, for nvcc cannot take a template of a dependent type as a concept's argument.
template <class P>
concept HasQuantizer = requires(double x,
                                const double (&side)[P::template Quantizer<1>::side_values]) {
  { P::template Quantizer<0>::name } -> std::convertible_to<std::string_view>;
  { P::template Quantizer<0>::constant(x) } -> std::convertible_to<double>;
  { P::template Quantizer<1>::representable(side, x) } -> std::same_as<bool>;
  { P::template Quantizer<1>::largest(side) } -> std::same_as<double>;
}
&&P::template Quantizer<0>::side_values == 1 && P::template Quantizer<1>::side_values >= 1;

/// What DeltaCodec takes.
template <class P>
concept Policy =
    is_patch_size(P::patch) && Element<typename P::Element> && Element<typename P::Bound> &&
    Scorer<typename P::Scorer, compute_t<typename P::Element>, P::patch> &&
    Allocator<typename P::Allocator, compute_t<typename P::Element>> &&
    Transform<typename P::Transform> && HasQuantizer<P> && Rescale<typename P::Rescale>;

}  // namespace concepts

namespace detail {

/// Whether what Rescale compares is the same for coefficients, so that none need be transformed
/// back: products of patches, of which the original's padding is zero.
template <class Policy>
inline constexpr bool compares_coefficients = requires {
  requires Policy::Rescale::is_product;
  requires Policy::Transform::is_orthogonal;
};

}  // namespace detail

}  // namespace deltadct::inline DELTADCT_ABI
