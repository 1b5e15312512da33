// The 2-D DCT of every backend, over all patches of a matrix in turn. FFTW is also measured as
// plain plans, in each form that its interface has for many transforms.
#include "support.hpp"

#if __has_include(<Eigen/Core>)
  #include <deltadct/eigen.hpp>
#endif
#if __has_include(<fftw3.h>)
  #include <deltadct/fftw.hpp>
#endif

#include <functional>
#include <memory>

namespace {

using namespace bench;

/// Normal values of a side x side matrix; one matrix per type and size for the whole run.
template <class T, std::size_t Side>
const Values<T>& random_values() {
  static const Values<T> values = [] {
    std::mt19937 random(1);
    std::normal_distribution<T> normal;
    Values<T> made(Side * Side);
    for (T& value : made) value = normal(random);
    return made;
  }();
  return values;
}

std::string dct_name(const std::string& backend, int p, bool forward, const char* type,
                     std::size_t side) {
  return "dct/backend:" + backend + "/P:" + std::to_string(p) + "/" +
         (forward ? "forward" : "inverse") + "/type:" + type + "/side:" + std::to_string(side);
}

// As many patches as fit. With P = 12, a few elements are left over.
template <class Backend, int P, class T, std::size_t Side>
void dct(benchmark::State& state, const DctKernel<Backend>& kernel, bool forward) {
  constexpr std::size_t patches = Side * Side / (P * P);
  const Values<T>& from = random_values<T, Side>();
  Values<T> to(from.size());
  for (auto _ : state) {
    if (forward)
      forward_dct<Backend, P>(from.data(), to.data(), patches, kernel);
    else
      inverse_dct<Backend, P>(from.data(), to.data(), patches, kernel);
    benchmark::ClobberMemory();
  }
  count_bytes<T>(state, patches * P * P);
}

template <class Backend, int P, class T, std::size_t Side>
void register_dct(const DctKernel<Backend>& kernel) {
  for (const bool forward : {true, false}) {
    const auto name = dct_name(std::string(kernel.name), P, forward, type_name<T>(), Side);
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
      dct<Backend, P, T, Side>(state, kernel, forward);
    });
  }
}

template <class Backend, int P>
void register_size(const DctKernel<Backend>& kernel) {
  register_dct<Backend, P, float, 512>(kernel);
  register_dct<Backend, P, double, 512>(kernel);
  register_dct<Backend, P, float, 4096>(kernel);
}

template <class Backend>
void register_backend(const DctKernel<Backend>& kernel = {}) {
  register_size<Backend, 8>(kernel);
  register_size<Backend, 12>(kernel);
  register_size<Backend, 16>(kernel);
  register_size<Backend, 32>(kernel);
  register_size<Backend, 64>(kernel);
}

#if __has_include(<fftw3.h>)

// The transform that FFTW itself computes, neither normalised nor transposed.
class BarePlan {
 public:
  BarePlan(const std::vector<fftwf_iodim>& dims, const std::vector<fftwf_iodim>& many,
           fftw_r2r_kind kind, float* from, float* to)
      : from_(from), to_(to) {
    const std::vector<fftw_r2r_kind> kinds(dims.size(), kind);
    plan_ = fftwf_plan_guru_r2r(static_cast<int>(dims.size()), dims.data(),
                                static_cast<int>(many.size()), many.data(), from, to, kinds.data(),
                                FFTW_PATIENT | FFTW_PRESERVE_INPUT);
  }
  BarePlan(const BarePlan&) = delete;
  BarePlan& operator=(const BarePlan&) = delete;
  ~BarePlan() { fftwf_destroy_plan(plan_); }

  void run(int at = 0) const { fftwf_execute_r2r(plan_, from_ + at, to_ + at); }

 private:
  float* from_;
  float* to_;
  fftwf_plan plan_ = nullptr;
};

constexpr int kSide = 512;

// A way to plan: per patch, for all patches, for the rows of all patches and then their columns, or
// for the matrix as it lies in memory.
using Form = std::function<void(benchmark::State&, int p, fftw_r2r_kind, float*, float*)>;

void run_form(benchmark::State& state, const std::function<void()>& run) {
  for (auto _ : state) {
    run();
    benchmark::ClobberMemory();
  }
}

void patch_by_patch(benchmark::State& state, int p, fftw_r2r_kind kind, float* from, float* to) {
  const BarePlan plan({{p, p, p}, {p, 1, 1}}, {}, kind, from, to);
  run_form(state, [&] {
    for (int at = 0; at + p * p <= kSide * kSide; at += p * p) plan.run(at);
  });
}

void all_patches(benchmark::State& state, int p, fftw_r2r_kind kind, float* from, float* to) {
  const BarePlan plan({{p, p, p}, {p, 1, 1}}, {{kSide * kSide / (p * p), p * p, p * p}}, kind, from,
                      to);
  run_form(state, [&] { plan.run(); });
}

void rows_then_columns(benchmark::State& state, int p, fftw_r2r_kind kind, float* from, float* to) {
  const int patches = kSide * kSide / (p * p);
  const BarePlan rows({{p, 1, 1}}, {{patches * p, p, p}}, kind, from, to);
  const BarePlan columns({{p, p, p}}, {{patches, p * p, p * p}, {p, 1, 1}}, kind, to, to);
  run_form(state, [&] {
    rows.run();
    columns.run();
  });
}

void in_the_matrix(benchmark::State& state, int p, fftw_r2r_kind kind, float* from, float* to) {
  const int grid = kSide / p;
  const BarePlan plan({{p, kSide, kSide}, {p, 1, 1}}, {{grid, p * kSide, p * kSide}, {grid, p, p}},
                      kind, from, to);
  run_form(state, [&] { plan.run(); });
}

void register_fftw_form(const std::string& form, const Form& run) {
  for (const int p : {8, 12, 16, 32, 64}) {
    for (const bool forward : {true, false}) {
      const auto name = dct_name("fftw-" + form, p, forward, "f32", kSide);
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
        Values<float> from(kSide * kSide);
        Values<float> to(from.size());
        run(state, p, forward ? FFTW_REDFT10 : FFTW_REDFT01, from.data(), to.data());
        const int grid = form == "matrix" ? kSide / p * p : 0;
        const int elements = grid != 0 ? grid * grid : kSide * kSide / (p * p) * p * p;
        count_bytes<float>(state, static_cast<std::size_t>(elements));
      });
    }
  }
}

#endif

void register_all() {
  register_memory<float, 512>();
  register_memory<float, 4096>();
  register_backend<Serial>();
  if constexpr (!std::is_same_v<DefaultBackend, Serial>) register_backend<DefaultBackend>();
#if __has_include(<Eigen/Core>)
  register_backend<EigenProducts>();
#endif
#if __has_include(<fftw3.h>)
  register_backend<Fftw>(DctKernel<Fftw>(std::make_shared<FftwPlans>(FftwEffort::patient)));
  fftwf_set_timelimit(1);  // per plan
  register_fftw_form("patch", patch_by_patch);
  register_fftw_form("batch", all_patches);
  register_fftw_form("separable", rows_then_columns);
  register_fftw_form("matrix", in_the_matrix);
#endif
}

}  // namespace

int main(int argc, char** argv) {
  return run_benchmarks(argc, argv, register_all);
}
