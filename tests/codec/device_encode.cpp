// The kernels that encode on a device, against the serial backend: every patch size, width, element
// type and edge.
#include "support.hpp"

#include <deltadct/codec/device/encode.hpp>

#include <limits>

using namespace test;

namespace {

/// Runs kernels by run_kernel() and sorts on the host.
struct HostMeans {
  bool backwards;

  template <class Kernel>
  void launch(const Kernel& kernel) const {
    if (kernel.blocks() != 0) run_kernel(kernel, backwards);
  }
  template <class T>
  void sort_scores(const T* scores, T*, const std::uint32_t* index, std::uint32_t* order,
                   std::size_t n) const {
    std::copy_n(index, n, order);
    std::stable_sort(order, order + n, [=](auto a, auto b) { return scores[a] > scores[b]; });
  }
  void sort_classes(const std::uint32_t* classes, std::uint32_t*, const std::uint32_t* index,
                    std::uint32_t* order, std::size_t n) const {
    std::copy_n(index, n, order);
    std::stable_sort(order, order + n, [=](auto a, auto b) { return classes[a] < classes[b]; });
  }
  void fill(void* memory, int byte, std::size_t n) const { std::memset(memory, byte, n); }
  void copy(void* to, const void* from, std::size_t n) const {
    if (n != 0) std::memcpy(to, from, n);
  }
  void fetch(void* to, const void* from, std::size_t n) const { copy(to, from, n); }
};

template <class Policy, class U, bool Subtracts>
CompressedTensor encode(const typename Policy::Allocator& allocator, MatrixView<const U> base,
                        MatrixView<const U> tuned, bool backwards) {
  using Encoder = detail::DeviceEncoder<Policy, U, Subtracts>;
  using T = typename Encoder::T;
  const Encoder encoder({base, tuned});
  const std::size_t patches = Encoder::patches_of(tuned.rows, tuned.cols);
  Memory<std::byte> memory;
  Memory<std::byte> workspace(detail::DeviceScratch<T>(nullptr, patches, 0).bytes);
  std::memset(workspace.data(), 0xFF, workspace.size());
  const detail::DeviceScratch<T> scratch(workspace.data(), patches, 0);
  CompressedTensor out;
  detail::DeviceArrays arrays{};
  encoder.run(HostMeans{backwards}, allocator, scratch, out.header,
              [&](const TensorHeader& header) {
                memory.resize(detail::lay_out_on_device(header, nullptr, arrays));
                detail::lay_out_on_device(header, memory.data(), arrays);
                return arrays;
              });
  out.header.scale = Encoder::scale_of(*scratch.outcome, out.header);
  detail::resize_arrays(out);
  detail::for_each_copy(out, out.header, arrays,
                        [&](void* to, std::size_t from, std::size_t bytes) {
                          if (bytes != 0) std::memcpy(to, memory.data() + from, bytes);
                        });
  return out;
}

/// How many codes two tensors of one header have, and how many of them differ.
struct Codes {
  double all = 0;
  double differ = 0;
};

Codes compare_codes(const CompressedTensor& a, const CompressedTensor& b) {
  Codes codes;
  const CompressedView left = a;
  const CompressedView right = b;
  const int n = a.header.patch * a.header.patch;
  for (std::size_t patch = 0; patch < a.places.size(); ++patch) {
    const int bits = left.width_class(a.places[patch]).bits;
    const std::byte* l = left.codes_of(a.places[patch]);
    const std::byte* r = right.codes_of(b.places[patch]);
    const int count = bits == 0 ? 0 : bits < 0 ? n >> -bits : n;
    for (int s = 0; s < count; ++s) {
      const auto at = static_cast<std::size_t>(s);
      codes.all += 1;
      codes.differ += bits < 0
                          ? bits::get_dense(l, 1 - bits, at) != bits::get_dense(r, 1 - bits, at)
                          : read_code(l, bits, n, s) != read_code(r, bits, n, s);
    }
  }
  return codes;
}

template <class Policy>
void check_same(const CompressedTensor& found, const CompressedTensor& expected) {
  using T = compute_t<typename Policy::Element>;
  DeltaCodec<Policy, Serial>::validate(found);
  REQUIRE(found.header.classes.size() == expected.header.classes.size());
  for (std::size_t k = 0; k < found.header.classes.size(); ++k) {
    CHECK(found.header.classes[k].bits == expected.header.classes[k].bits);
    CHECK(found.header.classes[k].patches == expected.header.classes[k].patches);
  }
  std::size_t moved = 0;
  for (std::size_t s = 0; s < found.places.size(); ++s) {
    moved += found.places[s].packed != expected.places[s].packed;
  }
  CHECK(moved == 0);
  if (moved != 0) return;
  CHECK(found.header.scale == doctest::Approx(expected.header.scale).epsilon(1e-5));
  const Codes codes = compare_codes(found, expected);
  CHECK(codes.differ <= 1e-4 * codes.all + 1);
  const std::size_t bytes = dtype_bytes(found.header.bound);
  for (std::size_t at = 0; at < found.bounds.size(); at += bytes) {
    const T f = detail::load_bound<T>(found.bounds.data() + at, found.header.bound, 0);
    const T e = detail::load_bound<T>(expected.bounds.data() + at, found.header.bound, 0);
    // A bound of 16 bits may be rounded the other way.
    REQUIRE(f == doctest::Approx(e).epsilon(bytes == 2 ? 0.008 : 1e-4).scale(1e-3));
  }
}

template <class Policy, class U>
void check(const typename Policy::Allocator& allocator, std::size_t rows, std::size_t cols,
           Layout layout) {
  CAPTURE(rows);
  CAPTURE(cols);
  CAPTURE(static_cast<int>(layout));
  const Matrix<U> base = random_matrix<U>(rows, cols, 5, layout, 0.5);
  const Matrix<U> tuned = random_matrix<U>(rows, cols, 6, layout, 0.5);
  const DeltaCodec<Policy, Serial> codec(allocator);
  const CompressedTensor expected = codec.encode(base.view(), tuned.view());
  const CompressedTensor expected_delta = codec.encode(tuned.view());
  for (const bool backwards : {false, true}) {
    check_same<Policy>(encode<Policy, U, true>(allocator, base.view(), tuned.view(), backwards),
                       expected);
    check_same<Policy>(encode<Policy, U, false>(allocator, {}, tuned.view(), backwards),
                       expected_delta);
  }
}

template <class Policy, class U>
void check_all() {
  CAPTURE(Policy::patch);
  constexpr std::size_t P = Policy::patch;
  constexpr std::size_t across =
      P * (detail::PatchThreads<compute_t<U>, Policy::patch>::patches + 1) + 1;
  for (const Mix& mix : mixes_of_every_width<Policy>()) {
    CAPTURE(mix[0].bits);
    const typename Policy::Allocator allocator{RatioAllocator(mix)};
    check<Policy, U>(allocator, 2 * P + P / 2, across, Layout::aligned);
    check<Policy, U>(allocator, P, across, Layout::transposed);
  }
  check<Policy, U>(typename Policy::Allocator{}, 1, 1, Layout::dense);
}

template <class T, int P>
struct Unscaled : DefaultPolicy<T, P> {
  using Rescale = NoRescale;
};

/// Extremes, compared by their products.
template <class T, int P>
struct ExtremesAtUnitGain : DefaultPolicy<T, P> {
  using Rescale = UnitGain;
};

template <class T, int P>
struct Budgeted : UnitGainPolicy<T, P> {
  using Allocator = BudgetAllocator;
};

}  // namespace

