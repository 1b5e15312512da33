// The CUDA backend: the shared butterflies, one or two columns of a patch a thread.
#pragma once

#include <deltadct/backend/cuda/dct.hpp>
#include <deltadct/backend/cuda/launch.hpp>
#include <deltadct/backend/kernel.hpp>

#include <string_view>

namespace deltadct::inline DELTADCT_ABI {

/// A device that CUDA drives: the current one of the calling thread.
struct Cuda {};

/// The transforms of CUDA's backend, compiled by nvcc: instantiate CudaDct<P, T> in one of its
/// files, and any other may use them.
template <int P, class T>
struct CudaDct {
  static void forward(const T* patches, T* coefficients, std::size_t count, cudaStream_t stream);
  static void inverse(const T* coefficients, T* patches, std::size_t count, cudaStream_t stream);
};

/// Enqueues on a stream, and returns. Whole codecs are those of deltadct/cuda.hpp.
template <>
struct DctKernel<Cuda> {
  static constexpr std::string_view name = "cuda";

  /// Whether there is a device.
  static bool available() noexcept {
    int devices = 0;
    return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
  }

  DctKernel() = default;
  explicit DctKernel(cudaStream_t stream) noexcept : stream_(stream) {}

  template <int P, class T>
  void prepare() const noexcept {}

  /// The transforms of patches in the device's memory. Throw device_failure, see detail::launch(),
  /// and too_large.
  template <int P, class T>
  void forward_patches(const T* patches, T* coefficients, std::size_t count) const {
    CudaDct<P, T>::forward(patches, coefficients, count, stream_);
  }
  template <int P, class T>
  void inverse_patches(const T* coefficients, T* patches, std::size_t count) const {
    CudaDct<P, T>::inverse(coefficients, patches, count, stream_);
  }

 private:
  cudaStream_t stream_ = nullptr;
};

#if defined(__CUDACC__)

template <int P, class T>
void CudaDct<P, T>::forward(const T* patches, T* coefficients, std::size_t count,
                            cudaStream_t stream) {
  detail::launch(detail::DctKernelOnDevice<P, T, true>(patches, coefficients, count), stream);
}

template <int P, class T>
void CudaDct<P, T>::inverse(const T* coefficients, T* patches, std::size_t count,
                            cudaStream_t stream) {
  detail::launch(detail::DctKernelOnDevice<P, T, false>(coefficients, patches, count), stream);
}

#endif

}  // namespace deltadct::inline DELTADCT_ABI
