// The serial backend: the shared butterflies on plain scalars, with the standard library alone.
// Tests compare the other backends with it.
#pragma once

#include <deltadct/backend/kernel.hpp>

namespace deltadct { inline namespace DELTADCT_ABI {

/// One scalar at a time, on any machine.
struct Serial {};

template <>
struct DctKernel<Serial> : FusedKernel<DctKernel<Serial>>, ScalarCodes {
  static constexpr std::string_view name = "serial";

  static constexpr bool available() noexcept { return true; }

  template <class T, int P>
  using Vector = T;

  template <class Transform, int P, class T, class Source, class Sink>
  void forward(const Source& source, const Sink& sink) const noexcept {
    Transform::template forward<P, T>(source, sink);
  }

  template <class Transform, int P, class T, class Source, class Sink>
  void inverse(const Source& source, const Sink& sink) const noexcept {
    Transform::template inverse<P, T>(source, sink);
  }
};

}}  // namespace deltadct::inline DELTADCT_ABI
