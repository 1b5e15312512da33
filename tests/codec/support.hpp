// What the tests of the codec share: random matrices in any layout, and the pipeline in double,
// written from the formulas alone.
#pragma once

#include "../support/caught.hpp"
#include "../support/memory.hpp"

#include <deltadct/codec.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <numeric>
#include <random>
#include <vector>

#include <doctest/doctest.h>

namespace test {

using namespace deltadct;

using Mix = std::vector<BitShare>;

inline const Mix kWideMix{{8, 0.05}, {3, 0.25}, {2, 0.2}, {0, 0.5}};

/// Mixes that together have all widths of a policy's quantizer, and some with a single width.
template <class Policy>
std::vector<Mix> mixes_of_every_width() {
  if (detail::has_width<Policy::template Quantizer, Policy::patch * Policy::patch>(8)) {
    return {{{8, 0.2}, {6, 0.2}, {4, 0.2}, {3, 0.1}, {2, 0.1}, {1, 0.1}, {0, 0.1}},
            {{2, 0.5}, {0, 0.5}},
            {{0, 1.0}}};
  }
  Mix shared;
  for (const int bits : {-2, -3, -4, -5, -6, -7}) {
    if (is_bit_width_of(bits, std::size_t{Policy::patch} * Policy::patch)) {
      shared.push_back({bits, 0});
    }
  }
  for (BitShare& share : shared) share.ratio = 1.0 / static_cast<double>(shared.size());
  return {{{4, 0.2}, {3, 0.2}, {2, 0.2}, {1, 0.2}, {0, 0.2}}, shared, {{1, 1.0}}};
}

/// How a matrix lies in memory.
enum class Layout { dense, padded, spread, transposed, aligned };
inline constexpr Layout kLayouts[] = {Layout::dense, Layout::padded, Layout::spread,
                                      Layout::transposed};

/// A matrix, and memory around it that must stay untouched. Elements start as 77; see fill().
template <class T>
class Matrix {
 public:
  Matrix(std::size_t rows, std::size_t cols, Layout layout = Layout::dense)
      : rows_(rows), cols_(cols) {
    const auto wide = [](std::size_t n) { return static_cast<std::ptrdiff_t>(n); };
    switch (layout) {
      case Layout::dense:
        row_stride_ = wide(cols);
        break;
      case Layout::padded:
        row_stride_ = wide(cols + 3);
        break;
      case Layout::spread:
        row_stride_ = wide(2 * cols + 1);
        col_stride_ = 2;
        break;
      case Layout::transposed:
        row_stride_ = 1;
        col_stride_ = wide(rows + 2);
        break;
      case Layout::aligned:
        row_stride_ = wide(ceil_div(cols, kAligned) * kAligned);
        margin_ = kAligned;
        break;
    }
    const std::size_t extent = rows == 0 || cols == 0
                                   ? 0
                                   : (rows - 1) * static_cast<std::size_t>(row_stride_) +
                                         (cols - 1) * static_cast<std::size_t>(col_stride_) + 1;
    memory_.assign(extent + 2 * margin_, T(kSentinel));
  }

  MatrixView<T> view() {
    return {memory_.data() + margin_, rows_, cols_, row_stride_, col_stride_};
  }
  MatrixView<const T> view() const {
    return {memory_.data() + margin_, rows_, cols_, row_stride_, col_stride_};
  }
  std::size_t rows() const { return rows_; }
  std::size_t cols() const { return cols_; }

  /// Whether everything outside the view is unchanged.
  bool margins_untouched() const {
    const auto is_sentinel = [](T x) { return static_cast<compute_t<T>>(x) == kSentinel; };
    Memory<T> rest = memory_;
    for (std::size_t i = 0; i < rows_; ++i) {
      for (std::size_t j = 0; j < cols_; ++j) {
        const auto at = static_cast<std::ptrdiff_t>(i) * row_stride_ +
                        static_cast<std::ptrdiff_t>(j) * col_stride_;
        rest[margin_ + static_cast<std::size_t>(at)] = T(kSentinel);
      }
    }
    return std::ranges::all_of(rest, is_sentinel);
  }

 private:
  static constexpr std::size_t kAligned = 8;
  static constexpr double kSentinel = 77;

