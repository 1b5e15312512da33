// Kernels as phases between barriers. The same functions run on a device, where each of its threads
// runs them, and on the host, one thread after another.
#pragma once

#include <deltadct/config.hpp>

#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI {

namespace concepts {

/// A kernel: a value that is passed to all threads of all blocks. Thread is what a thread keeps
/// from phase to phase; Shared is what the threads of a block share. Both start uninitialised.
/// run<Phase>(block, thread, own, shared) is one thread's part of a phase. Between phases, all
/// threads of a block synchronise. With is_warp_wide, only those of a warp do: no thread may then
/// need results of another warp.
template <class K>
concept DeviceKernel = std::is_trivially_copyable_v<K> &&
    std::is_trivially_default_constructible_v<typename K::Thread> &&
    std::is_trivially_default_constructible_v<typename K::Shared> &&
    requires(const K& kernel, typename K::Thread& own, typename K::Shared& shared) {
  { K::threads } -> std::convertible_to<int>;
  { K::phases } -> std::convertible_to<int>;
  { K::is_warp_wide } -> std::convertible_to<bool>;
  { kernel.blocks() } -> std::same_as<unsigned>;
  kernel.template run<0>(0u, 0, own, shared);
};

}  // namespace concepts

namespace detail {

/// Calls fn.operator()<0>() ... fn.operator()<N - 1>().
template <int N, class Fn>
DELTADCT_HD DELTADCT_INLINE void for_each_phase(Fn&& fn) {
  [&]<int... Phase>(std::integer_sequence<int, Phase...>) DELTADCT_INLINE_LAMBDA {
    (fn.template operator()<Phase>(), ...);
  }
  (std::make_integer_sequence<int, N>{});
}

}  // namespace detail

/// Runs a kernel on the host. Memory that has not been written holds NaNs. With `backwards`, the
/// threads of each phase run from last to first; the results must not depend on that.
template <concepts::DeviceKernel Kernel>
void run_on_host(const Kernel& kernel, bool backwards = false) {
  std::vector<typename Kernel::Thread> own(static_cast<std::size_t>(Kernel::threads));
  const auto shared = std::make_unique_for_overwrite<typename Kernel::Shared>();
  for (unsigned block = 0; block < kernel.blocks(); ++block) {
    std::memset(static_cast<void*>(own.data()), 0xFF, own.size() * sizeof(own[0]));
    std::memset(static_cast<void*>(shared.get()), 0xFF, sizeof(*shared));
    detail::for_each_phase<Kernel::phases>([&]<int Phase>() {
      for (int k = 0; k < Kernel::threads; ++k) {
        const int thread = backwards ? Kernel::threads - 1 - k : k;
        kernel.template run<Phase>(block, thread, own[static_cast<std::size_t>(thread)], *shared);
      }
    });
  }
}

}}  // namespace deltadct::inline DELTADCT_ABI
