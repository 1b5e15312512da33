// The 2-D DCT of TEST_BACKEND, compared with the definition for every type and patch size.
#include <deltadct/dct/reference.hpp>
#include TEST_HEADER

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

using Backend = TEST_BACKEND;

// One kernel for all tests, because preparing a kernel may take a while.
const DctKernel<Backend> kernel;

template <class T_, int P_>
struct Case {
  using T = T_;
  static constexpr int P = P_;
  static constexpr int area = P * P;
  static constexpr double tolerance = sizeof(T) == 4 ? 1e-6 : 2e-15;
  // For the worst of all basis vectors: at P = 64, Lee's algorithm divides by small cosines six
  // times.
  static constexpr double worst = P >= 48 ? 2 * tolerance : tolerance;
};

template <class C>
struct Patch {
  alignas(64) typename C::T values[C::area] = {};

  typename C::T& operator[](int s) { return values[s]; }
  const typename C::T& operator[](int s) const { return values[s]; }
};

template <class C>
Patch<C> random_patch(std::uint32_t seed) {
  std::mt19937 bits(seed);
  Patch<C> x;
  for (auto& value : x.values) {
    value = static_cast<typename C::T>(static_cast<double>(bits()) * 0x1p-31 - 1);
  }
  return x;
}

// Not inlined, so that each transform is compiled once and not in every test.
template <class C>
DELTADCT_NOINLINE void forward(const typename C::T* x, typename C::T* f, std::size_t count) {
  forward_dct<Backend, C::P>(x, f, count, kernel);
}

template <class C>
DELTADCT_NOINLINE void inverse(const typename C::T* f, typename C::T* x, std::size_t count) {
  inverse_dct<Backend, C::P>(f, x, count, kernel);
}

template <class C>
Patch<C> forward_of(const Patch<C>& x) {
  Patch<C> f;
  forward<C>(x.values, f.values, 1);
  return f;
}

template <class C>
Patch<C> inverse_of(const Patch<C>& f) {
  Patch<C> x;
  inverse<C>(f.values, x.values, 1);
  return x;
}

template <class C>
std::vector<double> cosines() {
  std::vector<double> c;
  for (int k = 0; k < C::P; ++k) {
    for (int j = 0; j < C::P; ++j) c.push_back(dct_matrix(C::P, k, j));
  }
  return c;
}

double entry(const std::vector<double>& c, int p, int k, int j) {
  return c[static_cast<std::size_t>(k * p + j)];
}

template <class C>
std::vector<double> widened(const Patch<C>& x) {
  return {x.values, x.values + C::area};
}

// The layout of coefficients: transposed.
template <class C>
std::vector<double> turned(const std::vector<double>& x) {
  std::vector<double> y(x.size());
  for (int a = 0; a < C::P; ++a) {
    for (int b = 0; b < C::P; ++b) {
      y[static_cast<std::size_t>(a * C::P + b)] = x[static_cast<std::size_t>(b * C::P + a)];
    }
  }
  return y;
}

// |found - expected| / |expected|, by Euclidean norms.
template <class C>
double error(const Patch<C>& found, const std::vector<double>& expected) {
  double difference = 0;
  double square = 0;
  for (int s = 0; s < C::area; ++s) {
    const double e = expected[static_cast<std::size_t>(s)];
    difference += (found[s] - e) * (found[s] - e);
    square += e * e;
  }
  return std::sqrt(difference / square);
}

template <class C>
double dot(const Patch<C>& a, const Patch<C>& b) {
  double sum = 0;
  for (int s = 0; s < C::area; ++s) sum += static_cast<double>(a[s]) * static_cast<double>(b[s]);
  return sum;
}

// The transform of the basis vector e(i, j) is the outer product of two columns of C. The inverse
// transform of coefficient (i, j) is the outer product of two rows.
template <class C>
std::vector<double> outer(const std::vector<double>& c, int i, int j, bool columns) {
  std::vector<double> f;
  for (int a = 0; a < C::P; ++a) {
    for (int b = 0; b < C::P; ++b) {
      f.push_back(columns ? entry(c, C::P, a, i) * entry(c, C::P, b, j)
                          : entry(c, C::P, i, a) * entry(c, C::P, j, b));
    }
  }
  return f;
}

}  // namespace

// The codec's patch sizes, and others of every kind: powers of two, odd numbers, primes, and twice
// and four times those.
#define ALL_CASES                                                                            \
  Case<float, 4>, Case<float, 8>, Case<float, 12>, Case<float, 16>, Case<float, 32>,         \
      Case<float, 64>, Case<double, 4>, Case<double, 8>, Case<double, 12>, Case<double, 16>, \
      Case<double, 32>, Case<double, 64>, Case<float, 2>, Case<double, 2>, Case<float, 3>,   \
      Case<float, 5>, Case<double, 6>, Case<float, 10>, Case<double, 13>, Case<float, 20>,   \
      Case<double, 24>, Case<float, 31>, Case<float, 48>, Case<float, 63>

