// BitDelta: the sign of every weight, and a scale (Liu et al., arXiv 2402.10193, section 3.1,
// before any distillation).
#pragma once

#include <deltadct/baseline/baseline_codec.hpp>

namespace deltadct { inline namespace DELTADCT_ABI {

/// D^ = alpha sign(D), where 0 counts as positive. alpha is the mean of |D|: over the whole matrix,
/// as published, or over the nonzero elements of each row or column.
///
/// Packed: one byte for the axis; the alphas in bfloat16; one bit per element, row-major, lowest
/// bits first, 1 if the element is negative.
struct BitDelta {
  enum class Axis : std::uint8_t { matrix, row, column };

  static constexpr std::string_view name = "bit_delta";

  Axis axis = Axis::matrix;

  std::string text() const {
    return axis == Axis::matrix ? "matrix" : axis == Axis::row ? "row" : "column";
  }

  template <class T>
  std::size_t max_bytes(std::size_t rows, std::size_t cols) const {
    const std::size_t signs = bits::dense_bytes(1, count_elements(rows, cols));
    const SaturatingSize alphas = SaturatingSize(scales(axis, rows, cols)) * sizeof(bfloat16);
    return checked_size(alphas + signs + sizeof(Axis), rows, cols);
  }

  /// Throws out_of_range if an alpha leaves the range of bfloat16, or is too small for it.
  template <class T>
  void encode(MatrixView<const T> delta, std::vector<std::byte>& out) const {
    struct Mean {
      double sum = 0;
      double count = 0;
    };
    std::vector<Mean> means(scales(axis, delta.rows, delta.cols));
    for (std::size_t i = 0; i < delta.rows; ++i) {
      for (std::size_t j = 0; j < delta.cols; ++j) {
        Mean& mean = means[place(axis, i, j)];
        mean.sum += std::abs(static_cast<double>(delta(i, j)));
        mean.count += axis == Axis::matrix || delta(i, j) != 0 ? 1 : 0;
      }
    }
    detail::PackedWriter writer(out);
    writer.put(axis);
    double largest = 0;
    double lost = 0;
    for (const Mean& mean : means) {
      const double alpha = mean.count == 0 ? 0 : mean.sum / mean.count;
      const double stored = writer.put_bfloat16(alpha, "alpha");
      largest = std::max(largest, stored);
      lost = std::max(lost, detail::lost_of(alpha, stored));
    }
    if (detail::is_lost(lost, largest)) {
      throw Error(Errc::out_of_range, "delta", detail::kLostText);
    }
    const std::size_t elements = delta.rows * delta.cols;
    std::byte* signs = writer.room(bits::dense_bytes(1, elements)).data();
    for (std::size_t s = 0; s < elements; ++s) {
      if (delta.data[s] < 0) bits::put_dense(signs, 1, s, 1);
    }
  }

  /// A bound on the decoded magnitudes. Throws corrupt_data.
  template <class T>
  static T check(std::span<const std::byte> packed, std::size_t rows, std::size_t cols) {
    return Decoder<T>(packed, rows, cols).largest();
  }

  template <class T>
  class Decoder {
   public:
    Decoder(std::span<const std::byte> packed, std::size_t rows, std::size_t cols) : cols_(cols) {
      detail::PackedReader reader(packed);
      axis_ = reader.take<Axis>("axis");
      if (axis_ > Axis::column) detail::fail_validation("axis");
      const std::size_t count = scales(axis_, rows, cols);
      alphas_ = reader.take_bfloat16<T>(count, "alphas");
      for (const T alpha : alphas_) {
        if (alpha < 0) detail::fail_validation("alpha, which is negative");
        largest_ = std::max(largest_, alpha);
      }
      signs_ = reader.bytes(bits::dense_bytes(1, rows * cols), "signs");
      if (!bits::is_dense_padded(signs_.data(), 1, rows * cols)) {
        detail::fail_validation("padding is not zero");
      }
      reader.finish();
    }

    T largest() const noexcept { return largest_; }

    void block(std::size_t row, std::size_t rows, std::size_t col, std::size_t cols,
               T* out) const noexcept {
      for (std::size_t i = row; i < row + rows; ++i) {
        for (std::size_t j = col; j < col + cols; ++j) {
          const T x = alphas_[place(axis_, i, j)];
          *out++ = bits::get_dense(signs_.data(), 1, i * cols_ + j) == 0 ? x : -x;
        }
      }
    }

   private:
    std::size_t cols_;
    Axis axis_ = Axis::matrix;
    std::vector<T> alphas_;
    std::span<const std::byte> signs_;
    T largest_ = 0;
  };

 private:
  static std::size_t scales(Axis axis, std::size_t rows, std::size_t cols) noexcept {
    return axis == Axis::matrix ? 1 : axis == Axis::row ? rows : cols;
  }
  static std::size_t place(Axis axis, std::size_t i, std::size_t j) noexcept {
    return axis == Axis::matrix ? 0 : axis == Axis::row ? i : j;
  }
};

}}  // namespace deltadct::inline DELTADCT_ABI
