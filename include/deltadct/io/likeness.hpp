// Measures how alike a tensor and its namesake in the base are, from a sample of both.
//
// Two figures distinguish a fine-tune from the wrong base: |D| / |W|, the norm of the delta over
// that of the tuned weights, and the cosine of base and tuned weights, each minus its mean.
// Unrelated weights have a cosine near 0 whatever their norms; their ratio is the square root of 2
// only if the norms agree. Harsh fine-tunes reach a ratio of 0.95 with a cosine of 0.35.
#pragma once

#include <deltadct/core/finite.hpp>
#include <deltadct/core/random.hpp>
#include <deltadct/io/model.hpp>

#include <cmath>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// What a sample says about a tensor and its namesake in the base.
struct Likeness {
  double delta_square = 0;    ///< |D|^2 of the tensor, estimated, in units of 4^exponent
  double weights_square = 0;  ///< |W|^2, likewise
  int exponent = 0;
  /// The cosine of both minus their means: over all elements, or the median over blocks of them,
  /// whichever is larger, because a few huge elements can hide what all others show. 1 if the
  /// tensors are not comparable.
  double cosine = 1;
  bool comparable = false;  ///< whether neither is constant and both have enough elements

  /// |D| / |W|: 0 if nothing changed, infinite if only W is zero.
  double ratio() const noexcept {
    return delta_square == 0 ? 0 : std::sqrt(delta_square / weights_square);
  }
};

namespace detail {

/// A sample has at most kSampleRuns runs of kSampleRun elements: 2^18 in all.
inline constexpr std::uint64_t kSampleRuns = 256;
inline constexpr std::uint64_t kSampleRun = 1024;

/// In smaller samples, chance alone can make a cosine large.
inline constexpr std::size_t kLeastSample = 64;

/// A sample is divided into at most kBlocks blocks of at least kLeastBlock elements.
inline constexpr std::size_t kBlocks = 64;
inline constexpr std::size_t kLeastBlock = 16;

/// A variance below this share of the mean square comes from rounding.
inline constexpr double kConstant = 1e-12;

/// Calls fn(first, count) for each run of a sample: all elements if they are few; otherwise one run
/// at a random place within each of equal parts, so that the sample has no period to match one of
/// the tensor.
template <class Fn>
void for_each_run(std::uint64_t elements, Fn&& fn) {
  if (elements <= kSampleRuns * kSampleRun) return fn(std::uint64_t{0}, elements);
  const std::uint64_t part = elements / kSampleRuns;
  for (std::uint64_t k = 0; k < kSampleRuns; ++k) {
    fn(k * part + random_bits(0, k) % (part - kSampleRun + 1), kSampleRun);
  }
}

/// Appends elements of a floating-point tensor as doubles.
inline void append_values(const Model& model, const ModelTensor& tensor, std::uint64_t first,
                          std::uint64_t count, TensorBytes& bytes, std::vector<double>& values) {
  const std::size_t size = dtype_bytes(tensor.dtype);
  model.read(tensor, first * size, count * size, bytes);
  const std::size_t begin = values.size();
  values.resize(begin + static_cast<std::size_t>(count));
  with_element(tensor.dtype, [&]<class T>() {
    const std::byte* from = bytes.bytes().data();
    for (std::size_t i = begin; i < values.size(); ++i, from += sizeof(T)) {
      T x;
      std::memcpy(&x, from, sizeof(T));
      values[i] = static_cast<double>(static_cast<compute_t<T>>(x));
    }
  });
}

/// Lanes of a sum, so that compilers vectorise it.
inline constexpr std::size_t kSumLanes = 8;

/// Sets a pair to zero if either element is not finite, and appends zeros up to whole lanes.
/// Returns the exponent of the largest magnitude, bounded so that its power of two has a
/// reciprocal.
inline int prepare_sample(std::vector<double>& x, std::vector<double>& y) {
  double peak = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double pair[] = {x[i], y[i]};
    if (!deltadct::detail::all_finite(pair, 2)) x[i] = y[i] = 0;
    peak = std::max({peak, std::abs(x[i]), std::abs(y[i])});
  }
  x.resize((x.size() + kSumLanes - 1) / kSumLanes * kSumLanes);
  y.resize(x.size());
  constexpr int kMost = std::numeric_limits<double>::max_exponent - 2;
  return peak == 0 ? 0 : std::clamp(std::ilogb(peak), -kMost, kMost);
}

