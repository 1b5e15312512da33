// Bit allocation within a budget: bits go where they reduce the noise most.
#include "../support/caught.hpp"

#include <deltadct/codec.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <vector>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

constexpr std::size_t kStep = 2;  // bytes a patch stores beside its codes

/// The noise at a width of normally distributed values, relative to their energy.
double noise_of(int bits) {
  static const std::map<int, double> noise = {{4, 0.00978}, {3, 0.03586}, {2, 0.13312}, {1, 0.5708},
                                              {-2, 0.8674}, {-3, 1.514},  {-4, 2.710},  {-5, 4.808},
                                              {-6, 8.482},  {-7, 14.97}};
  return noise.at(bits);
}

std::vector<float> norms(std::size_t n, double spread) {
  std::mt19937 random(7);
  std::normal_distribution<double> draw(0, spread);
  std::vector<float> result;
  for (std::size_t i = 0; i < n; ++i) result.push_back(static_cast<float>(std::exp(draw(random))));
  return result;
}

std::vector<int> allocate(double budget, int patch, const std::vector<float>& scores) {
  const BudgetAllocator allocator(budget);
  std::vector<std::uint32_t> order(scores.size());
  std::vector<std::uint32_t> classes(scores.size());
  allocator.allocate(PatchGrid{patch, kStep}, std::span<const float>(scores), order, classes);
  std::vector<int> widths;
  for (const std::uint32_t k : classes) widths.push_back(allocator.widths()[k]);
  return widths;
}

/// The class of a patch if a bit must reduce the noise by more than its price.
std::size_t class_at(double price, double norm, std::span<const int> widths, std::size_t area) {
  std::size_t k = widths.size() - 1;
  for (; k > 0; --k) {
    const double saved = norm * norm * (noise_of(widths[k]) - noise_of(widths[k - 1]));
    const std::size_t bits = code_bytes(widths[k - 1], area) - code_bytes(widths[k], area);
    if (!(saved > price * 8 * static_cast<double>(bits))) break;
  }
  return k;
}

/// The expected result of allocate(): the lowest price that the budget can pay, with as many widths
/// as the bits of the map allow. Of the patches that reach a better width at this price, the first
/// ones do.
std::vector<int> by_definition(double budget, int patch, const std::vector<float>& scores) {
  const auto area = static_cast<std::size_t>(patch * patch);
  const BudgetAllocator allocator(budget);
  std::vector<int> widths(allocator.widths().begin(), allocator.widths().end());
  std::erase_if(widths, [&](int bits) { return !is_bit_width_of(bits, area); });
  const auto bits_of = [&](int width) { return 8 * static_cast<double>(code_bytes(width, area)); };
  const auto widths_at = [&](double price) {
    std::vector<int> chosen;
    for (const float norm : scores) chosen.push_back(widths[class_at(price, norm, widths, area)]);
    return chosen;
  };
  std::vector<int> chosen;
  for (const int map_bits : {0, 1, 2, 4}) {
    double left = (budget * static_cast<double>(area) - 8 * kStep - map_bits) *
                  static_cast<double>(scores.size());
    const auto spend = [&](const std::vector<int>& all) {
      double bits = 0;
      for (const int width : all) bits += bits_of(width);
      return bits;
    };
    double low = -1100;
    double high = 1100;
    for (int step = 0; step < 64; ++step) {
      const double middle = (low + high) / 2;
      (spend(widths_at(std::exp2(middle))) > left ? low : high) = middle;
    }
    chosen = widths_at(std::exp2(high));
    const std::vector<int> better = widths_at(std::exp2(low));
    left -= spend(chosen);
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      const double more = bits_of(better[i]) - bits_of(chosen[i]);
      if (more > left) continue;
      chosen[i] = better[i];
      left -= more;
    }
    const std::set<int> used(chosen.begin(), chosen.end());
    if (used.size() <= std::size_t{1} << (map_bits == 4 ? 3 : map_bits)) break;
  }
  return chosen;
}

struct Spent {
  double bits = 0;   ///< of codes, steps and the width map
  double noise = 0;  ///< relative to the scores' energy
};

Spent spent(const std::vector<int>& widths, const std::vector<float>& scores, int patch) {
  std::map<int, int> used;
  Spent result;
  double energy = 0;
  for (std::size_t i = 0; i < widths.size(); ++i) {
    const double square = static_cast<double>(scores[i]) * static_cast<double>(scores[i]);
    ++used[widths[i]];
    const auto area = static_cast<std::size_t>(patch * patch);
    result.bits += 8.0 * static_cast<double>(code_bytes(widths[i], area) + kStep);
    result.noise += square * noise_of(widths[i]);
    energy += square;
  }
  const int map = used.size() <= 1 ? 0 : used.size() == 2 ? 1 : used.size() <= 4 ? 2 : 4;
  result.bits += map * static_cast<double>(widths.size());
  result.noise /= energy;
  return result;
}

}  // namespace

