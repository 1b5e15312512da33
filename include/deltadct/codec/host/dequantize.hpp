// From packed codes to patches: dequantize, transform back, pass to a sink.
#pragma once

#include <deltadct/backend/kernel.hpp>
#include <deltadct/codec/width.hpp>
#include <deltadct/compressed_tensor.hpp>
#include <deltadct/policy.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// Turns the codes of one patch into coefficients, one register of X at a time.
template <class Kernel, int Bits, template <int> class Quantizer, class X>
class Dequantizer {
  using T = typename Lanes<X>::scalar;
  using Q = Quantizer<Bits>;
  using Decoder = typename Q::template Decoder<X>;
  static constexpr bool looks_up = Kernel::template looks_up<Bits, X>;

 public:
  DELTADCT_INLINE Dequantizer(const T (&bounds)[Q::bound_count], T factor) noexcept
      : decoder_(bounds, factor), levels_(T(0)) {
    if constexpr (looks_up) {
      alignas(64) T lane[Lanes<X>::count];
      for (int l = 0; l < Lanes<X>::count; ++l) lane[l] = static_cast<T>(l & ((1 << Bits) - 1));
      levels_ = decoder_(Lanes<X>::load(lane));
    }
  }

  /// The coefficients for codes s, s + 1, ... of N.
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

/// The coefficients of a P x P patch, straight from packed codes, in registers of any type in X.
template <class Kernel, int Bits, int P, template <int> class Quantizer, class... X>
class CodeSource : Dequantizer<Kernel, Bits, Quantizer, X>... {
 public:
  template <class T, std::size_t N>
  DELTADCT_INLINE CodeSource(const std::byte* codes, const T (&bounds)[N], T factor) noexcept
      : Dequantizer<Kernel, Bits, Quantizer, X>(bounds, factor)..., codes_(codes) {}

  template <class Y>
  DELTADCT_INLINE Y load(int i, int j) const noexcept {
    return Dequantizer<Kernel, Bits, Quantizer, Y>::template at<P * P>(codes_, i * P + j);
  }

 private:
  const std::byte* codes_;
};

/// Adjacent patches of one width. Their codes and their bounds are contiguous.
struct PatchRun {
  int bits;
  const std::byte* codes;
  const std::byte* bounds;
  DType bound;
  std::size_t count;
};

/// The bounds of a patch, in the compute type.
template <class T, int Count>
DELTADCT_INLINE void load_bounds(const std::byte* bounds, DType dtype,
                                 T (&values)[Count]) noexcept {
  for (int k = 0; k < Count; ++k) values[k] = load_bound<T>(bounds, dtype, k);
}

/// The decoding stages of a policy, for one patch. T is the compute type. A patch is P * P values,
/// row-major, aligned to 64 bytes. The kernels are not inlined: one call per patch costs nothing,
/// and one copy of each kernel serves all callers with the same sink.
template <class Policy, class Backend>
struct PatchDecoder {
  using T = compute_t<typename Policy::Element>;
  using Transform = typename Policy::Transform;
  using Kernel = DctKernel<Backend>;
  static constexpr int P = Policy::patch;
  static constexpr int N = P * P;
  using V = typename Kernel::template Vector<T, P>;
  using Wide = typename Kernel::template Vector<T, 64>;  // the widest register
  template <int Bits>
  using Quantizer = typename Policy::template Quantizer<Bits>;

  static constexpr T gain = static_cast<T>(Transform::template gain<P>);

  /// Passes factor * (decoded patch k of the run) to sinks(k). If codes can be looked up, small
  /// patches decode them in the very registers that the transform takes. Otherwise coefficients go
  /// through memory, which costs a little time but saves compilers a copy of the transform for
  /// every width.
  template <class Sinks>
  static void decode(const Kernel& kernel, const PatchRun& run, T factor,
                     const Sinks& sinks) noexcept {
    with_width<Policy::template Quantizer, N>(run.bits, [&]<int Bits>() {
      if constexpr (Bits == 0)
        decode_constants(run, factor, sinks);
      else if constexpr (Bits > 0 && P <= 16 && looks_up<Bits>())
        decode_fused<Bits>(kernel, run, factor, sinks);
      else
        decode_unpacked(kernel, run, factor, sinks);
    });
  }

