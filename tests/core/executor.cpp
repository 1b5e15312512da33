// Executors: every index once, and the first exception on the calling thread.
#include <deltadct/core/executor.hpp>
#include <deltadct/openmp.hpp>

#include <atomic>
#include <stdexcept>
#include <vector>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

static_assert(concepts::Executor<SerialExecutor>);
static_assert(concepts::Executor<OpenMpExecutor>);
static_assert(!concepts::Executor<int>);

template <class Executor>
void check_each_index_once(const Executor& executor, std::size_t n) {
  std::vector<std::atomic<int>> calls(n);
  executor.parallel_for(n, [&](std::size_t i) { ++calls[i]; });
  std::size_t once = 0;
  for (const auto& count : calls) once += count == 1;
  CHECK(once == n);
}

constexpr std::size_t kCounts[] = {0, 1, 2, 7, 1000};

}  // namespace

TEST_CASE("executor: serial runs every index once, in order") {
  for (const std::size_t n : kCounts) check_each_index_once(SerialExecutor{}, n);
  std::vector<std::size_t> order;
  SerialExecutor{}.parallel_for(4, [&](std::size_t i) { order.push_back(i); });
  CHECK(order == std::vector<std::size_t>{0, 1, 2, 3});
}

TEST_CASE("executor: OpenMP runs every index once on any number of threads") {
  for (const int threads : {0, 1, 2, 3, 8}) {
    CAPTURE(threads);
    for (const std::size_t n : kCounts) check_each_index_once(OpenMpExecutor{threads}, n);
  }
}

TEST_CASE("executor: OpenMP rethrows on the calling thread once all indices have run") {
  for (const int threads : {0, 1, 3}) {
    std::atomic<int> calls = 0;
    const auto fail = [&](std::size_t i) {
      ++calls;
      if (i % 10 == 3) throw std::runtime_error("failed");
    };
    CHECK_THROWS_WITH_AS(OpenMpExecutor{threads}.parallel_for(50, fail), "failed",
                         std::runtime_error);
    CHECK(calls == 50);
  }
}
