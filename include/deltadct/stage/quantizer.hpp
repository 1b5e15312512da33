// Quantization: turns the coefficients of a patch into codes and a few stored values, its bounds.
//
// A quantizer is a class template over the bit width. There are three kinds of widths:
//
//     Quantizer<0>    no codes: the patch is a constant
//     Quantizer<k>    k = 1, 2, 3, 4, 6 or 8 bits a coefficient
//     Quantizer<-k>   k = 2 ... 7: one code of k + 1 bits per group of 2^k coefficients
//
// Zero bits and one bit must exist. A width that does not exist is declared but not defined, or is
// excluded by a constraint on Bits. All members are static, and DELTADCT_HD for devices. `bounds`
// is an array of bound_count values of the compute type: from fit(), as computed; elsewhere, as
// stored, that is, rounded to the dtype of the policy's Bound.
#pragma once

#include <deltadct/core/dtype.hpp>
#include <deltadct/core/energy.hpp>
#include <deltadct/stage/quantizer/fitting.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace deltadct { inline namespace DELTADCT_ABI { namespace concepts {

/// Quantizer<0>. Archives store its name for the whole template. constant(mean) is the bound to
/// store for a patch of that mean.
template <class Q, class T>
concept ConstantQuantizer = Q::bound_count == 1 && requires(T x) {
  { Q::name } -> std::convertible_to<std::string_view>;
  { Q::constant(x) } -> std::same_as<T>;
};

/// Quantizer<k>, for compute type T:
///   fit<V>(coefficients, n, bounds)   computes the bounds of n coefficients, n a multiple of the
///                                     lanes of V; returns whatever else the encoder needs. The
///                                     coefficients are gain times the real ones, and the codec
///                                     divides the bounds by gain before it stores them
///   representable(bounds, gain)       whether codes can be computed from the bounds
///   largest(bounds)                   the largest magnitude that a code decodes to
///   Encoder<V>(bounds, fitted, gain)  a function that turns a V of gain times coefficients into
///                                     rounded codes, still a V; `fitted` is what fit() returned
///   Decoder<V>(bounds, factor)        a function that turns a V of codes into factor times
///                                     coefficients
/// If the first and the last code decode to the same value, all codes of the patch are stored as
/// zero. Optional members:
///   lost(bounds, gain)                how far apart gain times coefficients may be that share one
///                                     code only because they are too small to compute with
///   fitting                           see Fitting
template <class Q, class T>
concept ElementQuantizer = Q::bound_count >= 1 &&
                           requires(const T* coefficients, T (&bounds)[Q::bound_count], T x) {
  Q::template fit<T>(coefficients, 1, bounds);
  { Q::representable(bounds, x) } -> std::same_as<bool>;
  { Q::largest(bounds) } -> std::same_as<T>;
  {
    typename Q::template Encoder<T>(bounds, Q::template fit<T>(coefficients, 1, bounds), x)(x)
    } -> std::same_as<T>;
  { typename Q::template Decoder<T>(bounds, x)(x) } -> std::same_as<T>;
};

/// Quantizer<-k>. Its one bound is a step at unit gain. LargestOf is an example.
///   group, code_bits                        2^k and k + 1
///   encode<V>(coefficients, n, codes)       writes all codes of a patch; returns the Fit
///   decode(codes, step, coefficients, n)    all coefficients of a patch
///   choose(load), level<T>(code, i, step)   the same for one group
///   is_padded(codes, n)                     whether the bits after the last code are zero
///   representable(bounds, gain), largest(bounds)
template <class Q, class T>
concept GroupQuantizer = Q::bound_count == 1 && Q::group >= 4 &&
                         requires(T* coefficients, std::byte* codes, T (&bounds)[1], T x,
                                  std::uint32_t code) {
  { Q::code_bits } -> std::convertible_to<int>;
  { Q::template encode<T>(coefficients, 1, codes) } -> std::same_as<detail::Fit<T>>;
  Q::decode(codes, x, coefficients, 1);
  {
    Q::choose([](int) { return T(0); }).code
    } -> std::convertible_to<std::uint32_t>;
  { Q::level(code, 0, x) } -> std::same_as<T>;
  { Q::is_padded(codes, 1) } -> std::same_as<bool>;
  { Q::representable(bounds, x) } -> std::same_as<bool>;
  { Q::largest(bounds) } -> std::same_as<T>;
};

}  // namespace concepts

}}  // namespace deltadct::inline DELTADCT_ABI
