// What a backend is: a type that names where and with what the kernels run, and DctKernel<Backend>
// specialised for it.
#pragma once

#include <deltadct/core/lanes.hpp>
#include <deltadct/dct/transform.hpp>

#include <cstddef>
#include <string_view>

namespace deltadct::inline DELTADCT_ABI {

/// The kernels of a backend. Declared here, specialised in backend/<name>/; including that header
/// is what makes a backend available to a codec. A specialisation gives
///   name                                    of the backend, for people
///   available()                             whether this machine can run it
///   Vector<T, P>                            the arithmetic type for P x P patches of T
///   forward<Transform, P, T>(source, sink)  the transform of one patch (see dct/transform.hpp)
///   inverse<Transform, P, T>(source, sink)
///   unpack<Bits, N, V>(bytes, s)            Lanes<V>::count codes from code s on, as V
///   pack<Bits, N, V>(bytes, code)           writes all N codes; code(s) yields those from s on
template <class Backend>
struct DctKernel;

/// Reads P * P values of T from memory.
template <class T>
struct ArraySource {
  const T* from;

  template <class V>
  DELTADCT_INLINE V load(int s) const noexcept {
    return Lanes<V>::load(from + s);
  }
};

/// Writes P * P values, times a factor, to memory.
template <class T>
struct ArraySink {
  T* to;

  template <class V>
  DELTADCT_INLINE void store(int s, V x) const noexcept {
    Lanes<V>::store(to + s, x);
  }
};

namespace detail {
template <class T>
struct ScaledSink {
  T* to;
  T factor;

  template <class V>
  DELTADCT_INLINE void store(int s, V x) const noexcept {
    Lanes<V>::store(to + s, x * V(factor));
  }
};
}  // namespace detail

/// The orthonormal 2-D DCT of one P x P patch, row-major, on a backend: coefficients come out
/// transposed, F[k_column * P + k_row]. Both arrays are aligned to 64 bytes and do not overlap.
template <class Backend, int P, class T>
void forward_dct(const T* patch, T* coefficients) noexcept {
  static_assert(is_patch_size(P), "P must be 4, 8, 12, 16, 32 or 64");
  DctKernel<Backend>::template forward<Dct, P, T>(
      ArraySource<T>{patch}, detail::ScaledSink<T>{coefficients, T(1) / T(Dct::gain<P>)});
}

/// The inverse of forward_dct().
template <class Backend, int P, class T>
void inverse_dct(const T* coefficients, T* patch) noexcept {
  static_assert(is_patch_size(P), "P must be 4, 8, 12, 16, 32 or 64");
  DctKernel<Backend>::template inverse<Dct, P, T>(
      ArraySource<T>{coefficients}, detail::ScaledSink<T>{patch, T(1) / T(Dct::gain<P>)});
}

}  // namespace deltadct::inline DELTADCT_ABI
