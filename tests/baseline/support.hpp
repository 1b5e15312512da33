// What the tests of baselines share: matrices, and every method.
#pragma once

#include "../support/caught.hpp"

#include <deltadct/baseline/any_baseline.hpp>

#include <cstddef>
#include <random>
#include <vector>

#include <doctest/doctest.h>

namespace baseline_test {

using namespace deltadct;
using test::caught;

template <class T>
struct Dense {
  std::vector<T> values;
  std::size_t rows;
  std::size_t cols;

  MatrixView<T> view() { return {values.data(), rows, cols}; }
  MatrixView<const T> view() const { return {values.data(), rows, cols}; }
};

template <class T>
Dense<T> zeros(std::size_t rows, std::size_t cols) {
  return {std::vector<T>(rows * cols), rows, cols};
}

template <class T>
Dense<T> noise(std::size_t rows, std::size_t cols, double size = 0.01, unsigned seed = 1) {
  Dense<T> matrix = zeros<T>(rows, cols);
  std::mt19937 random(seed);
  for (T& x : matrix.values) {
    x = static_cast<T>(
        static_cast<compute_t<T>>(size * (static_cast<double>(random()) * 0x1p-31 - 1)));
  }
  return matrix;
}

template <class T, class Codec>
Dense<T> decoded(const Codec& codec, const CompressedTensor& packed) {
  Dense<T> out = zeros<T>(packed.header.rows, packed.header.cols);
  codec.decode(packed, out.view());
  return out;
}

template <class T>
double dot(const Dense<T>& a, const Dense<T>& b) {
  double sum = 0;
  for (std::size_t s = 0; s < a.values.size(); ++s) {
    sum += static_cast<double>(a.values[s]) * static_cast<double>(b.values[s]);
  }
  return sum;
}

template <class Fn>
void for_each_method(Fn fn) {
  fn(BitDelta{});
  fn(BitDelta{BitDelta::Axis::row});
  fn(BitDelta{BitDelta::Axis::column});
  fn(DeltaCome{});
  fn(Dare{});
  fn(UltraDelta{.groups = {{{.sparsity = 0.5}}}});
}

}  // namespace baseline_test