TEST_CASE("budget: it is kept, and nearly used up, whatever the scores") {
  for (const int patch : {16, 32, 64}) {
    for (const double budget : {0.15, 0.3, 0.5, 0.9, 1.0, 1.07, 1.7, 2.5, 3.9}) {
      for (const double spread : {0.0, 0.3, 2.0}) {
        CAPTURE(patch);
        CAPTURE(budget);
        CAPTURE(spread);
        const auto scores = norms(1000, spread);
        const auto weights = scores.size() * static_cast<std::size_t>(patch * patch);
        const auto widths = allocate(budget, patch, scores);
        const double bits = spent(widths, scores, patch).bits / static_cast<double>(weights);
        CHECK(bits <= budget);
        // The remainder is less than one patch's step of width, plus its share of the map.
        CHECK(bits >= budget - 0.02);
      }
    }
  }
}

TEST_CASE("budget: more bits go to larger norms, and less noise is left than without that") {
  const auto scores = norms(2000, 1.0);
  const auto widths = allocate(0.5156, 32, scores);
  for (std::size_t i = 1; i < scores.size(); ++i) {
    if (scores[i] > scores[i - 1]) CHECK(widths[i] >= widths[i - 1]);
    if (scores[i] < scores[i - 1]) CHECK(widths[i] <= widths[i - 1]);
  }
  const std::vector<int> same(scores.size(), -3);
  CHECK(spent(widths, scores, 32).bits <= spent(same, scores, 32).bits);
  CHECK(spent(widths, scores, 32).noise < 0.5 * spent(same, scores, 32).noise);
}

TEST_CASE("budget: no exchange of two neighbouring widths saves noise") {
  const auto scores = norms(300, 1.0);
  const auto widths = allocate(0.7, 64, scores);
  // The last bit of each patch saved more noise than the next bit would in any other patch.
  double least_saved = 1e300;
  double most_to_save = 0;
  const BudgetAllocator allocator(0.7);
  const auto all = allocator.widths();
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const auto k =
        static_cast<std::size_t>(std::find(all.begin(), all.end(), widths[i]) - all.begin());
    const auto saved = [&](std::size_t better, std::size_t worse) {
      const double bits = 8.0 * static_cast<double>(code_bytes(all[better], 4096)) -
                          8.0 * static_cast<double>(code_bytes(all[worse], 4096));
      return static_cast<double>(scores[i]) * static_cast<double>(scores[i]) *
             (noise_of(all[worse]) - noise_of(all[better])) / bits;
    };
    if (k + 1 < all.size()) least_saved = std::min(least_saved, saved(k, k + 1));
    if (k > 0) most_to_save = std::max(most_to_save, saved(k - 1, k));
  }
  CHECK(least_saved >= most_to_save * 0.98);  // give or take one patch
}

TEST_CASE("budget: equal patches share what is left, the first of them more") {
  const std::vector<float> scores(100, 2.0f);
  const auto widths = allocate(0.8, 32, scores);
  CHECK(widths.front() > widths.back());
  for (std::size_t i = 1; i < widths.size(); ++i) CHECK(widths[i] <= widths[i - 1]);
}

TEST_CASE("budget: a score that is no norm counts as one of nothing") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const auto without = norms(200, 1.0);
  auto scores = without;
  auto zeros = without;
  const float none[] = {std::nanf(""), -std::nanf(""), -infinity, -3.0f, -0.0f};
  for (std::size_t i = 0; i < scores.size(); i += 7) {
    scores[i] = none[i % 5];
    zeros[i] = 0;
  }
  for (const double budget : {0.3, 1.0, 2.5}) {
    const auto widths = allocate(budget, 32, scores);
    CHECK(widths == allocate(budget, 32, zeros));
    const int least = *std::ranges::min_element(widths);
    for (std::size_t i = 0; i < scores.size(); i += 7) CHECK(widths[i] == least);
  }
  const std::vector<float> nothing(20, std::nanf(""));
  for (const int bits : allocate(0.15, 32, nothing)) CHECK(bits == -7);
}

TEST_CASE("budget: the largest and the least norms there are keep their order") {
  for (const double budget : {0.2, 0.6, 1.5}) {
    const auto widths =
        allocate(budget, 32,
                 {0, std::numeric_limits<float>::denorm_min(), 1e-30f, 1e-3f, 1, 1e3f, 1e30f,
                  std::numeric_limits<float>::max(), std::numeric_limits<float>::infinity()});
    CHECK(std::ranges::is_sorted(widths));
    CHECK(widths.front() < widths.back());
  }
}

