// Packed codes of a patch to its coefficients, through a quantizer of their width.
#pragma once

#include <deltadct/core/lanes.hpp>

#include <cstddef>

namespace deltadct::inline DELTADCT_ABI::detail {

/// Whether a quantizer has levels for a width of 0 bits or more.
template <template <int> class Quantizer, int Bits>
inline constexpr bool has_width = requires {
  Quantizer<Bits>::side_values;
};

/// Whether a quantizer's stored value may also be the step of codes that coefficients share.
template <template <int> class Quantizer>
inline constexpr bool shares_codes = requires {
  requires Quantizer<0>::shares_codes;
};

/// Calls fn.operator()<Bits>() for a width of 0 bits or more that a quantizer has.
template <template <int> class Quantizer, class Fn>
DELTADCT_HD DELTADCT_INLINE decltype(auto) with_bits(int bits, Fn&& fn) {
  const auto call = [&]<int Bits>() DELTADCT_INLINE_LAMBDA -> decltype(auto) {
    if constexpr (has_width<Quantizer, Bits>)
      return fn.template operator()<Bits>();
    else
      return fn.template operator()<0>();
  };
  switch (bits) {
    case 1:
      return call.template operator()<1>();
    case 2:
      return call.template operator()<2>();
    case 3:
      return call.template operator()<3>();
    case 4:
      return call.template operator()<4>();
    case 6:
      return call.template operator()<6>();
    case 8:
      return call.template operator()<8>();
    default:
      return call.template operator()<0>();
  }
}

/// Codes of one patch to coefficients, a register of X at a time.
template <class Kernel, int Bits, template <int> class Quantizer, class X>
class Dequantizer {
  using T = typename Lanes<X>::scalar;
  using Q = Quantizer<Bits>;
  using Decoder = typename Q::template Decoder<X>;
  static constexpr bool looks_up = Kernel::template looks_up<Bits, X>;

 public:
  DELTADCT_INLINE Dequantizer(const T (&side)[Q::side_values], T factor) noexcept
      : decoder_(side, factor), levels_(T(0)) {
    if constexpr (looks_up) {
      alignas(64) T lane[Lanes<X>::count];
      for (int l = 0; l < Lanes<X>::count; ++l) lane[l] = static_cast<T>(l & ((1 << Bits) - 1));
      levels_ = decoder_(Lanes<X>::load(lane));
    }
  }

  /// What the codes from s on, of N, stand for.
  template <int N>
  DELTADCT_INLINE X at(const std::byte* codes, int s) const noexcept {
    if constexpr (looks_up)
      return Kernel::template lookup<Bits, N, X>(codes, s, levels_);
    else
      return decoder_(Kernel::template unpack<Bits, N, X>(codes, s));
  }

 private:
  Decoder decoder_;
  X levels_;
};

/// The coefficients of a P x P patch in registers of any type of X, straight from packed codes.
template <class Kernel, int Bits, int P, template <int> class Quantizer, class... X>
class CodeSource : Dequantizer<Kernel, Bits, Quantizer, X>... {
 public:
  template <class T, std::size_t N>
  DELTADCT_INLINE CodeSource(const std::byte* codes, const T (&side)[N], T factor) noexcept
      : Dequantizer<Kernel, Bits, Quantizer, X>(side, factor)..., codes_(codes) {}

  template <class Y>
  DELTADCT_INLINE Y load(int i, int j) const noexcept {
    return Dequantizer<Kernel, Bits, Quantizer, Y>::template at<P * P>(codes_, i * P + j);
  }

 private:
  const std::byte* codes_;
};

}  // namespace deltadct::inline DELTADCT_ABI::detail
