// Divides a requested size among the tensors of a model.
#pragma once

#include <deltadct/core/error.hpp>
#include <deltadct/stage/budget_allocator.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// What one tensor needs in an archive.
struct TensorNeed {
  std::uint64_t changed = 0;  ///< elements that the budget is for; 0 if nothing changed
  std::uint64_t fixed = 0;    ///< bytes that do not depend on the budget
  double weights = 0;         ///< of its delta, including padding; 0 if there is none
  double least = 0;           ///< the fewest and the most bytes of that delta
  double most = 0;
};

/// Divides the bytes of an archive: what is fixed comes first, and deltas share the rest. A delta
/// leaves a few bytes unused, because patches cannot be split; later deltas use them.
class BudgetPlan {
 public:
  /// The patches that spend the budget have `patch` x `patch` weights and store bounds_bytes beside
  /// their codes. `patch` is 0 for a method without patches; its tensors get equal bytes per
  /// weight. Throws bad_mix, naming the least or the most, if `bytes` is outside what is possible.
  BudgetPlan(std::span<const TensorNeed> needs, std::uint64_t bytes, int patch,
             std::size_t bounds_bytes) {
    TensorNeed all;
    for (const TensorNeed& need : needs) {
      all.changed += need.changed;
      all.fixed += need.fixed;
      all.weights += need.weights;
      all.least += need.least;
      all.most += need.most;
    }
    const auto fixed = static_cast<double>(all.fixed);
    const double left = (1 - kReserve) * static_cast<double>(bytes) - kReserveBytes - fixed;
    const auto whole = [&](double deltas) {
      return (fixed + deltas + kReserveBytes) / (1 - kReserve);
    };
    if (left < all.least) fail(all, bytes, "less than the least", whole(all.least));
    std::vector<double> shares(needs.size());
    if (all.weights != 0) {
      if (left > all.most) fail(all, bytes, "more than the most", whole(all.most));
      shares =
          patch == 0 ? equal_shares(needs, left) : patch_shares(needs, left, patch, bounds_bytes);
    }
    double rest = left;
    double before = 0;
    for (std::size_t k = 0; k < needs.size(); ++k) {
      steps_.push_back({before, shares[k], rest});
      before += static_cast<double>(needs[k].fixed) + shares[k];
      rest -= shares[k];
    }
  }

  /// Bytes for the delta of tensor k, if everything before it took `spent` bytes; 0 if it is not to
  /// have one.
  double share(std::size_t k, std::uint64_t spent) const noexcept {
    const Step& step = steps_[k];
    if (step.share == 0) return 0;
    return step.share * (1 + (step.before - static_cast<double>(spent)) / step.rest);
  }

 private:
  // A reserve for estimates: sizes known from names only, and widths that are not chosen yet.
  static constexpr double kReserve = 1e-3;
  static constexpr double kReserveBytes = 24;

  struct Step {
    double before;  // bytes planned for everything before this tensor
    double share;   // for this tensor
    double rest;    // for this tensor and those after it
  };

  /// Gives every tensor the same number of bytes per weight, within its limits.
  static std::vector<double> equal_shares(std::span<const TensorNeed> needs, double bytes) {
    const auto share = [](const TensorNeed& need, double rate) {
      return std::clamp(rate * need.weights, need.least, need.most);
    };
    double low = 0;
    double high = 16;
    for (int step = 0; step < 60; ++step) {
      const double middle = (low + high) / 2;
      double spent = 0;
      for (const TensorNeed& need : needs) spent += share(need, middle);
      (spent > bytes ? high : low) = middle;
    }
    std::vector<double> shares;
    for (const TensorNeed& need : needs) shares.push_back(share(need, low));
    return shares;
  }

  /// Shares that minimize the noise of the whole model.
  static std::vector<double> patch_shares(std::span<const TensorNeed> needs, double bytes,
                                          int patch, std::size_t bounds_bytes) {
    std::vector<double> weights;
    double total = 0;
    for (const TensorNeed& need : needs) {
      if (need.weights != 0) weights.push_back(need.weights);
      total += need.weights;
    }
    const auto rates = BudgetAllocator(8 * bytes / total).divide(weights, patch, bounds_bytes);
    std::vector<double> shares;
    auto rate = rates.begin();
    for (const TensorNeed& need : needs) {
      shares.push_back(need.weights == 0 ? 0 : *rate++ * need.weights / 8);
    }
    return shares;
  }

  /// Names what was asked for and what is possible, in bytes and in bits per changed weight.
  [[noreturn]] static void fail(const TensorNeed& all, std::uint64_t bytes, const char* what,
                                double bound) {
    const auto text = [&](double size) {
      const double bits = 8 * size / std::max(static_cast<double>(all.changed), 1.0);
      char buffer[96];
      std::snprintf(buffer, sizeof buffer, "%.0f bytes, %.4f bits for each weight that changed",
                    std::ceil(size), std::ceil(bits * 1e4) / 1e4);
      return std::string(buffer);
    };
    throw Error(Errc::bad_mix, "budget",
                text(static_cast<double>(bytes)) + ", is " + what + " possible: " + text(bound));
  }

  std::vector<Step> steps_;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
