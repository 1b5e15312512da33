// Encoding, in two passes over the matrix and no copy of the delta:
//   1. every patch: finite? score, mean, and the sums the rescale factor needs
//   2. after the allocation, the patches that were given bits: transform, quantize, pack, compare
#pragma once

#include <deltadct/codec/allocate.hpp>
#include <deltadct/codec/patch_codec.hpp>
#include <deltadct/codec/tile.hpp>
#include <deltadct/core/executor.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <string>

namespace deltadct::inline DELTADCT_ABI::detail {

/// What one unit of work adds up; summed in the order of the units, whoever ran them.
struct UnitSums {
  double original = 0;
  double reconstructed = 0;
  double largest = 0;             // no value that decodes exceeds it
  double lost = 0;                // how far some are off, for being too small
  std::size_t failed = SIZE_MAX;  // the first patch with a value that cannot be stored
};

/// Scratch of an encode: a few values a patch, none an element.
template <class T>
struct EncodeWorkspace {
  std::span<T> scores;
  std::span<T> means;
  std::span<std::uint32_t> classes;
  std::span<std::uint32_t> order;  // the allocator's scratch
  std::span<UnitSums> sums;

  static SaturatingSize bytes(std::size_t patches, std::size_t units) noexcept {
    return SaturatingSize(units) * sizeof(UnitSums) +
           SaturatingSize(patches) * (2 * sizeof(T) + 2 * sizeof(std::uint32_t)) +
           alignof(UnitSums);
  }

  /// Lays the arrays out in memory of at least bytes(patches, units).
  EncodeWorkspace(std::span<std::byte> memory, std::size_t patches, std::size_t units) {
    void* at = memory.data();
    std::size_t space = memory.size();
    const std::size_t needed = bytes(patches, units).value() - alignof(UnitSums);
    if (std::align(alignof(UnitSums), needed, at, space) == nullptr) {
      throw Error(Errc::too_large, "workspace",
                  std::to_string(memory.size()) + " bytes where " +
                      std::to_string(bytes(patches, units).value()) + " are needed");
    }
    auto* next = static_cast<std::byte*>(at);
    sums = take<UnitSums>(next, units);
    scores = take<T>(next, patches);
    means = take<T>(next, patches);
    classes = take<std::uint32_t>(next, patches);
    order = take<std::uint32_t>(next, patches);
  }

 private:
  template <class X>
  static std::span<X> take(std::byte*& next, std::size_t n) {
    auto* begin = reinterpret_cast<X*>(next);
    std::uninitialized_value_construct_n(begin, n);
    next += n * sizeof(X);
    return {begin, n};
  }
};

template <class Policy, class Backend>
class MatrixEncoder {
  using Codec = PatchCodec<Policy, Backend>;
  using T = typename Codec::T;
  using Rescale = typename Policy::Rescale;
  static constexpr int P = Codec::P;
  static constexpr auto area = static_cast<std::size_t>(P) * P;
  using Scorer = typename Policy::Scorer;
  using V = typename Codec::V;
  using Wide = typename Codec::Wide;  // columns are summed apart: it serves every P
  static constexpr std::size_t kRun = kEncodeRun<T, P>;
  using Walk = TileWalk<kRun, kRun>;

 public:
  MatrixEncoder(const typename Codec::Kernel& kernel, std::size_t rows, std::size_t cols)
      : kernel_(kernel), patches_(rows, cols), rows_(rows), cols_(cols) {
    count_patches(rows, cols, P);
  }

  std::size_t workspace_bytes() const {
    return checked_size(EncodeWorkspace<T>::bytes(patches_.count(), walk().units()), rows_, cols_);
  }

  /// Encodes the matrix that source reads into `out`, whose arrays are resized, not shrunk.
  template <class Source, concepts::Executor Executor>
  void run(const Source& source, const typename Policy::Allocator& allocator,
           std::span<std::byte> memory, CompressedTensor& out, const Executor& executor) const {
    EncodeWorkspace<T> work(memory, patches_.count(), walk().units());
    // Where all patches have one width and it has codes, nothing asks for what is measured.
    const std::span<const int> widths = allocator.widths();
    if (sums_originals || widths.size() != 1 || widths[0] == 0) {
      executor.parallel_for(work.sums.size(),
                            [&](std::size_t unit) { measure_unit(source, work, unit); });
      refuse_non_finite(source, work);
    }
    allocate(allocator, work, out);
    executor.parallel_for(work.sums.size(),
                          [&](std::size_t unit) { encode_unit(source, work, out, unit); });
    refuse_non_finite(source, work);
    refuse_overflow(work);
    out.header.scale = scale(work);
    refuse_infinite(work, out.header.scale);
    refuse_lost(work);
  }

