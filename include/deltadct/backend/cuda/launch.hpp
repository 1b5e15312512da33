// Launches kernels and reports CUDA's errors. Declared for every compiler, defined for nvcc.
#pragma once

#include <deltadct/backend/cuda/phases.hpp>
#include <deltadct/core/error.hpp>

#include <string>

#include <cuda_runtime_api.h>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// Throws device_failure, naming the call, with CUDA's name, number and text for the error.
inline void check_cuda(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // clears the error, so that it is not found again
  throw Error(Errc::device_failure, call,
              std::string(cudaGetErrorName(status)) + " (" +
                  std::to_string(static_cast<int>(status)) + "): " + cudaGetErrorString(status));
}

/// Enqueues a kernel. The stream reports errors that occur while it runs. Throws device_failure if
/// it cannot be started: there is no device, the driver is too old, the program was not compiled
/// for the device's architecture, or the stream belongs to another device.
template <concepts::DeviceKernel Kernel>
void launch(const Kernel& kernel, cudaStream_t stream);

#if defined(__CUDACC__)

/// The number of blocks for which a multiprocessor must have registers; 0, which leaves the choice
/// to the compiler, if the kernel does not say.
template <class Kernel>
constexpr int min_blocks() noexcept {
  if constexpr (requires { Kernel::min_blocks; })
    return Kernel::min_blocks;
  else
    return 0;
}

template <concepts::DeviceKernel Kernel>
__global__ void __launch_bounds__(Kernel::threads, min_blocks<Kernel>())
    run_on_device(const __grid_constant__ Kernel kernel) {
  __shared__ typename Kernel::Shared shared;
  typename Kernel::Thread own;
  for_each_phase<Kernel::phases>([&]<int Phase>() {
    if constexpr (Phase > 0) {
      if constexpr (Kernel::is_warp_wide)
        __syncwarp();
      else
        __syncthreads();
    }
    kernel.template run<Phase>(blockIdx.x, static_cast<int>(threadIdx.x), own, shared);
  });
}

template <concepts::DeviceKernel Kernel>
void launch(const Kernel& kernel, cudaStream_t stream) {
  if (kernel.blocks() == 0) return;
  void* arguments[] = {const_cast<Kernel*>(&kernel)};
  // Unlike <<<>>>, this returns its own error without asking for earlier ones.
  check_cuda(cudaLaunchKernel(&run_on_device<Kernel>, dim3(kernel.blocks()),
                              dim3(static_cast<unsigned>(Kernel::threads)), arguments, 0, stream),
             "cudaLaunchKernel");
}

#endif

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
