// Element types: the 2-byte floats half and bfloat16, the dtypes that a container can name, and the
// type in which each is computed.
#pragma once

#include <deltadct/config.hpp>

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>

#if defined(__F16C__) && !defined(__CUDA_ARCH__)
  #include <immintrin.h>
#endif

namespace deltadct { inline namespace DELTADCT_ABI {

/// Brain floating point: the upper 16 bits of an IEEE single. Bit-compatible with Eigen::bfloat16
/// and __nv_bfloat16. Rounds to nearest, ties to even; NaN stays NaN.
struct bfloat16 {
  std::uint16_t bits;

  bfloat16() = default;
  DELTADCT_HD constexpr explicit bfloat16(float value) noexcept : bits(round(value)) {}
  DELTADCT_HD constexpr explicit operator float() const noexcept {
    return std::bit_cast<float>(std::uint32_t{bits} << 16);
  }

  DELTADCT_HD static constexpr bfloat16 from_bits(std::uint16_t bits) noexcept {
    bfloat16 x{};
    x.bits = bits;
    return x;
  }

 private:
  // No branches, so that loops over it vectorise.
  DELTADCT_HD static constexpr std::uint16_t round(float value) noexcept {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    if (!std::is_constant_evaluated()) {
      std::uint16_t nearest_bits;
      asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(nearest_bits) : "f"(value));
      return nearest_bits;
    }
#endif
    const auto u = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t nearest = u + 0x7FFFu + ((u >> 16) & 1u);
    const std::uint32_t quiet = u | 0x00400000u;
    return static_cast<std::uint16_t>(((u & 0x7FFFFFFFu) > 0x7F800000u ? quiet : nearest) >> 16);
  }
};

/// IEEE 754 binary16. Bit-compatible with Eigen::half and __half. Rounds to nearest, ties to even;
/// values that round beyond 65504 become infinity.
struct half {
  std::uint16_t bits;

  half() = default;
  DELTADCT_HD constexpr explicit half(float value) noexcept : bits(round(value)) {}
  DELTADCT_HD constexpr explicit operator float() const noexcept { return widen(bits); }

  DELTADCT_HD static constexpr half from_bits(std::uint16_t bits) noexcept {
    half x{};
    x.bits = bits;
    return x;
  }

 private:
  DELTADCT_HD static constexpr std::uint16_t round(float value) noexcept {
#if defined(__F16C__) && !defined(__CUDA_ARCH__)
    if (!std::is_constant_evaluated()) {
      // Not _cvtss_sh: in clang it is a macro that -Wpedantic rejects.
      const __m128i packed = _mm_cvtps_ph(_mm_set_ss(value), _MM_FROUND_TO_NEAREST_INT);
      return static_cast<std::uint16_t>(_mm_cvtsi128_si32(packed));
    }
#elif defined(__CUDA_ARCH__)
    if (!std::is_constant_evaluated()) {
      std::uint16_t nearest_bits;
      asm("cvt.rn.f16.f32 %0, %1;" : "=h"(nearest_bits) : "f"(value));
      return nearest_bits;
    }
#endif
    const auto u = std::bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint16_t>((u >> 16) & 0x8000u);
    const std::uint32_t magnitude = u & 0x7FFFFFFFu;
    const auto with_sign = [sign](std::uint32_t m) { return static_cast<std::uint16_t>(sign | m); };
    if (magnitude > 0x7F800000u) return with_sign(0x7E00u | ((magnitude >> 13) & 0x3FFu));
    if (magnitude >= 0x477FF000u) return with_sign(0x7C00u);  // from 65520 up: infinity
    if (magnitude >= 0x38800000u) {                           // normal: rebias 127 -> 15
      const std::uint32_t rebiased = magnitude - 0x38000000u;
      return with_sign((rebiased + 0xFFFu + ((rebiased >> 13) & 1u)) >> 13);
    }
    // Subnormal: adding 0.5 leaves the result in the low bits, rounded by the hardware.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    return with_sign(std::bit_cast<std::uint32_t>(shifted) - 0x3F000000u);
  }

  DELTADCT_HD static constexpr float widen(std::uint16_t h) noexcept {
#if defined(__F16C__) && !defined(__CUDA_ARCH__)
    if (!std::is_constant_evaluated()) return _cvtsh_ss(h);
#elif defined(__CUDA_ARCH__)
    if (!std::is_constant_evaluated()) {
      float value;
      asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(h));
      return value;
    }
#endif
    const std::uint32_t sign = (h & 0x8000u) << 16;
    const std::uint32_t exponent = (h >> 10) & 0x1Fu;
    const std::uint32_t mantissa = h & 0x3FFu;
    if (exponent == 0) {
      const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
      return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
    }
    if (exponent == 31) {
      return std::bit_cast<float>(sign | 0x7F800000u | (mantissa ? 0x00400000u : 0u) |
                                  (mantissa << 13));
    }
    return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  }
};

static_assert(sizeof(half) == 2 && sizeof(bfloat16) == 2);

