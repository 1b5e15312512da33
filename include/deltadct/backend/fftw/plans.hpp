// FFTW's plans for patches, made once and kept.
#pragma once

#include <deltadct/config.hpp>
#include <deltadct/core/error.hpp>

#include <fftw3.h>

#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <memory>
#include <mutex>
#include <numbers>
#include <string>
#include <type_traits>

namespace deltadct {

/// Guards FFTW's planner, of which a process has only one, and which is not thread-safe. Executing
/// plans needs no lock. An application that also makes plans of its own must hold this mutex
/// meanwhile. It is outside the versioned namespace, because all versions of the library share the
/// planner.
inline std::mutex& fftw_planner() {
  static std::mutex planner;
  return planner;
}

inline namespace DELTADCT_ABI {

/// How long FFTW searches for a plan, as flags of its planner.
enum class FftwEffort : unsigned {
  estimate = FFTW_ESTIMATE,
  measure = FFTW_MEASURE,
  patient = FFTW_PATIENT,
  wisdom_only = FFTW_WISDOM_ONLY,  ///< only plans from imported wisdom
};

namespace detail {

inline constexpr int kMostPoints = 64;

/// The functions of one precision.
template <class T>
struct FftwApi;

template <>
struct FftwApi<float> {
  using Plan = fftwf_plan;
  static constexpr auto plan = fftwf_plan_guru_r2r;
  static constexpr auto execute = fftwf_execute_r2r;
  static constexpr auto destroy = fftwf_destroy_plan;
};

template <>
struct FftwApi<double> {
  using Plan = fftw_plan;
  static constexpr auto plan = fftw_plan_guru_r2r;
  static constexpr auto execute = fftw_execute_r2r;
  static constexpr auto destroy = fftw_destroy_plan;
};

}  // namespace detail

/// The orthonormal 2-D DCT of patches of one size.
template <class T>
class FftwDct {
  using Api = detail::FftwApi<T>;

 public:
  /// Requires 2 <= p <= 64. Throws no_plan if FFTW finds no plan.
  FftwDct(int p, FftwEffort effort)
      : size_(p),
        weight_(static_cast<T>(std::sqrt(0.5 / p))),
        forward_(plan(p, FFTW_REDFT10, effort)),
        inverse_(plan(p, FFTW_REDFT01, effort)) {}

  /// Writes coefficients transposed, F[k_column * p + k_row]. The arrays must not overlap.
  void forward(const T* patch, T* coefficients) const noexcept {
    Api::execute(forward_.get(), const_cast<T*>(patch), coefficients);  // it preserves its input
    weigh(coefficients, static_cast<T>(std::numbers::sqrt2 / 2), coefficients);
  }

  void inverse(const T* coefficients, T* patch) const noexcept {
    alignas(64) T weighted[detail::kMostPoints * detail::kMostPoints];
    weigh(coefficients, static_cast<T>(std::numbers::sqrt2), weighted);
    Api::execute(inverse_.get(), weighted, patch);
  }

 private:
  struct Destroy {
    void operator()(typename Api::Plan plan) const noexcept {
      const std::scoped_lock lock(fftw_planner());
      Api::destroy(plan);
    }
  };
  using Plan = std::unique_ptr<std::remove_pointer_t<typename Api::Plan>, Destroy>;

  static Plan plan(int p, fftw_r2r_kind kind, FftwEffort effort) {
    // FFTW overwrites both arrays while it measures.
    alignas(64) T from[detail::kMostPoints * detail::kMostPoints] = {};
    alignas(64) T to[detail::kMostPoints * detail::kMostPoints];
    const fftw_iodim transposed[] = {{p, p, 1}, {p, 1, p}};
    const fftw_iodim one_patch{1, 0, 0};
    const fftw_r2r_kind kinds[] = {kind, kind};
    const bool aligned = static_cast<std::size_t>(p * p) * sizeof(T) % 64 == 0;
    const unsigned flags = static_cast<unsigned>(effort) | FFTW_PRESERVE_INPUT |
                           (aligned ? 0u : unsigned{FFTW_UNALIGNED});
    const std::scoped_lock lock(fftw_planner());
    Plan plan(Api::plan(2, transposed, 1, &one_patch, from, to, kinds, flags));
    if (!plan) throw Error(Errc::no_plan, "FFTW", std::to_string(p) + " x " + std::to_string(p));
    return plan;
  }

  // FFTW computes sums of 2 x cos() forward, and X[0] plus sums of 2 X cos() back. The orthonormal
  // factors are the same both ways, except for k = 0.
  void weigh(const T* from, T first, T* to) const noexcept {
    for (int a = 0; a < size_; ++a, from += size_, to += size_) {
      const T weight = weight_ * (a == 0 ? weight_ * first : weight_);
      to[0] = from[0] * weight * first;
      for (int b = 1; b < size_; ++b) to[b] = from[b] * weight;
    }
  }

  int size_;
  T weight_;
  Plan forward_;
  Plan inverse_;
};

/// Plans by size and precision. Any number of threads may share them. Each plan is made when it is
/// first needed, under the process-wide lock that FFTW's planner requires.
class FftwPlans {
 public:
  explicit FftwPlans(FftwEffort effort = FftwEffort::measure) noexcept : effort_(effort) {}

  FftwPlans(const FftwPlans&) = delete;
  FftwPlans& operator=(const FftwPlans&) = delete;
  ~FftwPlans() {
    for (const auto& made : floats_) delete made.load();
    for (const auto& made : doubles_) delete made.load();
  }

  /// Makes the transform of p x p patches, 2 <= p <= 64, unless it exists. Throws no_plan.
  template <class T>
  void make(int p) {
    const std::scoped_lock lock(making_);
    if (find<T>(p) == nullptr) {
      sizes<T>(*this)[static_cast<std::size_t>(p)] = new FftwDct<T>(p, effort_);
    }
  }

  /// The transform of p x p patches, or nullptr if it has not been made.
  template <class T>
  const FftwDct<T>* find(int p) const noexcept {
    return sizes<T>(*this)[static_cast<std::size_t>(p)];
  }

 private:
  template <class T>
  using Sizes = std::array<std::atomic<const FftwDct<T>*>, detail::kMostPoints + 1>;

  template <class T, class Self>
  static auto& sizes(Self& self) noexcept {
    if constexpr (std::is_same_v<T, float>)
      return self.floats_;
    else
      return self.doubles_;
  }

  FftwEffort effort_;
  std::mutex making_;
  Sizes<float> floats_{};
  Sizes<double> doubles_{};
};

}  // namespace DELTADCT_ABI
}  // namespace deltadct
