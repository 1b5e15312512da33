// The SIMD backend on xsimd: the shared butterflies, with one column of the patch per lane.
#pragma once

#include <deltadct/backend/kernel.hpp>
#include <deltadct/backend/simd/codes.hpp>

namespace deltadct { inline namespace DELTADCT_ABI {

/// SIMD registers of the instruction set this translation unit is compiled for.
struct Simd {};

template <>
struct DctKernel<Simd> : FusedKernel<DctKernel<Simd>> {
  static constexpr std::string_view name = "simd";

  static bool available() noexcept {
    return xsimd::available_architectures().best >= xsimd::default_arch::version();
  }

  template <class T, int P>
  using Vector = typename detail::VectorFor<T, P>::type;

  template <class Transform, int P, class T, class Source, class Sink>
  DELTADCT_INLINE void forward(const Source& source, const Sink& sink) const noexcept {
    Transform::template forward<P, Vector<T, P>>(source, sink);
  }

  template <class Transform, int P, class T, class Source, class Sink>
  DELTADCT_INLINE void inverse(const Source& source, const Sink& sink) const noexcept {
    Transform::template inverse<P, Vector<T, P>>(source, sink);
  }

  template <class V>
  static constexpr bool is_float_batch = Lanes<V>::count > 1 &&
                                         sizeof(typename Lanes<V>::scalar) == 4;

  template <int Bits, int N, class V>
  DELTADCT_INLINE static V unpack(const std::byte* bytes, int s) noexcept {
    if constexpr (is_float_batch<V>) {
      using A = typename V::arch_type;
      using U = xsimd::batch<std::uint32_t, A>;
      U code(0u);
      bits::for_each_plane<Bits>([&]<int Plane, int Skipped>() DELTADCT_INLINE_LAMBDA {
        code = code | (detail::plane_codes<Bits, Plane, Skipped, N, U>(bytes, s) << Skipped);
      });
      return xsimd::to_float(xsimd::bitwise_cast<xsimd::batch<std::int32_t, A>>(code));
    } else {
      // Doubles have half as many lanes as there are words, so codes are unpacked one by one.
      using T = typename Lanes<V>::scalar;
      alignas(64) T lane[Lanes<V>::count];
      for (int l = 0; l < Lanes<V>::count; ++l) {
        lane[l] = static_cast<T>(bits::get<Bits, N>(bytes, s + l));
      }
      return Lanes<V>::load(lane);
    }
  }

#if XSIMD_WITH_AVX
  // One instruction selects one of four lanes by the two lowest bits of an index.
  template <int Bits, class V>
  static constexpr bool looks_up = Bits <= 2 && is_float_batch<V>;

  template <int Bits, int N, class V>
  DELTADCT_INLINE static V lookup(const std::byte* bytes, int s, V levels) noexcept {
    using U = xsimd::batch<std::uint32_t, typename V::arch_type>;
    return detail::select4(levels, detail::plane_words<Bits, Bits, 0, N, U>(bytes, s));
  }
#else
  template <int Bits, class V>
  static constexpr bool looks_up = false;
#endif

  template <int Bits, int N, class V, class Code>
  DELTADCT_INLINE static void pack(std::byte* bytes, Code code) noexcept {
    if constexpr (is_float_batch<V>) {
      using A = typename V::arch_type;
      using U = xsimd::batch<std::uint32_t, A>;
      const auto lanes_from = [&](int s) DELTADCT_INLINE_LAMBDA {
        return xsimd::bitwise_cast<U>(xsimd::to_int(code(s)));
      };
      constexpr int blocks = N / bits::kBlock;
      constexpr int tail = N % bits::kBlock;
      constexpr std::size_t block_bytes = code_bytes(Bits, bits::kBlock);
      for (int b = 0; b < blocks; ++b) {
        detail::pack_block<Bits, bits::kBlock, U>(
            bytes + static_cast<std::size_t>(b) * block_bytes,
            [&](int t) DELTADCT_INLINE_LAMBDA { return lanes_from(b * bits::kBlock + t); });
      }
      if constexpr (tail > 0) {
        detail::pack_block<Bits, tail, U>(
            bytes + blocks * block_bytes,
            [&](int t) DELTADCT_INLINE_LAMBDA { return lanes_from(blocks * bits::kBlock + t); });
      }
    } else {
      std::memset(bytes, 0, code_bytes(Bits, N));
      for (int s = 0; s < N; s += Lanes<V>::count) {
        alignas(64) typename Lanes<V>::scalar lane[Lanes<V>::count];
        Lanes<V>::store(lane, code(s));
        for (int l = 0; l < Lanes<V>::count; ++l) {
          bits::put<Bits, N>(bytes, s + l, static_cast<std::uint32_t>(lane[l]));
        }
      }
    }
  }
};

}}  // namespace deltadct::inline DELTADCT_ABI
