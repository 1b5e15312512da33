// An inference engine whose base is in a device's memory adds a tenant's delta, and removes it
// again. Any C++20 compiler compiles this file; nvcc compiles kernels.cu.
#include "policy.hpp"

#include <cstdio>
#include <random>
#include <vector>

#include <cuda_runtime_api.h>

using deltadct::bfloat16;
using deltadct::MatrixView;
using Codec = deltadct::DeltaCodec<EnginePolicy, deltadct::Cuda>;

namespace {

constexpr std::size_t kRows = 4096, kCols = 4096, kWeights = kRows * kCols;

/// Device memory, which the engine allocates, not the library.
template <class T>
class DeviceMemory {
 public:
  explicit DeviceMemory(std::size_t n) : n_(n) {
    void* memory = nullptr;
    deltadct::detail::check_cuda(cudaMalloc(&memory, n * sizeof(T)), "cudaMalloc");
    data_ = static_cast<T*>(memory);
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() { cudaFree(data_); }

  std::span<T> span() const { return {data_, n_}; }

 private:
  T* data_;
  std::size_t n_;
};

double mean_of(const DeviceMemory<bfloat16>& weights) {
  std::vector<bfloat16> host(kWeights);
  cudaMemcpy(host.data(), weights.span().data(), kWeights * sizeof(bfloat16),
             cudaMemcpyDeviceToHost);
  double sum = 0;
  for (const bfloat16 x : host) sum += static_cast<double>(static_cast<float>(x));
  return sum / static_cast<double>(kWeights);
}

void run() {
  // The content of a tenant's archive, compressed on the host or on another machine.
  std::mt19937 random(1);
  std::normal_distribution<float> change(0.001F, 0.002F);
  std::vector<float> delta(kWeights);
  for (float& x : delta) x = change(random);
  const deltadct::DeltaCodec<EnginePolicy> host;
  const deltadct::CompressedTensor compressed =
      host.encode(MatrixView<const float>(delta.data(), kRows, kCols));

  const DeviceMemory<bfloat16> weights(kWeights);
  cudaMemset(weights.span().data(), 0, kWeights * sizeof(bfloat16));
  const DeviceMemory<std::byte> memory(Codec::device_bytes(compressed.header));

  const Codec codec;
  const auto tenant = Codec::upload(compressed, memory.span());
  const MatrixView<bfloat16> view(weights.span().data(), kRows, kCols);
  codec.decode_add(tenant, view);
  std::printf("with the tenant's delta, %zu bytes of it, the mean weight is %.5f\n",
              memory.span().size(), mean_of(weights));
  codec.decode_add(tenant, view, -1);
  std::printf("and without it %.5f\n", mean_of(weights));
}

}  // namespace

int main() {
  if (!deltadct::DctKernel<deltadct::Cuda>::available()) {
    std::puts("skipped: no CUDA device");
    return 0;
  }
  run();
}