namespace detail {

// Constants, not concepts: compilers explain a concept by everything that it is made of.
template <class T>
inline constexpr bool is_compute_type = std::is_same_v<T, float> || std::is_same_v<T, double>;
template <class T>
inline constexpr bool is_element_type =
    is_compute_type<T> || std::is_same_v<T, half> || std::is_same_v<T, bfloat16>;

}  // namespace detail

namespace concepts {

/// A type in which the codec computes.
template <class T>
concept Compute = detail::is_compute_type<T>;

/// A type of the elements of a matrix given to the codec.
template <class T>
concept Element = detail::is_element_type<T>;

}  // namespace concepts

namespace detail {
template <class T>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
}  // namespace detail

/// float for float, half and bfloat16; double for double.
template <concepts::Element T>
using compute_t = typename detail::ComputeType<T>::type;

namespace detail {

/// Whether T is an element's type that is computed with as Compute.
template <class T, class Compute>
inline constexpr bool is_computed_as = false;
template <concepts::Element T>
inline constexpr bool is_computed_as<T, compute_t<T>> = true;

}  // namespace detail

/// A dtype as safetensors names it: all those of its release 0.8.
enum class DType : std::uint8_t {
  f64,
  f32,
  f16,
  bf16,
  f8_e4m3,
  f8_e5m2,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  f8_e8m0,
  f6_e2m3,
  f6_e3m2,
  f4,
  c64,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean,
};

namespace detail {
struct DTypeRow {
  DType dtype;
  std::string_view name;
  unsigned bits;
};

inline constexpr DTypeRow kDTypes[] = {
    {DType::f64, "F64", 64},
    {DType::f32, "F32", 32},
    {DType::f16, "F16", 16},
    {DType::bf16, "BF16", 16},
    {DType::f8_e4m3, "F8_E4M3", 8},
    {DType::f8_e5m2, "F8_E5M2", 8},
    {DType::f8_e4m3fnuz, "F8_E4M3FNUZ", 8},
    {DType::f8_e5m2fnuz, "F8_E5M2FNUZ", 8},
    {DType::f8_e8m0, "F8_E8M0", 8},
    {DType::f6_e2m3, "F6_E2M3", 6},
    {DType::f6_e3m2, "F6_E3M2", 6},
    {DType::f4, "F4", 4},
    {DType::c64, "C64", 64},
    {DType::i64, "I64", 64},
    {DType::i32, "I32", 32},
    {DType::i16, "I16", 16},
    {DType::i8, "I8", 8},
    {DType::u64, "U64", 64},
    {DType::u32, "U32", 32},
    {DType::u16, "U16", 16},
    {DType::u8, "U8", 8},
    {DType::boolean, "BOOL", 8},
};

constexpr std::size_t whole_bytes(unsigned bits) noexcept {
  return (bits + 7) / 8;
}
}  // namespace detail

/// The name of a dtype in a safetensors header.
constexpr std::string_view dtype_name(DType dtype) noexcept {
  return detail::kDTypes[static_cast<std::size_t>(dtype)].name;
}

/// Bits of one element. Elements are stored without gaps, even those smaller than a byte, so the
/// sizes and offsets of many elements are counted in bits.
constexpr unsigned dtype_bits(DType dtype) noexcept {
  return detail::kDTypes[static_cast<std::size_t>(dtype)].bits;
}

/// Bytes that a single element takes: its bits, rounded up. For every dtype that is_element(), and
/// every other dtype of 8 bits or more, it is also the distance between two elements.
constexpr std::size_t dtype_bytes(DType dtype) noexcept {
  return detail::whole_bytes(dtype_bits(dtype));
}

/// The dtype of that name, or nothing.
constexpr std::optional<DType> parse_dtype(std::string_view name) noexcept {
  for (const auto& row : detail::kDTypes) {
    if (row.name == name) return row.dtype;
  }
  return std::nullopt;
}

/// The dtype of an element type.
template <concepts::Element T>
constexpr DType dtype_of() noexcept {
  if constexpr (std::same_as<T, double>) return DType::f64;
  if constexpr (std::same_as<T, float>) return DType::f32;
  if constexpr (std::same_as<T, half>) return DType::f16;
  if constexpr (std::same_as<T, bfloat16>) return DType::bf16;
}

/// Whether the codec takes matrices of this dtype.
constexpr bool is_element(DType dtype) noexcept {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

/// The name of a dtype, or its number if it is not an enumerator; for error messages.
inline std::string dtype_text(DType dtype) {
  const auto at = static_cast<std::size_t>(dtype);
  return at < std::size(detail::kDTypes) ? std::string(dtype_name(dtype)) : std::to_string(at);
}

/// Calls fn.operator()<T>() with the element type of a dtype for which is_element() holds.
template <class Fn>
constexpr decltype(auto) with_element(DType dtype, Fn&& fn) {
  switch (dtype) {
    case DType::f64:
      return fn.template operator()<double>();
    case DType::f16:
      return fn.template operator()<half>();
    case DType::bf16:
      return fn.template operator()<bfloat16>();
    default:
      return fn.template operator()<float>();
  }
}

}}  // namespace deltadct::inline DELTADCT_ABI