 private:
  Walk walk() const noexcept {
    const bool empty = rows_ == 0 || cols_ == 0;
    return {0, empty ? 0 : patches_.grid_rows(), 0, empty ? 0 : patches_.grid_cols()};
  }

  /// Sums over the columns of a run of patches.
  struct ColumnSums {
    alignas(64) T terms[kRun * P];
    alignas(64) T shares[kRun * P];
    alignas(64) T originals[kRun * P];
  };

  // Coefficients are compared in the second pass, with the originals' sum.
  static constexpr bool sums_originals = Rescale::enabled && !Codec::compares_coefficients;

  static constexpr bool sums_terms = requires(T x) {
    { Scorer::term(x) } -> std::same_as<T>;
    { Scorer::from_sum(x, x) } -> std::same_as<bool>;
  };

  template <class Source>
  void measure_unit(const Source& source, EncodeWorkspace<T>& work, std::size_t unit) const {
    const TileSpan span = walk().unit(unit);
    const PatchExtent corner = patches_.extent(span.grid_row, span.first);
    // Patches to be measured together, to the last bit as one by one: whole ones, as many as fill
    // registers.
    std::size_t whole = 0;
    if (sums_terms && !kExcessPrecision && corner.rows == P && source.is_dense()) {
      constexpr std::size_t step = std::lcm(P, Lanes<Wide>::count) / P;
      whole = std::min(span.count, (cols_ - corner.col) / P) / step * step;
    }
    UnitSums sums;
    ColumnSums columns;
    if (whole != 0) sum_columns(source, corner, whole * P, columns);
    for (std::size_t k = 0; k < span.count; ++k) {
      const std::size_t index = span.grid_row * patches_.grid_cols() + span.first + k;
      if (k >= whole || !measure_summed(columns, k * P, index, work, sums)) {
        measure_patch(source, span.grid_row, span.first + k, index, work, sums);
      }
    }
    work.sums[unit] = sums;
  }

  /// Four rows at a time: as many streams as prefetchers follow, and sums that are loaded and
  /// stored once for eight elements.
  template <class Source>
  static void sum_columns(const Source& source, const PatchExtent& corner, std::size_t columns,
                          ColumnSums& sums) {
    constexpr std::size_t kRows = 4;
    using L = Lanes<Wide>;
    const auto load = [](const T* from, std::size_t i)
                          DELTADCT_INLINE_LAMBDA { return i == 0 ? Wide(T(0)) : L::load(from); };
    for (std::size_t i = 0; i < P; i += kRows) {
      typename Source::Row rows[kRows];
      for (std::size_t r = 0; r < kRows; ++r) rows[r] = source.row(corner.row + i + r, corner.col);
      for (std::size_t j = 0; j < columns; j += L::count) {
        Wide terms = load(sums.terms + j, i);
        Wide shares = load(sums.shares + j, i);
        Wide originals = load(sums.originals + j, i);
        repeat<kRows>([&](int r) DELTADCT_INLINE_LAMBDA {
          const Wide x = rows[r].template lanes<Wide>(j);
          if constexpr (sums_terms) terms = terms + Scorer::term(x);
          shares = shares + x * Wide(share(area));
          if constexpr (sums_originals) originals = originals + Rescale::original(x);
        });
        L::store(sums.terms + j, terms);
        L::store(sums.shares + j, shares);
        L::store(sums.originals + j, originals);
      }
    }
  }

  // The mean is summed in shares: the sum of values near the type's limit does not leave it.
  static T share(std::size_t elements) noexcept { return T(1) / static_cast<T>(elements); }

