// From patches to packed codes: transform, fit the bounds, quantize, pack, and compare with the
// decoded patch.
#pragma once

#include <deltadct/codec/host/dequantize.hpp>
#include <deltadct/codec/outcome.hpp>
#include <deltadct/codec/plan.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// Writes a decoded patch to memory and sums what Rescale compares with the original patch.
template <class Rescale, class T, int P, class V>
struct ComparingSink {
  static constexpr int kSums = 4;  // independent chains of additions

  T* to;
  const T* patch;
  V* sums;

  template <class X>
  DELTADCT_HD DELTADCT_INLINE void store(int i, int j, X x) const noexcept {
    static_assert(std::is_same_v<X, V> || ColumnGroups<P, V>::mixed,
                  "an inverse transform stores registers of the type it is given");
    Lanes<X>::store_elements(to + i * P + j, x);
    if constexpr (std::is_same_v<X, V>) {
      sums[i % kSums] =
          sums[i % kSums] + Rescale::reconstructed(Lanes<V>::load(patch + i * P + j), x);
    }
  }
};

/// Whether all codes decode to the same value. They are then stored as zero, so that there is only
/// one way to write them.
template <class Q, int Bits, class T>
bool is_flat(const T (&bounds)[Q::bound_count]) noexcept {
  if constexpr (Bits < 0) {
    return bounds[0] == 0;
  } else {
    const typename Q::template Decoder<T> decoder(bounds, T(1));
    return decoder(T(0)) == decoder(T((1 << Bits) - 1));
  }
}

/// An upper bound of the magnitudes that decode from such bounds.
template <class Policy>
double largest_element(int bits, const std::byte* stored, DType bound) noexcept {
  using T = compute_t<typename Policy::Element>;
  constexpr int N = Policy::patch * Policy::patch;
  return with_width<Policy::template Quantizer, N>(bits, [&]<int Bits>() -> double {
    using Q = typename Policy::template Quantizer<Bits>;
    T bounds[Q::bound_count];
    load_bounds(stored, bound, bounds);
    if constexpr (Bits == 0)
      return std::abs(static_cast<double>(bounds[0]));
    else
      return largest_element<Policy>(Q::largest(bounds));
  });
}

/// Throws corrupt_data unless an encoder could have written these codes and bounds of a patch.
template <class Policy>
void validate_patch(int bits, const std::byte* codes, const std::byte* stored, DType bound) {
  using T = compute_t<typename Policy::Element>;
  constexpr int N = Policy::patch * Policy::patch;
  with_width<Policy::template Quantizer, N>(bits, [&]<int Bits>() {
    if constexpr (Bits != 0) {
      using Q = typename Policy::template Quantizer<Bits>;
      T bounds[Q::bound_count];
      load_bounds(stored, bound, bounds);
      if (!Q::representable(bounds, T(1))) fail_validation("bounds of a patch");
      if constexpr (Bits < 0) {
        if (!Q::is_padded(codes, N)) fail_validation("padding of codes is not zero");
      }
      const auto is_zero = [](std::byte byte) { return byte == std::byte{0}; };
      if (is_flat<Q, Bits>(bounds) &&
          !std::all_of(codes, codes + code_bytes(Bits, std::size_t{N}), is_zero)) {
        fail_validation("codes of a patch whose bounds are equal");
      }
    }
  });
}

/// The encoding stages of a policy, for one patch; see PatchDecoder.
template <class Policy, class Backend>
struct PatchEncoder {
  using Decoder = PatchDecoder<Policy, Backend>;
  using T = typename Decoder::T;
  using V = typename Decoder::V;
  using Kernel = typename Decoder::Kernel;
  using Bound = typename Policy::Bound;
  using Rescale = typename Policy::Rescale;
  static constexpr int P = Decoder::P;
  static constexpr int N = Decoder::N;
  static constexpr T gain = Decoder::gain;
  static constexpr bool compares_coefficients = Plan<Policy>::compares_coefficients;

  /// Computes gain times the coefficients of a patch.
  DELTADCT_NOINLINE static void transform(const Kernel& kernel, const T* patch,
                                          T* coefficients) noexcept {
    kernel.template forward<typename Policy::Transform, P, T>(ArraySource<T, P>{patch},
                                                              ArraySink<T, P>{coefficients});
  }

  /// Quantizes such coefficients into codes of `bits` bits, not 0, and bounds. Adds to `sums` what
  /// was lost and, if coefficients suffice, what Rescale compares. Returns false if the bounds
  /// cannot be stored or computed with.
  static bool quantize(int bits, const T* coefficients, std::byte* codes, std::byte* bounds,
                       PatchSums& sums) noexcept {
    return with_width<Policy::template Quantizer, N>(bits, [&]<int Bits>() {
      if constexpr (Bits == 0)
        return false;
      else
        return quantize<Bits>(coefficients, codes, bounds, sums);
    });
  }

  /// Stores the constant of a patch without codes. Returns it as a decoder will see it.
  static T encode_constant(T mean, std::byte* bounds) noexcept {
    return store_bound<Bound>(bounds, 0, Quantizer<0>::constant(mean));
  }