  std::size_t rows_;
  std::size_t cols_;
  std::ptrdiff_t row_stride_ = 0;
  std::ptrdiff_t col_stride_ = 1;
  std::size_t margin_ = 5;  // odd, so that only a view that asks for alignment is aligned
  Memory<T> memory_;
};

/// Bell-shaped values, the same on every platform. Their size varies slowly over the matrix, so
/// that patches differ in importance.
template <class T>
void fill(Matrix<T>& matrix, std::uint32_t seed, double size = 1) {
  std::mt19937 random(seed);
  const auto view = matrix.view();
  for (std::size_t i = 0; i < view.rows; ++i) {
    for (std::size_t j = 0; j < view.cols; ++j) {
      double sum = -2;
      for (int k = 0; k < 4; ++k) sum += static_cast<double>(random()) * 0x1p-32;
      const double wave =
          1.2 + std::sin(0.05 * static_cast<double>(i) + 0.03 * static_cast<double>(j));
      view(i, j) = static_cast<T>(static_cast<compute_t<T>>(size * wave * sum));
    }
  }
}

template <class T>
Matrix<T> random_matrix(std::size_t rows, std::size_t cols, std::uint32_t seed,
                        Layout layout = Layout::dense, double size = 1) {
  Matrix<T> matrix(rows, cols, layout);
  fill(matrix, seed, size);
  return matrix;
}

/// The elements, row by row.
template <class T>
std::vector<double> values_of(const Matrix<T>& matrix) {
  std::vector<double> values;
  for (std::size_t i = 0; i < matrix.rows(); ++i) {
    for (std::size_t j = 0; j < matrix.cols(); ++j) {
      values.push_back(static_cast<double>(static_cast<compute_t<T>>(matrix.view()(i, j))));
    }
  }
  return values;
}

/// tuned - base, each difference rounded to the compute type.
template <class U, class W>
std::vector<double> difference_of(const Matrix<U>& base, const Matrix<W>& tuned) {
  std::vector<double> delta = values_of(tuned);
  const std::vector<double> minus = values_of(base);
  for (std::size_t s = 0; s < delta.size(); ++s) {
    delta[s] = static_cast<double>(static_cast<compute_t<U>>(delta[s]) -
                                   static_cast<compute_t<U>>(minus[s]));
  }
  return delta;
}

/// The result of decoding, row by row.
template <class T = float, class Codec>
std::vector<double> decoded(const Codec& codec, const CompressedTensor& c) {
  Matrix<T> out(c.header.rows, c.header.cols);
  codec.decode(c, out.view());
  CHECK(out.margins_untouched());
  return values_of(out);
}

/// |found - expected|^2 / |expected|^2.
inline double nmse(const std::vector<double>& found, const std::vector<double>& expected) {
  REQUIRE(found.size() == expected.size());
  double difference = 0;
  double square = 0;
  for (std::size_t s = 0; s < found.size(); ++s) {
    difference += (found[s] - expected[s]) * (found[s] - expected[s]);
    square += expected[s] * expected[s];
  }
  return difference == 0 ? 0 : difference / square;
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

/// The contents of a compressed tensor, patch by patch. Codes are row-major by frequency.
struct Content {
  struct Patch {
    int bits = 0;
    std::vector<int> codes;
    double lo = 0;  ///< the mean if bits is 0
    double hi = 0;
  };

  std::size_t rows = 0;
  std::size_t cols = 0;
  int p = 0;
  bool dct = true;
  double scale = 1;
  std::vector<Patch> patches;

  std::size_t side() const { return static_cast<std::size_t>(p); }
  std::size_t grid_rows() const { return (rows + side() - 1) / side(); }
  std::size_t grid_cols() const { return (cols + side() - 1) / side(); }
  std::size_t count() const { return rows == 0 || cols == 0 ? 0 : grid_rows() * grid_cols(); }
};

/// Calls fn(at, b, below) for each part of code s of n, with the layout in core/bits.hpp: the b
/// bits from bit `at` of the patch's bytes on are those bits of the code that lie above its lowest
/// `below` bits.
template <class Fn>
void for_each_part(int bits, int n, int s, Fn fn) {
  const int m = std::min(128, n - s / 128 * 128);
  const int t = s % 128;
  const int low = bits == 3 ? 2 : bits == 6 ? 4 : bits;
  int begin = s / 128 * 128 * bits;
  for (int b = low, below = 0; below < bits; below += b, b = bits - low) {
    const int words = std::max(1, m * b / 32);
    fn(begin + 32 * (t % words) + b * (t / words), b, below);
    begin += m * b;
  }
}

inline int read_code(const std::byte* bytes, int bits, int n, int s) {
  int code = 0;
  for_each_part(bits, n, s, [&](int at, int b, int below) {
    const int stored = std::to_integer<int>(bytes[at / 8]) >> (at % 8);
    code |= (stored & ((1 << b) - 1)) << below;
  });
  return code;
}

/// Writes a code to bits that are zero.
inline void write_code(std::byte* bytes, int bits, int n, int s, int code) {
  for_each_part(bits, n, s, [&](int at, int b, int below) {
    const int part = (code >> below) & ((1 << b) - 1);
    bytes[at / 8] |= static_cast<std::byte>(part << (at % 8));
  });
}

template <class Bound = float>
Content read(const CompressedTensor& c) {
  validate(c);
  REQUIRE(c.header.bound == dtype_of<Bound>());
  const int n = c.header.patch * c.header.patch;
  Content content{c.header.rows,  c.header.cols,
                  c.header.patch, c.header.transform == "dct",
                  c.header.scale, {}};
  const CompressedView view = c;
  for (const PatchPlace place : c.places) {
    Content::Patch patch;
    patch.bits = view.width_class(place).bits;
    patch.lo = detail::load_bound<double>(view.bounds_of(place), c.header.bound, 0);
    if (patch.bits > 0) {
      patch.hi = detail::load_bound<double>(view.bounds_of(place), c.header.bound, 1);
      for (int s = 0; s < n; ++s) {
        const int p = c.header.patch;
        const int slot = content.dct ? s % p * p + s / p : s;  // coefficients are transposed
        patch.codes.push_back(read_code(view.codes_of(place), patch.bits, n, slot));
      }
    }
    content.patches.push_back(patch);
  }
  return content;
}

/// The orthonormal DCT-II matrix of p points, row by row.
inline std::vector<double> dct_rows(int p) {
  std::vector<double> c;
  for (int k = 0; k < p; ++k) {
    for (int j = 0; j < p; ++j) {
      c.push_back(std::sqrt((k == 0 ? 1.0 : 2.0) / p) *
                  std::cos(std::numbers::pi * (2 * j + 1) * k / (2 * p)));
    }
  }
  return c;
}

/// C x C^T, or C^T x C.
inline std::vector<double> transform(const std::vector<double>& x, int p, bool inverse) {
  static std::array<std::vector<double>, 65> cosines;
  auto& c = cosines[static_cast<std::size_t>(p)];
  if (c.empty()) c = dct_rows(p);
  const auto n = static_cast<std::size_t>(p);
  const auto entry = [&](std::size_t a, std::size_t b) {
    return inverse ? c[b * n + a] : c[a * n + b];
  };
  std::vector<double> left(n * n);
  std::vector<double> out(n * n);
  for (std::size_t a = 0; a < n; ++a) {
    for (std::size_t b = 0; b < n; ++b) {
      for (std::size_t j = 0; j < n; ++j) left[a * n + j] += entry(a, b) * x[b * n + j];
    }
  }
  for (std::size_t a = 0; a < n; ++a) {
    for (std::size_t j = 0; j < n; ++j) {
      for (std::size_t b = 0; b < n; ++b) out[a * n + j] += left[a * n + b] * entry(j, b);
    }
  }
  return out;
}

/// Calls fn(patch, index in the patch, index in the matrix) for every element.
template <class Fn>
void for_each_element(const Content& c, Fn fn) {
  for (std::size_t i = 0; i < c.rows; ++i) {
    for (std::size_t j = 0; j < c.cols; ++j) {
      const std::size_t patch = i / c.side() * c.grid_cols() + j / c.side();
      fn(patch, i % c.side() * c.side() + j % c.side(), i * c.cols + j);
    }
  }
}

/// The decoded patch, before the scale is applied.
inline std::vector<double> decode_patch(const Content& c, const Content::Patch& patch) {
  if (patch.bits == 0) return std::vector<double>(c.side() * c.side(), patch.lo);
  const double step = (patch.hi - patch.lo) / ((1 << patch.bits) - 1);
  std::vector<double> f;
  for (const int code : patch.codes) f.push_back(patch.lo + code * step);
  return c.dct ? transform(f, c.p, true) : f;
}

/// The expected result of decoding, in double.
inline std::vector<double> decode_by_definition(const Content& c) {
  std::vector<std::vector<double>> patches;
  for (const auto& patch : c.patches) patches.push_back(decode_patch(c, patch));
  std::vector<double> out(c.rows * c.cols);
  for_each_element(c, [&](std::size_t patch, std::size_t s, std::size_t at) {
    out[at] = c.scale * patches[patch][s];
  });
  return out;
}

/// How many of n patches each share gets, by the largest remainders, in the mix's order.
inline std::vector<std::size_t> counts_by_definition(const Mix& mix, std::size_t n) {
  std::vector<std::size_t> counts;
  std::vector<std::pair<double, std::size_t>> remainders;
  std::size_t left = n;
  for (std::size_t k = 0; k < mix.size(); ++k) {
    const double exact = mix[k].ratio * static_cast<double>(n);
    counts.push_back(static_cast<std::size_t>(exact));
    remainders.emplace_back(exact - std::floor(exact), k);
    left -= counts.back();
  }
  std::ranges::stable_sort(remainders, [](auto a, auto b) { return a.first > b.first; });
  for (std::size_t k = 0; k < left; ++k) ++counts[remainders[k].second];
  return counts;
}

inline std::vector<int> widths_by_definition(const std::vector<double>& scores, const Mix& mix) {
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](auto a, auto b) { return scores[a] > scores[b]; });
  std::vector<int> widths(scores.size());
  auto next = order.begin();
  const auto counts = counts_by_definition(mix, scores.size());
  for (std::size_t k = 0; k < mix.size(); ++k) {
    for (std::size_t n = 0; n < counts[k]; ++n) widths[*next++] = mix[k].bits;
  }
  return widths;
}

