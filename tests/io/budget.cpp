// How a size is divided among tensors.
#include <deltadct/io/budget.hpp>

#include "../support/caught.hpp"

#include <numeric>

#include <doctest/doctest.h>

using deltadct::Errc;
using deltadct::Error;
using deltadct::io::BudgetPlan;
using deltadct::io::TensorNeed;

namespace {

constexpr int kPatch = 32;
constexpr std::size_t kSide = 2;

TensorNeed delta(double weights) {
  const auto [least, most] = deltadct::BudgetAllocator::range(kPatch, kSide);
  return {static_cast<std::uint64_t>(weights), 100, weights, least * weights / 8,
          most * weights / 8};
}

/// Spends each share, or a part of it. Returns the bytes of the archive.
double spend(const BudgetPlan& plan, std::span<const TensorNeed> needs, double part) {
  double spent = 0;
  for (std::size_t k = 0; k < needs.size(); ++k) {
    const double share = plan.share(k, static_cast<std::uint64_t>(spent));
    // The last tensor spends its whole share.
    spent += static_cast<double>(needs[k].fixed) + share * (k + 1 == needs.size() ? 1 : part);
  }
  return spent;
}

}  // namespace

TEST_CASE("budget: shares sum to what is left beside what is fixed") {
  const std::vector<TensorNeed> needs{
      {.fixed = 500}, delta(65536), {.changed = 10, .fixed = 40}, delta(4096), delta(1 << 20)};
  for (const double bytes : {20e3, 60e3, 200e3}) {
    const BudgetPlan plan(needs, static_cast<std::uint64_t>(bytes), kPatch, kSide);
    CHECK(spend(plan, needs, 1) <= bytes);
    CHECK(spend(plan, needs, 1) > 0.99 * bytes);
    CHECK(plan.share(0, 0) == 0);
    CHECK(plan.share(2, 0) == 0);
  }
}

TEST_CASE("budget: what a tensor leaves goes to those after it") {
  const std::vector<TensorNeed> needs{delta(65536), delta(65536), delta(65536), delta(65536)};
  const BudgetPlan plan(needs, 20000, kPatch, kSide);
  for (const double part : {0.9, 1.0, 1.05}) {
    CHECK(spend(plan, needs, part) <= 20000);
    CHECK(spend(plan, needs, part) > 19900);
  }
}

TEST_CASE("budget: one that cannot be met names the least and the most") {
  const std::vector<TensorNeed> needs{{.changed = 1000, .fixed = 4000}, delta(1 << 20)};
  const Error low = test::caught([&] { BudgetPlan(needs, 5000, kPatch, kSide); });
  CHECK(low.code() == Errc::bad_mix);
  CHECK(test::names(low, "5000 bytes, 0.0382 bits"));
  const std::string text = low.what();
  const char* bound = "least possible: ";
  const auto least = std::stoull(text.substr(text.find(bound) + std::string(bound).size()));
  CHECK_NOTHROW(BudgetPlan(needs, least, kPatch, kSide));
  CHECK_THROWS(BudgetPlan(needs, least - 2, kPatch, kSide));
  const Error high = test::caught([&] { BudgetPlan(needs, 1 << 20, kPatch, kSide); });
  CHECK(test::names(high, "more than the most possible"));
}

TEST_CASE("budget: nothing to divide needs no more than what is fixed") {
  const std::vector<TensorNeed> needs{{.fixed = 500}, {.changed = 7, .fixed = 30}};
  for (const int patch : {kPatch, 0}) {
    for (const std::uint64_t bytes : {600u, 1u << 30}) {
      const BudgetPlan plan(needs, bytes, patch, kSide);
      for (const std::size_t k : {0u, 1u}) CHECK(plan.share(k, 500) == 0);
    }
  }
  CHECK(test::caught([&] { BudgetPlan(needs, 529, kPatch, kSide); }).code() == Errc::bad_mix);
}

TEST_CASE("budget: methods without patches share by weights, within what each can take") {
  const std::vector<TensorNeed> needs{
      {1000, 0, 1000, 100, 400}, {4000, 0, 4000, 100, 1600}, {10, 0, 10, 90, 95}};
  const BudgetPlan plan(needs, 1000, 0, 0);
  CHECK(spend(plan, needs, 1) <= 1000);
  CHECK(spend(plan, needs, 1) > 900);
  CHECK(plan.share(2, 0) >= 90);
  CHECK(plan.share(1, 0) / plan.share(0, 0) > 3.9);
}