  /// Rescale's sum over the real elements of the original and the decoded patch.
  static double compare(const Kernel& kernel, const T* patch, const PatchExtent& extent, int bits,
                        const std::byte* codes, const std::byte* bounds) noexcept {
    using Sink = ComparingSink<Rescale, T, P, V>;
    alignas(64) T decoded[N];
    V sums[Sink::kSums] = {V(T(0)), V(T(0)), V(T(0)), V(T(0))};
    Decoder::decode_unpacked(kernel, PatchRun{bits, codes, bounds, dtype_of<Bound>(), 1}, T(1),
                             [&](std::size_t) DELTADCT_INLINE_LAMBDA {
                               return Sink{decoded, patch, sums};
                             });
    V sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    // Sum again if the sums include padding, or leave out values in wider registers.
    if (ColumnGroups<P, V>::mixed || extent.elements() != N) {
      clear_padding(extent, decoded);
      sum = V(T(0));
      for (int s = 0; s < N; s += Lanes<V>::count) {
        sum = sum + Rescale::reconstructed(Lanes<V>::load(patch + s), Lanes<V>::load(decoded + s));
      }
    }
    return static_cast<double>(reduce_lanes(sum, [](T a, T b) { return a + b; }));
  }

 private:
  template <int Bits>
  using Quantizer = typename Policy::template Quantizer<Bits>;

  template <int Bits>
  DELTADCT_NOINLINE static bool quantize(const T* coefficients, std::byte* codes, std::byte* stored,
                                         PatchSums& sums) noexcept {
    using Q = Quantizer<Bits>;
    // Weights near the type's limit can overflow into NaN, which a minimum would hide.
    if (!all_finite(coefficients, N)) return false;
    T bounds[Q::bound_count];
    const auto fitted = fit<Bits>(coefficients, codes, bounds);
    T lost = 0;
    for (int k = 0; k < Q::bound_count; ++k) {
      const T exact = bounds[k];
      bounds[k] = store_bound<Bound>(stored, k, exact / gain);
      lost = std::max(lost, lost_of(exact, gain * bounds[k]));
    }
    if (!all_finite(bounds, Q::bound_count) || !Q::representable(bounds, gain)) return false;
    if (is_flat<Q, Bits>(bounds)) {
      std::memset(codes, 0, code_bytes(Bits, N));
    } else if constexpr (Bits > 0) {
      const typename Q::template Encoder<V> encoder(bounds, fitted, gain);
      Kernel::template pack<Bits, N, V>(codes, [&](int s) DELTADCT_INLINE_LAMBDA {
        return encoder(Lanes<V>::load(coefficients + s));
      });
    }
    if constexpr (compares_coefficients) {
      if constexpr (std::same_as<std::remove_cvref_t<decltype(fitted)>, Fit<T>>) {
        sums.original += fitted.original(gain);
        sums.reconstructed += fitted.reconstructed(gain, static_cast<double>(bounds[0]));
      } else {
        compare_coefficients(coefficients, Bits, codes, stored, sums);
      }
    }
    if constexpr (requires { Q::lost(bounds, gain); }) {
      lost = std::max(lost, Q::lost(bounds, gain));
    }
    sums.lost = std::max(sums.lost, lost_element<Policy>(lost));
    return true;
  }

  /// Computes the bounds for gain times the coefficients. Widths below one bit also write their
  /// codes.
  template <int Bits>
  static auto fit(const T* coefficients, std::byte* codes,
                  T (&bounds)[Quantizer<Bits>::bound_count]) noexcept {
    if constexpr (Bits < 0) {
      const Fit<T> fitted = Quantizer<Bits>::template encode<V>(coefficients, N, codes);
      bounds[0] = fitted.step();
      return fitted;
    } else {
      return Quantizer<Bits>::template fit<V>(coefficients, N, bounds);
    }
  }

  // Adds Rescale's sums over the coefficients, which are given times gain. The unit keeps products
  // of values of any size in range.
  static void compare_coefficients(const T* coefficients, int bits, const std::byte* codes,
                                   const std::byte* bounds, PatchSums& sums) noexcept {
    alignas(64) T decoded[N];
    const T unit = energy_of<V>(coefficients, N).unit;
    Decoder::unpack(PatchRun{bits, codes, bounds, dtype_of<Bound>(), 1}, 0, unit * gain, decoded);
    V original(T(0));
    V reconstructed(T(0));
    for (int s = 0; s < N; s += Lanes<V>::count) {
      const V x = Lanes<V>::load(coefficients + s) * V(unit);
      original = original + Rescale::original(x);
      reconstructed = reconstructed + Rescale::reconstructed(x, Lanes<V>::load(decoded + s));
    }
    const auto sum = [&](V x) {
      const T lanes = reduce_lanes(x, [](T a, T b) { return a + b; });
      const double units = static_cast<double>(unit) * static_cast<double>(gain);
      return static_cast<double>(lanes) / units / units;
    };
    sums.original += sum(original);
    sums.reconstructed += sum(reconstructed);
  }

  static void clear_padding(const PatchExtent& extent, T* patch) noexcept {
    for (std::size_t i = 0; i < P; ++i) {
      for (std::size_t j = i < extent.rows ? extent.cols : 0; j < P; ++j) patch[i * P + j] = 0;
    }
  }
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
