// The 2-D DCT by its definition, O(P^2) per dimension, in double. Tests compare all other
// transforms with it. It is slow on purpose.
#pragma once

#include <deltadct/dct/cosine.hpp>

#include <cmath>
#include <cstddef>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI {

/// Element (k, j) of the orthonormal DCT-II matrix of P points:
/// C[k, j] = sqrt((k ? 2 : 1) / P) cos(pi (2 j + 1) k / 2 P).
inline double dct_matrix(int p, int k, int j) {
  return std::sqrt((k == 0 ? 1.0 : 2.0) / p) * cos_pi(static_cast<long>(2 * j + 1) * k, 2 * p);
}

namespace detail {

// out = M X M^T, with M[a, b] given by entry(a, b); p x p, row-major.
template <class Entry>
void sandwich(int p, const double* x, double* out, Entry entry) {
  const auto at = [p](int i, int j) { return static_cast<std::size_t>(i * p + j); };
  std::vector<double> left(at(p, 0));
  for (int a = 0; a < p; ++a) {
    for (int j = 0; j < p; ++j) {
      for (int b = 0; b < p; ++b) left[at(a, j)] += entry(a, b) * x[at(b, j)];
    }
  }
  for (int a = 0; a < p; ++a) {
    for (int j = 0; j < p; ++j) {
      double sum = 0;
      for (int b = 0; b < p; ++b) sum += left[at(a, b)] * entry(j, b);
      out[at(a, j)] = sum;
    }
  }
}

}  // namespace detail

/// out = C X C^T for one p x p patch, row-major; x and out may be the same.
inline void reference_forward(int p, const double* x, double* out) {
  detail::sandwich(p, x, out, [p](int a, int b) { return dct_matrix(p, a, b); });
}

/// out = C^T F C, the inverse of reference_forward().
inline void reference_inverse(int p, const double* f, double* out) {
  detail::sandwich(p, f, out, [p](int a, int b) { return dct_matrix(p, b, a); });
}

}}  // namespace deltadct::inline DELTADCT_ABI
