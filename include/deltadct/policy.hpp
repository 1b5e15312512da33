// Policies: the stages that a codec is made of. A policy is a struct of named aliases. To replace
// one stage, derive from DefaultPolicy<T, P> and override one line.
//
//     stage                       in a policy        what it must be
//     Patchifier<T, P>            Element, patch     matrix -> P x P patches (not replaceable)
//     importance scorer           Scorer             concepts::ImportanceScorer
//     bit allocator               Allocator          concepts::BitAllocator
//     transform                   Transform          concepts::Transform, run by DctKernel<Backend>
//     Quantizer<Bits>             Quantizer, Bound   concepts::Quantizer
//     rescale                     Rescale            concepts::Rescale
#pragma once

#include <deltadct/dct/randomized.hpp>
#include <deltadct/stage/bit_allocator.hpp>
#include <deltadct/stage/budget_allocator.hpp>
#include <deltadct/stage/importance.hpp>
#include <deltadct/stage/patchifier.hpp>
#include <deltadct/stage/quantizer.hpp>
#include <deltadct/stage/quantizer/gaussian.hpp>
#include <deltadct/stage/quantizer/min_max.hpp>
#include <deltadct/stage/rescale.hpp>

namespace deltadct { inline namespace DELTADCT_ABI {

/// The paper's pipeline (arXiv 2503.06676, section 3) for matrices of T cut into P x P patches.
/// Views may hold any element type whose compute type is that of T.
template <concepts::Element T, int P>
struct DefaultPolicy {
  static_assert(is_patch_size(P), "P must be 4, 8, 12, 16, 32 or 64");

  using Element = T;
  using Scorer = L2Norm;             ///< patch -> score
  using Allocator = RatioAllocator;  ///< scores -> bit widths
  using Transform = Dct;             ///< patch <-> coefficients
  template <int Bits>
  using Quantizer = MinMax<Bits>;  ///< coefficients <-> codes
  using Rescale = MeanAbs;         ///< one factor a tensor
  using Bound = compute_t<T>;      ///< how a patch's bounds are stored

  static constexpr int patch = P;
};

/// The paper as published: DefaultPolicy under its own name.
template <concepts::Element T, int P>
struct PaperPolicy : DefaultPolicy<T, P> {};

/// Beyond the paper: signs changed at random before the DCT, levels for the normal distribution,
/// and unit gain in every patch; no patch is dropped (docs/method.md). Each patch stores one number
/// of 16 bits with the range of float, for doubles too.
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

/// A scorer whose score follows from a sum over the patch, which is computed while the matrix is
/// read; see L2Norm. Its degree is the d in score(c x) = c^d score(x).
template <class S, class T>
concept SummedScorer = requires(T x) {
  { S::term(x) } -> std::same_as<T>;
  { S::from_sum(x, x) } -> std::same_as<bool>;
  { S::degree } -> std::convertible_to<int>;
};

/// A function of a patch of P * P values, row-major. If it has term(), it must be a SummedScorer.
template <class S, class T, int P>
concept ImportanceScorer = std::default_initializable<S> &&
    requires(const S& scorer, std::span<const T, static_cast<std::size_t>(P) * P> patch) {
  { scorer.template operator()<P, T>(patch) } -> std::convertible_to<T>;
} &&(!requires(T x) { S::term(x); } || SummedScorer<S, T>);

/// Gives every patch a width class: the higher its score, the wider. NaN counts as the lowest
/// score, as minus infinity does; codecs pass the lowest finite number in place of both. An
/// allocator that also has counts(n), the number of patches of each width among n, assigns widths
/// by rank alone. A device then needs nothing from the host.
template <class A, class T>
concept BitAllocator = requires(const A& allocator) {
  { allocator.widths() } -> std::convertible_to<std::span<const int>>;
}
&&(
    requires(const A& allocator, std::span<const T> scores, std::span<std::uint32_t> out) {
      allocator.allocate(scores, out, out);
    } ||
    requires(const A& allocator, PatchGrid grid, std::span<const T> scores,
             std::span<std::uint32_t> out) { allocator.allocate(grid, scores, out, out); });

template <class R>
concept Rescale = requires(double x) {
  { R::enabled } -> std::convertible_to<bool>;
  { R::original(x) } -> std::convertible_to<double>;
  { R::reconstructed(x, x) } -> std::convertible_to<double>;
  { R::reconstructed_constant(x, x, x) } -> std::convertible_to<double>;
};

/// The quantizer of a policy, which must have at least zero bits and one bit. The concept takes the
/// policy, because nvcc cannot take a template of a dependent type as a concept's argument.
template <class P>
concept Quantizer =
    ConstantQuantizer<typename P::template Quantizer<0>, compute_t<typename P::Element>> &&
    ElementQuantizer<typename P::template Quantizer<1>, compute_t<typename P::Element>>;

/// What DeltaCodec accepts as a policy.
template <class P>
concept Policy =
    is_patch_size(P::patch) && Element<typename P::Element> && Element<typename P::Bound> &&
    ImportanceScorer<typename P::Scorer, compute_t<typename P::Element>, P::patch> &&
    BitAllocator<typename P::Allocator, compute_t<typename P::Element>> &&
    Transform<typename P::Transform, compute_t<typename P::Element>, P::patch> && Quantizer<P> &&
    Rescale<typename P::Rescale>;

}  // namespace concepts

}}  // namespace deltadct::inline DELTADCT_ABI
