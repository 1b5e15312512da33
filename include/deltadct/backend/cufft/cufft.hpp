// The cuFFT backend: the 2-D DCT of patches through cuFFT's real transforms. It serves as a
// comparison for the block kernels of backend/cuda/. cuFFT has no DCT, so samples are reordered
// before its transform and coefficients computed and transposed after it, each in a separate pass.
#pragma once

#include <deltadct/backend/cuda/launch.hpp>
#include <deltadct/backend/cufft/reorder.hpp>
#include <deltadct/backend/kernel.hpp>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <cufft.h>

namespace deltadct { inline namespace DELTADCT_ABI {

/// The device's transform, computed by NVIDIA's library.
struct Cufft {};

namespace detail {

inline void check_cufft(cufftResult status, const char* call) {
  if (status == CUFFT_SUCCESS) return;
  throw Error(Errc::device_failure, call,
              "cufftResult " + std::to_string(static_cast<int>(status)));
}

template <class T>
struct DeviceFree {
  void operator()(T* memory) const noexcept { static_cast<void>(cudaFree(memory)); }
};

/// Allocates n elements of device memory. Throws device_failure.
template <class T>
std::unique_ptr<T[], DeviceFree<T>> allocate_on_device(std::size_t n) {
  void* memory = nullptr;
  check_cuda(cudaMalloc(&memory, n * sizeof(T)), "cudaMalloc");
  return std::unique_ptr<T[], DeviceFree<T>>(static_cast<T*>(memory));
}

/// cuFFT's plans for `batch` patches, with memory for the reordered samples and the spectra.
template <class T>
class CufftPlan {
 public:
  CufftPlan(int p, std::size_t batch)
      : batch_(batch),
        samples_(allocate_on_device<T>(batch * area(p, p))),
        spectrum_(allocate_on_device<Complex<T>>(batch * area(p, p / 2 + 1))) {
    constexpr bool is_float = std::is_same_v<T, float>;
    make(forward_, p, is_float ? CUFFT_R2C : CUFFT_D2Z);
    make(inverse_, p, is_float ? CUFFT_C2R : CUFFT_Z2D);
  }

  std::size_t batch() const noexcept { return batch_; }
  T* samples() const noexcept { return samples_.get(); }
  Complex<T>* spectrum() const noexcept { return spectrum_.get(); }

  /// From samples() to spectrum(), and back.
  void forward(cudaStream_t stream) const {
    check_cufft(cufftSetStream(forward_.handle, stream), "cufftSetStream");
    if constexpr (std::is_same_v<T, float>) {
      auto* to = reinterpret_cast<cufftComplex*>(spectrum());
      check_cufft(cufftExecR2C(forward_.handle, samples(), to), "cufftExecR2C");
    } else {
      auto* to = reinterpret_cast<cufftDoubleComplex*>(spectrum());
      check_cufft(cufftExecD2Z(forward_.handle, samples(), to), "cufftExecD2Z");
    }
  }
  void inverse(cudaStream_t stream) const {
    check_cufft(cufftSetStream(inverse_.handle, stream), "cufftSetStream");
    if constexpr (std::is_same_v<T, float>) {
      auto* from = reinterpret_cast<cufftComplex*>(spectrum());
      check_cufft(cufftExecC2R(inverse_.handle, from, samples()), "cufftExecC2R");
    } else {
      auto* from = reinterpret_cast<cufftDoubleComplex*>(spectrum());
      check_cufft(cufftExecZ2D(inverse_.handle, from, samples()), "cufftExecZ2D");
    }
  }

 private:
  struct Handle {
    cufftHandle handle = 0;
    bool is_made = false;

    Handle() = default;
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    ~Handle() {
      if (is_made) static_cast<void>(cufftDestroy(handle));
    }
  };

  static std::size_t area(int rows, int cols) noexcept {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols);
  }

  void make(Handle& plan, int p, cufftType type) const {
    int size[] = {p, p};
    check_cufft(cufftPlanMany(&plan.handle, 2, size, nullptr, 1, 0, nullptr, 1, 0, type,
                              static_cast<int>(batch_)),
                "cufftPlanMany");
    plan.is_made = true;
  }

