// The queue of a device's encoder, on CUDA. Only nvcc compiles this header.
#pragma once

#include <deltadct/backend/cuda/launch.hpp>
#include <deltadct/core/bits.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>

#include <cub/device/device_radix_sort.cuh>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// Kernels on a stream, and CUB's radix sorts, which are stable.
struct CudaQueue {
  cudaStream_t stream;
  std::byte* sorting;
  std::size_t sorting_bytes;

  template <class Kernel>
  void launch(const Kernel& kernel) const {
    detail::launch(kernel, stream);
  }

  template <class T>
  static cudaError_t sort_scores(void* memory, std::size_t& bytes, const T* scores, T* sorted,
                                 const std::uint32_t* index, std::uint32_t* order, std::size_t n,
                                 cudaStream_t stream) {
    forget_errors();
    return cub::DeviceRadixSort::SortPairsDescending(memory, bytes, scores, sorted, index, order, n,
                                                     0, 8 * static_cast<int>(sizeof(T)), stream);
  }
  static cudaError_t sort_classes(void* memory, std::size_t& bytes, const std::uint32_t* classes,
                                  std::uint32_t* sorted, const std::uint32_t* index,
                                  std::uint32_t* order, std::size_t n, cudaStream_t stream) {
    constexpr int bits = std::bit_width(kMaxWidthClasses - 1);
    forget_errors();
    return cub::DeviceRadixSort::SortPairs(memory, bytes, classes, sorted, index, order, n, 0, bits,
                                           stream);
  }

  template <class T>
  void sort_scores(const T* scores, T* sorted, const std::uint32_t* index, std::uint32_t* order,
                   std::size_t n) const {
    std::size_t bytes = sorting_bytes;
    check_cuda(sort_scores(sorting, bytes, scores, sorted, index, order, n, stream),
               "cub::DeviceRadixSort");
  }
  void sort_classes(const std::uint32_t* classes, std::uint32_t* sorted, const std::uint32_t* index,
                    std::uint32_t* order, std::size_t n) const {
    std::size_t bytes = sorting_bytes;
    check_cuda(sort_classes(sorting, bytes, classes, sorted, index, order, n, stream),
               "cub::DeviceRadixSort");
  }

  void fill(void* memory, int byte, std::size_t n) const {
    check_cuda(cudaMemsetAsync(memory, byte, n, stream), "cudaMemsetAsync");
  }
  void copy(void* to, const void* from, std::size_t n) const {
    if (n == 0) return;
    check_cuda(cudaMemcpyAsync(to, from, n, cudaMemcpyDefault, stream), "cudaMemcpyAsync");
    check_cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  }

 private:
  // CUB also returns earlier errors of the same thread, which were handled where they occurred.
  static void forget_errors() { static_cast<void>(cudaGetLastError()); }
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
