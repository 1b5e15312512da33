// The kernels that encode on a device, compared with the serial backend: every patch size, width,
// element type and edge.
#include "device.hpp"

#include <limits>
#include <utility>

using namespace test;

namespace {

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

/// Extremes as bounds, with a rescale factor from products.
template <class T, int P>
struct ExtremesAtUnitGain : DefaultPolicy<T, P> {
  using Rescale = UnitGain;
};

/// Steps, of levels and of group codes, with a rescale factor from what they decode to.
template <class T, int P>
struct GaussianByMean : UnitGainPolicy<T, P> {
  using Rescale = MeanAbs;
};
template <class T, int P>
struct GaussianUnscaled : UnitGainPolicy<T, P> {
  using Rescale = NoRescale;
};

template <class T, int P>
struct Budgeted : UnitGainPolicy<T, P> {
  using Allocator = BudgetAllocator;
};

/// Gives the patches the widths in turn, whatever their scores, and records the scores.
struct InTurn {
  std::vector<int> bits;
  std::vector<float>* scores = nullptr;

  std::span<const int> widths() const { return bits; }
  void allocate(std::span<const float> from, std::span<std::uint32_t>,
                std::span<std::uint32_t> classes) const {
    if (scores != nullptr) scores->assign(from.begin(), from.end());
    for (std::size_t s = 0; s < classes.size(); ++s) {
      classes[s] = static_cast<std::uint32_t>(s % bits.size());
    }
  }
};
template <class Policy>
struct WidthsInTurn : Policy {
  using Allocator = InTurn;
};

/// Returns counts that do not match the patches.
struct Miscounts {
  std::vector<std::size_t> numbers;

  std::span<const int> widths() const {
    static constexpr int kWidths[] = {2, 0};
    return kWidths;
  }
  std::vector<std::size_t> counts(std::size_t) const { return numbers; }
  void allocate(std::span<const float>, std::span<std::uint32_t>, std::span<std::uint32_t>) const {}
};
template <class T, int P>
struct Miscounted : PaperPolicy<T, P> {
  using Allocator = Miscounts;
};

/// The scores of every patch of a matrix after MeasureKernel, and after RemeasureKernel.
template <class Policy>
struct Measured {
  std::vector<float> first;
  std::vector<float> scores;
  std::vector<double> originals;

