// Outliers: elements of a delta that stand out. Finds them, and keeps them in a section of an
// archive.
//
//   u64            the number of outliers of the tensor
//   values         one each, in the compute dtype of the tensor: F32, or F64 for F64 tensors
//   gaps           LEB128: how many elements, row-major over the tensor's matrices, lie between the
//                  previous outlier (or the start of the tensor) and this one
//
// The section is padded with zeros to a multiple of 8 bytes.
#pragma once

#include <deltadct/compressed_tensor.hpp>
#include <deltadct/core/executor.hpp>
#include <deltadct/io/convert.hpp>
#include <deltadct/io/manifest.hpp>
#include <deltadct/io/padding.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <span>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

namespace detail {

/// What a scan of a delta sums, with a limit on the squares.
struct DeltaMoments {
  double square = 0;      ///< sum of the squares up to the limit
  double peak = 0;        ///< largest magnitude
  std::size_t above = 0;  ///< number of squares above the limit
};

/// The delta of a matrix, scanned in runs by an executor.
template <concepts::Element U>
class DeltaScan {
 public:
  DeltaScan(const U* base, const U* tuned, std::size_t count) noexcept
      : base_(base), tuned_(tuned), count_(count) {}

  double operator[](std::size_t i) const noexcept {
    using T = compute_t<U>;
    return static_cast<double>(static_cast<T>(tuned_[i])) -
           static_cast<double>(static_cast<T>(base_[i]));
  }

  /// Moments of unit * delta. The result is the same for any executor.
  template <concepts::Executor Executor>
  DeltaMoments moments(double unit, double limit, const Executor& executor) const {
    std::vector<DeltaMoments> runs(ceil_div(count_, kConvertRun));
    executor.parallel_for(runs.size(), [&](std::size_t k) {
      DeltaMoments sums;
      const std::size_t end = std::min(count_, (k + 1) * kConvertRun);
      for (std::size_t i = k * kConvertRun; i < end; ++i) {
        const double x = std::abs((*this)[i]) * unit;
        const double square = x * x;
        const bool is_above = square > limit;
        sums.peak = std::max(sums.peak, x);
        sums.square += is_above ? 0 : square;
        sums.above += is_above;
      }
      runs[k] = sums;
    });
    DeltaMoments total;
    for (const DeltaMoments& sums : runs) {
      total.square += sums.square;
      total.peak = std::max(total.peak, sums.peak);
      total.above += sums.above;
    }
    return total;
  }

 private:
  const U* base_;
  const U* tuned_;
  std::size_t count_;
};

}  // namespace detail

/// Elements of tuned - base, both rows x cols, dense and aligned, that cost less as outliers than
/// as noise. At `rate` bits per weight, the noise of a patch is a share of its energy, and one more
/// bit for the whole matrix removes a share of 2 ln 2 / weights of all noise (1 / (rate weights)
/// below a bit). So an element of square x^2 is worth the bits of its place and value if x^2
/// exceeds those bits times that share times the energy of the rest. Normally distributed elements
/// never are: one would have to be eight times the standard deviation. The values returned are
/// those of the delta. Returns nothing if the delta is not finite.
template <concepts::Element U, concepts::Executor Executor>
std::vector<Outlier> find_outliers(const U* base, const U* tuned, std::size_t rows,
                                   std::size_t cols, double rate, const Executor& executor) {
  constexpr double kBits = 8 * sizeof(compute_t<U>) + 16;  // a value, and a gap of two bytes
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const std::size_t count = rows * cols;
  const double price = kBits * std::max(2 * std::numbers::ln2, 1 / rate);
  const detail::DeltaScan<U> delta(base, tuned, count);
  double unit = 1;
  detail::DeltaMoments sums = delta.moments(unit, kInfinity, executor);
  if (!std::isfinite(sums.peak) || sums.peak == 0) return {};
  constexpr double kSafe = 1e140;
  if (sums.peak < 1 / kSafe || sums.peak > kSafe) {
    unit = std::ldexp(1.0, -std::clamp(std::ilogb(sums.peak), -1000, 1000));
    sums = delta.moments(unit, kInfinity, executor);
  }
  // Taking outliers out lowers the limit for the rest, until nothing more exceeds it. Deltas whose
  // elements spread over ever more scales stop after kRounds.
  constexpr int kRounds = 32;
  double limit = kInfinity;
  std::size_t taken = SIZE_MAX;
  for (int round = 0; round < kRounds && taken != sums.above && sums.above < count; ++round) {
    taken = sums.above;
    limit = price * sums.square / static_cast<double>(count - sums.above);
    if (sums.peak * sums.peak <= limit) return {};
    sums = delta.moments(unit, limit, executor);
  }
  std::vector<Outlier> outliers;
  for (std::size_t i = 0; i < count; ++i) {
    const double x = delta[i] * unit;
    if (x * x > limit) outliers.push_back({i / cols, i % cols, delta[i]});
  }
  return outliers;
}

