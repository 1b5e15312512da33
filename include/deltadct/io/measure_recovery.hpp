// Measures how much of a delta a compressed matrix restores, by decoding it.
#pragma once

#include <deltadct/any_codec.hpp>
#include <deltadct/io/convert.hpp>
#include <deltadct/io/outliers.hpp>
#include <deltadct/io/recovery.hpp>
#include <deltadct/io/run_each.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io { namespace detail {

/// Sums over n elements; base, tuned and output are functions of the index. Differences are
/// multiplied by `unit`, so that their squares neither overflow nor vanish.
template <class Base, class Tuned, class Output>
Recovery sum_recovery(std::size_t n, double unit, Base base, Tuned tuned, Output output) noexcept {
  // Independent sums, which compilers keep in registers side by side.
  constexpr std::size_t lanes = 8;
  double energy[lanes] = {};
  double product[lanes] = {};
  double error[lanes] = {};
  const auto add = [&](std::size_t lane, std::size_t i) {
    const auto b = static_cast<double>(base(i));
    const double d = (static_cast<double>(tuned(i)) - b) * unit;
    const double r = (static_cast<double>(output(i)) - b) * unit;
    energy[lane] += d * d;
    product[lane] += d * r;
    error[lane] += (d - r) * (d - r);
  };
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    for (std::size_t lane = 0; lane < lanes; ++lane) add(lane, i + lane);
  }
  for (; i < n; ++i) add(0, i);
  Recovery sums;
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    sums += {energy[lane], product[lane], error[lane]};
  }
  return sums;
}

/// A dense, row-major matrix, aligned to its elements, whose dtype is known at run time.
struct AnyMatrix {
  DType dtype = DType::f32;
  const std::byte* data = nullptr;

  const std::byte* row(std::size_t i, std::size_t cols) const noexcept {
    return data + i * cols * dtype_bytes(dtype);
  }
};

/// The power of two by which the largest |tuned - base| of n elements becomes 1 to 2; 1 if that
/// difference is 0 or not finite.
inline double unit_of(const AnyMatrix& base, const AnyMatrix& tuned, std::size_t n) {
  double peak = 0;
  with_element(base.dtype, [&]<class U>() {
    with_element(tuned.dtype, [&]<class W>() {
      const auto* b = reinterpret_cast<const U*>(base.data);
      const auto* t = reinterpret_cast<const W*>(tuned.data);
      for (std::size_t i = 0; i < n; ++i) {
        peak = std::max(peak, std::abs(static_cast<double>(static_cast<compute_t<W>>(t[i])) -
                                       static_cast<double>(static_cast<compute_t<U>>(b[i]))));
      }
    });
  });
  if (!(peak > 0) || !std::isfinite(peak)) return 1;
  return std::ldexp(1.0, -std::clamp(std::ilogb(peak), -1000, 1000));
}

/// Adds a row of n elements to the losses of its matrix. Of the elements that changed, those count
/// as swallowed which rounding to the output's dtype alone makes the base's again; what is larger
/// does not hide them. Differences are multiplied by `unit`.
template <concepts::Element U, concepts::Element W, concepts::Element O>
void judge_row(const U* base, const W* tuned, const O* output, std::size_t n, double unit,
               RowLosses& losses) noexcept {
  std::size_t changed = 0;
  std::size_t still = 0;
  std::size_t swallowed = 0;
  std::size_t swallowed_still = 0;
  Recovery sums;
  if constexpr (std::same_as<U, W> && std::same_as<U, O>) {
    using Bits = deltadct::detail::FloatBits<U>;
    // A few runs show that most rows came back otherwise than the base's.
    constexpr std::size_t kRun = 256;
    for (std::size_t at = 0; at < n && 100 * (changed - still) <= n; at += kRun) {
      for (std::size_t i = at; i < std::min(n, at + kRun); ++i) {
        const bool differs = std::bit_cast<Bits>(tuned[i]) != std::bit_cast<Bits>(base[i]);
        changed += differs;
        still += differs && std::bit_cast<Bits>(output[i]) == std::bit_cast<Bits>(base[i]);
      }
    }
  } else {
    const auto value = []<class E>(E x) {
      return static_cast<double>(static_cast<compute_t<E>>(x));
    };
    for (std::size_t i = 0; i < n; ++i) {
      const double b = value(base[i]);
      const double t = value(tuned[i]);
      if (t == b) continue;
      const double o = value(output[i]);
      ++changed;
      still += o == b;
      if (value(O(static_cast<compute_t<O>>(t))) != b) continue;
      ++swallowed;
      swallowed_still += o == b;
      const double d = (t - b) * unit;
      const double r = (o - b) * unit;
      sums += {d * d, d * r, (d - r) * (d - r)};
    }
  }
  if (changed == 0) return;
  ++losses.changed;
  const bool is_rounded = 2 * swallowed >= changed && 10 * swallowed_still >= 9 * swallowed;
  if (is_rounded && (sums.energy == 0 || sums.is_lost())) {
    ++losses.rounded;
  } else if (100 * still >= 99 * changed) {
    ++losses.still;
  }
}

/// What became of a compressed matrix, or of some rows of it.
struct Measured {
  Recovery recovery;  ///< its error is not finite if an element of the output is not
  RowLosses rows;
  double peak = 0;  ///< the largest magnitude of the output

  Measured& operator+=(const Measured& other) noexcept {
    recovery += other.recovery;
    rows += other.rows;
    peak = std::max(peak, other.peak);
    return *this;
  }
};

