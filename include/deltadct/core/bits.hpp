// How codes are packed into bytes.
//
// The N codes of a patch are split into blocks of 128; the last block may be shorter. Within a
// block, each plane of b bits (b = 1, 2, 4 or 8) is an array of W = max(1, m b / 32) little-endian
// 32-bit words for the block's m codes. Code t is in word t mod W at bit b (t / W):
//
//     W = 8 (m = 128, b = 2):   word 0          word 1          ...  word 7
//       bits 0-1                code 0          code 1               code 7
//       bits 2-3                code 8          code 9               code 15
//       ...                     ...             ...                  ...
//       bits 30-31              code 120        code 121             code 127
//
// One load and one shift then give W neighbouring codes, whatever the width of the registers.
// Widths 3 and 6 are two planes, the low bits first: 3 = 2 + 1, 6 = 4 + 2. A block of 16 one-bit
// codes uses half a word and stores two bytes.
//
// Codes shared by several coefficients, and the codes of methods without patches, are dense: one
// after another, lowest bits first.
#pragma once

#include <deltadct/config.hpp>

#include <cstddef>
#include <cstdint>

namespace deltadct { inline namespace DELTADCT_ABI {

/// The number of bits a coefficient's code can have.
inline constexpr int kBitWidths[] = {0, 1, 2, 3, 4, 6, 8};

/// The largest number of different widths among the patches of one matrix.
inline constexpr std::size_t kMaxWidthClasses = 8;

/// Whether a patch can have this bit width. A width of 0 or more is the width of each coefficient's
/// code. A width of -k means one code of k + 1 bits for every 2^k coefficients (see LargestOf).
DELTADCT_HD constexpr bool is_bit_width(int bits) noexcept {
  return (bits >= -7 && bits <= 4 && bits != -1) || bits == 6 || bits == 8;
}

/// Whether patches of n coefficients, n a multiple of 16, can have this bit width: for a width of
/// -k, n must also be a multiple of 2^k.
DELTADCT_HD constexpr bool is_bit_width_of(int bits, std::size_t n) noexcept {
  return is_bit_width(bits) && (bits >= 0 || n % (std::size_t{1} << -bits) == 0);
}

namespace bits {

/// Bytes that n dense codes of up to 8 bits take; never overflows.
DELTADCT_HD constexpr std::size_t dense_bytes(int bits, std::size_t n) noexcept {
  const auto width = static_cast<std::size_t>(bits);
  return n / 8 * width + (n % 8 * width + 7) / 8;
}

}  // namespace bits

/// Bytes that the codes of n coefficients take.
DELTADCT_HD constexpr std::size_t code_bytes(int width, std::size_t n) noexcept {
  if (width >= 0) return n * static_cast<std::size_t>(width) / 8;
  return bits::dense_bytes(1 - width, n >> -width);
}

namespace bits {

inline constexpr int kBlock = 128;

/// The bits of the first (low) plane of a width. The rest, if any, are the second plane.
DELTADCT_HD constexpr int low_plane(int bits) noexcept {
  return bits == 3 ? 2 : bits == 6 ? 4 : bits;
}

/// Where code s of N lies in a plane: codes in its block, words per plane, word and shift.
struct Place {
  int block_codes;
  int words;
  int word;
  int shift;
};

DELTADCT_HD constexpr Place place(int plane_bits, int n, int s) noexcept {
  const int block = s / kBlock;
  const int codes = n - block * kBlock < kBlock ? n - block * kBlock : kBlock;
  const int words = codes * plane_bits / 32 > 0 ? codes * plane_bits / 32 : 1;
  const int t = s % kBlock;
  return {codes, words, t % words, plane_bits * (t / words)};
}

/// The byte where a plane begins in the block that holds code s. `bits` is the full width,
/// `skipped` the number of bits in the planes before this one.
DELTADCT_HD constexpr int plane_byte(int bits, int skipped, int n, int s) noexcept {
  return s / kBlock * (kBlock * bits / 8) + place(1, n, s).block_codes * skipped / 8;
}

/// Calls fn.operator()<PlaneBits, SkippedBits>() for each plane of a width.
template <int Bits, class Fn>
DELTADCT_INLINE constexpr void for_each_plane(Fn&& fn) {
  constexpr int low = low_plane(Bits);
  fn.template operator()<low, 0>();
  if constexpr (low != Bits) fn.template operator()<Bits - low, low>();
}

/// Code s of the N codes at `bytes`.
template <int Bits, int N>
DELTADCT_HD constexpr std::uint32_t get(const std::byte* bytes, int s) noexcept {
  std::uint32_t code = 0;
  for_each_plane<Bits>([&]<int Plane, int Skipped>() {
    const Place at = place(Plane, N, s);
    const int byte = plane_byte(Bits, Skipped, N, s) + 4 * at.word + at.shift / 8;
    const auto stored = static_cast<std::uint32_t>(bytes[byte]) >> (at.shift % 8);
    code |= (stored & ((1u << Plane) - 1u)) << Skipped;
  });
  return code;
}

/// Writes code s. Its bits at `bytes` must be zero before the call.
template <int Bits, int N>
DELTADCT_HD constexpr void put(std::byte* bytes, int s, std::uint32_t code) noexcept {
  for_each_plane<Bits>([&]<int Plane, int Skipped>() {
    const Place at = place(Plane, N, s);
    const int byte = plane_byte(Bits, Skipped, N, s) + 4 * at.word + at.shift / 8;
    const std::uint32_t part = (code >> Skipped) & ((1u << Plane) - 1u);
    bytes[byte] |= static_cast<std::byte>(part << (at.shift % 8));
  });
}

/// Dense code j. A code has up to 8 bits.
DELTADCT_HD constexpr std::uint32_t get_dense(const std::byte* bytes, int bits,
                                              std::size_t j) noexcept {
  const std::size_t at = j * static_cast<std::size_t>(bits);
  const auto shift = static_cast<int>(at % 8);
  auto word = static_cast<std::uint32_t>(bytes[at / 8]);
  // The second byte is read only if the code extends into it.
  if (shift + bits > 8) word |= static_cast<std::uint32_t>(bytes[at / 8 + 1]) << 8;
  return (word >> shift) & ((1u << bits) - 1u);
}

/// Writes dense code j. Its bits must be zero before the call.
DELTADCT_HD constexpr void put_dense(std::byte* bytes, int bits, std::size_t j,
                                     std::uint32_t code) noexcept {
  const std::size_t at = j * static_cast<std::size_t>(bits);
  const auto shift = static_cast<int>(at % 8);
  bytes[at / 8] |= static_cast<std::byte>(code << shift);
  if (shift + bits > 8) bytes[at / 8 + 1] |= static_cast<std::byte>(code >> (8 - shift));
}

/// Whether the bits after the last of n dense codes are zero.
DELTADCT_HD constexpr bool is_dense_padded(const std::byte* bytes, int bits,
                                           std::size_t n) noexcept {
  const std::size_t used = n * static_cast<std::size_t>(bits);
  return used % 8 == 0 || (bytes[used / 8] >> static_cast<int>(used % 8)) == std::byte{0};
}

}  // namespace bits
}}  // namespace deltadct::inline DELTADCT_ABI
