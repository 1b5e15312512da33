// The singular value decomposition of a matrix, computed in double by Eigen 3.
#pragma once

#include <deltadct/core/error.hpp>
#include <deltadct/core/random.hpp>

#include <algorithm>
#include <cstdint>
#include <utility>

#include <Eigen/Eigenvalues>
#include <Eigen/QR>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// Singular values, the largest first, with their vectors.
struct Triplets {
  Eigen::MatrixXd left;  // m x r
  Eigen::VectorXd sigma;
  Eigen::MatrixXd right;  // n x r
};

inline Eigen::MatrixXd orthonormal(const Eigen::MatrixXd& columns) {
  const Eigen::HouseholderQR<Eigen::MatrixXd> qr(columns);
  return qr.householderQ() * Eigen::MatrixXd::Identity(columns.rows(), columns.cols());
}

/// Orthonormal columns that span approximately the same space as the first `rank` left vectors.
inline Eigen::MatrixXd range_of(const Eigen::MatrixXd& matrix, Eigen::Index rank) {
  constexpr Eigen::Index kMore = 8;
  constexpr int kPowers = 2;
  const Eigen::Index count = std::min(rank + kMore, std::min(matrix.rows(), matrix.cols()));
  Eigen::MatrixXd probe(matrix.cols(), count);
  for (Eigen::Index s = 0; s < probe.size(); ++s) {
    // The sum of four uniform 16-bit numbers is close enough to a normal distribution here.
    std::uint64_t bits = random_bits(0, static_cast<std::uint64_t>(s));
    double sum = 0;
    for (int part = 0; part < 4; ++part, bits >>= 16) sum += static_cast<double>(bits & 0xFFFF);
    probe.data()[s] = sum - 2 * 0xFFFF;
  }
  Eigen::MatrixXd basis = orthonormal(matrix * probe);
  for (int power = 0; power < kPowers; ++power) {
    basis = orthonormal(matrix * orthonormal(matrix.transpose() * basis));
  }
  return basis;
}

/// All triplets, from the eigenvectors of the shorter side.
inline Triplets decompose_exactly(const Eigen::MatrixXd& matrix) {
  if (matrix.rows() > matrix.cols()) {
    Triplets transposed = decompose_exactly(matrix.transpose());
    std::swap(transposed.left, transposed.right);
    return transposed;
  }
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(matrix * matrix.transpose());
  if (solver.info() != Eigen::Success) {
    throw Error(Errc::non_finite, "delta", "its singular vectors were not found");
  }
  // Eigen sorts the eigenvalues in increasing order.
  Triplets found{solver.eigenvectors().rowwise().reverse(), {}, {}};
  found.right = matrix.transpose() * found.left;
  found.sigma = found.right.colwise().norm();
  for (Eigen::Index k = 0; k < found.sigma.size(); ++k) {
    if (found.sigma(k) != 0) found.right.col(k) /= found.sigma(k);
  }
  return found;
}

/// The triplets of the largest singular values: at most `most`, and only those greater than
/// `none` times the largest.
inline Triplets decompose(const Eigen::MatrixXd& matrix, Eigen::Index most, double none) {
  constexpr Eigen::Index kExact = 1024;
  Triplets found;
  if (std::min(matrix.rows(), matrix.cols()) <= kExact) {
    found = decompose_exactly(matrix);
  } else {
    const Eigen::MatrixXd basis = range_of(matrix, most);
    found = decompose_exactly(basis.transpose() * matrix);
    found.left = basis * found.left;
  }
  Eigen::Index rank = 0;
  while (rank < std::min(most, found.sigma.size()) && found.sigma(rank) > none * found.sigma(0))
    ++rank;
  found = {found.left.leftCols(rank), found.sigma.head(rank), found.right.leftCols(rank)};
  // The sign of a triplet is arbitrary. The largest entry of each left vector is made positive,
  // so that the packed forms agree.
  for (Eigen::Index k = 0; k < rank; ++k) {
    Eigen::Index at = 0;
    found.left.col(k).cwiseAbs().maxCoeff(&at);
    if (found.left(at, k) > 0) continue;
    found.left.col(k) *= -1;
    found.right.col(k) *= -1;
  }
  return found;
}

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
