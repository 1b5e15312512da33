// Mixes of bit widths: which are valid, how many patches each share gets, and which patches.
#include <deltadct/stage/bit_allocator.hpp>

#include <limits>
#include <random>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

using Mix = std::vector<BitShare>;
using Counts = std::vector<std::size_t>;

const Mix kMixes[] = {
    {{0, 1.0}},
    {{8, 1.0}},
    {{2, 0.5}, {0, 0.5}},
    {{8, 0.05}, {3, 0.25}, {2, 0.2}, {0, 0.5}},
    {{8, 1.0 / 3}, {4, 1.0 / 3}, {1, 1.0 / 3}},
    {{8, 0.1}, {6, 0.1}, {4, 0.2}, {3, 0.1}, {2, 0.2}, {1, 0.1}, {0, 0.2}},
    {{8, 0.3 + 5e-7}, {0, 0.7}},
    {{8, 0.3 - 5e-7}, {0, 0.7}},
};

std::vector<int> classes_of(const RatioAllocator& allocator, const std::vector<float>& scores) {
  std::vector<std::uint32_t> order(scores.size());
  std::vector<std::uint32_t> classes(scores.size(), 99);
  allocator.allocate(std::span<const float>(scores), order, classes);
  return {classes.begin(), classes.end()};
}

void refused(const Mix& mix, std::string_view detail) {
  try {
    const RatioAllocator allocator(mix);
    FAIL("nothing was thrown");
  } catch (const Error& error) {
    CHECK(error.code() == Errc::bad_mix);
    CHECK(error.detail().find(detail) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("bit_allocator: the paper's mix is the default") {
  const RatioAllocator paper;
  REQUIRE(paper.widths().size() == 2);
  CHECK(paper.widths()[0] == 2);
  CHECK(paper.widths()[1] == 0);
  CHECK(paper.counts(7) == Counts{4, 3});
}

TEST_CASE("bit_allocator: widths are in descending order, shares of nothing left out") {
  const RatioAllocator allocator{{0, 0.25}, {3, 0}, {8, 0.25}, {2, 0.5}};
  CHECK(std::ranges::equal(allocator.widths(), std::vector<int>{8, 2, 0}));
  CHECK(allocator.mix()[0].ratio == 0.25);
  CHECK(allocator.counts(8) == Counts{2, 4, 2});
}

TEST_CASE("bit_allocator: counts sum exactly and stay within one of the ratio") {
  for (const Mix& mix : kMixes) {
    const RatioAllocator allocator(mix);
    for (std::size_t n = 0; n < 700; n = n < 40 ? n + 1 : n + 37) {
      const Counts counts = allocator.counts(n);
      CHECK(std::accumulate(counts.begin(), counts.end(), std::size_t{0}) == n);
      for (std::size_t k = 0; k < counts.size(); ++k) {
        const double exact = allocator.mix()[k].ratio * static_cast<double>(n);
        CHECK(std::abs(static_cast<double>(counts[k]) - exact) < 1 + 1e-3);
      }
    }
    const std::size_t many = (std::size_t{1} << 29) - 1;
    const Counts counts = allocator.counts(many);
    CHECK(std::accumulate(counts.begin(), counts.end(), std::size_t{0}) == many);
  }
}

TEST_CASE("bit_allocator: the largest remainders get what is left, the wider first on ties") {
  CHECK(RatioAllocator{{8, 0.05}, {3, 0.25}, {2, 0.2}, {0, 0.5}}.counts(10) == Counts{1, 2, 2, 5});
  CHECK(RatioAllocator{{8, 0.125}, {4, 0.25}, {0, 0.625}}.counts(4) == Counts{1, 1, 2});
  CHECK(RatioAllocator{{8, 0.125}, {4, 0.25}, {0, 0.625}}.counts(3) == Counts{0, 1, 2});
  CHECK(RatioAllocator{{8, 0.25}, {4, 0.25}, {2, 0.25}, {0, 0.25}}.counts(6) == Counts{2, 2, 1, 1});
  CHECK(RatioAllocator{{2, 0.5}, {0, 0.5}}.counts(1) == Counts{1, 0});
}

TEST_CASE("bit_allocator: the best scores get the most bits, ties by lower index") {
  const RatioAllocator allocator{{8, 0.25}, {2, 0.25}, {0, 0.5}};
  CHECK(classes_of(allocator, {1, 4, 3, 2}) == std::vector<int>{2, 0, 1, 2});
  CHECK(classes_of(allocator, {5, 5, 5, 5}) == std::vector<int>{0, 1, 2, 2});
  CHECK(classes_of(allocator, {1, 2, 2, 2}) == std::vector<int>{2, 0, 1, 2});
  CHECK(classes_of(allocator, {0, 0, 0, 1}) == std::vector<int>{1, 2, 2, 0});
  CHECK(classes_of(allocator, {}).empty());
}

TEST_CASE("bit_allocator: a score that is no number is the lowest there is") {
  const RatioAllocator allocator{{8, 0.25}, {2, 0.25}, {0, 0.5}};
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (const float nan : {std::nanf(""), -std::nanf("")}) {
    CHECK(classes_of(allocator, {nan, 4, 3, -2}) == std::vector<int>{2, 0, 1, 2});
    CHECK(classes_of(allocator, {-9, nan, nan, -8}) == std::vector<int>{1, 2, 2, 0});
    CHECK(classes_of(allocator, {nan, nan, nan, nan}) == std::vector<int>{0, 1, 2, 2});
    CHECK(classes_of(allocator, {nan, -infinity, nan, infinity}) == std::vector<int>{1, 2, 2, 0});
    CHECK(classes_of(allocator, {-infinity, nan, -1, nan}) == std::vector<int>{1, 2, 0, 2});
  }
}

TEST_CASE("bit_allocator: random scores are cut as a stable sort cuts them") {
  std::mt19937 random(1);
  for (const Mix& mix : kMixes) {
    const RatioAllocator allocator(mix);
    for (const std::size_t n : {1u, 2u, 13u, 500u}) {
      std::vector<float> scores(n);
      for (float& score : scores) score = static_cast<float>(random() % 50);
      std::vector<std::size_t> order(n);
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::ranges::stable_sort(order, [&](auto a, auto b) { return scores[a] > scores[b]; });
      std::vector<int> expected(n);
      auto next = order.begin();
      const Counts counts = allocator.counts(n);
      for (std::size_t k = 0; k < counts.size(); ++k) {
        for (std::size_t i = 0; i < counts[k]; ++i) expected[*next++] = static_cast<int>(k);
      }
      CHECK(classes_of(allocator, scores) == expected);
    }
  }
}

TEST_CASE("bit_allocator: a mix that is none is refused") {
  refused({}, "ratios sum to 0");
  refused({{5, 1.0}}, "width must be");
  refused({{-1, 1.0}}, "width must be");
  refused({{16, 1.0}}, "width must be");
  refused({{2, 0.5}, {7, 0.5}}, "width must be");
  refused({{2, -0.5}, {0, 1.5}}, "ratio is negative");
  refused({{2, std::nan("")}, {0, 0.5}}, "ratio is negative or not a number");
  refused({{2, std::numeric_limits<double>::infinity()}}, "sum to inf");
  refused({{2, 0.5}, {2, 0.5}}, "width is repeated");
  refused({{2, 0.5}, {0, 0.5}, {2, 0}}, "width is repeated");
  refused({{2, 0.5}}, "ratios sum to 0.5");
  refused({{2, 0.6}, {0, 0.5}}, "ratios sum to 1.1");
  refused({{2, 0.0}}, "ratios sum to 0");
}