  /// Measures a patch by its columns' sums; false where they do not suffice.
  static bool measure_summed(ColumnSums& columns, std::size_t first, std::size_t index,
                             EncodeWorkspace<T>& work, UnitSums& sums) {
    const T mean = fold_columns<P>(columns.shares + first);
    if (!all_finite(&mean, 1)) return false;
    if constexpr (sums_terms) {
      const T terms = fold_columns<P>(columns.terms + first);
      T score = 0;
      if (!Scorer::from_sum(terms, score)) return false;
      work.scores[index] = rankable(score);
    }
    work.means[index] = mean;
    if constexpr (sums_originals) {
      sums.original += static_cast<double>(fold_columns<P>(columns.originals + first));
    }
    return true;
  }

  /// Measures any patch.
  template <class Source>
  void measure_patch(const Source& source, std::size_t grid_row, std::size_t grid_col,
                     std::size_t index, EncodeWorkspace<T>& work, UnitSums& sums) const {
    alignas(64) T patch[area];
    patches_.template load<V>(source, grid_row, grid_col, patch);
    if (!all_finite(patch, P * P)) {
      sums.failed = std::min(sums.failed, index);
      return;
    }
    const auto score =
        static_cast<T>(Scorer{}.template operator()<P, T>(std::span<const T, area>(patch, area)));
    work.scores[index] = rankable(score);
    const T part = share(patches_.extent(grid_row, grid_col).elements());
    work.means[index] = sum_patch<P, T>(patch, [part](T x) { return x * part; });
    if constexpr (sums_originals) {
      const T original = sum_patch<P, T>(patch, [](T x) { return Rescale::original(x); });
      sums.original += static_cast<double>(original);
    }
  }

  void allocate(const typename Policy::Allocator& allocator, EncodeWorkspace<T>& work,
                CompressedTensor& out) const {
    using Allocation = WidthAllocation<Policy, Backend>;
    begin_header<Policy>(out.header, rows_, cols_);
    Allocation::list_classes(allocator, out.header);
    out.places.resize(patches_.count());
    Allocation::allocate(allocator, work.scores, work.order, work.classes, out.header, out.places);
    const auto [bounds, codes] = out.header.lay_out();
    out.bounds.resize(bounds);
    out.codes.resize(codes);
  }

  template <class Source>
  void encode_unit(const Source& source, EncodeWorkspace<T>& work, CompressedTensor& out,
                   std::size_t unit) const {
    const TileSpan span = walk().unit(unit);
    const std::size_t first = span.grid_row * patches_.grid_cols() + span.first;
    const auto bits_of = [&](std::size_t k) {
      return out.header.classes[out.places[first + k].width_class()].bits;
    };
    alignas(64) T patch[area];
    for (std::size_t k = 0; k < span.count; ++k) {
      const int bits = bits_of(k);
      std::size_t next = k + 1;
      if (bits != 0 || Codec::compares_coefficients) {
        patches_.template load<V>(source, span.grid_row, span.first + k, patch);
        while (next < span.count && bits_of(next) == 0) ++next;
      }
      const auto ask = [&] { patches_.prefetch(source, span.grid_row, span.first + next); };
      encode_patch(bits, patch, patches_.extent(span.grid_row, span.first + k), first + k, ask,
                   work, out, work.sums[unit]);
    }
  }

