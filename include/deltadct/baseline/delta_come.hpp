// Delta-CoMe: singular vectors in mixed precision, with more bits for larger singular values (Ping
// et al., arXiv 2406.08903), rounded without calibration data. Needs Eigen 3.
//
//     D = U diag(sigma) V^T,   D^ = U^ diag(sigma^) V^^T
#pragma once

#include <deltadct/baseline/baseline_codec.hpp>
#include <deltadct/baseline/singular_triplets.hpp>
#include <deltadct/core/text.hpp>

#include <array>

#include <Eigen/Core>

namespace deltadct { inline namespace DELTADCT_ABI {

/// The first 2 singular triplets are kept in 8 bits, the next 32 in 3 bits and, for an m x n
/// matrix, another floor((m n / (m + n) - 112) / 2) in 2 bits, up to its rank. Within each of these
/// groups the rows of U and of V^T are quantized in blocks of 128 columns:
///
///     s = (max - min) / (2^b - 1),  z = round(-min / s),  x^ = s (clamp(round(x / s) + z) - z)
///
/// where min is at most 0 and max at least 0. The singular vectors of the shorter side are the
/// eigenvectors of the matrix times its transpose, computed in double by Eigen. Multiplying the
/// matrix by them gives those of the longer side, so the sum of the triplets is the matrix
/// projected onto these vectors, however small a singular value is. Matrices with more than 1024
/// rows and columns use a randomized decomposition (Halko, Martinsson and Tropp, 2011) with two
/// power iterations. The result does not depend on the number of threads if Eigen is compiled
/// without its own (EIGEN_DONT_PARALLELIZE, or no OpenMP).
///
/// Packed: 3 x u32, the ranks of the groups; i16, an exponent e: the matrix was first divided by
/// 2^e; for each group its singular values in bfloat16, then U and V^T. Each of these has the pairs
/// (s, z) in half, row by row and block by block, followed by the codes, row by row.
struct DeltaCome {
 private:
  class Packed;

 public:
  static constexpr std::string_view name = "delta_come";

  /// If not 0, ranks are reduced, those of the last group first, until the packed form takes at
  /// most this many bits per weight, but never below one triplet.
  double bits_per_weight = 0;

  std::string text() const { return detail::exact_text(bits_per_weight); }

  template <class T>
  std::size_t max_bytes(std::size_t rows, std::size_t cols) const {
    return bytes_of(fitting_ranks(rows, cols), rows, cols);
  }

  /// Throws bad_mix if the budget is not positive; out_of_range if singular values leave the range
  /// of T, or all are too small for it; too_large if multiplying the factors would take too long
  /// for their number of bytes.
  template <class T>
  void encode(MatrixView<const T> delta, std::vector<std::byte>& out) const {
    using Eigen::Index;
    const Ranks most = fitting_ranks(delta.rows, delta.cols);
    double largest = 0;
    for (std::size_t s = 0; s < delta.rows * delta.cols; ++s) {
      largest = std::max(largest, std::abs(static_cast<double>(delta.data[s])));
    }
    int exponent = 0;
    std::frexp(largest, &exponent);
    using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const auto view = Eigen::Map<const Rows>(delta.data, index(delta.rows), index(delta.cols));
    const Matrix matrix =
        view.unaryExpr([&](T x) { return std::ldexp(static_cast<double>(x), -exponent); });
    // Singular values smaller than this, relative to the largest, can come from rounding to T
    // alone: a matrix of independent rounding errors has about this largest singular value.
    const double none =
        static_cast<double>(std::numeric_limits<T>::epsilon()) *
        (std::sqrt(static_cast<double>(delta.rows)) + std::sqrt(static_cast<double>(delta.cols)));
    const detail::Triplets triplets =
        detail::decompose(matrix, index(most[0] + most[1] + most[2]), none);

    Ranks ranks{};
    auto left = static_cast<std::size_t>(triplets.sigma.size());
    for (std::size_t g = 0; g < kGroups; ++g) {
      ranks[g] = static_cast<std::uint32_t>(std::min<std::size_t>(most[g], left));
      left -= ranks[g];
    }
    if (takes_too_long(ranks, delta.rows, delta.cols)) {
      throw Error(Errc::too_large, "matrix", shape_text(delta.rows, delta.cols) + " of low rank");
    }
    detail::PackedWriter writer(out);
    writer.put(ranks);
    writer.put(static_cast<std::int16_t>(exponent));
    Index first = 0;
    for (std::size_t g = 0; g < kGroups; ++g) {
      const Index rank = ranks[g];
      for (Index k = first; k < first + rank; ++k) {
        const double sigma = writer.put_bfloat16(triplets.sigma(k), "singular value");
        if (!is_within<T>(std::ldexp(sigma, exponent))) {
          throw Error(Errc::out_of_range, "singular value", "beyond that of the compute type");
        }
        if (k == 0 && sigma != 0 &&
            std::ldexp(sigma, exponent) < static_cast<double>(std::numeric_limits<T>::min())) {
          throw Error(Errc::out_of_range, "delta", detail::kLostText);
        }
      }
      pack(writer, kBits[g], triplets.left.middleCols(first, rank));
      pack(writer, kBits[g], triplets.right.middleCols(first, rank).transpose());
      first += rank;
    }
  }

