// Starts threads before they are needed.
#include "threads.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <latch>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace cli {

namespace {

#if defined(_OPENMP)
// OMP_NUM_THREADS can name any number, and OpenMP's runtimes end a process, or hang, if it is too
// large. It is read here, and taken away from LLVM's runtime, which reads it at its first call.
// More threads than processors are of no use.
int default_threads() {
  const int processors = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const char* const text = std::getenv("OMP_NUM_THREADS");
  if (text == nullptr) return processors;
  int number = processors;
  std::from_chars(text, text + std::strlen(text), number);
  ::unsetenv("OMP_NUM_THREADS");
  return std::clamp(number, 1, processors);
}
#endif

int wanted_threads(const Common& common) {
#if defined(_OPENMP)
  const int threads = default_threads();
  return common.threads > 0 ? common.threads : threads;
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