TEST_CASE("budget: the choice is that of the definition, patch by patch") {
  auto scores = norms(300, 1.5);
  for (std::size_t i = 0; i < scores.size(); i += 3) scores[i] = std::round(scores[i]);
  for (const int patch : {4, 16, 32}) {
    for (const double budget : {0.5, 0.9, 1.0, 1.3, 2.2, 3.1, 4.0}) {
      if (patch == 4 && budget < 2) continue;
      CAPTURE(patch);
      CAPTURE(budget);
      CHECK(allocate(budget, patch, scores) == by_definition(budget, patch, scores));
    }
  }
}

TEST_CASE("budget: zeros get the least width") {
  const std::vector<float> zeros(50, 0.0f);
  for (const int bits : allocate(0.15, 32, zeros)) {
    CHECK(bits == -7);
  }
  CHECK(allocate(0.15, 32, {}).empty());
}

TEST_CASE("budget: one that cannot be met, or not be used, is refused") {
  const auto scores = norms(10, 1);
  const auto code = [&](double budget, int patch) {
    return test::caught([&] { allocate(budget, patch, scores); }).code();
  };
  CHECK(code(0.05, 64) == Errc::bad_mix);
  CHECK(code(0.1, 16) == Errc::bad_mix);  // the step alone takes a sixteenth of a bit
  CHECK(code(5, 64) == Errc::bad_mix);
  CHECK(test::caught([] { BudgetAllocator(0); }).code() == Errc::bad_mix);
  CHECK(test::caught([] { BudgetAllocator(-1); }).code() == Errc::bad_mix);
  CHECK(test::caught([] { BudgetAllocator(std::nan("")); }).code() == Errc::bad_mix);
}

TEST_CASE("budget: small matrices are given more bits of it than large ones") {
  const double sizes[] = {1 << 22, 1 << 20, 1 << 20, 1 << 12};
  for (const double budget : {0.07, 0.1, 0.5, 1.0, 2.5, 4.0}) {
    CAPTURE(budget);
    const auto shares = BudgetAllocator(budget).divide(sizes, 64, kStep);
    REQUIRE(shares.size() == 4);
    CHECK(shares[0] <= shares[1]);
    CHECK(shares[1] == shares[2]);
    CHECK(shares[2] <= shares[3]);
    double spent = 0;
    double total = 0;
    for (std::size_t k = 0; k < 4; ++k) {
      spent += shares[k] * sizes[k];
      total += sizes[k];
      // An allocator can meet each of these budgets.
      CHECK_NOTHROW(allocate(shares[k], 64, norms(3, 1)));
    }
    CHECK(spent == doctest::Approx(budget * total).epsilon(1e-6));
  }
  // Below one bit, as the square root of the size; above, half a bit more for each halving.
  const double two[] = {4096 * 16, 4096 * 4};
  const auto low = BudgetAllocator(0.2).divide(two, 64, kStep);
  CHECK(low[1] / low[0] == doctest::Approx(2));
  const auto high = BudgetAllocator(2).divide(two, 64, kStep);
  CHECK(high[1] - high[0] == doctest::Approx(1));

  CHECK(BudgetAllocator(1).divide({}, 64, kStep).empty());
  for (const double budget : {0.05, 4.5}) {
    const Error error = test::caught([&] { BudgetAllocator(budget).divide(sizes, 64, kStep); });
    CHECK(error.code() == Errc::bad_mix);
  }
}

TEST_CASE("budget: a codec keeps it") {
  struct Policy : UnitGainPolicy<float, 16> {
    using Allocator = BudgetAllocator;
  };
  std::mt19937 random(3);
  std::normal_distribution<float> draw;
  std::vector<float> delta(200 * 300);
  for (std::size_t i = 0; i < delta.size(); ++i) {
    delta[i] = draw(random) * (i / 300 < 60 ? 10.0f : 0.3f);
  }
  const MatrixView<const float> view(delta.data(), 200, 300);
  for (const double budget : {0.2, 0.5, 1.1, 2.0}) {
    const DeltaCodec<Policy, Serial> codec{BudgetAllocator(budget)};
    const CompressedTensor c = codec.encode(view);
    codec.validate(c);
    for (const WidthClass& k : c.header.classes) CHECK(k.patches > 0);
    const double bits = 8.0 * static_cast<double>(c.bounds.size() + c.codes.size());
    CHECK(bits <= budget * 208 * 304);  // padding counts
  }
}