  /// A bound on the decoded magnitudes. Throws corrupt_data.
  template <class T>
  static T check(std::span<const std::byte> packed, std::size_t rows, std::size_t cols) {
    const auto ignore = [](std::size_t, std::size_t, T) {};
    return Packed(packed, rows, cols).template read<T>(ignore, ignore);
  }

  template <class T>
  class Decoder {
   public:
    Decoder(std::span<const std::byte> packed, std::size_t rows, std::size_t cols) {
      const Packed all(packed, rows, cols);
      left_.resize(index(rows), index(all.rank()));
      right_.resize(index(all.rank()), index(cols));
      largest_ = all.template read<T>(
          [&](std::size_t i, std::size_t k, T x) { left_(index(i), index(k)) = x; },
          [&](std::size_t k, std::size_t j, T x) { right_(index(k), index(j)) = x; });
    }

    /// An upper bound, not the exact largest magnitude.
    T largest() const noexcept { return largest_; }

    void block(std::size_t row, std::size_t rows, std::size_t col, std::size_t cols,
               T* out) const noexcept {
      std::fill_n(out, rows * cols, T(0));
      // Terms are added in a fixed order, so that an element is the same in every block.
      for (std::size_t i = 0; i < rows; ++i, out += cols) {
        for (Eigen::Index k = 0; k < left_.cols(); ++k) {
          const T factor = left_(index(row + i), k);
          const T* term = right_.data() + k * right_.cols() + index(col);
          for (std::size_t j = 0; j < cols; ++j) out[j] += factor * term[j];
        }
      }
    }

   private:
    using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

    Rows left_;
    Rows right_;  // multiplied by the singular values
    T largest_ = 0;
  };

 private:
  using Matrix = Eigen::MatrixXd;
  static constexpr std::size_t kGroups = 3;
  static constexpr int kBits[kGroups] = {8, 3, 2};
  static constexpr std::size_t kBlock = 128;
  using Ranks = std::array<std::uint32_t, kGroups>;

  /// Whether a factor in T can be multiplied by this singular value.
  template <class T>
  static bool is_within(double sigma) noexcept {
    return detail::is_within<T>(sigma) && sigma >= 0;
  }

  static Eigen::Index index(std::size_t n) noexcept { return static_cast<Eigen::Index>(n); }

  /// The ranks of the published method. Throws too_large for shapes whose products would overflow.
  static Ranks published_ranks(std::size_t rows, std::size_t cols) {
    count_elements(rows, cols);
    const auto m = static_cast<double>(rows);
    const auto n = static_cast<double>(cols);
    const double third = std::max(0.0, std::floor((m * n / (m + n) - 112) / 2));
    const std::size_t rank = std::min(rows, cols);
    const std::size_t most[] = {2, 32, static_cast<std::size_t>(third)};
    Ranks ranks{};
    std::size_t used = 0;
    for (std::size_t g = 0; g < kGroups; ++g) {
      ranks[g] = static_cast<std::uint32_t>(std::min(most[g], rank - used));
      used += ranks[g];
    }
    return ranks;
  }

