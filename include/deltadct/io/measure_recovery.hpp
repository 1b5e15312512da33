// Measures how much of a delta a compressed matrix restores, by decoding it.
#pragma once

#include <deltadct/any_codec.hpp>
#include <deltadct/io/recovery.hpp>
#include <deltadct/io/run_each.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace deltadct::inline DELTADCT_ABI::io {

namespace detail {

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

/// Decodes a compressed matrix onto its base, one band of rows at a time, and compares. For a
/// method without patches the whole matrix is one band, because its decoders read all of it for any
/// part.
template <concepts::Executor Executor>
Recovery measure_recovery(const AnyCodec& codec, const CompressedTensor& delta,
                          const AnyMatrix& base, const AnyMatrix& tuned, double unit,
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
  std::vector<Recovery> sums(ceil_div(rows, band));
  run_each(executor, sums.size(), [&](std::size_t k) {
    const std::size_t first = k * band;
    const std::size_t count = std::min(band, rows - first);
    const std::byte* from = base.row(first, cols);
    std::vector<std::byte> out(from, from + count * row_bytes);
    codec.decode_add_block(delta, base.dtype, first, 0, out.data(), count, cols, 1.0,
                           SerialExecutor{});
    with_element(base.dtype, [&]<class U>() {
      with_element(tuned.dtype, [&]<class W>() {
        const auto value = []<class E>(const E* at) {
          return [at](std::size_t i) { return static_cast<compute_t<E>>(at[i]); };
        };
        sums[k] = sum_recovery(count * cols, unit, value(reinterpret_cast<const U*>(from)),
                               value(reinterpret_cast<const W*>(tuned.row(first, cols))),
                               value(reinterpret_cast<const U*>(out.data())));
      });
    });
  });
  Recovery total;
  for (const Recovery& sum : sums) total += sum;
  return total;
}

/// Converts sums over every matrix of a tensor, in units of `unit`, to sums of the elements
/// themselves. The energy is clamped to what a text of a few digits can express.
inline Recovery without_unit(const Recovery& sums, double unit) noexcept {
  if (unit == 1 || sums.energy == 0) return sums;
  const double energy = std::clamp(sums.energy / unit / unit, 1e-300, 1e300);
  return Recovery::of(energy, sums.gain(), sums.snr_db());
}

}  // namespace detail

}  // namespace deltadct::inline DELTADCT_ABI::io
