// The CUDA backend: the shared butterflies, with one or two columns of a patch per thread.
#pragma once

#include <deltadct/backend/cuda/dct.hpp>
#include <deltadct/backend/cuda/launch.hpp>
#include <deltadct/backend/kernel.hpp>

#include <string_view>

namespace deltadct { inline namespace DELTADCT_ABI {

/// A CUDA device: the current one of the calling thread.
struct Cuda {};

/// The transforms of the CUDA backend, compiled by nvcc. Instantiate CudaDct<P, T> in one file for
/// nvcc; any other file may then call it.
template <int P, class T>
struct CudaDct {
  static void forward(const T* patches, T* coefficients, std::size_t count, cudaStream_t stream);
  static void inverse(const T* coefficients, T* patches, std::size_t count, cudaStream_t stream);
};

/// Enqueues on a stream and returns. For whole codecs see deltadct/cuda.hpp.
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

  /// Transform patches in device memory. Throw device_failure (see detail::launch()) or too_large.
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

}}  // namespace deltadct::inline DELTADCT_ABI
