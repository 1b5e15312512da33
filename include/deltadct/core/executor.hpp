// Executors: the library starts no threads; the caller passes an object that runs its loops.
#pragma once

#include <deltadct/config.hpp>

#include <concepts>
#include <cstddef>

namespace deltadct { inline namespace DELTADCT_ABI {

namespace concepts {

/// parallel_for(n, fn) calls fn(0) ... fn(n - 1), each once, in any order and on any threads, and
/// returns when all calls have ended. The library's own fn never throws on valid policies.
template <class E>
concept Executor = requires(const E& executor, void (*fn)(std::size_t)) {
  executor.parallel_for(std::size_t{}, fn);
};

}  // namespace concepts

/// Runs everything on the calling thread.
struct SerialExecutor {
  template <class Fn>
  void parallel_for(std::size_t n, Fn&& fn) const {
    for (std::size_t i = 0; i < n; ++i) fn(i);
  }
};

/// Runs loops on what the caller has: a thread pool or a task system. call(n, fn) must do what
/// concepts::Executor requires of parallel_for(n, fn).
///
///     const CallableExecutor executor{[&pool](std::size_t n, auto&& fn) { pool.run(n, fn); }};
template <class Call>
struct CallableExecutor {
  Call call;

  template <class Fn>
  void parallel_for(std::size_t n, Fn&& fn) const {
    call(n, fn);
  }
};
template <class Call>
CallableExecutor(Call) -> CallableExecutor<Call>;

}}  // namespace deltadct::inline DELTADCT_ABI
