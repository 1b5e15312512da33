// One patch through a policy's stages on a backend, and back.
#pragma once

#include <deltadct/backend/kernel.hpp>
#include <deltadct/codec/code_source.hpp>
#include <deltadct/compressed_tensor.hpp>
#include <deltadct/core/spread.hpp>
#include <deltadct/policy.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace deltadct::inline DELTADCT_ABI::detail {

/// Makes a header that of a policy's tensor, without classes; whose memory it keeps.
template <class Policy>
void begin_header(TensorHeader& header, std::size_t rows, std::size_t cols) {
  header.rows = rows;
  header.cols = cols;
  header.patch = Policy::patch;
  header.transform = Policy::Transform::name;
  header.quantizer = Policy::template Quantizer<0>::name;
  header.bound = dtype_of<typename Policy::Bound>();
  header.classes.clear();
}

/// Patches of one width whose codes and bounds follow each other.
struct PatchRun {
  int bits;
  const std::byte* codes;
  const std::byte* bounds;
  DType bound;
  std::size_t count;
};

/// Writes a patch to memory and adds up what Rescale compares with the original patch.
template <class Rescale, class T, int P, class V>
struct ComparingSink {
  static constexpr int kSums = 4;  // independent chains of additions

  T* to;
  const T* patch;
  V* sums;

  template <class X>
  DELTADCT_INLINE void store(int i, int j, X x) const noexcept {
    static_assert(std::is_same_v<X, V> || ColumnGroups<P, V>::mixed,
                  "an inverse transform stores registers of the type it is given");
    Lanes<X>::store_elements(to + i * P + j, x);
    if constexpr (std::is_same_v<X, V>) {
      sums[i % kSums] = sums[i % kSums] + Rescale::pair(Lanes<V>::load(patch + i * P + j), x);
    }
  }
};