  /// Bytes of one factor. rows * cols does not overflow: no side of a factor is longer than the
  /// matrix's.
  static SaturatingSize factor_bytes(int bits, std::size_t rows, std::size_t cols) noexcept {
    return SaturatingSize(rows) * ceil_div(cols, kBlock) * (2 * sizeof(half)) +
           bits::dense_bytes(bits, rows * cols);
  }

  /// Whether decoding would take too many multiplications for the number of packed bytes. Otherwise
  /// a few bytes of an untrusted archive could cost hours. A matrix with fewer than 65,536 rows and
  /// columns is never rejected.
  static bool takes_too_long(const Ranks& ranks, std::size_t rows, std::size_t cols) {
    constexpr double kProductsPerByte = 1 << 17;
    const double rank = static_cast<double>(ranks[0]) + ranks[1] + ranks[2];
    return rank * static_cast<double>(rows) * static_cast<double>(cols) >
           kProductsPerByte * static_cast<double>(bytes_of(ranks, rows, cols));
  }

  /// Throws too_large.
  static std::size_t bytes_of(const Ranks& ranks, std::size_t rows, std::size_t cols) {
    SaturatingSize bytes = sizeof(Ranks) + sizeof(std::int16_t);
    for (std::size_t g = 0; g < kGroups; ++g) {
      bytes = bytes + ranks[g] * sizeof(bfloat16) + factor_bytes(kBits[g], rows, ranks[g]) +
              factor_bytes(kBits[g], ranks[g], cols);
    }
    return checked_size(bytes, rows, cols);
  }

  Ranks fitting_ranks(std::size_t rows, std::size_t cols) const {
    Ranks ranks = published_ranks(rows, cols);
    if (bits_per_weight == 0) return ranks;
    if (!(bits_per_weight > 0)) {
      throw Error(Errc::bad_mix, "budget",
                  detail::exact_text(bits_per_weight) + " bits a weight is not positive");
    }
    const double most = bits_per_weight / 8 * static_cast<double>(rows * cols);
    for (std::size_t g = kGroups; g-- > 0;) {
      while (ranks[g] > 0 && !(static_cast<double>(bytes_of(ranks, rows, cols)) <= most))
        --ranks[g];
    }
    if (ranks[0] == 0 && rows != 0 && cols != 0) ranks[0] = 1;
    return ranks;
  }

  static void pack(detail::PackedWriter& writer, int bits, const Matrix& factor) {
    const auto top = static_cast<double>((1 << bits) - 1);
    const auto rows = static_cast<std::size_t>(factor.rows());
    const auto cols = static_cast<std::size_t>(factor.cols());
    std::vector<std::uint8_t> codes;
    for (Eigen::Index i = 0; i < factor.rows(); ++i) {
      for (std::size_t j = 0; j < cols; j += kBlock) {
        const auto block = factor.row(i).segment(index(j), index(std::min(kBlock, cols - j)));
        const double lo = std::min(0.0, block.minCoeff());
        const double hi = std::max(0.0, block.maxCoeff());
        const half step(static_cast<float>((hi - lo) / top));
        const auto s = static_cast<double>(static_cast<float>(step));
        const double z = s == 0 ? 0 : std::clamp(std::nearbyint(-lo / s), 0.0, top);
        writer.put(step);
        writer.put(half(static_cast<float>(z)));
        for (const double x : block) {
          const double code = s == 0 ? z : std::clamp(std::nearbyint(x / s) + z, 0.0, top);
          codes.push_back(static_cast<std::uint8_t>(code));
        }
      }
    }
    std::byte* packed = writer.room(bits::dense_bytes(bits, rows * cols)).data();
    for (std::size_t k = 0; k < codes.size(); ++k) bits::put_dense(packed, bits, k, codes[k]);
  }

