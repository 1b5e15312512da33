// What the CUDA benchmarks share: memory, timing by events, and lines of results.
#pragma once

#include <deltadct/backend/cuda/launch.hpp>

#include <algorithm>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

namespace bench {

using deltadct::detail::check_cuda;

/// Device memory.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::size_t n) : n_(n) {
    void* memory = nullptr;
    check_cuda(cudaMalloc(&memory, n * sizeof(T)), "cudaMalloc");
    data_ = static_cast<T*>(memory);
    check_cuda(cudaMemset(data_, 0, n * sizeof(T)), "cudaMemset");
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { cudaFree(data_); }

  T* data() const { return data_; }
  std::span<T> span() const { return {data_, n_}; }

 private:
  T* data_ = nullptr;
  std::size_t n_;
};

/// Seconds for one call of fn(turn). Events enclose so many calls that the resolution of the clock
/// does not matter. Returns the median of several repetitions, after a warm-up. `turn` cycles, so
/// that the buffers it selects are together larger than the caches.
template <class Fn>
double seconds(cudaStream_t stream, const Fn& fn) {
  constexpr int kWarmUp = 4, kCalls = 16, kRepetitions = 11;
  cudaEvent_t begin, end;
  check_cuda(cudaEventCreate(&begin), "cudaEventCreate");
  check_cuda(cudaEventCreate(&end), "cudaEventCreate");
  for (int turn = 0; turn < kWarmUp; ++turn) fn(turn);
  std::vector<double> all;
  for (int n = 0; n < kRepetitions; ++n) {
    check_cuda(cudaEventRecord(begin, stream), "cudaEventRecord");
    for (int turn = 0; turn < kCalls; ++turn) fn(turn);
    check_cuda(cudaEventRecord(end, stream), "cudaEventRecord");
    check_cuda(cudaEventSynchronize(end), "cudaEventSynchronize");
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime");
    all.push_back(static_cast<double>(milliseconds) / 1e3 / kCalls);
  }
  check_cuda(cudaEventDestroy(begin), "cudaEventDestroy");
  check_cuda(cudaEventDestroy(end), "cudaEventDestroy");
  std::nth_element(all.begin(), all.begin() + kRepetitions / 2, all.end());
  return all[kRepetitions / 2];
}

/// Prints one result as a line of JSON. `bytes` are those that must cross the memory bus.
inline void report(const std::string& name, int patch, double weights, double bytes,
                   double seconds) {
  std::printf("{\"name\": \"%s\", \"patch\": %d, \"gb_s\": %.1f, \"weights_s\": %.4g}\n",
              name.c_str(), patch, bytes / seconds / 1e9, weights / seconds);
  std::fflush(stdout);
}

}  // namespace bench
