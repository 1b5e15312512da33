// The arithmetic types with which stages are tested, and values for them.
#pragma once

#include <deltadct/codec.hpp>

#include <random>

namespace test {

#if DELTADCT_HAS_SIMD
using FloatVector = deltadct::DctKernel<deltadct::Simd>::Vector<float, 8>;
using DoubleVector = deltadct::DctKernel<deltadct::Simd>::Vector<double, 8>;
#else
using FloatVector = float;
using DoubleVector = double;
#endif

#define VECTORS float, double, test::FloatVector, test::DoubleVector

/// As many values as the largest patch has, initially 0.
template <class T>
struct Values {
  static constexpr int size = 4096;

  alignas(64) T x[size] = {};
};

/// Values drawn from a normal distribution.
template <class T>
Values<T> normal(double spread, std::uint32_t seed = 1) {
  Values<T> values;
  std::mt19937 random(seed);
  std::normal_distribution<double> draw(0, spread);
  for (T& x : values.x) x = static_cast<T>(draw(random));
  return values;
}

}  // namespace test
