// The definition itself: an orthonormal matrix of cosines, applied from both sides.
#include <deltadct/dct/reference.hpp>

#include <numbers>
#include <random>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

constexpr int kSizes[] = {1, 2, 3, 4, 5, 8, 12, 16, 32, 64};

std::vector<double> random_patch(int p) {
  std::mt19937 bits(static_cast<unsigned>(p));
  std::vector<double> x(static_cast<std::size_t>(p * p));
  for (double& value : x) value = static_cast<double>(bits()) * 0x1p-31 - 1;
  return x;
}

double greatest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double greatest = 0;
  for (std::size_t s = 0; s < a.size(); ++s) greatest = std::max(greatest, std::abs(a[s] - b[s]));
  return greatest;
}

}  // namespace

TEST_CASE("reference: the matrix is that of the formula") {
  for (const int p : kSizes) {
    for (int k = 0; k < p; ++k) {
      for (int j = 0; j < p; ++j) {
        const double expected = std::sqrt((k == 0 ? 1.0 : 2.0) / p) *
                                std::cos(std::numbers::pi * (2 * j + 1) * k / (2 * p));
        CHECK(std::abs(dct_matrix(p, k, j) - expected) < 1e-13);
      }
    }
  }
}

TEST_CASE("reference: the rows of the matrix are orthonormal") {
  for (const int p : kSizes) {
    double worst = 0;
    for (int a = 0; a < p; ++a) {
      for (int b = 0; b < p; ++b) {
        double sum = 0;
        for (int j = 0; j < p; ++j) sum += dct_matrix(p, a, j) * dct_matrix(p, b, j);
        worst = std::max(worst, std::abs(sum - (a == b)));
      }
    }
    CHECK(worst < 1e-14);
  }
}

TEST_CASE("reference: a coefficient is the sum of the patch times two cosines") {
  const int p = 5;
  const auto x = random_patch(p);
  std::vector<double> f(x.size());
  reference_forward(p, x.data(), f.data());
  for (int k = 0; k < p; ++k) {
    for (int l = 0; l < p; ++l) {
      double sum = 0;
      for (int i = 0; i < p; ++i) {
        for (int j = 0; j < p; ++j) {
          sum += dct_matrix(p, k, i) * x[static_cast<std::size_t>(i * p + j)] * dct_matrix(p, l, j);
        }
      }
      CHECK(f[static_cast<std::size_t>(k * p + l)] == doctest::Approx(sum).epsilon(1e-12));
    }
  }
}

TEST_CASE("reference: the inverse undoes the forward transform, in place too") {
  for (const int p : {1, 3, 4, 12, 16, 32}) {
    const auto x = random_patch(p);
    auto y = x;
    reference_forward(p, y.data(), y.data());
    CHECK(greatest_difference(x, y) > (p == 1 ? -1 : 1e-3));
    reference_inverse(p, y.data(), y.data());
    CHECK(greatest_difference(x, y) < 1e-13);
  }
}