/// Compares rows of `cols` elements. Differences are multiplied by `unit`. The peak is measured
/// only if the fine-tune has another dtype than the base: only then can the output's range be
/// exceeded.
template <concepts::Element U, concepts::Element W, concepts::Element O>
Measured compare_rows(const U* base, const W* tuned, const O* output, std::size_t rows,
                      std::size_t cols, double unit) noexcept {
  const auto value = []<class E>(const E* at) {
    return [at](std::size_t i) { return static_cast<compute_t<E>>(at[i]); };
  };
  Measured measured;
  measured.recovery = sum_recovery(rows * cols, unit, value(base), value(tuned), value(output));
  for (std::size_t i = 0; i < rows; ++i) {
    judge_row(base + i * cols, tuned + i * cols, output + i * cols, cols, unit, measured.rows);
  }
  if constexpr (!std::same_as<U, W>) {
    for (std::size_t i = 0; i < rows * cols; ++i) {
      measured.peak = std::max(measured.peak, std::abs(static_cast<double>(value(output)(i))));
    }
  }
  return measured;
}

/// Decodes rows of a compressed matrix onto those of its base, rounded to `to`.
inline std::vector<std::byte> decode_rows(const AnyCodec& codec, const CompressedTensor& delta,
                                          const AnyMatrix& base, std::size_t first,
                                          std::size_t rows, DType to) {
  const std::size_t cols = delta.header.cols;
  const std::byte* from = base.row(first, cols);
  std::vector<std::byte> out(from, from + rows * cols * dtype_bytes(base.dtype));
  if (to == base.dtype) {
    codec.decode_add_block(delta, base.dtype, first, 0, out.data(), rows, cols, 1.0,
                           SerialExecutor{});
    return out;
  }
  const DType wide = compute_dtype(base.dtype);
  std::vector<std::byte> sums(rows * cols * dtype_bytes(wide));
  convert_elements(out, base.dtype, wide, sums, SerialExecutor{});
  CompressedView patches = delta;
  patches.outliers = {};
  codec.decode_add_block(patches, wide, first, 0, sums.data(), rows, cols, 1.0, SerialExecutor{});
  add_outliers_to_rounded(delta.outliers, first, rows, cols, base.dtype, sums.data());
  out.resize(rows * cols * dtype_bytes(to));
  convert_elements(sums, wide, to, out, SerialExecutor{});
  return out;
}

/// Decodes a compressed matrix onto its base, rounds to `to`, one band of rows at a time, and
/// compares. `to` is the base's dtype or the fine-tune's. For a method without patches the whole
/// matrix is one band, because its decoders read all of it for any part.
template <concepts::Executor Executor>
Measured measure_recovery(const AnyCodec& codec, const CompressedTensor& delta,
                          const AnyMatrix& base, const AnyMatrix& tuned, double unit, DType to,
                          const Executor& executor) {
  constexpr std::size_t kBandBytes = std::size_t{1} << 18;
  constexpr std::size_t kBandRows = 64;  // a multiple of every patch size
  const std::size_t rows = delta.header.rows;
  const std::size_t cols = delta.header.cols;
  const std::size_t row_bytes = cols * dtype_bytes(base.dtype);
  if (row_bytes == 0 || rows == 0) return {};
  const std::size_t band =
      delta.header.patch == 0
          ? rows
          : std::max(kBandBytes / row_bytes / kBandRows, std::size_t{1}) * kBandRows;
  std::vector<Measured> bands(ceil_div(rows, band));
  run_each(executor, bands.size(), [&](std::size_t k) {
    const std::size_t first = k * band;
    const std::size_t count = std::min(band, rows - first);
    const std::vector<std::byte> out = decode_rows(codec, delta, base, first, count, to);
    with_element(base.dtype, [&]<class U>() {
      with_element(tuned.dtype, [&]<class W>() {
        const auto compare = [&]<class O>(const O* output) {
          return compare_rows(reinterpret_cast<const U*>(base.row(first, cols)),
                              reinterpret_cast<const W*>(tuned.row(first, cols)), output, count,
                              cols, unit);
        };
        bands[k] = to == base.dtype ? compare(reinterpret_cast<const U*>(out.data()))
                                    : compare(reinterpret_cast<const W*>(out.data()));
      });
    });
  });
  Measured total;
  for (const Measured& measured : bands) total += measured;
  return total;
}

/// Whether rounding to a narrower dtype swallows the delta of a substantial share of a matrix's
/// rows, whatever codec it is for.
inline bool is_beyond_precision(const AnyMatrix& base, const AnyMatrix& tuned, std::size_t rows,
                                std::size_t cols, DType narrow) {
  RowLosses losses;
  with_element(base.dtype, [&]<class U>() {
    with_element(tuned.dtype, [&]<class W>() {
      with_element(narrow, [&]<class O>() {
        std::vector<O> output(cols);
        for (std::size_t i = 0; i < rows; ++i) {
          const auto* t = reinterpret_cast<const W*>(tuned.row(i, cols));
          for (std::size_t j = 0; j < cols; ++j) {
            output[j] = O(static_cast<compute_t<O>>(static_cast<compute_t<W>>(t[j])));
          }
          judge_row(reinterpret_cast<const U*>(base.row(i, cols)), t, output.data(), cols, 1.0,
                    losses);
        }
      });
    });
  });
  return losses.changed != 0 && losses.is_substantial();
}

/// Converts sums over every matrix of a tensor, in units of `unit`, to sums of the elements
/// themselves. The energy is clamped to what a text of a few digits can express.
inline Recovery without_unit(const Recovery& sums, double unit) noexcept {
  if (unit == 1 || sums.energy == 0) return sums;
  const double energy = std::clamp(sums.energy / unit / unit, 1e-300, 1e300);
  return Recovery::of(energy, sums.gain(), sums.snr_db());
}

}  // namespace detail

}}}  // namespace deltadct::inline DELTADCT_ABI::io
