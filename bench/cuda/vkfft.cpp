// VkFFT's DCT of the same patches as in bench_cuda, for comparison. Needs libvkfft-dev, whose
// header compiles its kernels at run time.
#include "timing.hpp"

#define VKFFT_BACKEND 1
#include <vkFFT.h>

namespace {

void check(VkFFTResult result, const char* call) {
  if (result == VKFFT_SUCCESS) return;
  throw deltadct::Error(deltadct::Errc::device_failure, call,
                        "VkFFTResult " + std::to_string(static_cast<int>(result)));
}

void run(std::uint64_t p) {
  constexpr std::uint64_t kWeights = 8192 * 8192;
  const bench::Buffer<float> values(kWeights);
  std::uint64_t bytes = kWeights * sizeof(float);
  void* data = values.data();
  CUdevice device;
  cuDeviceGet(&device, 0);
  cudaStream_t stream;
  bench::check_cuda(cudaStreamCreate(&stream), "cudaStreamCreate");
  VkFFTConfiguration configuration = {};
  configuration.FFTdim = 2;
  configuration.size[0] = configuration.size[1] = p;
  configuration.numberBatches = kWeights / (p * p);
  configuration.performDCT = 2;
  configuration.device = &device;
  configuration.stream = &stream;
  configuration.num_streams = 1;
  configuration.buffer = &data;
  configuration.bufferSize = &bytes;
  VkFFTApplication application = {};
  check(initializeVkFFT(&application, configuration), "initializeVkFFT");
  VkFFTLaunchParams launch = {};
  const auto weights = static_cast<double>(kWeights);
  for (const int inverse : {-1, 1}) {
    const double time = bench::seconds(
        stream, [&](int) { check(VkFFTAppend(&application, inverse, &launch), "VkFFTAppend"); });
    bench::report(inverse < 0 ? "forward, VkFFT" : "inverse, VkFFT", static_cast<int>(p), weights,
                  8 * weights, time);
  }
  deleteVkFFT(&application);
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("skipped: no CUDA device");
    return 0;
  }
  for (const std::uint64_t p : {8, 16, 32}) run(p);
}
