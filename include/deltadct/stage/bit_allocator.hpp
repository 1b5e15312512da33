// Bit allocation: turns scores into a width class per patch.
#pragma once

#include <deltadct/core/bits.hpp>
#include <deltadct/core/error.hpp>
#include <deltadct/core/finite.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <numeric>
#include <span>
#include <string>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI {

/// A share of the patches, and the bits that each of their coefficients gets. For negative widths
/// see is_bit_width().
struct BitShare {
  int bits;
  double ratio;
};

/// Gives the patches with the highest scores the most bits, in fixed proportions (paper, section
/// 3.1).
///
/// Patches are sorted by descending score, ties by lower index. NaN counts as the lowest score.
/// Counts are the largest remainders of ratio * patches, so that they sum exactly to the number of
/// patches.
class RatioAllocator {
 public:
  /// The paper's mix: 2 bits for the better half, 0 bits for the rest.
  RatioAllocator() : RatioAllocator({{2, 0.5}, {0, 0.5}}) {}

  RatioAllocator(std::initializer_list<BitShare> mix)
      : RatioAllocator(std::vector<BitShare>(mix)) {}

  /// Throws bad_mix unless every width is valid (see is_bit_width()) and occurs once, no ratio is
  /// negative, and the ratios sum to 1 (within 1e-6). Shares of ratio 0 are dropped.
  explicit RatioAllocator(std::vector<BitShare> mix) : mix_(std::move(mix)) {
    check();
    std::erase_if(mix_, [](const BitShare& share) { return share.ratio == 0; });
    std::sort(mix_.begin(), mix_.end(),
              [](const BitShare& a, const BitShare& b) { return a.bits > b.bits; });
    for (const BitShare& share : mix_) widths_.push_back(share.bits);
  }

  /// The widths, descending: class k has widths()[k] bits.
  std::span<const int> widths() const noexcept { return widths_; }

  std::span<const BitShare> mix() const noexcept { return mix_; }

  /// The number of patches that each class gets out of n. The counts sum to n.
  std::vector<std::size_t> counts(std::size_t n) const {
    std::vector<std::size_t> count;
    std::vector<double> remainder;
    for (const BitShare& share : mix_) {
      const double exact = share.ratio * static_cast<double>(n);
      const double whole = std::floor(exact);
      count.push_back(static_cast<std::size_t>(whole));
      remainder.push_back(exact - whole);
    }
    auto assigned = std::accumulate(count.begin(), count.end(), std::size_t{0});
    for (; assigned < n; ++assigned) {
      const auto largest = std::max_element(remainder.begin(), remainder.end());
      ++count[static_cast<std::size_t>(largest - remainder.begin())];
      *largest -= 1;
    }
    // Ratios may sum to more than 1 by rounding: take the excess from the last classes.
    for (std::size_t k = count.size(); assigned > n; --k) {
      const std::size_t excess = std::min(count[k - 1], assigned - n);
      count[k - 1] -= excess;
      assigned -= excess;
    }
    return count;
  }

  /// Writes the class of every patch. `order` is a workspace of the same size.
  template <class Score>
  void allocate(std::span<const Score> scores, std::span<std::uint32_t> order,
                std::span<std::uint32_t> classes) const {
    std::iota(order.begin(), order.end(), 0u);
    const auto better = [&](std::uint32_t a, std::uint32_t b) {
      const Score left = detail::rankable(scores[a]);
      const Score right = detail::rankable(scores[b]);
      return left > right || (left == right && a < b);
    };
    const std::vector<std::size_t> count = counts(scores.size());
    auto begin = order.begin();
    for (std::size_t k = 0; k < count.size(); ++k) {
      const auto end = begin + static_cast<std::ptrdiff_t>(count[k]);
      if (end != order.end()) std::nth_element(begin, end, order.end(), better);
      for (auto patch = begin; patch != end; ++patch) {
        classes[*patch] = static_cast<std::uint32_t>(k);
      }
      begin = end;
    }
  }

 private:
  void check() const {
    double sum = 0;
    for (std::size_t k = 0; k < mix_.size(); ++k) {
      const auto& [bits, ratio] = mix_[k];
      const std::string where = "mix " + std::to_string(bits) + ":" + std::to_string(ratio);
      if (!is_bit_width(bits)) {
        throw Error(Errc::bad_mix, where, "width must be 0, 1, 2, 3, 4, 6, 8, or -2 to -7");
      }
      if (detail::is_nan(ratio) || ratio < 0)
        throw Error(Errc::bad_mix, where, "ratio is negative or not a number");
      for (std::size_t other = 0; other < k; ++other) {
        if (mix_[other].bits == bits) throw Error(Errc::bad_mix, where, "width is repeated");
      }
      sum += ratio;
    }
    if (!(std::abs(sum - 1) <= 1e-6)) {
      throw Error(Errc::bad_mix, "mix", "ratios sum to " + std::to_string(sum) + ", not 1");
    }
  }

  std::vector<BitShare> mix_;
  std::vector<int> widths_;
};

/// The same, with a default mix of one bit for every coefficient.
struct OneBitAllocator : RatioAllocator {
  using RatioAllocator::RatioAllocator;
  OneBitAllocator() : RatioAllocator({{1, 1.0}}) {}
  OneBitAllocator(RatioAllocator mix) : RatioAllocator(std::move(mix)) {}
};

}}  // namespace deltadct::inline DELTADCT_ABI
