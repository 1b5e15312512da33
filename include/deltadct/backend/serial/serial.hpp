// The serial backend: the shared butterflies on plain scalars, the standard library alone. The
// others are held against it.
#pragma once

#include <deltadct/backend/kernel.hpp>
#include <deltadct/core/bits.hpp>

#include <cstring>

namespace deltadct::inline DELTADCT_ABI {

/// One scalar at a time, on any machine.
struct Serial {};

template <>
struct DctKernel<Serial> {
  static constexpr std::string_view name = "serial";

  static constexpr bool available() noexcept { return true; }

  template <class T, int P>
  using Vector = T;

  template <class Transform, int P, class T, class Source, class Sink>
  static void forward(const Source& source, const Sink& sink) noexcept {
    Transform::template forward<P, T>(source, sink);
  }

  template <class Transform, int P, class T, class Source, class Sink>
  static void inverse(const Source& source, const Sink& sink) noexcept {
    Transform::template inverse<P, T>(source, sink);
  }

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

}  // namespace deltadct::inline DELTADCT_ABI