TEST_CASE_TEMPLATE("backend: every basis vector transforms as defined, both ways", C, ALL_CASES) {
  const auto c = cosines<C>();
  double worst_forward = 0;
  double worst_inverse = 0;
  // At P = 64, a third of the 4096 vectors, which still covers every row and column.
  for (int s = 0; s < C::area; s += C::P == 64 ? 3 : 1) {
    Patch<C> basis;
    basis[s] = 1;
    const int i = s / C::P;
    const int j = s % C::P;
    worst_forward =
        std::max(worst_forward, error(forward_of(basis), turned<C>(outer<C>(c, i, j, true))));
    worst_inverse = std::max(worst_inverse, error(inverse_of(basis), outer<C>(c, j, i, false)));
  }
  INFO(
      "coefficient (k_row, k_column) must be at F[k_column * P + k_row]: a backend lays out "
      "coefficients transposed, see backend/kernel.hpp");
  CHECK(worst_forward < C::worst);
  CHECK(worst_inverse < C::worst);
}

TEST_CASE_TEMPLATE("backend: random patches transform as the reference does", C, ALL_CASES) {
  INFO(
      "coefficient (k_row, k_column) must be at F[k_column * P + k_row]: a backend lays out "
      "coefficients transposed, see backend/kernel.hpp");
  for (std::uint32_t seed = 1; seed <= (C::P == 64 ? 2 : 8); ++seed) {
    const Patch<C> x = random_patch<C>(seed);
    std::vector<double> expected = widened(x);
    reference_forward(C::P, expected.data(), expected.data());
    CHECK(error(forward_of(x), turned<C>(expected)) < C::tolerance);

    expected = turned<C>(widened(x));
    reference_inverse(C::P, expected.data(), expected.data());
    CHECK(error(inverse_of(x), expected) < C::tolerance);
  }
}

TEST_CASE_TEMPLATE("backend: the inverse undoes the forward transform", C, ALL_CASES) {
  for (std::uint32_t seed = 1; seed <= 8; ++seed) {
    const Patch<C> x = random_patch<C>(seed);
    CHECK(error(inverse_of(forward_of(x)), widened(x)) < 2 * C::tolerance);
    CHECK(error(forward_of(inverse_of(x)), widened(x)) < 2 * C::tolerance);
  }
}

TEST_CASE_TEMPLATE("backend: the inverse is the adjoint and keeps lengths", C, ALL_CASES) {
  for (std::uint32_t seed = 1; seed <= 8; ++seed) {
    const Patch<C> x = random_patch<C>(seed);
    const Patch<C> y = random_patch<C>(seed + 100);
    const Patch<C> f = forward_of(x);
    const double length = std::sqrt(dot(x, x) * dot(y, y));
    CHECK(std::abs(dot(f, y) - dot(x, inverse_of(y))) < 2 * C::tolerance * length);
    CHECK(std::abs(dot(f, f) - dot(x, x)) < 2 * C::tolerance * dot(x, x));
  }
}

TEST_CASE_TEMPLATE("backend: a constant patch is one coefficient", C, ALL_CASES) {
  Patch<C> ones;
  for (auto& value : ones.values) value = 1;
  const Patch<C> f = forward_of(ones);
  std::vector<double> expected(C::area, 0.0);
  expected[0] = C::P;
  CHECK(error(f, expected) < C::tolerance);
}

TEST_CASE_TEMPLATE("backend: patches one after another transform as each by itself", C, ALL_CASES) {
  using T = typename C::T;
  constexpr std::size_t count = 5;
  struct alignas(64) Patches {
    T values[count * C::area];
  };
  const auto x = std::make_unique<Patches>();
  const auto f = std::make_unique<Patches>();
  const auto back = std::make_unique<Patches>();
  std::vector<Patch<C>> single;
  for (std::size_t k = 0; k < count; ++k) {
    single.push_back(random_patch<C>(static_cast<std::uint32_t>(k)));
    std::ranges::copy(single.back().values, x->values + k * C::area);
  }
  forward<C>(x->values, f->values, count);
  inverse<C>(f->values, back->values, count);
  const auto patch_of = [](const Patches& patches, std::size_t k) {
    Patch<C> patch;
    std::copy_n(patches.values + k * C::area, C::area, patch.values);
    return patch;
  };
  for (std::size_t k = 0; k < count; ++k) {
    CHECK(error(patch_of(*f, k), widened(forward_of(single[k]))) < C::tolerance);
    CHECK(error(patch_of(*back, k), widened(single[k])) < 2 * C::tolerance);
  }
}

TEST_CASE("backend: what the tests run on is available, and has a name") {
  CHECK(DctKernel<Backend>::available());
  CHECK(!DctKernel<Backend>::name.empty());
}