/// The stages of a policy, wired for one patch. T is the compute type; a patch is P * P values,
/// row-major, aligned to 64 bytes. The kernels stay out of line: a call a patch costs nothing, and
/// one copy of each serves all that ends in the same sink.
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
  using Wide = typename Kernel::template Vector<T, 64>;  // the widest there is
  template <int Bits>
  using Quantizer = typename Policy::template Quantizer<Bits>;

  /// Whether patches can have that width.
  static bool has_width(int bits) noexcept {
    if (bits < 0) return shares_codes && is_bit_width_of(bits, N);
    constexpr auto has = []<int... Bits>(int b, std::integer_sequence<int, Bits...>) {
      return ((b == Bits && detail::has_width<Policy::template Quantizer, Bits>) || ...);
    };
    return has(bits, std::integer_sequence<int, 0, 1, 2, 3, 4, 6, 8>{});
  }

  /// The values a patch of that width stores beside its codes.
  static int side_values(int bits) noexcept {
    if (bits < 0) return 1;
    return with_bits<Policy::template Quantizer>(
        bits, [&]<int Bits>() -> int { return Quantizer<Bits>::side_values; });
  }

  static constexpr T gain = static_cast<T>(Transform::template gain<P>);

  static constexpr bool shares_codes = detail::shares_codes<Policy::template Quantizer>;

  /// Hands factor * (the patches that decode from a run) to sinks(0), sinks(1), ... Codes become
  /// coefficients in the registers that the transform takes, where that is a matter of looking them
  /// up; else in memory, which costs a little time, and spares compilers a copy of the transform
  /// for every width.
  template <class Sinks>
  static void decode(const Kernel& kernel, const PatchRun& run, T factor,
                     const Sinks& sinks) noexcept {
    if (shares_codes && run.bits < 0) return decode_unpacked(kernel, run, factor, sinks);
    with_bits<Policy::template Quantizer>(run.bits, [&]<int Bits>() {
      if constexpr (Bits == 0)
        decode_constants(run, factor, sinks);
      else if constexpr (P <= 16 && Kernel::template looks_up<Bits, V>)
        decode_fused<Bits>(kernel, run, factor, sinks);
      else
        decode_unpacked(kernel, run, factor, sinks);
    });
  }

  /// gain times the coefficients of a patch.
  DELTADCT_NOINLINE static void transform(const Kernel& kernel, const T* patch,
                                          T* coefficients) noexcept {
    kernel.template forward<Transform, P, T>(ArraySource<T, P>{patch},
                                             ArraySink<T, P>{coefficients});
  }

  static constexpr bool compares_coefficients = detail::compares_coefficients<Policy>;

  /// What Rescale compares, of a patch and of its reconstruction; and how far a coefficient times
  /// gain may be from what it would be, were its bounds not too small to be stored.
  struct Comparison {
    double original = 0;
    double reconstructed = 0;
    double lost = 0;
  };

  /// Quantizes them into codes of `bits` bits, not 0, and bounds. Returns false where the bounds
  /// cannot be stored or computed with. Compares them, where coefficients can be.
  static bool quantize(int bits, const T* coefficients, std::byte* codes, std::byte* bounds,
                       Comparison& compared) noexcept {
    if (shares_codes && bits < 0) {
      return quantize_shared(-bits, coefficients, codes, bounds, compared);
    }
    return with_bits<Policy::template Quantizer>(bits, [&]<int Bits>() {
      if constexpr (Bits == 0)
        return false;
      else
        return quantize<Bits>(coefficients, codes, bounds, compared);
    });
  }

  /// What no element that decodes from such bounds exceeds: it is at most the norm of its patch,
  /// and that P times the largest coefficient.
  static double largest_value(int bits, const std::byte* bounds, DType bound) noexcept {
    const auto step = [&] {
      return static_cast<double>(std::abs(load_bound<T>(bounds, bound, 0)));
    };
    if (bits < 0) return P * step();
    return with_bits<Policy::template Quantizer>(bits, [&]<int Bits>() {
      if constexpr (Bits == 0) {
        return step();
      } else {
        Side<Bits> side;
        load_side<Bits>(bounds, bound, side);
        return P * static_cast<double>(Quantizer<Bits>::largest(side));
      }
    });
  }

  /// Throws corrupt_data unless encode() could have written codes and bounds.
  static void validate(int bits, const std::byte* codes, const std::byte* bounds, DType bound) {
    const auto is_zero = [](std::byte byte) { return byte == std::byte{0}; };
    const auto require_zeros = [&] {
      if (!std::all_of(codes, codes + code_bytes(bits, std::size_t{N}), is_zero)) {
        fail_validation("codes of a patch whose bounds are equal");
      }
    };
    if (bits < 0) {
      const T step = load_bound<T>(bounds, bound, 0);
      if (!(step >= 0)) fail_validation("bounds of a patch");
      if (!LargestOf::is_padded(-bits, codes, N)) fail_validation("padding of codes is not zero");
      if (step == 0) require_zeros();
      return;
    }
    with_bits<Policy::template Quantizer>(bits, [&]<int Bits>() {
      if constexpr (Bits != 0) {
        using Q = Quantizer<Bits>;
        Side<Bits> side;
        load_side<Bits>(bounds, bound, side);
        if (!Q::representable(side, T(1))) fail_validation("bounds of a patch");
        if (is_flat<Bits>(side)) require_zeros();
      }
    });
  }

  /// Writes what a patch without bits stores; returns it as a decoder will see it.
  static T encode_constant(T mean, std::byte* bounds) noexcept {
    return store_bound<Bound>(bounds, 0, Quantizer<0>::template constant<T>(mean));
  }

  /// The sum over the patch's real elements of what Rescale compares with the original.
  static double compare(const Kernel& kernel, const T* patch, const PatchExtent& extent, int bits,
                        const std::byte* codes, const std::byte* bounds) noexcept {
    using Sink = ComparingSink<Rescale, T, P, V>;
    alignas(64) T decoded[N];
    V sums[Sink::kSums] = {V(T(0)), V(T(0)), V(T(0)), V(T(0))};
    decode_unpacked(kernel, PatchRun{bits, codes, bounds, dtype_of<Bound>(), 1}, T(1),
                    [&](std::size_t) DELTADCT_INLINE_LAMBDA {
                      return Sink{decoded, patch, sums};
                    });
    V sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    // Where padding, or registers of two widths, are not in the sums as they should be.
    if (Groups::mixed || extent.elements() != N) {
      clear_padding(extent, decoded);
      sum = V(T(0));
      for (int s = 0; s < N; s += Lanes<V>::count) {
        sum = sum + Rescale::pair(Lanes<V>::load(patch + s), Lanes<V>::load(decoded + s));
      }
    }
    return static_cast<double>(reduce_lanes(sum, [](T a, T b) { return a + b; }));
  }

 private:
  using Groups = ColumnGroups<P, V>;
  template <int Bits>
  using Source = std::conditional_t<
      Groups::mixed,
      CodeSource<Kernel, Bits, P, Policy::template Quantizer, typename Groups::Wide, V>,
      CodeSource<Kernel, Bits, P, Policy::template Quantizer, V>>;
  template <int Bits>
  using Side = T[Quantizer<Bits>::side_values];

  template <int Bits>
  DELTADCT_INLINE static void load_side(const std::byte* bounds, DType bound,
                                        Side<Bits>& side) noexcept {
    for (int k = 0; k < Quantizer<Bits>::side_values; ++k)
      side[k] = load_bound<T>(bounds, bound, k);
  }

  static std::size_t bounds_bytes(const PatchRun& run) noexcept {
    return static_cast<std::size_t>(side_values(run.bits)) * dtype_bytes(run.bound);
  }

  template <class Sinks>
  DELTADCT_NOINLINE static void decode_constants(const PatchRun& run, T factor,
                                                 const Sinks& sinks) noexcept {
    const std::size_t step = bounds_bytes(run);
    for (std::size_t k = 0; k < run.count; ++k) {
      Side<0> side;
      load_side<0>(run.bounds + k * step, run.bound, side);
      fill(factor * side[0], sinks(k));
    }
  }

  template <int Bits, class Sinks>
  DELTADCT_NOINLINE static void decode_fused(const Kernel& kernel, const PatchRun& run, T factor,
                                             const Sinks& sinks) noexcept {
    const std::size_t step = bounds_bytes(run);
    const auto source_of = [&](std::size_t k) DELTADCT_INLINE_LAMBDA {
      Side<Bits> side;
      load_side<Bits>(run.bounds + k * step, run.bound, side);
      return Source<Bits>(run.codes + k * code_bytes(Bits, N), side, factor / gain);
    };
    // The next patch's levels are found before this one's transform, which they would delay.
    auto next = source_of(0);
    for (std::size_t k = 0; k < run.count; ++k) {
      const auto source = next;
      next = source_of(std::min(k + 1, run.count - 1));
      kernel.template inverse<Transform, P, T>(source, sinks(k));
    }
  }

  template <class Sinks>
  DELTADCT_NOINLINE static void decode_unpacked(const Kernel& kernel, const PatchRun& run, T factor,
                                                const Sinks& sinks) noexcept {
    alignas(64) T coefficients[N];
    for (std::size_t k = 0; k < run.count; ++k) {
      unpack(run, k, factor / gain, coefficients);
      inverse(kernel, coefficients, sinks(k));
    }
  }

  // The sums over gain times the coefficients of a patch, whatever their range.
  static Comparison compare_coefficients(const T* coefficients, int bits, const std::byte* codes,
                                         const std::byte* bounds) noexcept {
    alignas(64) T decoded[N];
    const T unit = spread_of<V>(coefficients, N).unit;
    unpack(PatchRun{bits, codes, bounds, dtype_of<Bound>(), 1}, 0, unit * gain, decoded);
    V original(T(0));
    V reconstructed(T(0));
    for (int s = 0; s < N; s += Lanes<V>::count) {
      const V x = Lanes<V>::load(coefficients + s) * V(unit);
      original = original + Rescale::original(x);
      reconstructed = reconstructed + Rescale::pair(x, Lanes<V>::load(decoded + s));
    }
    const auto sum = [&](V x) {
      const T lanes = reduce_lanes(x, [](T a, T b) { return a + b; });
      const double units = static_cast<double>(unit) * static_cast<double>(gain);
      return static_cast<double>(lanes) / units / units;
    };
    return {sum(original), sum(reconstructed)};
  }

  template <int Bits>
  DELTADCT_NOINLINE static bool quantize(const T* coefficients, std::byte* codes, std::byte* bounds,
                                         Comparison& compared) noexcept {
    using Q = Quantizer<Bits>;
    // Weights near the type's limit can overflow into NaN, which a minimum would not show.
    if (!all_finite(coefficients, N)) return false;
    Side<Bits> side;
    const auto fitted = Q::template fit<V>(coefficients, N, side);
    T lost = 0;
    for (int k = 0; k < Q::side_values; ++k) {
      const T exact = side[k];
      side[k] = store_bound<Bound>(bounds, k, exact / gain);
      lost = std::max(lost, lost_of(exact, gain * side[k]));
    }
    if (!all_finite(side, Q::side_values) || !Q::representable(side, gain)) return false;
    if (is_flat<Bits>(side)) {
      std::memset(codes, 0, code_bytes(Bits, N));
    } else {
      const typename Q::template Encoder<V> encoder(side, fitted, gain);
      Kernel::template pack<Bits, N, V>(codes, [&](int s) DELTADCT_INLINE_LAMBDA {
        return encoder(Lanes<V>::load(coefficients + s));
      });
    }
    if constexpr (compares_coefficients) {
      if constexpr (std::same_as<std::remove_cvref_t<decltype(fitted)>, Fit<T>>)
        compared = comparison(fitted, side[0]);
      else
        compared = compare_coefficients(coefficients, Bits, codes, bounds);
    }
    if constexpr (requires { Q::lost(side, gain); }) lost = std::max(lost, Q::lost(side, gain));
    compared.lost = static_cast<double>(lost);
    return true;
  }

  // What was fitted says it all.
  static Comparison comparison(const Fit<T>& fit, T step) noexcept {
    return {fit.original(gain), fit.reconstructed(gain, static_cast<double>(step))};
  }

  // The same for codes that 2^k coefficients share.
  DELTADCT_NOINLINE static bool quantize_shared(int k, const T* coefficients, std::byte* codes,
                                                std::byte* bounds, Comparison& compared) noexcept {
    if (!all_finite(coefficients, N)) return false;
    const Fit<T> fit = LargestOf::encode<V>(k, coefficients, N, codes);
    const T stored = store_bound<Bound>(bounds, 0, fit.step() / gain);
    if (stored == 0) std::memset(codes, 0, code_bytes(-k, N));
    compared = comparison(fit, stored);
    compared.lost = static_cast<double>(lost_of(fit.step(), gain * stored));
    return all_finite(&stored, 1);
  }

  // Whether all codes stand for the same; they are then zero, so that there is one way to write
  // them.
  template <int Bits>
  static bool is_flat(const Side<Bits>& side) noexcept {
    const typename Quantizer<Bits>::template Decoder<T> decoder(side, T(1));
    return decoder(T(0)) == decoder(T((1 << Bits) - 1));
  }

  // The coefficients of patch k of a run, times factor, in the order of the codes.
  static void unpack(const PatchRun& run, std::size_t k, T factor, T* coefficients) noexcept {
    const std::byte* codes = run.codes + k * code_bytes(run.bits, N);
    const std::byte* bounds = run.bounds + k * bounds_bytes(run);
    if (shares_codes && run.bits < 0) {
      const T step = factor * load_bound<T>(bounds, run.bound, 0);
      return LargestOf::decode(-run.bits, codes, step, coefficients, N);
    }
    with_bits<Policy::template Quantizer>(run.bits, [&]<int Bits>() {
      if constexpr (Bits != 0) unpack<Bits>(codes, bounds, run.bound, factor, coefficients);
    });
  }

  template <int Bits>
  DELTADCT_NOINLINE static void unpack(const std::byte* codes, const std::byte* bounds, DType bound,
                                       T factor, T* coefficients) noexcept {
    using L = Lanes<Wide>;
    // So many that each step of the loop finds them at the same places.
    constexpr int step = N % bits::kBlock == 0 ? bits::kBlock : N;
    Side<Bits> side;
    load_side<Bits>(bounds, bound, side);
    const Dequantizer<Kernel, Bits, Policy::template Quantizer, Wide> values(side, factor);
    for (int s = 0; s < N; s += step, codes += code_bytes(Bits, step)) {
      repeat<step / L::count, (L::count > 1)>([&](int i) DELTADCT_INLINE_LAMBDA {
        L::store(coefficients + s + i * L::count, values.template at<step>(codes, i * L::count));
      });
    }
  }

  template <class Sink>
  DELTADCT_NOINLINE static void inverse(const Kernel& kernel, const T* coefficients,
                                        const Sink& sink) noexcept {
    kernel.template inverse<Transform, P, T>(ArraySource<T, P>{coefficients}, sink);
  }

  template <class Sink>
  static void fill(T value, const Sink& sink) noexcept {
    Groups::for_each([&]<class X>(int j) DELTADCT_INLINE_LAMBDA {
      for (int i = 0; i < P; ++i) sink.store(i, j, X(value));
    });
  }

  static void clear_padding(const PatchExtent& extent, T* patch) noexcept {
    for (std::size_t i = 0; i < P; ++i) {
      for (std::size_t j = i < extent.rows ? extent.cols : 0; j < P; ++j) patch[i * P + j] = 0;
    }
  }
};

}  // namespace deltadct::inline DELTADCT_ABI::detail
