// Sorting numbers in increasing order.
#include <deltadct/core/radix_sort.hpp>

#include <algorithm>
#include <cstdint>
#include <random>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

template <class T>
void check_sorted() {
  std::mt19937_64 random(5);
  for (const std::size_t n : {0u, 1u, 2u, 255u, 1000u}) {
    for (const int bits : {0, 3, 17, 64}) {  // the bits in which the numbers differ
      std::vector<T> values(n);
      for (T& x : values) x = static_cast<T>(bits == 64 ? random() : random() % (1u << bits) << 3);
      std::vector<T> expected = values;
      std::ranges::sort(expected);
      detail::radix_sort(values);
      CHECK(values == expected);
    }
  }
}

}  // namespace

TEST_CASE("radix_sort: numbers of every size are sorted") {
  check_sorted<std::uint16_t>();
  check_sorted<std::uint32_t>();
  check_sorted<std::uint64_t>();
}
