// OpenMpExecutor: parallel_for on OpenMP's threads. Opt-in; compile with the compiler's OpenMP
// flag.
#pragma once

#include <deltadct/core/executor.hpp>

#include <exception>

namespace deltadct { inline namespace DELTADCT_ABI {

/// Hands out indices dynamically to `threads` threads (0: OpenMP's default). Once all indices have
/// run, rethrows the first exception of fn on the calling thread.
struct OpenMpExecutor {
  int threads = 0;

  template <class Fn>
  void parallel_for(std::size_t n, Fn&& fn) const {
    std::exception_ptr failure;
    const auto run = [&](std::size_t i) noexcept {
      try {
        fn(i);
      } catch (...) {
#pragma omp critical(deltadct_failure)
        if (!failure) failure = std::current_exception();
      }
    };
    if (threads > 0) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
      for (std::size_t i = 0; i < n; ++i) run(i);
    } else {
#pragma omp parallel for schedule(dynamic)
      for (std::size_t i = 0; i < n; ++i) run(i);
    }
    if (failure) std::rethrow_exception(failure);
  }
};

}}  // namespace deltadct::inline DELTADCT_ABI