/// The value of x after it is stored as a `Bound`.
template <class Bound>
double stored(double x) {
  return static_cast<compute_t<Bound>>(static_cast<Bound>(static_cast<compute_t<Bound>>(x)));
}

/// Computes the bounds, stored as `Bound`, and the codes of the coefficients f.
template <class Bound>
void quantize_by_definition(const std::vector<double>& f, Content::Patch& patch) {
  patch.lo = stored<Bound>(std::ranges::min(f));
  patch.hi = stored<Bound>(std::ranges::max(f));
  const int levels = (1 << patch.bits) - 1;
  for (const double x : f) {
    const double code =
        patch.hi > patch.lo ? std::nearbyint((x - patch.lo) / (patch.hi - patch.lo) * levels) : 0;
    patch.codes.push_back(static_cast<int>(std::clamp(code, 0.0, static_cast<double>(levels))));
  }
}

/// mean|D| / mean|D^|, where D^ decodes from these codes.
inline double scale_by_definition(Content c, const std::vector<double>& delta) {
  c.scale = 1;
  const auto absolute = [](double sum, double x) { return sum + std::abs(x); };
  const auto raw = decode_by_definition(c);
  const double total = std::accumulate(raw.begin(), raw.end(), 0.0, absolute);
  return total > 0 ? std::accumulate(delta.begin(), delta.end(), 0.0, absolute) / total : 1;
}

