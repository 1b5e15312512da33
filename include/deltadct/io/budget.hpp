// How a size that was asked for is divided among the tensors of a model.
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

namespace deltadct::inline DELTADCT_ABI::io {

/// What one tensor takes of an archive.
struct TensorNeed {
  std::uint64_t changed = 0;  ///< elements that the budget is for; 0 where nothing changed
  std::uint64_t fixed = 0;    ///< bytes that do not depend on the budget
  double weights = 0;         ///< of its delta, padding counted; 0 where there is none
  double least = 0;           ///< bytes of that delta, at least and at most
  double most = 0;
};

/// Divides the bytes of an archive: what is fixed comes first, and deltas share the rest. Every
/// delta leaves a few bytes, for its patches are not divisible; those after it take them up.
class BudgetPlan {
 public:
  /// The patches that spend the budget have `patch` x `patch` weights and store bounds_bytes beside
  /// their codes; 0 for a method without patches, whose tensors get as much a weight as others.
  /// Throws bad_mix, naming the least and the most, where `bytes` is outside what can be done.
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
    if (all.weights == 0) return;
    if (left > all.most) fail(all, bytes, "more than the most", whole(all.most));
    const std::vector<double> shares =
        patch == 0 ? equal_shares(needs, left) : patch_shares(needs, left, patch, bounds_bytes);
    double rest = left;
    double before = 0;
    for (std::size_t k = 0; k < needs.size(); ++k) {
      steps_.push_back({before, shares[k], rest});
      before += static_cast<double>(needs[k].fixed) + shares[k];
      rest -= shares[k];
    }
  }

  /// Bytes for the delta of tensor k, where what comes before it took `spent` bytes.
  double share(std::size_t k, std::uint64_t spent) const noexcept {
    const Step& step = steps_[k];
    if (step.share == 0) return 0;
    return step.share * (1 + (step.before - static_cast<double>(spent)) / step.rest);
  }

 private:
  // What is known of names only, and of widths that are not chosen yet, is not exact.
  static constexpr double kReserve = 1e-3;
  static constexpr double kReserveBytes = 24;

  struct Step {
    double before;  // bytes that are planned for what comes before this tensor
    double share;   // for it
    double rest;    // for it and those after it
  };

  /// As many bytes a weight for every tensor, as far as it can take them.
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

  /// Shares with which the noise of the whole model is least.
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

  /// Names what was asked for and what can be had, in bytes and in bits for each changed weight.
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

}  // namespace deltadct::inline DELTADCT_ABI::io
