// The DCT as the threads of a device run it, compared with the serial backend.
#include "../support/memory.hpp"

#include <deltadct/backend/cuda/dct.hpp>
#include <deltadct/backend/serial/serial.hpp>

#include <cmath>
#include <random>

#include <doctest/doctest.h>

using namespace deltadct;
using test::Memory;

namespace {

template <class T>
Memory<T> random_values(std::size_t n) {
  std::mt19937 bits(7);
  Memory<T> values(n);
  for (T& x : values) x = static_cast<T>(static_cast<double>(bits()) * 0x1p-31 - 1);
  return values;
}

template <class T>
double distance(const Memory<T>& found, const Memory<T>& expected) {
  double difference = 0;
  double square = 0;
  for (std::size_t s = 0; s < expected.size(); ++s) {
    const auto f = static_cast<double>(found[s]);
    const auto e = static_cast<double>(expected[s]);
    difference += (f - e) * (f - e);
    square += e * e;
  }
  return std::sqrt(difference / square);
}

template <int P, class T>
void check() {
  CAPTURE(P);
  using Forward = detail::DctKernelOnDevice<P, T, true>;
  using Inverse = detail::DctKernelOnDevice<P, T, false>;
  constexpr double tolerance = sizeof(T) == 4 ? 1e-6 : 2e-15;
  const auto patches = static_cast<std::size_t>(Forward::Threads::patches);
  for (const std::size_t count : {std::size_t{1}, patches, 2 * patches + 1}) {
    const auto n = count * P * P;
    const Memory<T> x = random_values<T>(n);
    Memory<T> expected(n);
    forward_dct<Serial, P>(x.data(), expected.data(), count);
    for (const bool backwards : {false, true}) {
      // One more element than there are values; it must stay untouched.
      Memory<T> found(n + 1, T(77));
      test::run_kernel(Forward(x.data(), found.data(), count), backwards);
      CHECK(found.back() == T(77));
      found.pop_back();
      CHECK(distance(found, expected) <= tolerance);
      Memory<T> back(n + 1, T(77));
      test::run_kernel(Inverse(expected.data(), back.data(), count), backwards);
      CHECK(back.back() == T(77));
      back.pop_back();
      CHECK(distance(back, x) <= tolerance);
    }
  }
  const Memory<T> none;
  test::run_kernel(Forward(none.data(), nullptr, 0), false);
}

}  // namespace

TEST_CASE("cuda dct: every patch size of a codec, in float") {
  check<4, float>();
  check<8, float>();
  check<12, float>();
  check<16, float>();
  check<32, float>();
  check<64, float>();
}

TEST_CASE("cuda dct: every patch size of a codec, in double") {
  check<4, double>();
  check<8, double>();
  check<12, double>();
  check<16, double>();
  check<32, double>();
  check<64, double>();
}

TEST_CASE("cuda dct: sizes that no codec has") {
  check<2, float>();
  check<3, float>();
  check<6, double>();
  check<10, float>();
  check<20, float>();
  check<25, double>();
  check<48, float>();
}

TEST_CASE("cuda dct: more patches than a launch takes are refused") {
  using Kernel = detail::DctKernelOnDevice<64, float, true>;
  CHECK_THROWS_AS(Kernel(nullptr, nullptr, std::size_t{1} << 40), Error);
}
