// forward_dct() and inverse_dct() of the CUDA and cuFFT backends, compared with the serial backend.
#include "../support/memory.hpp"

#include <deltadct/backend/serial/serial.hpp>
#include <deltadct/cuda.hpp>
#include <deltadct/cufft.hpp>

#include <cmath>
#include <random>

#include <doctest/doctest.h>

using namespace deltadct;
using test::Memory;

namespace {

template <class Backend, int P, class T>
void check() {
  CAPTURE(P);
  // Several batches of cuFFT's, the last one incomplete.
  const std::size_t count = 1000;
  const DctKernel<Backend> kernel = [] {
    if constexpr (std::same_as<Backend, Cufft>)
      return DctKernel<Backend>(nullptr, 300);
    else
      return DctKernel<Backend>();
  }();
  std::mt19937 bits(7);
  Memory<T> x(count * P * P);
  for (T& value : x) value = static_cast<T>(static_cast<double>(bits()) * 0x1p-31 - 1);
  Memory<T> expected(x.size());
  forward_dct<Serial, P>(x.data(), expected.data(), count);
  Memory<T> found(x.size());
  Memory<T> back(x.size());
  forward_dct<Backend, P>(x.data(), found.data(), count, kernel);
  inverse_dct<Backend, P>(found.data(), back.data(), count, kernel);
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  const double tolerance = sizeof(T) == 4 ? 1e-5 : 1e-13;
  double worst = 0;
  for (std::size_t s = 0; s < x.size(); ++s) {
    worst = std::max(worst, std::abs(static_cast<double>(found[s] - expected[s])));
    worst = std::max(worst, std::abs(static_cast<double>(back[s] - x[s])));
  }
  CHECK(worst <= tolerance);
}

template <class Backend, class T>
void check_all() {
  check<Backend, 4, T>();
  check<Backend, 8, T>();
  check<Backend, 12, T>();
  check<Backend, 16, T>();
  check<Backend, 32, T>();
  check<Backend, 64, T>();
}

}  // namespace

TEST_SUITE("device") {
  TEST_CASE("block kernels are the DCT") {
    check_all<Cuda, float>();
    check_all<Cuda, double>();
  }

  TEST_CASE("cuFFT and reordering are the DCT") {
    check_all<Cufft, float>();
    check_all<Cufft, double>();
  }
}