/// Sums over pairs of elements times `unit`. The number of pairs must fill whole lanes.
struct PairSums {
  double x = 0, y = 0, xx = 0, yy = 0, xy = 0, dd = 0;

  static PairSums of(std::span<const double> xs, std::span<const double> ys, double unit) noexcept {
    PairSums lanes[kSumLanes];
    for (std::size_t i = 0; i < xs.size(); i += kSumLanes) {
      for (std::size_t lane = 0; lane < kSumLanes; ++lane) {
        lanes[lane].add(xs[i + lane] * unit, ys[i + lane] * unit);
      }
    }
    PairSums sums;
    for (const PairSums& lane : lanes) sums.add(lane);
    return sums;
  }

  void add(double a, double b) noexcept {
    const double d = b - a;
    x += a;
    y += b;
    xx += a * a;
    yy += b * b;
    xy += a * b;
    dd += d * d;
  }
  void add(const PairSums& other) noexcept {
    x += other.x;
    y += other.y;
    xx += other.xx;
    yy += other.yy;
    xy += other.xy;
    dd += other.dd;
  }
};

/// The cosine of `count` pairs of elements minus their means; nothing if either is constant.
inline std::optional<double> cosine_of(const PairSums& sums, std::size_t count) noexcept {
  const auto n = static_cast<double>(count);
  const double xx = sums.xx - sums.x * sums.x / n;
  const double yy = sums.yy - sums.y * sums.y / n;
  if (!(xx > kConstant * sums.xx && yy > kConstant * sums.yy)) return std::nullopt;
  return (sums.xy - sums.x * sums.y / n) / std::sqrt(xx) / std::sqrt(yy);
}

/// The figures of a tensor of `elements` elements, from a sample of it.
inline Likeness likeness_of(std::vector<double>& base, std::vector<double>& tuned,
                            std::uint64_t elements) {
  Likeness found;
  if (base.empty()) return found;
  const std::size_t count = base.size();
  found.exponent = prepare_sample(base, tuned);
  const double unit = std::ldexp(1.0, -found.exponent);
  const std::size_t block =
      std::max(kLeastBlock, ceil_div(ceil_div(count, kBlocks), kSumLanes) * kSumLanes);
  PairSums sums;
  std::vector<double> cosines;
  for (std::size_t first = 0; first < count; first += block) {
    const std::size_t length = std::min(block, base.size() - first);
    const PairSums part = PairSums::of(std::span(base).subspan(first, length),
                                       std::span(tuned).subspan(first, length), unit);
    sums.add(part);
    if (const auto cosine = cosine_of(part, std::min(length, count - first))) {
      cosines.push_back(*cosine);
    }
  }
  const double whole = static_cast<double>(elements) / static_cast<double>(count);
  found.delta_square = whole * sums.dd;
  found.weights_square = whole * sums.yy;
  const auto all = cosine_of(sums, count);
  found.comparable = all && count >= kLeastSample;
  if (!found.comparable) return found;
  const auto middle = cosines.begin() + static_cast<std::ptrdiff_t>(cosines.size() / 2);
  std::ranges::nth_element(cosines, middle);
  found.cosine = cosines.empty() ? *all : std::max(*all, *middle);
  return found;
}

}  // namespace detail

/// Compares the rows that two tensors share, by up to 2^18 elements of each. common_rows() of their
/// shapes must have a value. A pair counts as zero if either element is NaN or infinite. Throws
/// io_failure.
class LikenessMeter {
 public:
  LikenessMeter(const Model& base, const Model& tuned) : base_(base), tuned_(tuned) {}

  Likeness compare(const ModelTensor& base, const ModelTensor& tuned) {
    const std::uint64_t elements = std::min(base.elements(), tuned.elements());
    base_values_.clear();
    tuned_values_.clear();
    detail::for_each_run(elements, [&](std::uint64_t first, std::uint64_t count) {
      detail::append_values(base_, base, first, count, base_bytes_, base_values_);
      detail::append_values(tuned_, tuned, first, count, tuned_bytes_, tuned_values_);
    });
    return detail::likeness_of(base_values_, tuned_values_, elements);
  }

 private:
  const Model& base_;
  const Model& tuned_;
  TensorBytes base_bytes_;
  TensorBytes tuned_bytes_;
  std::vector<double> base_values_;
  std::vector<double> tuned_values_;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
