// The widths of patches. Only here does a width known at run time become a Quantizer<Bits>.
#pragma once

#include <deltadct/core/bits.hpp>

#include <cstddef>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// Whether a quantizer has a width for patches of N coefficients. A width below one bit must
/// declare its `group`, because Quantizer<-k> may be well-formed without being meant to exist.
template <template <int> class Quantizer, int Bits, int N>
constexpr bool has_width() noexcept {
  if constexpr (!is_bit_width_of(Bits, std::size_t{N}))
    return false;
  else if constexpr (Bits < 0)
    return requires {
      Quantizer<Bits>::group;
    };
  else
    return requires {
      Quantizer<Bits>::bound_count;
    };
}

/// Calls fn.operator()<Bits>() for the width of a patch, or fn.operator()<0>() if the quantizer
/// lacks that width. Callers refuse such widths beforehand.
template <template <int> class Quantizer, int N, class Fn>
DELTADCT_HD DELTADCT_INLINE decltype(auto) with_width(int bits, Fn&& fn) {
  const auto call = [&]<int Bits>() DELTADCT_INLINE_LAMBDA -> decltype(auto) {
    if constexpr (has_width<Quantizer, Bits, N>())
      return fn.template operator()<Bits>();
    else
      return fn.template operator()<0>();
  };
  switch (bits) {
    case -7:
      return call.template operator()<-7>();
    case -6:
      return call.template operator()<-6>();
    case -5:
      return call.template operator()<-5>();
    case -4:
      return call.template operator()<-4>();
    case -3:
      return call.template operator()<-3>();
    case -2:
      return call.template operator()<-2>();
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

/// Whether a quantizer has that width.
template <template <int> class Quantizer, int N>
bool has_width(int bits) noexcept {
  int found = 0;
  with_width<Quantizer, N>(bits, [&]<int Bits>() { found = Bits; });
  return found == bits;
}

/// The number of bounds that a patch of that width stores.
template <template <int> class Quantizer, int N>
int bound_count(int bits) noexcept {
  int count = 0;
  with_width<Quantizer, N>(bits, [&]<int Bits>() { count = Quantizer<Bits>::bound_count; });
  return count;
}

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
