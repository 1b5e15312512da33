// What a backend is: a tag type, and DctKernel specialised for it.
#pragma once

#include <deltadct/core/bits.hpp>
#include <deltadct/core/lanes.hpp>
#include <deltadct/dct/transform.hpp>

#include <concepts>
#include <cstddef>
#include <cstring>
#include <string_view>

namespace deltadct { inline namespace DELTADCT_ABI {

/// The kernels of a backend. Each backend specialises this template in backend/<name>/; including
/// that header makes the backend available to codecs. A specialisation has these static members:
///   name                                    the backend's name, for people
///   available()                             whether this machine can run it
///   Vector<T, P>                            the arithmetic type for P x P patches of T
///   unpack<Bits, N, V>(bytes, s)            Lanes<V>::count codes from code s on, as a V
///   pack<Bits, N, V>(bytes, code)           writes all N codes; code(s) returns those from s on
///   looks_up<Bits, V>                       whether lookup() exists
///   lookup<Bits, N, V>(bytes, s, levels)    what the codes stand for: code c is lane c of levels
///
/// An object holds what the transforms need and is cheap to copy. It has these members:
///   prepare<P, T>()                         makes what they need; only this may allocate or throw
///   forward<Transform, P, T>(source, sink)  the transform of one patch (see dct/transform.hpp)
///   inverse<Transform, P, T>(source, sink)
///   forward_patch<P, T>(from, to)           the orthonormal DCT of one patch in memory
///   inverse_patch<P, T>(from, to)
/// for P from 2 to 64. A backend writes one of the two pairs; FusedKernel and ArrayKernel add the
/// other. ScalarCodes has the members for codes if Vector<T, P> is T.
///
/// Coefficients are laid out transposed. With F = C X C^T, where k_row is the frequency along the
/// rows' index and k_column the one along the columns' index, forward_patch() must write
/// coefficient (k_row, k_column) to F[k_column * P + k_row], and inverse_patch() must read it
/// there. As products of matrices in memory, that is C (C X)^T, and C^T (C^T F^T)^T back. A patch
/// itself is row-major, x[row * P + column]. The other pair follows the same rule:
/// on the coefficient side, sources and sinks are indexed by (k_column, k_row). A transform that
/// ends after its second pass over columns has this layout by itself and saves a transpose.
///
/// The kernel of a device transforms many patches in device memory at once. It has only name,
/// available(), prepare() and, instead of both pairs, in the same layout,
///   forward_patches<P, T>(from, to, count)
///   inverse_patches<P, T>(from, to, count)
template <class Backend>
struct DctKernel;

namespace concepts {

/// A tag of a host or a device for which DctKernel is specialised. tests/backend/every checks that
/// the members do what is listed there, for every backend in tests/CMakeLists.txt.
template <class B>
concept Backend = requires {
  sizeof(DctKernel<B>);
  { DctKernel<B>::name } -> std::convertible_to<std::string_view>;
  { DctKernel<B>::available() } -> std::same_as<bool>;
};

}  // namespace concepts

/// The base of a kernel whose transform runs in registers, from any source to any sink. It derives
/// prepare(), forward_patch() and inverse_patch() from forward() and inverse().
template <class Kernel>
struct FusedKernel {
  template <int P, class T>
  void prepare() const noexcept {}

  template <int P, class T>
  void forward_patch(const T* patch, T* coefficients) const noexcept {
    self().template forward<Dct, P, T>(ArraySource<T, P>{patch},
                                       ScaledSink<T, P>{coefficients, T(1) / T(Dct::gain<P>)});
  }

  template <int P, class T>
  void inverse_patch(const T* coefficients, T* patch) const noexcept {
    self().template inverse<Dct, P, T>(ArraySource<T, P>{coefficients},
                                       ScaledSink<T, P>{patch, T(1) / T(Dct::gain<P>)});
  }

 private:
  const Kernel& self() const noexcept { return static_cast<const Kernel&>(*this); }
};

/// The base of a kernel that uses a library's transform from memory to memory. It derives forward()
/// and inverse() from forward_patch() and inverse_patch(). The library only runs the DCT, of
/// patches as they are or with signs changed; other transforms run one scalar at a time.
template <class Kernel>
struct ArrayKernel {
  template <class T, int P>
  using Vector = T;