  /// ask() asks for what will be read next. Twice, for processors drop some of so many requests:
  /// asking once takes 1.15 times as long for the whole of encode() (Zen 3, 4096 x 4096 float).
  template <class Ask>
  void encode_patch(int bits, const T* patch, const PatchExtent& extent, std::size_t index,
                    const Ask& ask, const EncodeWorkspace<T>& work, CompressedTensor& out,
                    UnitSums& sums) const {
    const CompressedView view = out;
    const PatchPlace place = out.places[index];
    std::byte* bounds = out.bounds.data() + (view.bounds_of(place) - view.bounds.data());
    if (bits == 0) {
      const T mean = work.means[index];
      const T stored = Codec::encode_constant(mean, bounds);
      if (!all_finite(&stored, 1)) sums.failed = std::min(sums.failed, index);
      sums.lost = std::max(sums.lost, static_cast<double>(lost_of(mean, stored)));
      const auto n = static_cast<double>(extent.elements());
      if constexpr (Codec::compares_coefficients) {
        sums.original += sum_patch<P, double>(patch, [](double x) { return Rescale::original(x); });
      }
      sums.reconstructed +=
          Rescale::constant(static_cast<double>(mean) * n, n, static_cast<double>(stored));
    } else {
      std::byte* codes = out.codes.data() + (view.codes_of(place) - view.codes.data());
      alignas(64) T coefficients[area];
      ask();
      Codec::transform(kernel_, patch, coefficients);
      typename Codec::Comparison compared;
      const bool is_stored = Codec::quantize(bits, coefficients, codes, bounds, compared);
      ask();
      sums.lost = std::max(sums.lost, compared.lost * P / static_cast<double>(Codec::gain));
      if (!is_stored) {
        sums.failed = std::min(sums.failed, index);
      } else if constexpr (Codec::compares_coefficients) {
        sums.original += compared.original;
        sums.reconstructed += compared.reconstructed;
      } else if constexpr (Rescale::enabled) {
        sums.reconstructed += Codec::compare(kernel_, patch, extent, bits, codes, bounds);
      }
    }
    sums.largest = std::max(sums.largest, Codec::largest_value(bits, bounds, out.header.bound));
  }

  static std::size_t first_failure(const EncodeWorkspace<T>& work) noexcept {
    std::size_t failed = SIZE_MAX;
    for (const UnitSums& sums : work.sums) failed = std::min(failed, sums.failed);
    return failed;
  }

  PatchExtent extent_of(std::size_t index) const noexcept {
    return patches_.extent(index / patches_.grid_cols(), index % patches_.grid_cols());
  }

  template <class Source>
  void refuse_non_finite(const Source& source, const EncodeWorkspace<T>& work) const {
    const std::size_t failed = first_failure(work);
    if (failed == SIZE_MAX) return;
    const PatchExtent at = extent_of(failed);
    for (std::size_t i = at.row; i < at.row + at.rows; ++i) {
      for (std::size_t j = at.col; j < at.col + at.cols; ++j) {
        T value;
        source.read(i, j, 1, &value);
        if (!all_finite(&value, 1)) throw Error(Errc::non_finite, element_text(i, j));
      }
    }
  }

  void refuse_overflow(const EncodeWorkspace<T>& work) const {
    const std::size_t failed = first_failure(work);
    if (failed == SIZE_MAX) return;
    const PatchExtent at = extent_of(failed);
    throw Error(
        Errc::out_of_range, "patch at " + element_text(at.row, at.col),
        "its coefficients exceed the range of the bounds; --exclude keeps a tensor without loss");
  }

  static void refuse_infinite(const EncodeWorkspace<T>& work, double scale) {
    double largest = 0;
    for (const UnitSums& sums : work.sums) largest = std::max(largest, sums.largest);
    if (is_within<T>(scale * largest)) return;
    throw Error(Errc::out_of_range, "delta",
                "it exceeds the range of the compute type; --exclude keeps a tensor without loss");
  }

  static void refuse_lost(const EncodeWorkspace<T>& work) {
    double largest = 0;
    double lost = 0;
    for (const UnitSums& sums : work.sums) {
      largest = std::max(largest, sums.largest);
      lost = std::max(lost, sums.lost);
    }
    if (is_lost(lost, largest)) throw Error(Errc::out_of_range, "delta", kLostText);
  }

  static std::string element_text(std::size_t i, std::size_t j) {
    return "element (" + std::to_string(i) + ", " + std::to_string(j) + ")";
  }

  /// The rescale factor; 1 where nothing was reconstructed to be scaled.
  static double scale(const EncodeWorkspace<T>& work) noexcept {
    double original = 0;
    double reconstructed = 0;
    for (const UnitSums& sums : work.sums) {
      original += sums.original;
      reconstructed += sums.reconstructed;
    }
    const double factor = original / reconstructed;
    // Not every double that is finite is so in the type that decoders multiply by it.
    return Rescale::enabled && is_within<T>(factor) ? factor : 1;
  }

  const typename Codec::Kernel& kernel_;
  typename Policy::Patches patches_;
  std::size_t rows_;
  std::size_t cols_;
};

}  // namespace deltadct::inline DELTADCT_ABI::detail
