// Starts threads before they are needed.
#include "threads.hpp"

#if defined(_OPENMP)
  #include <omp.h>
#endif

#include <algorithm>
#include <latch>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace cli {

namespace {

int wanted_threads(const Common& common) {
#if defined(_OPENMP)
  // OMP_NUM_THREADS is bounded as --threads is: OpenMP's runtime ends a process in which it cannot
  // start as many threads as it was told to.
  return common.threads > 0 ? common.threads : std::min(omp_get_max_threads(), kMostThreads);
#else
  static_cast<void>(common);
  return 1;
#endif
}

/// How many threads can exist at once, including the calling one.
int startable_threads(int wanted) {
  std::latch over(1);
  std::vector<std::thread> started;
  try {
    for (int k = 1; k < wanted; ++k) started.emplace_back([&over] { over.wait(); });
  } catch (const std::system_error&) {
  } catch (const std::bad_alloc&) {
  }
  over.count_down();
  for (std::thread& thread : started) thread.join();
  return static_cast<int>(started.size()) + 1;
}

}  // namespace

deltadct::OpenMpExecutor start_threads(const Common& common) {
  const deltadct::OpenMpExecutor executor{startable_threads(wanted_threads(common))};
  // OpenMP's runtime keeps these threads for later.
  executor.parallel_for(static_cast<std::size_t>(executor.threads), [](std::size_t) {});
  return executor;
}

}  // namespace cli