  template <class Transform, int P, class T, class Source, class Sink>
  void forward(const Source& source, const Sink& sink) const noexcept {
    if constexpr (std::same_as<Transform, Dct>) {
      through_memory<P, T>(source, sink, [this](const T* patch, T* coefficients) {
        self().template forward_patch<P, T>(patch, coefficients);
      });
    } else if constexpr (concepts::MappedTransform<Transform>) {
      forward<typename Transform::Base, P, T>(MappedSource<Transform, P, Source>{source}, sink);
    } else {
      Transform::template forward<P, T>(source, sink);
    }
  }

  template <class Transform, int P, class T, class Source, class Sink>
  void inverse(const Source& source, const Sink& sink) const noexcept {
    if constexpr (std::same_as<Transform, Dct>) {
      through_memory<P, T>(source, sink, [this](const T* coefficients, T* patch) {
        self().template inverse_patch<P, T>(coefficients, patch);
      });
    } else if constexpr (concepts::MappedTransform<Transform>) {
      inverse<typename Transform::Base, P, T>(source, MappedSink<Transform, P, Sink>{sink});
    } else {
      Transform::template inverse<P, T>(source, sink);
    }
  }

 private:
  template <int P, class T, class Source, class Sink, class Fn>
  static void through_memory(const Source& source, const Sink& sink, Fn fn) noexcept {
    alignas(64) T from[P * P];
    alignas(64) T to[P * P];
    Identity::forward<P, T>(source, ArraySink<T, P>{from});
    fn(from, to);
    for (int i = 0; i < P; ++i) {
      for (int j = 0; j < P; ++j) sink.store(i, j, to[i * P + j] * T(Dct::gain<P>));
    }
  }

  const Kernel& self() const noexcept { return static_cast<const Kernel&>(*this); }
};

/// Packs and unpacks codes for kernels whose arithmetic type is a scalar.
struct ScalarCodes {
  template <int Bits, class V>
  static constexpr bool looks_up = false;

  template <int Bits, int N, class V>
  static V unpack(const std::byte* bytes, int s) noexcept {
    return static_cast<V>(bits::get<Bits, N>(bytes, s));
  }

  template <int Bits, int N, class V, class Code>
  static void pack(std::byte* bytes, Code code) noexcept {
    std::memset(bytes, 0, code_bytes(Bits, N));
    for (int s = 0; s < N; ++s) {
      bits::put<Bits, N>(bytes, s, static_cast<std::uint32_t>(code(s)));
    }
  }
};

/// The orthonormal 2-D DCT of `count` P x P patches, 2 <= P <= 64, which lie one after another,
/// each row-major. Coefficients are written transposed: coefficient (k_row, k_column) of a patch
/// goes to F[k_column * P + k_row]. Both arrays must be aligned to 64 bytes and must not overlap.
/// If a kernel needs preparing, keep one for many calls; the first call then throws what prepare()
/// throws.
template <class Backend, int P, class T>
void forward_dct(const T* patches, T* coefficients, std::size_t count = 1,
                 const DctKernel<Backend>& kernel = {}) {
  static_assert(is_transform_size(P), "P must be between 2 and 64");
  kernel.template prepare<P, T>();
  if constexpr (requires { kernel.template forward_patches<P, T>(patches, coefficients, count); }) {
    kernel.template forward_patches<P, T>(patches, coefficients, count);
  } else {
    for (std::size_t s = 0; s < count * P * P; s += P * P) {
      kernel.template forward_patch<P, T>(patches + s, coefficients + s);
    }
  }
}

/// The inverse of forward_dct(), from the same transposed layout.
template <class Backend, int P, class T>
void inverse_dct(const T* coefficients, T* patches, std::size_t count = 1,
                 const DctKernel<Backend>& kernel = {}) {
  static_assert(is_transform_size(P), "P must be between 2 and 64");
  kernel.template prepare<P, T>();
  if constexpr (requires { kernel.template inverse_patches<P, T>(coefficients, patches, count); }) {
    kernel.template inverse_patches<P, T>(coefficients, patches, count);
  } else {
    for (std::size_t s = 0; s < count * P * P; s += P * P) {
      kernel.template inverse_patch<P, T>(coefficients + s, patches + s);
    }
  }
}

}}  // namespace deltadct::inline DELTADCT_ABI
