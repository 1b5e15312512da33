// The Eigen backend: computes C X C^T as two matrix products.
#pragma once

#include <deltadct/backend/kernel.hpp>
#include <deltadct/dct/cosine.hpp>

#include <Eigen/Core>

namespace deltadct { inline namespace DELTADCT_ABI {

/// Eigen's matrix products, vectorised for the instruction set this translation unit is compiled
/// for.
struct EigenProducts {};

template <>
struct DctKernel<EigenProducts> : ArrayKernel<DctKernel<EigenProducts>>, ScalarCodes {
  static constexpr std::string_view name = "eigen";

  static constexpr bool available() noexcept { return true; }

  template <int P, class T>
  void prepare() const noexcept {}

  /// F^T = C (C X)^T
  template <int P, class T>
  void forward_patch(const T* patch, T* coefficients) const noexcept {
    multiply_twice<P>(cosines<P, T>, patch, coefficients);
  }

  /// X = C^T (C^T F^T)^T
  template <int P, class T>
  void inverse_patch(const T* coefficients, T* patch) const noexcept {
    multiply_twice<P>(transposed_cosines<P, T>, coefficients, patch);
  }

 private:
  template <int P, class T>
  using Matrix = Eigen::Matrix<T, P, P, Eigen::RowMajor>;

  template <int P, class T>
  struct alignas(64) Table {
    std::array<T, static_cast<std::size_t>(P) * P> entries;
  };

  template <int P, class T>
  static constexpr Table<P, T> transposed() noexcept {
    const auto c = dct_table<P, T>();
    Table<P, T> transposed{};
    for (unsigned k = 0; k < P; ++k) {
      for (unsigned j = 0; j < P; ++j) transposed.entries[j * P + k] = c[k * P + j];
    }
    return transposed;
  }

  template <int P, class T>
  static constexpr Table<P, T> cosines{dct_table<P, T>()};
  template <int P, class T>
  static constexpr Table<P, T> transposed_cosines = transposed<P, T>();

  // Up to 16 points, products run in registers. Beyond that, Eigen's blocked product is faster.
  template <int P, class T>
  static void multiply_twice(const Table<P, T>& table, const T* from, T* to) noexcept {
    const Eigen::Map<const Matrix<P, T>, Eigen::Aligned64> c(table.entries.data());
    const Eigen::Map<const Matrix<P, T>> x(from);
    Eigen::Map<Matrix<P, T>> result(to);
    Matrix<P, T> product;
    if constexpr (P <= 16) {
      product = c.lazyProduct(x);
      const Matrix<P, T> transposed = product.transpose();
      result = c.lazyProduct(transposed);
    } else {
      multiply(c, x, product);
      multiply(c, product.transpose(), result);
    }
  }

  // Multiplies at most 32 rows at a time: with more rows and OpenMP, Eigen would start threads.
  template <class Left, class Right, class Result>
  static void multiply(const Left& left, const Right& right, Result& result) noexcept {
    constexpr int rows = Left::RowsAtCompileTime;
    constexpr int part = rows <= 32 ? rows : rows / 2;
    result.template topRows<part>().noalias() = left.template topRows<part>() * right;
    if constexpr (part != rows) {
      result.template bottomRows<rows - part>().noalias() =
          left.template bottomRows<rows - part>() * right;
    }
  }
};

}}  // namespace deltadct::inline DELTADCT_ABI