  /// The same, for any width but 0, with the coefficients in memory.
  template <class Sinks>
  DELTADCT_NOINLINE static void decode_unpacked(const Kernel& kernel, const PatchRun& run, T factor,
                                                const Sinks& sinks) noexcept {
    alignas(64) T coefficients[N];
    for (std::size_t k = 0; k < run.count; ++k) {
      unpack(run, k, factor / gain, coefficients);
      inverse(kernel, coefficients, sinks(k));
    }
  }

  /// Computes the coefficients of patch k of a run, times factor, in the order of the codes.
  static void unpack(const PatchRun& run, std::size_t k, T factor, T* coefficients) noexcept {
    with_width<Policy::template Quantizer, N>(run.bits, [&]<int Bits>() {
      if constexpr (Bits != 0) {
        unpack<Bits>(run.codes + k * code_bytes(Bits, std::size_t{N}),
                     run.bounds + k * bounds_bytes<Bits>(run), run.bound, factor, coefficients);
      }
    });
  }

 private:
  using Groups = ColumnGroups<P, V>;
  template <int Bits>
  using Source = std::conditional_t<
      Groups::mixed,
      CodeSource<Kernel, Bits, P, Policy::template Quantizer, typename Groups::Wide, V>,
      CodeSource<Kernel, Bits, P, Policy::template Quantizer, V>>;
  template <int Bits>
  using Bounds = T[Quantizer<Bits>::bound_count];

  template <int Bits>
  static constexpr bool looks_up() noexcept {
    return Kernel::template looks_up<Bits, V>;
  }

  template <int Bits>
  static std::size_t bounds_bytes(const PatchRun& run) noexcept {
    return static_cast<std::size_t>(Quantizer<Bits>::bound_count) * dtype_bytes(run.bound);
  }

  template <class Sinks>
  DELTADCT_NOINLINE static void decode_constants(const PatchRun& run, T factor,
                                                 const Sinks& sinks) noexcept {
    for (std::size_t k = 0; k < run.count; ++k) {
      Bounds<0> bounds;
      load_bounds(run.bounds + k * bounds_bytes<0>(run), run.bound, bounds);
      fill(factor * bounds[0], sinks(k));
    }
  }

  template <int Bits, class Sinks>
  DELTADCT_NOINLINE static void decode_fused(const Kernel& kernel, const PatchRun& run, T factor,
                                             const Sinks& sinks) noexcept {
    const auto source_of = [&](std::size_t k) DELTADCT_INLINE_LAMBDA {
      Bounds<Bits> bounds;
      load_bounds(run.bounds + k * bounds_bytes<Bits>(run), run.bound, bounds);
      return Source<Bits>(run.codes + k * code_bytes(Bits, N), bounds, factor / gain);
    };
    // Find the next patch's levels before this patch's transform, which would delay them.
    auto next = source_of(0);
    for (std::size_t k = 0; k < run.count; ++k) {
      const auto source = next;
      next = source_of(std::min(k + 1, run.count - 1));
      kernel.template inverse<Transform, P, T>(source, sinks(k));
    }
  }

  template <int Bits>
  DELTADCT_NOINLINE static void unpack(const std::byte* codes, const std::byte* stored, DType bound,
                                       T factor, T* coefficients) noexcept {
    Bounds<Bits> bounds;
    load_bounds(stored, bound, bounds);
    if constexpr (Bits < 0) {
      Quantizer<Bits>::decode(codes, factor * bounds[0], coefficients, N);
    } else {
      using L = Lanes<Wide>;
      // Steps of whole blocks, so that each step finds its codes at the same positions.
      constexpr int step = N % bits::kBlock == 0 ? bits::kBlock : N;
      const Dequantizer<Kernel, Bits, Policy::template Quantizer, Wide> values(bounds, factor);
      for (int s = 0; s < N; s += step, codes += code_bytes(Bits, step)) {
        repeat<step / L::count, (L::count > 1)>([&](int i) DELTADCT_INLINE_LAMBDA {
          L::store(coefficients + s + i * L::count, values.template at<step>(codes, i * L::count));
        });
      }
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
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
