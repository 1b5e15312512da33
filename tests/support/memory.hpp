// Memory for tests, and how they run kernels: on the host or, compiled by nvcc, on a device.
#pragma once

#include <deltadct/backend/cuda/phases.hpp>

#include <cstddef>
#include <new>
#include <vector>

#if defined(__CUDACC__)
  #include <deltadct/backend/cuda/launch.hpp>
#endif

namespace test {

/// Memory that kernels can reach, aligned like a device's.
template <class T>
struct KernelAllocator {
  using value_type = T;
  static constexpr std::align_val_t alignment{256};

  KernelAllocator() = default;
  template <class U>
  KernelAllocator(const KernelAllocator<U>&) noexcept {}

  T* allocate(std::size_t n) {
#if defined(__CUDACC__)
    void* memory = nullptr;
    deltadct::detail::check_cuda(cudaMallocManaged(&memory, n * sizeof(T)), "cudaMallocManaged");
    return static_cast<T*>(memory);
#else
    return static_cast<T*>(::operator new(n * sizeof(T), alignment));
#endif
  }
  void deallocate(T* memory, std::size_t) noexcept {
#if defined(__CUDACC__)
    cudaFree(memory);
#else
    ::operator delete(memory, alignment);
#endif
  }

  bool operator==(const KernelAllocator&) const = default;
};

template <class T>
using Memory = std::vector<T, KernelAllocator<T>>;

/// Runs a kernel to its end. On the host, the threads of a phase run in either order.
template <deltadct::concepts::DeviceKernel Kernel>
void run_kernel(const Kernel& kernel, [[maybe_unused]] bool backwards) {
#if defined(__CUDACC__)
  deltadct::detail::launch(kernel, nullptr);
  deltadct::detail::check_cuda(cudaDeviceSynchronize(), "kernel");
#else
  deltadct::run_on_host(kernel, backwards);
#endif
}

}  // namespace test
