// Parallel work that may throw.
#pragma once

#include <deltadct/core/executor.hpp>

#include <cstddef>
#include <exception>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io { namespace detail {

/// Runs fn(0) ... fn(n - 1), which may throw, on an executor that need not support exceptions.
/// Rethrows the exception of the lowest index.
template <concepts::Executor Executor, class Fn>
void run_each(const Executor& executor, std::size_t n, Fn&& fn) {
  std::vector<std::exception_ptr> failures(n);
  executor.parallel_for(n, [&](std::size_t k) {
    try {
      fn(k);
    } catch (...) {
      failures[k] = std::current_exception();
    }
  });
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}}}}  // namespace deltadct::inline DELTADCT_ABI::io::detail
