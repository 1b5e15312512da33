// The FFTW backend: computes the 2-D DCT of a patch with FFTW's REDFT10 and REDFT01 in both
// dimensions.
#pragma once

#include <deltadct/backend/fftw/plans.hpp>
#include <deltadct/backend/kernel.hpp>

#include <memory>
#include <utility>

namespace deltadct { inline namespace DELTADCT_ABI {

/// FFTW 3, in float and double.
struct Fftw {};

/// Uses the caller's plans, or plans of its own. Copies share the plans.
template <>
struct DctKernel<Fftw> : ArrayKernel<DctKernel<Fftw>>, ScalarCodes {
  static constexpr std::string_view name = "fftw";

  static constexpr bool available() noexcept { return true; }

  explicit DctKernel(std::shared_ptr<FftwPlans> plans) noexcept : plans_(std::move(plans)) {}
  DctKernel() : DctKernel(std::make_shared<FftwPlans>()) {}

  /// Throws no_plan if FFTW finds no plan.
  template <int P, class T>
  void prepare() const {
    plans_->make<T>(P);
  }

  template <int P, class T>
  void forward_patch(const T* patch, T* coefficients) const noexcept {
    plans_->find<T>(P)->forward(patch, coefficients);
  }

  template <int P, class T>
  void inverse_patch(const T* coefficients, T* patch) const noexcept {
    plans_->find<T>(P)->inverse(coefficients, patch);
  }

 private:
  std::shared_ptr<FftwPlans> plans_;
};

}}  // namespace deltadct::inline DELTADCT_ABI
