// One patch through a policy's stages on a backend, and back.
#pragma once

#include <deltadct/backend/kernel.hpp>
#include <deltadct/compressed_tensor.hpp>
#include <deltadct/policy.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace deltadct::inline DELTADCT_ABI::detail {

/// Calls fn.operator()<Bits>() for a valid bit width.
template <class Fn>
DELTADCT_INLINE decltype(auto) with_bits(int bits, Fn&& fn) {
  switch (bits) {
    case 1:
      return fn.template operator()<1>();
    case 2:
      return fn.template operator()<2>();
    case 3:
      return fn.template operator()<3>();
    case 4:
      return fn.template operator()<4>();
    case 6:
      return fn.template operator()<6>();
    case 8:
      return fn.template operator()<8>();
    default:
      return fn.template operator()<0>();
  }
}

/// Dequantized coefficients, straight from the packed codes.
template <class Kernel, int Bits, int N, class Decoder>
struct CodeSource {
  const std::byte* codes;
  Decoder decoder;

  template <class V>
  DELTADCT_INLINE V load(int s) const noexcept {
    return decoder(Kernel::template unpack<Bits, N, V>(codes, s));
  }
};

/// The stages of a policy, wired for one patch. T is the compute type; a patch is P * P values,
/// row-major, aligned to 64 bytes. The kernels stay out of line: a call a patch costs nothing, and
/// whatever the matrices hold, one copy of each serves encoding and decoding.
template <class Policy, class Backend>
struct PatchCodec {
  using T = compute_t<typename Policy::Element>;
  using Bound = typename Policy::Bound;
  using Transform = typename Policy::Transform;
  using Rescale = typename Policy::Rescale;
  using Kernel = DctKernel<Backend>;
  static constexpr int P = Policy::patch;
  static constexpr int N = P * P;
  using V = typename Kernel::template Vector<T, P>;
  template <int Bits>
  using Quantizer = typename Policy::template Quantizer<Bits>;

  /// The values a patch of that many bits stores beside its codes.
  static int side_values(int bits) noexcept {
    return with_bits(bits, []<int Bits>() -> int { return Quantizer<Bits>::side_values; });
  }

  static constexpr T gain = static_cast<T>(Transform::template gain<P>);

  /// Writes factor * (the patch that decodes from codes and bounds).
  template <int Bits>
  DELTADCT_INLINE static void decode(const Kernel& kernel, const std::byte* codes,
                                     const std::byte* bounds, DType bound, T factor,
                                     T* patch) noexcept {
    using Q = Quantizer<Bits>;
    T side[Q::side_values];
    for (int k = 0; k < Q::side_values; ++k) side[k] = load_bound<T>(bounds, bound, k);
    if constexpr (Bits == 0)
      std::fill_n(patch, N, factor * side[0]);
    else
      reconstruct<Bits>(kernel, codes, side, factor / gain, patch);
  }

  /// Quantizes a patch into codes and bounds. Returns false where the bounds cannot be
  /// stored or computed with.
  template <int Bits>
  DELTADCT_NOINLINE static bool encode(const Kernel& kernel, const T* patch, std::byte* codes,
                                       std::byte* bounds) noexcept {
    using Q = Quantizer<Bits>;
    alignas(64) T coefficients[N];
    transform(kernel, patch, coefficients);
    // Weights near the type's limit can overflow into NaN, which a minimum would not show.
    if (!all_finite(coefficients, N)) return false;
    T side[Q::side_values];
    Q::template fit<V>(coefficients, N, side);
    for (int k = 0; k < Q::side_values; ++k) {
      side[k] = store_bound<Bound>(bounds, k, side[k] / gain);
    }
    if (!all_finite(side, Q::side_values) || !Q::representable(side, gain)) return false;
    const typename Q::template Encoder<V> encoder(side, gain);
    Kernel::template pack<Bits, N, V>(codes, [&](int s) DELTADCT_INLINE_LAMBDA {
      return encoder(Lanes<V>::load(coefficients + s));
    });
    return true;
  }

