// Executors: every index runs once, and the first exception reaches the calling thread.
#include <deltadct/core/executor.hpp>
#include <deltadct/openmp.hpp>
#if __has_include(<oneapi/tbb/parallel_for.h>)
  #include <deltadct/tbb.hpp>
#endif

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

static_assert(concepts::Executor<SerialExecutor>);
static_assert(concepts::Executor<OpenMpExecutor>);
static_assert(!concepts::Executor<int>);

// A caller's pool of two threads, one for the even indices and one for the odd.
constexpr CallableExecutor kTwoThreads{[](std::size_t n, const auto& fn) {
  std::thread odd([&] {
    for (std::size_t i = 1; i < n; i += 2) fn(i);
  });
  for (std::size_t i = 0; i < n; i += 2) fn(i);
  odd.join();
}};
static_assert(concepts::Executor<decltype(kTwoThreads)>);

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

TEST_CASE("executor: a caller's parallel_for runs every index once") {
  for (const std::size_t n : kCounts) check_each_index_once(kTwoThreads, n);
}

#if __has_include(<oneapi/tbb/parallel_for.h>)

static_assert(concepts::Executor<OneTbbExecutor>);

TEST_CASE("executor: oneTBB runs every index once, in the caller's arena and in its own") {
  for (const std::size_t n : kCounts) check_each_index_once(OneTbbExecutor{}, n);
  for (const int threads : {1, 2, 3}) {
    CAPTURE(threads);
    oneapi::tbb::task_arena arena(threads);
    std::atomic<int> most = 0;
    OneTbbExecutor{&arena}.parallel_for(100, [&](std::size_t) {
      const int here = oneapi::tbb::this_task_arena::max_concurrency();
      for (int seen = most; seen < here && !most.compare_exchange_weak(seen, here);) continue;
    });
    CHECK(most == threads);
    for (const std::size_t n : kCounts) check_each_index_once(OneTbbExecutor{&arena}, n);
  }
}

TEST_CASE("executor: oneTBB rethrows on the calling thread") {
  const auto fail = [](std::size_t i) {
    if (i == 3) throw std::runtime_error("failed");
  };
  CHECK_THROWS_WITH_AS(OneTbbExecutor{}.parallel_for(50, fail), "failed", std::runtime_error);
}

#endif
