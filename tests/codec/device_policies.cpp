// Unusual but valid policies: kernels must give the results of the serial backend.
#include "device.hpp"
#include "odd_stages.hpp"

#include <limits>

using namespace test;

namespace {

/// A scorer without terms. Its scores are negative, and NaN for a patch of zeros.
struct Debt {
  template <int P, class T>
  DELTADCT_HD T operator()(std::span<const T, static_cast<std::size_t>(P) * P> patch) const {
    const T largest = LargestWeight{}.template operator()<P, T>(patch);
    return largest == 0 ? std::numeric_limits<T>::quiet_NaN() : -largest;
  }
};

/// A scorer of degree 2.
struct Energy {
  static constexpr int degree = 2;

  template <int P, class T>
  T operator()(std::span<const T, static_cast<std::size_t>(P) * P> patch) const {
    const auto sum = detail::sum_patch<P, double>(patch.data(), [](double x) { return x * x; });
    return static_cast<T>(sum);
  }
  template <class V>
  DELTADCT_HD static V term(V x) {
    return x * x;
  }
  template <class T>
  DELTADCT_HD static bool from_sum(T sum, T& score) {
    score = sum;
    return detail::is_within_range(sum);
  }
};

/// A DCT of mirrored patches, which no backend knows.
struct Mirrored : MappedTransform<Mirrored, Dct> {
  static constexpr std::string_view name = "mirrored";

  template <int P, class V>
  DELTADCT_HD static V map(V x, int i, int) {
    return i % 2 == 0 ? x : x * V(typename Lanes<V>::scalar(-1));
  }
};

/// Differences of neighbours in a row. The transform is neither separable nor orthogonal.
struct Haar {
  static constexpr std::string_view name = "haar";

  template <int P>
  static constexpr int gain = 2;

  template <int P, class V, class Source, class Sink>
  DELTADCT_HD static void forward(const Source& source, const Sink& sink) {
    using T = typename Lanes<V>::scalar;
    for (int i = 0; i < P; ++i) {
      for (int j = 0; j < P; j += 2) {
        const T a = source.template load<T>(i, j);
        const T b = source.template load<T>(i, j + 1);
        sink.store(i, j / 2, a + b);
        sink.store(i, P / 2 + j / 2, a - b);
      }
    }
  }

  template <int P, class V, class Source, class Sink>
  DELTADCT_HD static void inverse(const Source& source, const Sink& sink) {
    using T = typename Lanes<V>::scalar;
    for (int i = 0; i < P; ++i) {
      for (int j = 0; j < P; j += 2) {
        const T sum = source.template load<T>(i, j / 2);
        const T difference = source.template load<T>(i, P / 2 + j / 2);
        sink.store(i, j, sum + difference);
        sink.store(i, j + 1, sum - difference);
      }
    }
  }
};

/// Assigns widths by grid column, whatever the scores, and ignores the ranks.
struct ByPlace {
  static constexpr int kWidths[] = {4, 2, 0};

  std::span<const int> widths() const { return kWidths; }
  void allocate(std::span<const float>, std::span<std::uint32_t>,
                std::span<std::uint32_t> classes) const {
    for (std::size_t k = 0; k < classes.size(); ++k) classes[k] = static_cast<std::uint32_t>(k % 3);
  }
};

template <class Policy, class Scorer_>
struct Scored : Policy {
  using Scorer = Scorer_;
};
template <class Policy, class Transform_>
struct Transformed : Policy {
  using Transform = Transform_;
};
template <class Policy>
struct ByColumn : Policy {
  using Allocator = ByPlace;
};
template <class Policy, class Bound_ = typename Policy::Bound>
struct InLevels : Policy {
  template <int Bits>
  using Quantizer = Symmetric<Bits>;
  using Bound = Bound_;
};
template <class Policy>
struct AtUnitGain : Policy {
  using Rescale = UnitGain;
};

/// Encodes and decodes with kernels and with the serial backend, and compares the results.
template <class Policy>
void check(const Matrix<float>& delta,
           const typename Policy::Allocator& allocator = typename Policy::Allocator{}) {
  const std::size_t rows = delta.rows();
  const std::size_t cols = delta.cols();
  const CompressedTensor expected = DeltaCodec<Policy, Serial>(allocator).encode(delta.view());
  for (const bool backwards : {false, true}) {
    check_same<Policy>(encode<Policy, float, false>(allocator, {}, delta.view(), backwards),
                       expected);
  }
  check_decode<Policy, float>(expected, {0, 0, rows, cols}, Layout::dense, 1);
  check_decode<Policy, float>(expected, {3, 2, rows - 4, cols - 3}, Layout::transposed, 0.5);
}

template <int P>
using Paper = PaperPolicy<float, P>;
template <int P>
using Gain = UnitGainPolicy<float, P>;

}  // namespace

TEST_CASE("device policies: scorers of other kinds rank patches as on the host") {
  // Patches of very different sizes, some so small that float cannot hold their squares.
  for (const double size : {1e-19, 1e-3, 1e18}) {
    CAPTURE(size);
    Matrix<float> filled = random_matrix<float>(64, 96, 4, Layout::dense, size);
    for (std::size_t i = 0; i < 64; ++i) {
      for (std::size_t j = 0; j < 96; ++j) {
        filled.view()(i, j) *= static_cast<float>(1 + (i / 16 * 6 + j / 16) % 7);
      }
    }
    for (std::size_t i = 0; i < 16; ++i) filled.view()(16 + i, 5) = 0;
    const Matrix<float>& delta = filled;
    check<Scored<Paper<16>, LargestWeight>>(delta);
    check<Scored<Paper<12>, Energy>>(delta);
    check<Scored<Gain<16>, Energy>>(delta, RatioAllocator{{2, 0.25}, {1, 0.5}, {-2, 0.25}});
    check<Scored<Paper<8>, Debt>>(delta);
  }
}

TEST_CASE("device policies: transforms that no backend knows") {
  const Matrix<float> delta = random_matrix<float>(50, 70, 4, Layout::dense, 0.01);
  check<Transformed<Paper<8>, Mirrored>>(delta);
  check<Transformed<Paper<4>, Haar>>(delta);
  check<Transformed<Gain<16>, Haar>>(delta, RatioAllocator{{3, 0.5}, {-3, 0.5}});
}

TEST_CASE("device policies: an allocator that heeds no score") {
  const Matrix<float> delta = random_matrix<float>(50, 70, 4, Layout::dense, 0.01);
  check<ByColumn<Paper<8>>>(delta);
}

TEST_CASE("device policies: a quantizer that declares nothing of its bounds") {
  const RatioAllocator mix{{8, 0.25}, {3, 0.25}, {1, 0.25}, {0, 0.25}};
  Matrix<float> filled = random_matrix<float>(50, 70, 4, Layout::dense, 0.01);
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t j = 0; j < 16; ++j) filled.view()(i, j) = 0;
  }
  const Matrix<float>& delta = filled;
  check<InLevels<Paper<8>>>(delta, mix);
  check<InLevels<Paper<16>, bfloat16>>(delta, mix);
  check<AtUnitGain<InLevels<Paper<16>>>>(delta, mix);
  check<InLevels<Transformed<Paper<4>, Haar>>>(delta, mix);
}
