// Bit allocation within a budget: spends bits where they reduce the noise most.
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

namespace deltadct { inline namespace DELTADCT_ABI {

/// What an allocator may know about the patches, beside their scores.
struct PatchGrid {
  int patch = 0;                 ///< P
  std::size_t bounds_bytes = 0;  ///< what a patch stores beside its codes
};

/// Spends a budget of bits per weight, for codes, steps and the width map, so that the total noise
/// of all patches is least. The noise of a patch is its squared norm times the noise of its width
/// at unit gain. Meant for the quantizer Gaussian and for scores that are norms; a negative score
/// counts as zero. Padding counts as weights do. Otherwise a small matrix, which may be one that
/// matters, would have next to nothing left for its own weights.
class BudgetAllocator {
 public:
  /// Throws bad_mix unless the budget is a positive number.
  explicit BudgetAllocator(double bits_per_weight) : bits_per_weight_(bits_per_weight) {
    if (detail::is_nan(bits_per_weight) || bits_per_weight <= 0) fail("is not positive");
    // A matrix can have eight widths. Of the ten that exist, take those nearest to the budget.
    const std::size_t first = bits_per_weight < 1 ? 2 : 0;
    std::copy_n(kWidths + first, widths_.size(), widths_.begin());
    std::copy_n(kNoise + first, noise_.size(), noise_.begin());
  }

  /// Divides the budget among matrices of so many weights, padding included, cut into P x P patches
  /// that store bounds_bytes beside their codes. Returns the bits per weight of each matrix, such
  /// that the sum of their noise, each relative to the matrix's own energy, is least. A network
  /// suffers as much from the noise of a small matrix as from that of a large one, and bits are
  /// cheaper in the small one. The noise is taken as 0.57 / b for b bits, up to one bit; each
  /// further bit reduces it to a quarter. Throws bad_mix as allocate() does.
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
    std::vector<double> bits;
    for (const double size : weights) bits.push_back(bits_at(std::exp2(high), size));
    return bits;
  }

  /// The least and the most bits per weight that P x P patches can take if they store bounds_bytes
  /// beside their codes. Any number if P is 0.
  static std::pair<double, double> range(int patch, std::size_t bounds_bytes) noexcept {
    if (patch == 0) return {0, std::numeric_limits<double>::infinity()};
    const Range range = range_of(patch, bounds_bytes);
    return {range.least, range.most};
  }

  double bits_per_weight() const noexcept { return bits_per_weight_; }
  std::span<const int> widths() const noexcept { return widths_; }

  /// Writes the class of every patch. `order` is a workspace of the same size. Takes about as long
  /// as sorting the scores. Throws bad_mix if the budget is less than the smallest width takes, or
  /// more than the greatest takes.
  template <class Score>
  void allocate(const PatchGrid& grid, std::span<const Score> scores,
                std::span<std::uint32_t> order, std::span<std::uint32_t> classes) const {
    const auto area = static_cast<std::size_t>(grid.patch) * static_cast<std::size_t>(grid.patch);
    const Costs costs = costs_of(area);
    const double side = 8 * static_cast<double>(grid.bounds_bytes);
    const double patch_budget = bits_per_weight_ * static_cast<double>(area) - side;
    constexpr double map_bits[] = {0, 1, 2, 4};  // per patch, for 1, 2, up to 4, up to 8 widths
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
  // Noise of normally distributed values at unit gain, relative to their energy.
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
    // Allow for rounding in such sums.
    if (bits_per_weight_ < range.least - 1e-12) fail("is less than the least width takes");
    if (bits_per_weight_ > range.most + 1e-12) fail("is more than the greatest width takes");
  }

  [[noreturn]] void fail(const char* what) const {
    throw Error(Errc::bad_mix, "budget",
                "of " + std::to_string(bits_per_weight_) + " bits a weight " + what);
  }

  /// Costs of the widths that patches of so many coefficients can have. The last widths may be
  /// impossible.
  Costs costs_of(std::size_t area) const {
    Costs costs;
    for (const int bits : widths_) {
      if (!is_bit_width_of(bits, area)) break;
      costs.push_back(8 * static_cast<double>(code_bytes(bits, area)));
    }
    return costs;
  }

  /// Norms by their bits, which sort as the norms do: one per patch, and all in ascending order.
  template <class Score>
  struct Norms {
    using Bits = detail::FloatBits<Score>;
    std::vector<Bits> of_patch;
    std::vector<Bits> rising;

    explicit Norms(std::span<const Score> scores) : of_patch(scores.size()) {
      // A negative score or a NaN is not a norm. It counts as zero.
      std::ranges::transform(scores, of_patch.begin(), [](const Score& score) {
        const auto bits = std::bit_cast<Bits>(score);
        return bits <= detail::exponent_bits<Score>() ? bits : Bits{0};
      });
      rising = of_patch;
      detail::radix_sort(rising);
    }
  };

  /// For each class, from the best class in use on, the least norm that gets it or a better class;
  /// and the bits that all codes then take.
  template <class Bits>
  struct Cut {
    std::array<Bits, kMaxWidthClasses> least{};
    std::size_t best = 0;
    double bits = 0;
  };

  /// The choice if each bit must reduce the noise by at least `price`. A patch moves on to the next
  /// better width as long as that pays; larger norms move further.
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

  /// Chooses classes whose codes take at most `budget` bits, unless even the smallest width takes
  /// more. `better` is workspace.
  template <class Score>
  void spend(double budget, const Costs& costs, const Norms<Score>& norms,
             std::span<std::uint32_t> better, std::span<std::uint32_t> classes) const noexcept {
    const auto cut = [&](double price) { return cut_at(std::exp2(price), costs, norms); };
    // Prices are exponents of two. Their range covers all squares of norms.
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
    // Patches of equal norms move on at the same price. Move as many of the first ones as bits are
    // left.
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

}}  // namespace deltadct::inline DELTADCT_ABI