/// The expected result of encoding, in double. The mix must be in descending order of widths.
template <class Bound = float>
Content encode_by_definition(const std::vector<double>& delta, std::size_t rows, std::size_t cols,
                             int p, const Mix& mix, bool dct = true) {
  Content c{rows, cols, p, dct, 1, {}};
  std::vector<std::vector<double>> blocks(c.count(), std::vector<double>(c.side() * c.side()));
  std::vector<double> elements(c.count());
  for_each_element(c, [&](std::size_t patch, std::size_t s, std::size_t at) {
    blocks[patch][s] = delta[at];
    ++elements[patch];
  });
  std::vector<double> scores;
  for (const auto& x : blocks) scores.push_back(std::sqrt(dot(x, x)));
  const std::vector<int> widths = widths_by_definition(scores, mix);
  for (std::size_t k = 0; k < blocks.size(); ++k) {
    Content::Patch patch;
    patch.bits = widths[k];
    if (patch.bits == 0) {
      const double mean = std::accumulate(blocks[k].begin(), blocks[k].end(), 0.0) / elements[k];
      patch.lo = stored<Bound>(mean);
    } else {
      quantize_by_definition<Bound>(dct ? transform(blocks[k], p, false) : blocks[k], patch);
    }
    c.patches.push_back(patch);
  }
  c.scale = scale_by_definition(c, delta);
  return c;
}

/// Differences between codes, counted over many tensors.
struct Tally {
  std::size_t codes = 0;
  std::size_t different = 0;
  std::size_t by_more_than_one = 0;

  /// Compares codes. Widths and shapes must be equal.
  void compare(const Content& found, const Content& expected) {
    REQUIRE(found.patches.size() == expected.patches.size());
    std::size_t other_widths = 0;
    for (std::size_t k = 0; k < found.patches.size(); ++k) {
      const auto& a = found.patches[k];
      const auto& b = expected.patches[k];
      other_widths += a.bits != b.bits;
      if (a.bits != b.bits) continue;
      for (std::size_t s = 0; s < a.codes.size(); ++s) {
        different += a.codes[s] != b.codes[s];
        by_more_than_one += std::abs(a.codes[s] - b.codes[s]) > 1;
      }
      codes += a.codes.size();
    }
    CHECK(other_widths == 0);
  }

  /// Allows only rounding ties, and those for fewer than one code in 10^4.
  void check() const {
    CAPTURE(codes);
    CHECK(static_cast<double>(different) <= 1e-4 * static_cast<double>(codes));
    CHECK(by_more_than_one == 0);
  }
};

/// The largest difference between bounds, relative to the largest bound.
inline double bounds_error(const Content& found, const Content& expected) {
  double error = 0;
  double size = 0;
  for (std::size_t k = 0; k < std::min(found.patches.size(), expected.patches.size()); ++k) {
    const auto& a = found.patches[k];
    const auto& b = expected.patches[k];
    error = std::max({error, std::abs(a.lo - b.lo), std::abs(a.hi - b.hi)});
    size = std::max({size, std::abs(b.lo), std::abs(b.hi)});
  }
  return error == 0 ? 0 : error / size;
}

}  // namespace test