  std::size_t batch_;
  std::unique_ptr<T[], DeviceFree<T>> samples_;
  std::unique_ptr<Complex<T>[], DeviceFree<Complex<T>>> spectrum_;
  Handle forward_;
  Handle inverse_;
};

/// Calls fn(first, n) for the patches of each batch.
template <class Fn>
void for_each_batch(std::size_t count, std::size_t batch, const Fn& fn) {
  for (std::size_t first = 0; first < count; first += batch) {
    fn(first, std::min(batch, count - first));
  }
}

}  // namespace detail

/// The transforms of the cuFFT backend, compiled by nvcc. Instantiate CufftDct<P, T> in one file
/// for nvcc; any other file may then call it.
template <int P, class T>
struct CufftDct {
  static void forward(const detail::CufftPlan<T>& plan, const T* patches, T* coefficients,
                      std::size_t count, cudaStream_t stream);
  static void inverse(const detail::CufftPlan<T>& plan, const T* coefficients, T* patches,
                      std::size_t count, cudaStream_t stream);
};

/// Holds plans and their memory. Copies share both, so that only one stream may use them at a time.
/// Transforms patches of even size only.
template <>
struct DctKernel<Cufft> {
  static constexpr std::string_view name = "cufft";

  static bool available() noexcept {
    int devices = 0;
    return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
  }

  /// Transforms `batch` patches at a time. Each takes 8 P (P + 1) bytes in float, beside what cuFFT
  /// allocates.
  DctKernel() : DctKernel(nullptr) {}
  explicit DctKernel(cudaStream_t stream, std::size_t batch = 8192)
      : stream_(stream), batch_(batch), plans_(std::make_shared<Plans>()) {}

  /// Makes the plans of a size, unless they exist. Throws device_failure.
  template <int P, class T>
  void prepare() const {
    static_assert(P % 2 == 0, "P must be even");
    auto& plan = plans_->of<T>()[P];
    if (!plan) plan = std::make_unique<detail::CufftPlan<T>>(P, batch_);
  }

  /// Transform patches in device memory, on the kernel's stream. Throw device_failure.
  template <int P, class T>
  void forward_patches(const T* patches, T* coefficients, std::size_t count) const {
    CufftDct<P, T>::forward(*plans_->of<T>()[P], patches, coefficients, count, stream_);
  }
  template <int P, class T>
  void inverse_patches(const T* coefficients, T* patches, std::size_t count) const {
    CufftDct<P, T>::inverse(*plans_->of<T>()[P], coefficients, patches, count, stream_);
  }

 private:
  template <class T>
  using Sizes = std::map<int, std::unique_ptr<detail::CufftPlan<T>>>;

  struct Plans {
    Sizes<float> floats;
    Sizes<double> doubles;

    template <class T>
    Sizes<T>& of() noexcept {
      if constexpr (std::is_same_v<T, float>)
        return floats;
      else
        return doubles;
    }
  };

  cudaStream_t stream_;
  std::size_t batch_;
  std::shared_ptr<Plans> plans_;
};

#if defined(__CUDACC__)

template <int P, class T>
void CufftDct<P, T>::forward(const detail::CufftPlan<T>& plan, const T* patches, T* coefficients,
                             std::size_t count, cudaStream_t stream) {
  detail::for_each_batch(count, plan.batch(), [&](std::size_t first, std::size_t n) {
    const std::size_t at = first * P * P;
    detail::launch(detail::Shuffle<P, T, true>(patches + at, plan.samples(), n), stream);
    plan.forward(stream);
    detail::launch(detail::SpectrumToCoefficients<P, T>(plan.spectrum(), coefficients + at, n),
                   stream);
  });
}

template <int P, class T>
void CufftDct<P, T>::inverse(const detail::CufftPlan<T>& plan, const T* coefficients, T* patches,
                             std::size_t count, cudaStream_t stream) {
  detail::for_each_batch(count, plan.batch(), [&](std::size_t first, std::size_t n) {
    const std::size_t at = first * P * P;
    detail::launch(detail::CoefficientsToSpectrum<P, T>(coefficients + at, plan.spectrum(), n),
                   stream);
    plan.inverse(stream);
    detail::launch(detail::Shuffle<P, T, false>(plan.samples(), patches + at, n), stream);
  });
}

#endif

}}  // namespace deltadct::inline DELTADCT_ABI
