// Lee's butterflies of every length, compared with the matrix that they stand for.
#include <deltadct/dct/butterfly.hpp>
#include <deltadct/dct/reference.hpp>

#include <random>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

template <int N_, class T_>
struct Case {
  static constexpr int N = N_;
  using T = T_;
  static constexpr double tolerance = (sizeof(T) == 4 ? 1e-6 : 2e-15) * (N == 64 ? 2 : 1);
};

template <class C>
struct Points {
  typename C::T x[C::N] = {};
};

template <class C>
Points<C> forward_of(const Points<C>& p) {
  Points<C> y;
  forward<C::N, typename C::T>([&](int i) { return p.x[i]; },
                               [&](int k, typename C::T value) { y.x[k] = value; });
  return y;
}

template <class C>
Points<C> inverse_of(const Points<C>& p) {
  Points<C> y;
  inverse<C::N, typename C::T>([&](int k) { return p.x[k]; },
                               [&](int i, typename C::T value) { y.x[i] = value; });
  return y;
}

template <class C>
Points<C> basis(int j) {
  Points<C> p;
  p.x[j] = 1;
  return p;
}

template <class C>
Points<C> random_points(unsigned seed) {
  std::mt19937 bits(seed);
  Points<C> p;
  for (auto& x : p.x) x = static_cast<typename C::T>(static_cast<double>(bits()) * 0x1p-31 - 1);
  return p;
}

template <class C>
double dot(const Points<C>& a, const Points<C>& b) {
  double sum = 0;
  for (int i = 0; i < C::N; ++i) sum += static_cast<double>(a.x[i]) * static_cast<double>(b.x[i]);
  return sum;
}

// S = sqrt(N) C.
template <class C>
double entry(int k, int j) {
  return std::sqrt(static_cast<double>(C::N)) * dct_matrix(C::N, k, j);
}

// found - S e(j)| / |S e(j)|, or the same with S^T. The rows and columns of S have length sqrt(N).
template <class C>
double basis_error(int j, bool transposed) {
  const Points<C> found = transposed ? inverse_of(basis<C>(j)) : forward_of(basis<C>(j));
  double square = 0;
  for (int k = 0; k < C::N; ++k) {
    const double e = transposed ? entry<C>(j, k) : entry<C>(k, j);
    square += (found.x[k] - e) * (found.x[k] - e);
  }
  return std::sqrt(square / C::N);
}

}  // namespace

#define LENGTHS_OF(T)                                                                   \
  Case<2, T>, Case<3, T>, Case<4, T>, Case<6, T>, Case<8, T>, Case<12, T>, Case<16, T>, \
      Case<32, T>, Case<64, T>
#define ALL_CASES LENGTHS_OF(float), LENGTHS_OF(double)

TEST_CASE_TEMPLATE("butterfly: forward is S on every basis vector", C, ALL_CASES) {
  double worst = 0;
  for (int j = 0; j < C::N; ++j) worst = std::max(worst, basis_error<C>(j, false));
  CHECK(worst < C::tolerance);
}

TEST_CASE_TEMPLATE("butterfly: inverse is S transposed on every basis vector", C, ALL_CASES) {
  double worst = 0;
  for (int j = 0; j < C::N; ++j) worst = std::max(worst, basis_error<C>(j, true));
  CHECK(worst < C::tolerance);
}

TEST_CASE_TEMPLATE("butterfly: inverse is the adjoint of forward", C, ALL_CASES) {
  for (unsigned seed = 1; seed <= 8; ++seed) {
    const auto x = random_points<C>(seed);
    const auto y = random_points<C>(seed + 50);
    const double length = std::sqrt(C::N * dot(x, x) * dot(y, y));
    CHECK(std::abs(dot(forward_of(x), y) - dot(x, inverse_of(y))) < 2 * C::tolerance * length);
  }
}

TEST_CASE_TEMPLATE("butterfly: inverse after forward is N times the points", C, ALL_CASES) {
  for (unsigned seed = 1; seed <= 8; ++seed) {
    const auto x = random_points<C>(seed);
    const auto back = inverse_of(forward_of(x));
    double square = 0;
    for (int i = 0; i < C::N; ++i) {
      const double e = C::N * static_cast<double>(x.x[i]);
      square += (back.x[i] - e) * (back.x[i] - e);
    }
    CHECK(std::sqrt(square / dot(x, x)) / C::N < 2 * C::tolerance);
  }
}

TEST_CASE("butterfly: a transform can be computed at compile time") {
  constexpr auto first = [] {
    double sum = 0;
    forward<4, double>([](int i) { return i + 1.0; },
                       [&](int k, double x) { sum = k == 0 ? x : sum; });
    return sum;
  }();
  static_assert(first == 10);
}

TEST_CASE("butterfly: the patch sizes are those with a transform") {
  int sizes = 0;
  for (int p = -1; p <= 128; ++p) sizes += is_patch_size(p);
  CHECK(sizes == 6);
  for (const int p : {4, 8, 12, 16, 32, 64}) CHECK(is_patch_size(p));
}
