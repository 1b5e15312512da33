// Converts elements from one floating-point dtype to another.
#pragma once

#include <deltadct/core/arithmetic.hpp>
#include <deltadct/core/dtype.hpp>
#include <deltadct/core/error.hpp>
#include <deltadct/core/executor.hpp>
#include <deltadct/core/finite.hpp>
#include <deltadct/core/random.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <optional>
#include <span>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// How a value that a dtype cannot hold is rounded.
enum class Rounding {
  nearest,     ///< to the nearest value, ties to even
  stochastic,  ///< to either neighbour, at random, so that the mean is the value
};

namespace detail {

/// The dtype in which elements of a dtype are computed.
constexpr DType compute_dtype(DType dtype) noexcept {
  return dtype == DType::f64 ? DType::f64 : DType::f32;
}

/// Whether one floating-point dtype holds every value of another.
constexpr bool holds_all_of(DType to, DType from) noexcept {
  return to == from || to == DType::f64 || (to == DType::f32 && from != DType::f64);
}

template <concepts::Element T>
T load_element(const std::byte* from) noexcept {
  T x;
  std::memcpy(&x, from, sizeof(T));
  return x;
}

/// Rounds to one of the two neighbours in a 2-byte dtype. The farther one is chosen with the
/// probability that makes the mean equal the value. `lot` is a random number.
template <class W>
W round_stochastically(float value, std::uint64_t lot) noexcept {
  const W nearest(value);
  const auto x = static_cast<double>(static_cast<float>(nearest));
  const double error = static_cast<double>(value) - x;
  if (error == 0 || !std::isfinite(x) || !std::isfinite(value)) return nearest;
  // Among values of one sign, the bits increase with the magnitude.
  const bool outwards = std::abs(static_cast<double>(value)) > std::abs(x);
  const W other = W::from_bits(static_cast<std::uint16_t>(nearest.bits + (outwards ? 1 : -1)));
  const auto y = static_cast<double>(static_cast<float>(other));
  if (!std::isfinite(y)) return nearest;
  constexpr double kLots = 0x1p64;
  return static_cast<double>(lot) < error / (y - x) * kLots ? other : nearest;
}

/// A number in a dtype. Stochastic rounding draws from the seed and the element's index.
template <class W, class X>
W rounded_to(X x, [[maybe_unused]] Rounding rounding, [[maybe_unused]] std::uint64_t seed,
             [[maybe_unused]] std::size_t index) noexcept {
  if constexpr (sizeof(W) == 2) {
    if (rounding == Rounding::stochastic) {
      return round_stochastically<W>(static_cast<float>(x), random_bits(seed, index));
    }
  }
  return W(static_cast<compute_t<W>>(x));
}

/// Elements converted in one step of an executor's loop.
inline constexpr std::size_t kConvertRun = std::size_t{1} << 16;

/// Converts elements, exactly or with rounding. `to` must have room for all of them. With
/// stochastic rounding, element i depends only on its value, the seed and i. The addresses need no
/// alignment.
template <concepts::Executor Executor>
void convert_elements(std::span<const std::byte> from, DType from_dtype, DType to_dtype,
                      std::span<std::byte> to, const Executor& executor,
                      Rounding rounding = Rounding::nearest, std::uint64_t seed = 0) {
  const std::size_t count = from.size() / dtype_bytes(from_dtype);
  executor.parallel_for(ceil_div(count, kConvertRun), [&](std::size_t run) {
    const std::size_t end = std::min(count, (run + 1) * kConvertRun);
    with_element(from_dtype, [&]<class U>() {
      with_element(to_dtype, [&]<class W>() {
        for (std::size_t i = run * kConvertRun; i < end; ++i) {
          const auto x = static_cast<compute_t<U>>(load_element<U>(from.data() + i * sizeof(U)));
          const W y = rounded_to<W>(x, rounding, seed, i);
          std::memcpy(to.data() + i * sizeof(W), &y, sizeof(W));
        }
      });
    });
  });
}

/// The distance between as many elements as `a` has and the first ones of `b`; NaN if one of them
/// is.
inline double distance_between(std::span<const std::byte> a, DType a_dtype,
                               std::span<const std::byte> b, DType b_dtype) {
  double scale = 0;  // the largest difference, so that squares neither overflow nor vanish
  double square = 0;
  with_element(a_dtype, [&]<class U>() {
    with_element(b_dtype, [&]<class W>() {
      for (std::size_t i = 0; i < a.size() / sizeof(U); ++i) {
        const auto x = static_cast<compute_t<U>>(load_element<U>(a.data() + i * sizeof(U)));
        const auto y = static_cast<compute_t<W>>(load_element<W>(b.data() + i * sizeof(W)));
        const double apart = std::abs(static_cast<double>(y) - static_cast<double>(x));
        if (apart == 0) continue;
        if (apart > scale) {
          square = square * (scale / apart) * (scale / apart) + 1;
          scale = apart;
        } else {
          square += apart / scale * (apart / scale);
        }
      }
    });
  });
  return scale * std::sqrt(square);
}

/// The first element that is finite, but infinite once it is rounded to another floating-point
/// dtype; nothing if there is none.
inline std::optional<std::size_t> find_beyond_range(std::span<const std::byte> bytes, DType dtype,
                                                    DType to) {
  using deltadct::detail::all_finite;
  const std::size_t count = bytes.size() / dtype_bytes(dtype);
  std::optional<std::size_t> found;
  with_element(dtype, [&]<class U>() {
    with_element(to, [&]<class W>() {
      for (std::size_t i = 0; i < count && !found; ++i) {
        const U x = load_element<U>(bytes.data() + i * sizeof(U));
        const W rounded(static_cast<compute_t<W>>(static_cast<compute_t<U>>(x)));
        if (all_finite(&x, 1) && !all_finite(&rounded, 1)) found = i;
      }
    });
  });
  return found;
}

/// The first element that is not finite; nothing if there is none.
inline std::optional<std::size_t> find_non_finite(std::span<const std::byte> bytes, DType dtype) {
  const std::size_t count = bytes.size() / dtype_bytes(dtype);
  std::optional<std::size_t> found;
  with_element(dtype, [&]<class U>() {
    for (std::size_t i = 0; i < count && !found; ++i) {
      const U x = load_element<U>(bytes.data() + i * sizeof(U));
      if (!deltadct::detail::all_finite(&x, 1)) found = i;
    }
  });
  return found;
}

}  // namespace detail

}}}  // namespace deltadct::inline DELTADCT_ABI::io
