// Explains why weights that are the base's do not look like it: they are transposed, or their rows
// or columns are in another order. A few lines of one matrix are searched for among all lines of
// the other.
#pragma once

#include <deltadct/core/random.hpp>
#include <deltadct/core/reduce.hpp>
#include <deltadct/io/likeness.hpp>
#include <deltadct/io/manifest.hpp>
#include <deltadct/io/model.hpp>

#include <cmath>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

namespace detail {

/// Rows or columns of a matrix in memory. It need not be aligned.
struct Lines {
  const std::byte* data;
  DType dtype;
  std::size_t count;
  std::size_t length;
  std::size_t line_step;     ///< elements from one line to the next
  std::size_t element_step;  ///< elements from one element of a line to the next

  static Lines rows(const std::byte* data, DType dtype, std::size_t rows, std::size_t cols) {
    return {data, dtype, rows, cols, cols, 1};
  }
  static Lines columns(const std::byte* data, DType dtype, std::size_t rows, std::size_t cols) {
    return {data, dtype, cols, rows, 1, cols};
  }
};

/// `count` numbers below `limit`, one from each of as many equal parts; or all, if there are fewer.
inline std::vector<std::size_t> spread_numbers(std::size_t limit, std::size_t count) {
  count = std::min(count, limit);
  std::vector<std::size_t> numbers(count);
  for (std::size_t k = 0; k < count; ++k) {
    const std::size_t part = limit / count;
    numbers[k] = k * part + static_cast<std::size_t>(random_bits(1, k) % part);
  }
  return numbers;
}

/// Some elements of a line, minus their mean and scaled to norm 1; all zero if they are constant.
/// Elements that are not finite count as zero.
inline void unit_line(const Lines& lines, std::size_t line, std::span<const std::size_t> picks,
                      std::span<double> out) {
  with_element(lines.dtype, [&]<class T>() {
    for (std::size_t i = 0; i < picks.size(); ++i) {
      T x;
      const std::size_t at = line * lines.line_step + picks[i] * lines.element_step;
      std::memcpy(&x, lines.data + at * sizeof(T), sizeof(T));
      const auto value = static_cast<double>(static_cast<compute_t<T>>(x));
      out[i] = deltadct::detail::all_finite(&value, 1) ? value : 0;
    }
  });
  double peak = 0;
  for (const double x : out) peak = std::max(peak, std::abs(x));
  if (peak == 0) return;
  double mean = 0;
  for (double& x : out) mean += (x = x / peak) / static_cast<double>(out.size());
  double square = 0;
  for (double& x : out) {
    x -= mean;
    square += x * x;
  }
  const double scale =
      square > kConstant * static_cast<double>(out.size()) ? 1 / std::sqrt(square) : 0;
  for (double& x : out) x *= scale;
}

/// A line and its best match.
struct Found {
  std::size_t line;        ///< of the first matrix
  std::size_t at = 0;      ///< the matching line of the other matrix
  double cosine = 0;       ///< between the two lines
  double next_cosine = 0;  ///< between the line and its second-best match
};

/// How many lines of a sample were searched for, and those that were found.
struct Search {
  std::size_t sought = 0;
  std::vector<Found> found;

  std::size_t moved() const noexcept {
    return static_cast<std::size_t>(
        std::ranges::count_if(found, [](const Found& f) { return f.line != f.at; }));
  }
  /// Whether at least three quarters of the lines were found.
  bool succeeds() const noexcept { return sought > 0 && 4 * found.size() >= 3 * sought; }
};

/// Searches for a few lines among all those of another matrix. A line is found if its best match is
/// closer than chance allows, and no other line comes near that.
inline Search search_lines(const Lines& lines, const Lines& among) {
  constexpr std::size_t kSought = 16;
  constexpr std::size_t kPicks = 256;
  constexpr double kAlike = 0.7;
  constexpr double kDeviations = 5.5;
  constexpr double kAhead = 0.1;
  const auto picks = spread_numbers(lines.length, kPicks);
  const double least = std::max(
      kAlike, kDeviations / std::sqrt(static_cast<double>(std::max<std::size_t>(picks.size(), 1))));
  Search search;
  if (lines.length != among.length || least >= 1) return search;
  std::vector<Found> best;
  std::vector<std::vector<double>> sought;
  std::vector<double> line(picks.size());
  for (const std::size_t number : spread_numbers(lines.count, kSought)) {
    unit_line(lines, number, picks, line);
    if (std::ranges::all_of(line, [](double x) { return x == 0; })) continue;
    sought.push_back(line);
    best.push_back({number});
  }
  for (std::size_t at = 0; at < among.count; ++at) {
    unit_line(among, at, picks, line);
    for (std::size_t k = 0; k < sought.size(); ++k) {
      const double cosine = std::inner_product(line.begin(), line.end(), sought[k].begin(), 0.0);
      if (cosine > best[k].cosine) {
        best[k] = {best[k].line, at, cosine, best[k].cosine};
      } else {
        best[k].next_cosine = std::max(best[k].next_cosine, cosine);
      }
    }
  }
  search.sought = sought.size();
  std::ranges::copy_if(best, std::back_inserter(search.found), [&](const Found& f) {
    return f.cosine >= least && f.cosine - f.next_cosine >= kAhead;
  });
  return search;
}

/// "its rows are permuted: row 3 is row 60 of the base".
inline std::optional<std::string> order_text(const Search& search, const std::string& line,
                                             const std::string& lines) {
  // To be the cause, at least a quarter of the lines must be out of place.
  if (!search.succeeds() || 4 * search.moved() < search.sought) return std::nullopt;
  const auto moved =
      std::ranges::find_if(search.found, [](const Found& f) { return f.line != f.at; });
  return "its " + lines + " are permuted: " + line + " " + std::to_string(moved->line) + " is " +
         line + " " + std::to_string(moved->at) + " of the base";
}

/// The last two extents of a shape.
struct LastMatrix {
  std::size_t rows;
  std::size_t cols;

