// Elements of a matrix that are kept at random. A seed determines which they are, so only their
// values are stored.
#pragma once

#include <deltadct/baseline/packed.hpp>
#include <deltadct/compressed_tensor.hpp>
#include <deltadct/core/arithmetic.hpp>
#include <deltadct/core/random.hpp>

#include <algorithm>
#include <bit>
#include <cmath>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// Converts the probability of keeping an element, not 0, to the greatest draw that is kept. A draw
/// is 32 random bits.
inline std::uint32_t last_draw(double chance) noexcept {
  return static_cast<std::uint32_t>(std::clamp(std::rint(chance * 0x1p32), 1.0, 0x1p32) - 1);
}

/// The draw of element s, row-major.
inline std::uint32_t draw(std::uint64_t seed, std::size_t s) noexcept {
  return static_cast<std::uint32_t>(random_bits(seed, s) >> 32);
}

/// The seed of one matrix, derived from the method's seed and the matrix's elements. With a common
/// seed, all matrices would drop the elements at the same positions.
template <class T>
std::uint64_t seed_of(std::uint64_t seed, const T* values, std::size_t count) noexcept {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  for (std::size_t s = 0; s < count; ++s) seed = random_bits(seed, std::bit_cast<Bits>(values[s]));
  return seed;
}

/// The elements whose draw is at most `last`, numbered in row-major order.
class Thinned {
 public:
  /// The lowest probability of keeping an element. It prevents a few bytes from claiming a huge
  /// matrix.
  static constexpr double kLeastChance = 1.0 / 1024;

  Thinned() = default;
  Thinned(std::uint64_t seed, std::uint32_t last, std::size_t rows, std::size_t cols)
      : seed_(seed), last_(last), cols_(cols) {
    first_.reserve(ceil_div(rows * cols, kSpan));
    for (std::size_t s = 0; s < rows * cols; ++s) {
      if (s % kSpan == 0) first_.push_back(count_);
      if (draw(seed_, s) <= last_) ++count_;
    }
  }

  /// How many elements of a matrix are kept, computed without allocating memory.
  static std::size_t count(std::uint64_t seed, std::uint32_t last, std::size_t elements) noexcept {
    std::size_t kept = 0;
    for (std::size_t s = 0; s < elements; ++s) kept += draw(seed, s) <= last ? 1 : 0;
    return kept;
  }

  /// Throws corrupt_data if `kept` cannot be the number of elements kept. Called before time or
  /// memory is spent on a matrix of that size.
  static void check_count(std::uint32_t last, std::size_t elements, std::size_t kept) {
    const double chance = (last + 1.0) * 0x1p-32;
    const double expected = chance * static_cast<double>(elements);
    if (chance < 0.999 * kLeastChance ||
        std::abs(static_cast<double>(kept) - expected) > 16 + 12 * std::sqrt(expected)) {
      fail_validation("number of the elements kept");
    }
  }

  std::size_t count() const noexcept { return count_; }

  /// Calls fn(j, k, draw) for each element kept in the columns [col, col + cols) of a row: j is its
  /// column, k its number among all elements kept.
  template <class Fn>
  void for_each(std::size_t row, std::size_t col, std::size_t cols, Fn fn) const {
    const std::size_t begin = row * cols_ + col;
    std::size_t k = first_[begin / kSpan];
    for (std::size_t s = begin / kSpan * kSpan; s < begin + cols; ++s) {
      const std::uint32_t drawn = draw(seed_, s);
      if (drawn > last_) continue;
      if (s >= begin) fn(s - row * cols_, k, drawn);
      ++k;
    }
  }

 private:
  static constexpr std::size_t kSpan = 128;

  std::uint64_t seed_ = 0;
  std::uint32_t last_ = 0;
  std::size_t cols_ = 0;
  std::size_t count_ = 0;
  std::vector<std::size_t> first_;  // number of the first element kept in each span
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
