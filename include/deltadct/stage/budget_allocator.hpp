// Bit allocation within a budget: where a bit saves most of the noise.
#pragma once

#include <deltadct/core/bits.hpp>
#include <deltadct/core/error.hpp>
#include <deltadct/core/finite.hpp>
#include <deltadct/core/radix_sort.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace deltadct::inline DELTADCT_ABI {

/// What an allocator may know of the patches it is given beside their scores.
struct PatchGrid {
  int patch = 0;                 ///< P
  std::size_t bounds_bytes = 0;  ///< what a patch stores beside its codes
};

/// Spends a budget of bits a weight, of codes, steps and width map, such that the noise of all
/// patches is least: the square of a patch's norm times the noise of its width at unit gain. For
/// the quantizer Gaussian, and scores that are norms; a score below zero counts as zero. Padding
/// counts as weights do: a small matrix would be left with next to nothing for its own, and it may
/// be the one that counts.
class BudgetAllocator {
 public:
  /// Throws bad_mix unless the budget is a positive number.
  explicit BudgetAllocator(double bits_per_weight) : bits_per_weight_(bits_per_weight) {
    if (detail::is_nan(bits_per_weight) || bits_per_weight <= 0) fail("is not positive");
    // A matrix tells eight widths apart: of the ten there are, those nearest to the budget.
    const std::size_t first = bits_per_weight < 1 ? 2 : 0;
    std::copy_n(kWidths + first, widths_.size(), widths_.begin());
    std::copy_n(kNoise + first, noise_.size(), noise_.begin());
  }

  /// Divides the budget among matrices of so many weights, padding counted, in patches of P x P
  /// that store bounds_bytes beside their codes: the bits a weight of each, such that the sum of
  /// their noise, each over its own energy, is least. For a network feels the noise of a small
  /// matrix as it feels that of a large one, and bits are cheaper there. Noise is taken as 0.57 / b
  /// below a bit, a quarter of it with each bit above. Throws bad_mix as allocate() does.
  std::vector<double> divide(std::span<const double> weights, int patch,
                             std::size_t bounds_bytes) const {
    const Range range = range_of(patch, bounds_bytes);
    require(range);
    const auto bits_at = [&](double price, double size) {
      const double slope = price * size;
      const double bits = slope > 1 ? 1 / std::sqrt(slope) : 1 - std::log2(slope) / 2;
      return std::clamp(bits, range.least, range.most);
    };
    double total = 0;
    for (const double size : weights) total += size;
    double low = -200;
    double high = 200;
    for (int step = 0; step < 100; ++step) {
      const double middle = (low + high) / 2;
      double spent = 0;
      for (const double size : weights) spent += size * bits_at(std::exp2(middle), size);
      (spent > bits_per_weight_ * total ? low : high) = middle;
    }
    std::vector<double> shares;
    for (const double size : weights) shares.push_back(bits_at(std::exp2(high), size));
    return shares;
  }

  /// The least and the most bits a weight that P x P patches can take which store bounds_bytes
  /// beside their codes; anything, where P is 0.
  static std::pair<double, double> range(int patch, std::size_t bounds_bytes) noexcept {
    if (patch == 0) return {0, std::numeric_limits<double>::infinity()};
    const Range range = range_of(patch, bounds_bytes);
    return {range.least, range.most};
  }

  double bits_per_weight() const noexcept { return bits_per_weight_; }
  std::span<const int> widths() const noexcept { return widths_; }

  /// Writes the class of every patch; `order` is scratch of the same size. As fast as the scores
  /// are sorted. Throws bad_mix where the budget is less than the least width takes, or more than
  /// the greatest.
  template <class Score>
  void allocate(const PatchGrid& grid, std::span<const Score> scores,
                std::span<std::uint32_t> order, std::span<std::uint32_t> classes) const {
    const auto area = static_cast<std::size_t>(grid.patch) * static_cast<std::size_t>(grid.patch);
    const Costs costs = costs_of(area);
    const double side = 8 * static_cast<double>(grid.bounds_bytes);
    const double patch_budget = bits_per_weight_ * static_cast<double>(area) - side;
    constexpr double map_bits[] = {0, 1, 2, 4};  // of a patch, for 1, 2, up to 4, up to 8 widths
    Range range = range_of(grid.patch, grid.bounds_bytes);
    range.most += map_bits[3] / static_cast<double>(area);
    require(range);
    const Norms<Score> norms(scores);
    const auto patches = static_cast<double>(scores.size());
    for (std::size_t k = 0; k < std::size(map_bits); ++k) {
      spend((patch_budget - map_bits[k]) * patches, costs, norms, order, classes);
      if (count_used(classes) <= std::size_t{1} << k) return;
    }
  }

 private:
  using Costs = std::vector<double>;  // bits of the codes of a patch, by class

  static constexpr int kWidths[] = {4, 3, 2, 1, -2, -3, -4, -5, -6, -7};
  // Over the energy of draws from the normal distribution, at unit gain.
  static constexpr double kNoise[] = {0.00978, 0.03586, 0.13312, 0.57080, 0.8674,
                                      1.514,   2.710,   4.808,   8.482,   14.97};