  explicit LastMatrix(const std::vector<std::uint64_t>& shape)
      : rows(static_cast<std::size_t>(shape[shape.size() - 2])),
        cols(static_cast<std::size_t>(shape.back())) {}
};

/// Tensors of more bytes than this are not read whole.
inline constexpr std::uint64_t kMostToArrange = std::uint64_t{1} << 30;

/// Whether the entries of a tensor along its first axis are in another order. Each entry is a line.
inline std::optional<std::string> order_of_entries(const Model& base, const ModelTensor& from,
                                                   const Model& tuned, const ModelTensor& to) {
  if (std::max(from.bytes(), to.bytes()) > kMostToArrange) return std::nullopt;
  TensorBytes x;
  TensorBytes y;
  base.read(from, x);
  tuned.read(to, y);
  const auto entries = [](const ModelTensor& tensor, const TensorBytes& bytes) {
    const auto count = static_cast<std::size_t>(tensor.shape[0]);
    return Lines::rows(bytes.bytes().data(), tensor.dtype, count,
                       static_cast<std::size_t>(tensor.elements()) / count);
  };
  return order_text(search_lines(entries(to, y), entries(from, x)), "entry", "entries");
}

}  // namespace detail

/// Whether two shapes are the same except that their last two extents are exchanged.
inline bool is_transposed(std::span<const std::uint64_t> a, std::span<const std::uint64_t> b) {
  const std::size_t rank = a.size();
  return rank == b.size() && rank >= 2 && a[rank - 1] == b[rank - 2] &&
         a[rank - 2] == b[rank - 1] && std::ranges::equal(a.first(rank - 2), b.first(rank - 2));
}

/// Says why a floating-point tensor of rank 2 or more looks unlike its namesake in the base;
/// returns nothing if none of the usual causes fits. Reads the first matrix of both, or all
/// matrices. Throws io_failure.
inline std::optional<std::string> rearrangement(const Model& base, const ModelTensor& from,
                                                const Model& tuned, const ModelTensor& to) {
  if (from.elements() == 0 || to.elements() == 0) return std::nullopt;
  const detail::LastMatrix a(from.shape);
  const detail::LastMatrix b(to.shape);
  TensorBytes x;
  TensorBytes y;
  base.read(from, 0, a.rows * a.cols * dtype_bytes(from.dtype), x);
  tuned.read(to, 0, b.rows * b.cols * dtype_bytes(to.dtype), y);
  const std::byte* const p = x.bytes().data();
  const std::byte* const q = y.bytes().data();
  using detail::Lines;
  const Lines rows = Lines::rows(q, to.dtype, b.rows, b.cols);
  const Lines columns = Lines::columns(q, to.dtype, b.rows, b.cols);
  const Lines base_rows = Lines::rows(p, from.dtype, a.rows, a.cols);
  const Lines base_columns = Lines::columns(p, from.dtype, a.rows, a.cols);
  if (is_transposed(from.shape, to.shape)) {
    // Compares the longer lines, which say more.
    const auto search = b.cols >= b.rows ? detail::search_lines(rows, base_columns)
                                         : detail::search_lines(columns, base_rows);
    if (search.succeeds()) return "it is transposed: its rows are the base's columns";
  }
  if (auto text = order_text(search_lines(rows, base_rows), "row", "rows")) return text;
  if (auto text = order_text(search_lines(columns, base_columns), "column", "columns")) return text;
  if (to.shape.size() == 2) return std::nullopt;
  return detail::order_of_entries(base, from, tuned, to);
}

}}}  // namespace deltadct::inline DELTADCT_ABI::io