TEST_CASE("device encode: the paper's policy, every patch size") {
  check_all<PaperPolicy<float, 4>, float>();
  check_all<PaperPolicy<float, 8>, float>();
  check_all<PaperPolicy<float, 12>, float>();
  check_all<PaperPolicy<float, 16>, float>();
  check_all<PaperPolicy<float, 32>, float>();
  check_all<PaperPolicy<float, 64>, float>();
}

TEST_CASE("device encode: unit gain") {
  check_all<UnitGainPolicy<float, 12>, float>();
  check_all<UnitGainPolicy<float, 16>, float>();
  check_all<UnitGainPolicy<float, 32>, float>();
  check_all<UnitGainPolicy<float, 64>, float>();
}

TEST_CASE("device encode: without a transform, without a scale, extremes at unit gain") {
  check_all<WithoutDct<float, 8>, float>();
  check_all<Unscaled<float, 16>, float>();
  check_all<ExtremesAtUnitGain<float, 16>, float>();
}

TEST_CASE("device encode: elements of two bytes, and double") {
  check_all<PaperPolicy<float, 16>, bfloat16>();
  check_all<UnitGainPolicy<float, 32>, half>();
  check_all<PaperPolicy<double, 16>, double>();
  check_all<UnitGainPolicy<double, 16>, double>();
}

TEST_CASE("device encode: an allocator that needs the scores") {
  for (const double budget : {0.15, 0.4, 1.07, 2.5}) {
    CAPTURE(budget);
    check<Budgeted<float, 32>, float>(BudgetAllocator(budget), 200, 333, Layout::dense);
  }
}

TEST_CASE("device encode: matrices of nothing, of zeros and of extreme values") {
  using Paper = PaperPolicy<float, 8>;
  using Gain = UnitGainPolicy<float, 16>;
  const CompressedTensor none = encode<Paper, float, false>(
      Paper::Allocator{}, {}, MatrixView<const float>(nullptr, 0, 5), false);
  CHECK(none.places.empty());
  CHECK(none.header.scale == 1);
  for (const double size : {0.0, 1e-30, 1e30}) {
    CAPTURE(size);
    const Matrix<float> matrix = random_matrix<float>(20, 30, 4, Layout::dense, size);
    const auto paper = DeltaCodec<Paper, Serial>{}.encode(matrix.view());
    check_same<Paper>(encode<Paper, float, false>(Paper::Allocator{}, {}, matrix.view(), false),
                      paper);
    const auto gain = DeltaCodec<Gain, Serial>{}.encode(matrix.view());
    check_same<Gain>(encode<Gain, float, false>(Gain::Allocator{}, {}, matrix.view(), false), gain);
  }
}

TEST_CASE("device encode: what cannot be stored is refused, with the patch") {
  using Paper = PaperPolicy<float, 8>;
  using Gain = UnitGainPolicy<float, 16>;
  using Limits = std::numeric_limits<float>;
  for (const float bad : {Limits::quiet_NaN(), Limits::infinity(), Limits::max()}) {
    CAPTURE(bad);
    Matrix<float> filled = random_matrix<float>(40, 40, 4);
    for (std::size_t j = 25; j < 31; ++j) filled.view()(17, j) = bad;
    filled.view()(39, 39) = bad;
    const Matrix<float>& matrix = filled;
    const auto error = caught([&] {
      encode<Paper, float, false>(RatioAllocator{{2, 1.0}}, {}, matrix.view(), false);
    });
    CHECK(error.code() == Errc::non_finite);
    CHECK(error.where() == "patch at element (16, 24)");
    const auto gain_error =
        caught([&] { encode<Gain, float, false>(Gain::Allocator{}, {}, matrix.view(), false); });
    CHECK(gain_error.code() == Errc::non_finite);
    CHECK(gain_error.where() == "patch at element (16, 16)");
  }
}