  /// The least and the most bits a weight that P x P patches can take.
  struct Range {
    double least;
    double most;
  };
  static Range range_of(int patch, std::size_t bounds_bytes) noexcept {
    const auto area = static_cast<std::size_t>(patch) * static_cast<std::size_t>(patch);
    int least = kWidths[0];
    for (const int bits : kWidths) least = is_bit_width_of(bits, area) ? bits : least;
    const auto of = [&](int bits) {
      return 8 * static_cast<double>(code_bytes(bits, area) + bounds_bytes) /
             static_cast<double>(area);
    };
    return {of(least), of(kWidths[0])};
  }

  void require(const Range& range) const {
    // Not by what such sums are rounded by.
    if (bits_per_weight_ < range.least - 1e-12) fail("is less than the least width takes");
    if (bits_per_weight_ > range.most + 1e-12) fail("is more than the greatest width takes");
  }

  [[noreturn]] void fail(const char* what) const {
    throw Error(Errc::bad_mix, "budget",
                "of " + std::to_string(bits_per_weight_) + " bits a weight " + what);
  }

  /// Of the widths that patches of so many coefficients can have; the last ones may not be.
  Costs costs_of(std::size_t area) const {
    Costs costs;
    for (const int bits : widths_) {
      if (!is_bit_width_of(bits, area)) break;
      costs.push_back(8 * static_cast<double>(code_bytes(bits, area)));
    }
    return costs;
  }

  /// Norms by their bits, which rise as they do: those of the patches, and all in rising order.
  template <class Score>
  struct Norms {
    using Bits = detail::FloatBits<Score>;
    std::vector<Bits> of_patch;
    std::vector<Bits> rising;

    explicit Norms(std::span<const Score> scores) : of_patch(scores.size()) {
      // What is negative, or no number, is no norm, and counts as none.
      std::ranges::transform(scores, of_patch.begin(), [](const Score& score) {
        const auto bits = std::bit_cast<Bits>(score);
        return bits <= detail::exponent_bits<Score>() ? bits : Bits{0};
      });
      rising = of_patch;
      detail::radix_sort(rising);
    }
  };

  /// The least norms that are given each class or a better one, from the best one given on, where
  /// all costs are; and what bits all codes then take.
  template <class Bits>
  struct Cut {
    std::array<Bits, kMaxWidthClasses> least{};
    std::size_t best = 0;
    double bits = 0;
  };

  /// The choice if a bit must save so much noise: patches go on to the next better width as long as
  /// it does, the larger norms further.
  template <class Score>
  Cut<typename Norms<Score>::Bits> cut_at(double price, const Costs& costs,
                                          const Norms<Score>& norms) const noexcept {
    Cut<typename Norms<Score>::Bits> cut;
    cut.best = costs.size() - 1;
    cut.bits = static_cast<double>(norms.rising.size()) * costs.back();
    auto from = norms.rising.begin();
    for (std::size_t k = cut.best; k > 0; --k) {
      const double more_bits = costs[k - 1] - costs[k];
      const double less_noise = noise_[k] - noise_[k - 1];
      from = std::partition_point(from, norms.rising.end(), [&](auto bits) {
        const auto norm = static_cast<double>(std::bit_cast<Score>(bits));
        return !(norm * norm * less_noise > price * more_bits);
      });
      if (from == norms.rising.end()) break;
      cut.best = k - 1;
      cut.least[k - 1] = *from;
      cut.bits += static_cast<double>(norms.rising.end() - from) * more_bits;
    }
    return cut;
  }

  /// Writes the class of every patch.
  template <class Bits>
  static void assign(const Cut<Bits>& cut, std::size_t last, const std::vector<Bits>& norms,
                     std::span<std::uint32_t> classes) noexcept {
    std::ranges::fill(classes, static_cast<std::uint32_t>(last));
    for (std::size_t k = cut.best; k < last; ++k) {
      const Bits least = cut.least[k];
      for (std::size_t i = 0; i < norms.size(); ++i) classes[i] -= norms[i] >= least ? 1 : 0;
    }
  }

  /// Chooses classes whose codes take at most `budget` bits, unless the least width takes more;
  /// `better` is scratch.
  template <class Score>
  void spend(double budget, const Costs& costs, const Norms<Score>& norms,
             std::span<std::uint32_t> better, std::span<std::uint32_t> classes) const noexcept {
    const auto cut = [&](double price) { return cut_at(std::exp2(price), costs, norms); };
    // Prices as exponents of two, whose range holds all squares of norms.
    double low = -1100;
    double high = 1100;
    for (int step = 0; step < 64; ++step) {
      const double middle = (low + high) / 2;
      (cut(middle).bits > budget ? low : high) = middle;
    }
    const auto within = cut(high);
    assign(within, costs.size() - 1, norms.of_patch, classes);
    assign(cut(low), costs.size() - 1, norms.of_patch, better);
    double left = budget - within.bits;
    // Patches of equal norms cross the last price together: as many of the first as there are bits.
    for (std::size_t i = 0; i < classes.size(); ++i) {
      const double more = costs[better[i]] - costs[classes[i]];
      if (more > left) continue;
      classes[i] = better[i];
      left -= more;
    }
  }

  static std::size_t count_used(std::span<const std::uint32_t> classes) noexcept {
    std::array<bool, kMaxWidthClasses> used{};
    for (const std::uint32_t k : classes) used[k] = true;
    return static_cast<std::size_t>(std::count(used.begin(), used.end(), true));
  }

  double bits_per_weight_;
  std::array<int, kMaxWidthClasses> widths_;
  std::array<double, kMaxWidthClasses> noise_;
};

}  // namespace deltadct::inline DELTADCT_ABI
