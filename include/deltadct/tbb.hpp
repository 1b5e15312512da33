// OneTbbExecutor: parallel_for on oneTBB's threads. Opt-in; link the target TBB::tbb.
#pragma once

#include <deltadct/core/executor.hpp>

#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

namespace deltadct { inline namespace DELTADCT_ABI {

/// Hands out indices to the threads of an arena, by default the calling thread's. If fn throws, the
/// first exception is rethrown on the calling thread, and indices that have not begun are skipped.
struct OneTbbExecutor {
  oneapi::tbb::task_arena* arena = nullptr;

  template <class Fn>
  void parallel_for(std::size_t n, Fn&& fn) const {
    const auto run = [&] { oneapi::tbb::parallel_for(std::size_t{0}, n, fn); };
    if (arena != nullptr) {
      arena->execute(run);
    } else {
      run();
    }
  }
};

}}  // namespace deltadct::inline DELTADCT_ABI