  explicit Measured(MatrixView<const float> matrix) {
    using Measure = detail::MeasureKernel<Policy, float, false>;
    using Remeasure = detail::RemeasureKernel<Policy, float, false>;
    constexpr std::size_t P = Policy::patch;
    const std::size_t n = ceil_div(matrix.rows, P) * ceil_div(matrix.cols, P);
    const detail::DeviceRegion region(matrix.cols, 0, 0, matrix.rows, matrix.cols, Policy::patch,
                                      Measure::Threads::patches);
    Memory<float> score(n), means(n);
    Memory<detail::PatchSums> sums(n);
    Memory<std::uint32_t> failed(1);
    run_kernel(
        Measure{
            {{}, matrix}, region, false, score.data(), means.data(), sums.data(), failed.data()},
        false);
    first.assign(score.begin(), score.end());
    run_kernel(
        Remeasure{{{}, matrix}, region, static_cast<std::uint32_t>(n), score.data(), sums.data()},
        false);
    scores.assign(score.begin(), score.end());
    for (const auto& sum : sums) originals.push_back(sum.original);
  }
};

/// Norms, except that loud patches get a NaN.
struct PickyNorm : L2Norm {
  template <int P, concepts::Compute T>
  T operator()(std::span<const T, static_cast<std::size_t>(P) * P> patch) const noexcept {
    T score = 0;
    from_sum(detail::sum_patch<P, T>(patch.data(), [](T x) { return term(x); }), score);
    return score;
  }
  template <concepts::Compute T>
  DELTADCT_HD static bool from_sum(T square, T& score) noexcept {
    score = square > 1000 ? std::numeric_limits<T>::quiet_NaN() : std::sqrt(square);
    return true;
  }
};

template <class Policy, class Allocator_>
struct Judged : Policy {
  using Scorer = PickyNorm;
  using Allocator = Allocator_;
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

TEST_CASE("device encode: levels of the normal distribution, without unit gain") {
  check_all<GaussianByMean<float, 8>, float>();
  check_all<GaussianByMean<float, 16>, float>();
  check_all<GaussianUnscaled<float, 16>, float>();
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

TEST_CASE("device encode: patches without bits count at unit gain, whatever their range") {
  using Policy = ExtremesAtUnitGain<float, 16>;
  const Policy::Allocator allocator{{2, 0.3}, {0, 0.7}};
  for (const double size : {1e-35, 1e-25, 1.0, 1e17, 1e30}) {
    CAPTURE(size);
    const Matrix<float> matrix = random_matrix<float>(70, 90, 4, Layout::dense, size);
    check_same<Policy>(encode<Policy, float, false>(allocator, {}, matrix.view(), false),
                       DeltaCodec<Policy, Serial>(allocator).encode(matrix.view()));
  }
}

TEST_CASE(
    "device encode: what is measured of patches of zeros, and of those to be measured again") {
  using Policy = ExtremesAtUnitGain<float, 8>;
  Matrix<float> filled(8, 48);
  const auto set = [&](std::size_t patch, float value) {
    for (std::size_t i = 0; i < 8; ++i) {
      for (std::size_t j = 0; j < 8; ++j) filled.view()(i, 8 * patch + j) = value;
    }
  };
  set(0, 0.0F);
  set(1, -0.0F);
  set(2, 2.0F);
  set(3, 1e-30F);
  set(4, 1e30F);
  set(5, 1.0F);
  filled.view()(3, 43) = std::numeric_limits<float>::quiet_NaN();
  const Measured<Policy> found(std::as_const(filled).view());
  for (const std::size_t s : {3u, 4u}) CHECK(std::isnan(found.first[s]));
  CHECK(found.first[2] == 16);
  for (const std::size_t s : {0u, 1u, 5u}) CHECK(found.first[s] == 0);
  const double expected[] = {16, 8e-30, 8e30};
  for (std::size_t s = 0; s < 3; ++s) {
    CAPTURE(s);
    CHECK(found.scores[s + 2] == doctest::Approx(expected[s]).epsilon(1e-6).scale(0));
    CHECK(found.originals[s + 2] ==
          doctest::Approx(expected[s] * expected[s]).epsilon(1e-6).scale(0));
  }
  for (const std::size_t s : {0u, 1u, 5u}) CHECK(found.scores[s] == 0);
  for (const std::size_t s : {0u, 1u}) CHECK(found.originals[s] == 0);
}

TEST_CASE("device encode: allocators' widths are checked, as on the host, before anything runs") {
  using Policy = WidthsInTurn<PaperPolicy<float, 8>>;
  using Host = DeltaCodec<Policy, Serial>;
  const Matrix<float> matrix = random_matrix<float>(50, 60, 4);
  for (const InTurn& bad : {InTurn{{2, 4}}, InTurn{{4, 4}}, InTurn{{5}},
                            InTurn{{8, 6, 4, 3, 2, 1, 0, -2, -3}}, InTurn{{2, -2}}}) {
    CAPTURE(bad.bits.size());
    int launched = 0;
    const Error error =
        caught([&] { encode<Policy, float, false>(bad, {}, matrix.view(), false, &launched); });
    const Error expected = caught([&] { Host(bad).encode(matrix.view()); });
    CHECK(error.code() == Errc::bad_mix);
    CHECK(std::string(error.what()) == expected.what());
    // A width that the quantizer lacks is only found when a patch gets it.
    if (bad.bits != std::vector<int>{2, -2}) CHECK(launched == 0);
  }
  for (const std::vector<std::size_t>& numbers : {std::vector<std::size_t>{56},
                                                  {50, 5},
                                                  {50, 7},
                                                  {56, 0, 0},
                                                  {57, static_cast<std::size_t>(-1)}}) {
    int launched = 0;
    CHECK(caught([&] {
            encode<Miscounted<float, 8>, float, false>({numbers}, {}, matrix.view(), false,
                                                       &launched);
          }).code() == Errc::bad_mix);
    CHECK(launched == 0);
  }
}

TEST_CASE("device encode: memory that is not enough is found before anything runs") {
  using Policy = PaperPolicy<float, 8>;
  using Encoder = detail::DeviceEncoder<Policy, float, false>;
  const Matrix<float> matrix = random_matrix<float>(50, 60, 4);
  int launched = 0;
  TensorHeader header;
  Memory<std::byte> workspace(detail::DeviceWorkspace<float>(nullptr, 56, 0).bytes);
  const detail::DeviceWorkspace<float> arrays(workspace.data(), 56, 0);
  CHECK(caught([&] {
          Encoder({{}, matrix.view()})
              .run(HostQueue{false, &launched}, Policy::Allocator{}, arrays, header,
                   [](const TensorHeader&) -> detail::DeviceArrays {
                     throw Error(Errc::too_large, "memory");
                   });
        }).code() == Errc::too_large);
  CHECK(launched == 0);
}

TEST_CASE("device encode: allocators that are not by rank see the host's scores") {
  Matrix<float> filled = random_matrix<float>(50, 60, 4);
  const Matrix<float>& matrix = filled;
  std::vector<float> scores;
  std::vector<float> expected;
  const auto check_scores = [&]<class Policy>(const Policy&, const std::vector<int>& bits) {
    CAPTURE(bits.size());
    check_same<Policy>(encode<Policy, float, false>({bits, &scores}, {}, matrix.view(), false),
                       DeltaCodec<Policy, Serial>({bits, &expected}).encode(matrix.view()));
    REQUIRE(scores.size() == expected.size());
    for (std::size_t s = 0; s < scores.size(); ++s) {
      CHECK(scores[s] == doctest::Approx(expected[s]).epsilon(1e-5));
    }
  };
  check_scores(WidthsInTurn<PaperPolicy<float, 8>>{}, {4, 2, 0});
  check_scores(WidthsInTurn<PaperPolicy<float, 8>>{}, {2});
  check_scores(WidthsInTurn<UnitGainPolicy<float, 16>>{}, {1});
  filled.view()(17, 30) = std::numeric_limits<float>::quiet_NaN();
  CHECK(caught([&] {
          encode<WidthsInTurn<PaperPolicy<float, 8>>, float, false>({{2, 0}, &scores}, {},
                                                                    matrix.view(), false);
        }).where() == "patch at element (16, 24)");
  CHECK(std::ranges::none_of(scores, [](float x) { return std::isnan(x); }));
}

TEST_CASE("device encode: scores that are no numbers count as the lowest, as on the host") {
  // Rows of loud patches, which the scorer cannot judge, among quiet ones.
  Matrix<float> filled = random_matrix<float>(64, 96, 4);
  for (std::size_t i = 16; i < 32; ++i) {
    for (std::size_t j = 0; j < 96; ++j) filled.view()(i, j) *= 1000;
  }
  const Matrix<float>& matrix = filled;
  const auto check_least = [&]<class Policy>(const Policy&,
                                             const typename Policy::Allocator& allocator) {
    const CompressedTensor found = DeltaCodec<Policy, Serial>(allocator).encode(matrix.view());
    check_same<Policy>(encode<Policy, float, false>(allocator, {}, matrix.view(), false), found);
    const std::size_t least = found.header.classes.size() - 1;
    REQUIRE(least > 0);
    for (std::size_t k = 6; k < 12; ++k) CHECK(found.places[k].width_class() == least);
  };
  check_least(Judged<UnitGainPolicy<float, 16>, OneBitAllocator>{},
              RatioAllocator{{4, 0.25}, {2, 0.5}, {1, 0.25}});
  check_least(Judged<UnitGainPolicy<float, 16>, BudgetAllocator>{}, BudgetAllocator(2));
  check_least(Judged<UnitGainPolicy<float, 16>, BudgetAllocator>{}, BudgetAllocator(0.5));
}

TEST_CASE("device encode: what is too small to be stored is refused, not lost") {
  const auto code = []<class Policy, class T>(const Policy&, const Matrix<T>& matrix,
                                              const RatioAllocator& mix) {
    try {
      encode<Policy, T, false>(typename Policy::Allocator{mix}, {}, matrix.view(), false);
      return std::string();
    } catch (const Error& error) {
      CHECK(error.code() == Errc::out_of_range);
      return error.where();
    }
  };
  const RatioAllocator two{{2, 0.5}, {0, 0.5}};
  for (const double size : {1e-44, 1e-42}) {
    const auto small = random_matrix<float>(40, 40, 1, Layout::dense, size);
    CHECK(code(PaperPolicy<float, 8>{}, small, two) == "delta");
    CHECK(code(UnitGainPolicy<float, 16>{}, small, {{1, 1.0}}) == "delta");
    CHECK(code(UnitGainPolicy<float, 16>{}, small, {{3, 0.5}, {-3, 0.5}}) == "delta");
  }
  CHECK(code(UnitGainPolicy<double, 16>{}, random_matrix<double>(40, 40, 1, Layout::dense, 1e-300),
             {{2, 1.0}}) == "delta");
  auto mixed = random_matrix<float>(40, 40, 1);
  for (std::size_t j = 0; j < 40; ++j) mixed.view()(0, j) *= 1e-42F;
  CHECK(code(PaperPolicy<float, 8>{}, mixed, two).empty());
  CHECK(code(UnitGainPolicy<float, 16>{}, mixed, {{1, 1.0}}).empty());
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
    const Errc expected = bad == Limits::max() ? Errc::out_of_range : Errc::non_finite;
    CHECK(error.code() == expected);
    CHECK(error.where() == "patch at element (16, 24)");
    const auto gain_error =
        caught([&] { encode<Gain, float, false>(Gain::Allocator{}, {}, matrix.view(), false); });
    CHECK(gain_error.code() == expected);
    CHECK(gain_error.where() == "patch at element (16, 16)");
  }
}
