// Packed codes and register transposes of every backend, compared with bits::get, bits::put and
// plain loops.
#include <deltadct/codec.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

constexpr std::byte kGuard{0xA5};

template <int Bits, int N>
std::vector<std::uint32_t> random_codes() {
  std::mt19937 random(17 * Bits + N);
  std::vector<std::uint32_t> codes(N);
  for (auto& code : codes) code = static_cast<std::uint32_t>(random()) >> (32 - Bits);
  codes.front() = (1u << Bits) - 1;
  return codes;
}

template <int Bits, int N>
std::vector<std::byte> expected_bytes(const std::vector<std::uint32_t>& codes) {
  std::vector<std::byte> bytes(code_bytes(Bits, N));
  for (int s = 0; s < N; ++s) {
    bits::put<Bits, N>(bytes.data(), s, codes[static_cast<std::size_t>(s)]);
  }
  return bytes;
}

// Codes in the form that kernels use: values of the arithmetic type, in aligned memory.
template <class T, int N>
struct Values {
  alignas(64) T at[N];

  explicit Values(const std::vector<std::uint32_t>& codes) {
    std::ranges::transform(codes, at, [](std::uint32_t code) { return static_cast<T>(code); });
  }
};

template <class Backend, int Bits, int N, class V>
void check_pack() {
  using T = typename Lanes<V>::scalar;
  const auto codes = random_codes<Bits, N>();
  const auto expected = expected_bytes<Bits, N>(codes);
  const Values<T, N> values(codes);
  // Neither the alignment nor the bytes around the codes may matter.
  std::vector<std::byte> packed(expected.size() + 4, kGuard);
  DctKernel<Backend>::template pack<Bits, N, V>(
      packed.data() + 2, [&](int s) { return Lanes<V>::load(values.at + s); });
  CHECK(std::ranges::equal(expected, std::span(packed).subspan(2, expected.size())));
  CHECK(std::ranges::count(std::span(packed).first(2), kGuard) == 2);
  CHECK(std::ranges::count(std::span(packed).last(2), kGuard) == 2);
}

template <class Backend, int Bits, int N, class V>
void check_unpack() {
  using T = typename Lanes<V>::scalar;
  const auto codes = random_codes<Bits, N>();
  auto bytes = expected_bytes<Bits, N>(codes);
  bytes.insert(bytes.begin(), kGuard);  // odd address
  int wrong = 0;
  for (int s = 0; s < N; s += Lanes<V>::count) {
    alignas(64) T lane[Lanes<V>::count];
    Lanes<V>::store(lane, DctKernel<Backend>::template unpack<Bits, N, V>(bytes.data() + 1, s));
    for (int l = 0; l < Lanes<V>::count; ++l) {
      wrong += lane[l] != static_cast<T>(codes[static_cast<std::size_t>(s + l)]);
    }
  }
  CHECK(wrong == 0);
}

template <class Backend, int N, class V>
void check_every_width() {
  const auto check = [&]<int... Bits>(std::integer_sequence<int, Bits...>) {
    (check_pack<Backend, Bits, N, V>(), ...);
    (check_unpack<Backend, Bits, N, V>(), ...);
  };
  check(std::integer_sequence<int, 1, 2, 3, 4, 6, 8>{});
}

template <class Backend, class T, int P>
void check_kernel_vector() {
  CAPTURE(P);
  check_every_width<Backend, P * P, typename DctKernel<Backend>::template Vector<T, P>>();
}

template <class Backend, class T>
void check_every_patch_size() {
  check_kernel_vector<Backend, T, 4>();
  check_kernel_vector<Backend, T, 8>();
  check_kernel_vector<Backend, T, 12>();
  check_kernel_vector<Backend, T, 16>();
  check_kernel_vector<Backend, T, 32>();
  check_kernel_vector<Backend, T, 64>();
}

template <class V>
void check_transpose() {
  using T = typename Lanes<V>::scalar;
  constexpr int n = Lanes<V>::count;
  alignas(64) T before[n * n];
  for (int s = 0; s < n * n; ++s) before[s] = static_cast<T>(s + 1);
  V rows[n];
  for (int i = 0; i < n; ++i) rows[i] = Lanes<V>::load(before + i * n);
  Lanes<V>::transpose(rows);
  alignas(64) T after[n * n];
  for (int i = 0; i < n; ++i) Lanes<V>::store(after + i * n, rows[i]);
  for (int s = 0; s < n * n; ++s) CHECK(after[s] == before[s % n * n + s / n]);
}

// Ties, both signs, and numbers beyond the integers that a float holds exactly.
template <class V>
void check_round() {
  using T = typename Lanes<V>::scalar;
  for (const T x : {T(0.5), T(1.5), T(2.5), T(-0.5), T(-1.5), T(2.4999), T(254.5), T(1e7)}) {
    alignas(64) T lane[Lanes<V>::count];
    Lanes<V>::store(lane, Lanes<V>::round(V(x)));
    for (const T found : lane) CHECK(found == std::nearbyint(x));
  }
}

}  // namespace

TEST_CASE("codes: the serial backend packs and unpacks as bits::put and bits::get do") {
  check_every_patch_size<Serial, float>();
}

TEST_CASE("codes: the serial backend packs codes held in double") {
  check_kernel_vector<Serial, double, 12>();
}

#if DELTADCT_HAS_SIMD

TEST_CASE("codes: the SIMD backend packs float lanes as bits::put and bits::get do") {
  check_every_patch_size<Simd, float>();
}

TEST_CASE("codes: the SIMD backend packs double lanes as bits::put and bits::get do") {
  check_every_patch_size<Simd, double>();
}

TEST_CASE("codes: the width of the register does not show in the bytes") {
  using Narrow = typename DctKernel<Simd>::Vector<float, 4>;
  check_every_width<Simd, 64, Narrow>();
  check_every_width<Simd, 256, Narrow>();
}

TEST_CASE_TEMPLATE("lanes: a tile of registers is transposed", V,
                   typename DctKernel<Simd>::Vector<float, 4>,
                   typename DctKernel<Simd>::Vector<float, 8>,
                   typename DctKernel<Simd>::Vector<double, 4>, float, double) {
  check_transpose<V>();
}

TEST_CASE_TEMPLATE("lanes: rounding is to nearest, ties to even", V,
                   typename DctKernel<Simd>::Vector<float, 4>,
                   typename DctKernel<Simd>::Vector<float, 8>,
                   typename DctKernel<Simd>::Vector<double, 4>, float, double) {
  check_round<V>();
}

TEST_CASE("lanes: a register is at most 256 bits and its lanes divide P") {
  CHECK(Lanes<typename DctKernel<Simd>::Vector<float, 4>>::count <= 4);
  CHECK(12 % Lanes<typename DctKernel<Simd>::Vector<float, 12>>::count == 0);
  CHECK(Lanes<typename DctKernel<Simd>::Vector<float, 64>>::count <= 8);
  CHECK(Lanes<typename DctKernel<Simd>::Vector<double, 64>>::count <= 4);
}

#endif