/// The section of a tensor's outliers, given those of each of its matrices; empty if there are
/// none. Values are rounded to `dtype`, F32 or F64.
inline std::vector<std::byte> outlier_section(std::span<const std::vector<Outlier>> matrices,
                                              const MatrixStack& stack, DType dtype) {
  std::vector<std::byte> values;
  std::vector<std::byte> gaps;
  std::uint64_t count = 0;
  std::uint64_t next = 0;  // the first element after the previous outlier
  const auto append = [](std::vector<std::byte>& to, const auto& x) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&x);
    to.insert(to.end(), bytes, bytes + sizeof x);
  };
  for (std::size_t k = 0; k < matrices.size(); ++k) {
    for (const Outlier& outlier : matrices[k]) {
      if (dtype == DType::f64)
        append(values, outlier.value);
      else
        append(values, static_cast<float>(outlier.value));
      const std::uint64_t at =
          (std::uint64_t{k} * stack.rows + outlier.row) * stack.cols + outlier.col;
      for (std::uint64_t gap = at - next; true; gap >>= 7) {
        const bool more = gap >= 128;
        gaps.push_back(static_cast<std::byte>((gap & 127) | (more ? 128 : 0)));
        if (!more) break;
      }
      next = at + 1;
      ++count;
    }
  }
  if (count == 0) return {};
  std::vector<std::byte> section;
  append(section, count);
  section.insert(section.end(), values.begin(), values.end());
  section.insert(section.end(), gaps.begin(), gaps.end());
  section.resize(detail::padded(section.size()));
  return section;
}

/// Adds outliers to rows of base and patches, rows x cols from row `first` of their matrix on,
/// which are sums in the compute dtype of `dtype`. Outliers were chosen for sums rounded to
/// `dtype`, and are added to such: the element is then exact in a wider dtype, too.
inline void add_outliers_to_rounded(std::span<const Outlier> outliers, std::size_t first,
                                    std::size_t rows, std::size_t cols, DType dtype,
                                    std::byte* sums) {
  with_element(dtype, [&]<class U>() {
    using T = compute_t<U>;
    for (const Outlier& outlier : outliers) {
      if (outlier.row < first || outlier.row - first >= rows) continue;
      T& x = reinterpret_cast<T*>(sums)[(outlier.row - first) * cols + outlier.col];
      x = static_cast<T>(U(x)) + static_cast<T>(outlier.value);
    }
  });
}

namespace detail {

/// Reads the gaps of a section and checks them.
class GapReader {
 public:
  explicit GapReader(std::span<const std::byte> bytes) noexcept : rest_(bytes) {}

  /// Throws corrupt_data unless a number of up to 63 bits in its shortest form follows.
  std::uint64_t take() {
    std::uint64_t gap = 0;
    for (int shift = 0; shift < 63; shift += 7) {
      if (rest_.empty()) break;
      const auto byte = std::to_integer<std::uint64_t>(rest_.front());
      rest_ = rest_.subspan(1);
      gap |= (byte & 127) << shift;
      if (byte >= 128) continue;
      if (byte == 0 && shift > 0) break;
      return gap;
    }
    deltadct::detail::fail_validation("places of the outliers");
  }

  std::span<const std::byte> rest() const noexcept { return rest_; }

 private:
  std::span<const std::byte> rest_;
};

}  // namespace detail

/// The outliers of each matrix of a stack. Throws corrupt_data unless outlier_section() could have
/// made the section. Memory and time are linear in its bytes.
inline std::vector<std::vector<Outlier>> parse_outliers(std::span<const std::byte> section,
                                                        const MatrixStack& stack, DType dtype) {
  using deltadct::detail::fail_validation;
  const std::size_t value_bytes = dtype_bytes(dtype);
  std::uint64_t count = 0;
  if (section.size() < sizeof count) fail_validation("size of the outliers");
  std::memcpy(&count, section.data(), sizeof count);
  const auto body = section.subspan(sizeof count);
  if (count == 0 || count > body.size() / (value_bytes + 1)) {
    fail_validation("number of the outliers");
  }
  const std::byte* values = body.data();
  detail::GapReader gaps(body.subspan(static_cast<std::size_t>(count) * value_bytes));
  const std::uint64_t matrix = std::uint64_t{stack.rows} * stack.cols;
  const std::uint64_t elements = matrix * stack.count;
  std::vector<std::vector<Outlier>> matrices(stack.count);
  std::uint64_t next = 0;
  for (std::uint64_t k = 0; k < count; ++k, values += value_bytes) {
    const std::uint64_t gap = gaps.take();
    if (next >= elements || gap >= elements - next) fail_validation("places of the outliers");
    const std::uint64_t at = next + gap;
    const auto within = static_cast<std::size_t>(at % matrix);
    const auto value = deltadct::detail::load_bound<double>(values, dtype, 0);
    if (!deltadct::detail::all_finite(&value, 1)) fail_validation("value of an outlier");
    matrices[static_cast<std::size_t>(at / matrix)].push_back(
        {within / stack.cols, within % stack.cols, value});
    next = at + 1;
  }
  if (section.size() % 8 != 0 || gaps.rest().size() >= 8 || !detail::is_zero(gaps.rest())) {
    fail_validation("size of the outliers");
  }
  return matrices;
}

}}}  // namespace deltadct::inline DELTADCT_ABI::io