  /// What no element that decodes from such bounds exceeds: it is at most the norm of its patch,
  /// and that P times the largest coefficient.
  static double largest_value(int bits, const std::byte* bounds, DType bound) noexcept {
    double largest = 0;
    for (int k = 0; k < side_values(bits); ++k) {
      largest = std::max(largest, static_cast<double>(std::abs(load_bound<T>(bounds, bound, k))));
    }
    return bits == 0 ? largest : P * largest;
  }

  static bool is_finite(double value) noexcept {
    return std::abs(value) <= std::numeric_limits<T>::max();
  }

  /// Throws corrupt_data unless encode() could have written codes and bounds.
  static void validate(int bits, const std::byte* codes, const std::byte* bounds, DType bound) {
    with_bits(bits, [&]<int Bits>() {
      if constexpr (Bits != 0) {
        using Q = Quantizer<Bits>;
        T side[Q::side_values];
        for (int k = 0; k < Q::side_values; ++k) side[k] = load_bound<T>(bounds, bound, k);
        if (!Q::representable(side, T(1))) fail_validation("bounds of a patch");
        // Where every code means the same, there is one way to write them.
        const typename Q::template Decoder<T> decoder(side, T(1));
        if (decoder(T(0)) != decoder(T((1 << Bits) - 1))) return;
        const auto zero = [](std::byte byte) { return byte == std::byte{0}; };
        if (!std::all_of(codes, codes + code_bytes(Bits, std::size_t{N}), zero)) {
          fail_validation("codes of a patch whose bounds are equal");
        }
      }
    });
  }

  /// Writes what a patch without bits stores; returns it as a decoder will see it.
  static T encode_constant(T mean, std::byte* bounds) noexcept {
    return store_bound<Bound>(bounds, 0, Quantizer<0>::template constant<T>(mean));
  }

  /// The sum over the patch's real elements of what Rescale compares with the original.
  template <int Bits>
  static double compare(const Kernel& kernel, const T* patch, const PatchExtent& extent,
                        const std::byte* codes, const std::byte* bounds) noexcept {
    alignas(64) T decoded[N];
    decode<Bits>(kernel, codes, bounds, dtype_of<Bound>(), T(1), decoded);
    if (extent.elements() != N) clear_padding(extent, decoded);
    V sum(T(0));
    for (int s = 0; s < N; s += Lanes<V>::count) {
      sum = sum + Rescale::pair(Lanes<V>::load(patch + s), Lanes<V>::load(decoded + s));
    }
    return static_cast<double>(reduce_lanes(sum, [](T a, T b) { return a + b; }));
  }

 private:
  // gain times the coefficients.
  DELTADCT_NOINLINE static void transform(const Kernel& kernel, const T* patch,
                                          T* coefficients) noexcept {
    kernel.template forward<Transform, P, T>(ArraySource<T>{patch}, ArraySink<T>{coefficients});
  }

  template <int Bits>
  DELTADCT_NOINLINE static void reconstruct(const Kernel& kernel, const std::byte* codes,
                                            const T (&side)[Quantizer<Bits>::side_values], T factor,
                                            T* patch) noexcept {
    using Decoder = typename Quantizer<Bits>::template Decoder<V>;
    kernel.template inverse<Transform, P, T>(
        CodeSource<Kernel, Bits, N, Decoder>{codes, Decoder(side, factor)}, ArraySink<T>{patch});
  }

  static void clear_padding(const PatchExtent& extent, T* patch) noexcept {
    for (std::size_t i = 0; i < P; ++i) {
      for (std::size_t j = i < extent.rows ? extent.cols : 0; j < P; ++j) patch[i * P + j] = 0;
    }
  }
};

}  // namespace deltadct::inline DELTADCT_ABI::detail
