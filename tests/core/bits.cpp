// The layout of packed codes: every width and count, every place, and the diagram in the header.
#include <deltadct/core/bits.hpp>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

using Codes = std::vector<std::uint32_t>;

template <int Bits, int N>
std::vector<std::byte> packed(const Codes& codes) {
  std::vector<std::byte> bytes(code_bytes(Bits, N));
  for (int s = 0; s < N; ++s) {
    bits::put<Bits, N>(bytes.data(), s, codes[static_cast<std::size_t>(s)]);
  }
  return bytes;
}

template <int Bits, int N>
Codes random_codes() {
  std::mt19937 random(Bits * 10000 + N);
  Codes codes(N);
  for (auto& code : codes) code = static_cast<std::uint32_t>(random()) & ((1u << Bits) - 1u);
  return codes;
}

int bits_set(const std::vector<std::byte>& bytes) {
  int count = 0;
  for (const std::byte b : bytes) {
    for (int k = 0; k < 8; ++k) count += std::to_integer<int>(b >> k) & 1;
  }
  return count;
}

template <int Bits, int N>
void check_roundtrip() {
  const Codes codes = random_codes<Bits, N>();
  const auto bytes = packed<Bits, N>(codes);
  CHECK(bytes.size() == static_cast<std::size_t>(N * Bits / 8));
  int wrong = 0;
  for (int s = 0; s < N; ++s) {
    wrong += bits::get<Bits, N>(bytes.data(), s) != codes[static_cast<std::size_t>(s)];
  }
  CHECK(wrong == 0);
}

// Every code has its own bits: one full code sets exactly Bits bits, and no other code sees them.
template <int Bits, int N>
void check_places() {
  std::vector<std::byte> all(code_bytes(Bits, N));
  int shared = 0;
  for (int s = 0; s < N; ++s) {
    std::vector<std::byte> one(all.size());
    bits::put<Bits, N>(one.data(), s, (1u << Bits) - 1u);
    shared += bits_set(one) != Bits;
    for (std::size_t k = 0; k < all.size(); ++k) {
      shared += (all[k] & one[k]) != std::byte{0};
      all[k] |= one[k];
    }
  }
  CHECK(shared == 0);
  CHECK(std::ranges::all_of(all, [](std::byte b) { return b == std::byte{0xFF}; }));
}

template <int Bits, int... N>
void check_counts(std::integer_sequence<int, N...>) {
  CAPTURE(Bits);
  (check_roundtrip<Bits, N>(), ...);
  // 1024 codes are 8 full blocks, enough to stand for the 32 of 4096.
  (check_places<Bits, std::min(N, 1024)>(), ...);
}

template <int... Bits>
void check_widths(std::integer_sequence<int, Bits...>) {
  (check_counts<Bits>(std::integer_sequence<int, 16, 64, 144, 256, 1024, 4096>{}), ...);
}

template <int Bits, int N>
std::vector<int> bytes_of(int s, std::uint32_t code) {
  std::vector<std::byte> bytes(code_bytes(Bits, N));
  bits::put<Bits, N>(bytes.data(), s, code);
  std::vector<int> touched;
  for (std::size_t k = 0; k < bytes.size(); ++k) {
    if (bytes[k] != std::byte{0}) {
      touched.push_back(static_cast<int>(k));
      touched.push_back(std::to_integer<int>(bytes[k]));
    }
  }
  return touched;
}

using Touched = std::vector<int>;  // byte, value, byte, value ...

}  // namespace

TEST_CASE("bits: codes of every width and count come back and fill exactly their bytes") {
  check_widths(std::integer_sequence<int, 1, 2, 3, 4, 6, 8>{});
}

TEST_CASE("bits: the header's picture, 128 codes of two bits") {
  CHECK(bytes_of<2, 128>(0, 3) == Touched{0, 0x03});     // word 0, bits 0-1
  CHECK(bytes_of<2, 128>(7, 3) == Touched{28, 0x03});    // word 7, bits 0-1
  CHECK(bytes_of<2, 128>(8, 3) == Touched{0, 0x0C});     // word 0, bits 2-3
  CHECK(bytes_of<2, 128>(15, 1) == Touched{28, 0x04});   // word 7, bits 2-3
  CHECK(bytes_of<2, 128>(120, 3) == Touched{3, 0xC0});   // word 0, bits 30-31
  CHECK(bytes_of<2, 128>(127, 2) == Touched{31, 0x80});  // word 7, bits 30-31
  CHECK(bytes_of<2, 256>(128, 3) == Touched{32, 0x03});  // the second block
}

TEST_CASE("bits: widths 3 and 6 are two planes, the low bits first") {
  CHECK(bytes_of<3, 128>(0, 7) == Touched{0, 0x03, 32, 0x01});
  CHECK(bytes_of<3, 128>(127, 4) == Touched{47, 0x80});
  CHECK(bytes_of<6, 128>(0, 0x3F) == Touched{0, 0x0F, 64, 0x03});
  CHECK(bytes_of<6, 128>(1, 0x30) == Touched{68, 0x03});
  CHECK(bytes_of<3, 256>(128, 7) == Touched{48, 0x03, 80, 0x01});
}

TEST_CASE("bits: short blocks") {
  CHECK(bytes_of<1, 16>(9, 1) == Touched{1, 0x02});                 // half a word
  CHECK(bytes_of<8, 16>(5, 0xAB) == Touched{5 % 4 * 4 + 1, 0xAB});  // four words
  CHECK(bytes_of<2, 144>(128, 3) == Touched{32, 0x03});             // a block of 16: one word
  CHECK(bytes_of<2, 144>(143, 3) == Touched{35, 0xC0});
  CHECK(bytes_of<3, 144>(128, 4) == Touched{52, 0x01});  // its high plane: two bytes
}

TEST_CASE("bits: the widths are the seven a patch can have") {
  for (int bits = -1; bits <= 16; ++bits) {
    CHECK(is_bit_width(bits) == (std::ranges::find(kBitWidths, bits) != std::end(kBitWidths)));
  }
  CHECK(code_bytes(0, 4096) == 0);
  CHECK(code_bytes(3, 16) == 6);
  CHECK(code_bytes(8, 4096) == 4096);
}