  /// The packed form, read from front to back.
  class Packed {
   public:
    /// Throws corrupt_data unless the size is the one that the ranks and the shape imply. The check
    /// comes before memory or time is spent on a matrix of that shape.
    Packed(std::span<const std::byte> packed, std::size_t rows, std::size_t cols)
        : reader_(packed),
          rows_(rows),
          cols_(cols),
          ranks_(reader_.take<Ranks>("ranks")),
          exponent_(reader_.take<std::int16_t>("exponent")) {
      if (rank() > std::min(rows, cols)) detail::fail_validation("ranks");
      if (packed.size() != bytes_of(ranks_, rows, cols)) {
        detail::fail_validation("size of the codes");
      }
      if (takes_too_long(ranks_, rows, cols)) detail::fail_validation("products for a byte");
    }

    std::size_t rank() const noexcept {
      return std::size_t{ranks_[0]} + std::size_t{ranks_[1]} + std::size_t{ranks_[2]};
    }

    /// Passes the factors to left(row, k, value) and right(k, column, value); the latter are
    /// multiplied by the singular values. Returns a bound on the magnitudes of their product.
    template <class T, class Left, class Right>
    T read(Left&& left, Right&& right) const {
      if (rank() == 0) return 0;  // whatever number of rows the header claims
      detail::PackedReader reader = reader_;
      std::vector<T> sums(rows_);  // of the magnitudes of each row of the left factor
      T peak = 0;
      std::size_t first = 0;
      for (std::size_t g = 0; g < kGroups; ++g) {
        const std::size_t rank = ranks_[g];
        const auto sigma = reader.take_bfloat16<double>(rank, "singular values");
        unpack<T>(reader, kBits[g], rows_, rank, [&](std::size_t i, std::size_t k, T x) {
          sums[i] += std::abs(x);
          left(i, first + k, x);
        });
        std::vector<T> factors(rank);
        for (std::size_t k = 0; k < rank; ++k) factors[k] = factor_of<T>(sigma[k]);
        unpack<T>(reader, kBits[g], rank, cols_, [&](std::size_t k, std::size_t j, T x) {
          x *= factors[k];
          peak = std::max(peak, std::abs(x));
          right(first + k, j, x);
        });
        first += rank;
      }
      reader.finish();
      // The factor of 2 covers rounding errors.
      return 2 * std::ranges::max(sums) * peak;
    }

   private:
    template <class T>
    T factor_of(double sigma) const {
      const double factor = std::ldexp(sigma, exponent_);
      if (!is_within<T>(factor)) detail::fail_validation("singular value");
      return static_cast<T>(factor);
    }

    detail::PackedReader reader_;
    std::size_t rows_;
    std::size_t cols_;
    Ranks ranks_;
    int exponent_;
  };

  /// Passes the elements of a factor to put(row, column, value).
  template <class T, class Put>
  static void unpack(detail::PackedReader& reader, int bits, std::size_t rows, std::size_t cols,
                     const Put& put) {
    const std::size_t blocks = ceil_div(cols, kBlock);
    const std::byte* pairs = reader.bytes(rows * blocks * 2 * sizeof(half), "steps").data();
    const std::byte* codes = reader.bytes(bits::dense_bytes(bits, rows * cols), "codes").data();
    if (!bits::is_dense_padded(codes, bits, rows * cols)) {
      detail::fail_validation("padding is not zero");
    }
    if (cols == 0) return;  // a group of rank 0
    for (std::size_t i = 0; i < rows; ++i) {
      for (std::size_t b = 0; b < blocks; ++b, pairs += 2 * sizeof(half)) {
        half pair[2];
        std::memcpy(pair, pairs, sizeof pair);
        const auto s = static_cast<T>(static_cast<float>(pair[0]));
        const auto z = static_cast<T>(static_cast<float>(pair[1]));
        if (!detail::all_finite(pair, 2) || s < 0 || s > 1 || z < 0 || z >= T(1 << bits) ||
            z != std::rint(z)) {
          detail::fail_validation("step or zero of a block");
        }
        for (std::size_t j = b * kBlock; j < std::min(cols, (b + 1) * kBlock); ++j) {
          put(i, j, s * (static_cast<T>(bits::get_dense(codes, bits, i * cols + j)) - z));
        }
      }
    }
  }
};

}}  // namespace deltadct::inline DELTADCT_ABI
