// Measures patches before bits are allocated: scores, means, and Rescale's sums over the delta.
#pragma once

#include <deltadct/backend/kernel.hpp>
#include <deltadct/codec/host/tile.hpp>
#include <deltadct/codec/outcome.hpp>
#include <deltadct/codec/plan.hpp>
#include <deltadct/core/reduce.hpp>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// The sums of one unit of work. Units are added up in a fixed order, whichever thread ran them.
struct UnitSums {
  PatchSums sums{};
  std::size_t failed = SIZE_MAX;  ///< the first patch with a value that cannot be stored

  void fail(std::size_t patch) noexcept { failed = std::min(failed, patch); }
};

/// Measures the patches of the matrix that a source reads, and writes one score and one mean per
/// patch. A patch with a value that is not finite fails.
template <class Policy, class Backend, class Source>
class Measurer {
  using T = compute_t<typename Policy::Element>;
  using Patches = Patchifier<typename Policy::Element, Policy::patch>;
  using Rescale = typename Policy::Rescale;
  using Scorer = typename Policy::Scorer;
  static constexpr int P = Policy::patch;
  static constexpr auto area = static_cast<std::size_t>(P) * P;
  using V = typename DctKernel<Backend>::template Vector<T, P>;
  using Wide = typename DctKernel<Backend>::template Vector<T, 64>;  // the widest there is

 public:
  Measurer(const Patches& patches, const Source& source, std::span<T> scores, std::span<T> means)
      : patches_(patches), source_(source), scores_(scores), means_(means) {}

  /// Measures a run of at most kEncodeRun patches.
  void run(const TileSpan& span, UnitSums& unit) const {
    const PatchExtent corner = patches_.extent(span.grid_row, span.first);
    // Measure whole patches together, as many as fill registers. The results are bit-identical to
    // those of one patch at a time.
    std::size_t whole = 0;
    if (sums_terms && !kExcessPrecision && corner.rows == P && source_.is_dense()) {
      constexpr std::size_t step = std::lcm(P, Lanes<Wide>::count) / P;
      whole = std::min(span.count, patches_.whole_cols() - span.first) / step * step;
    }
    ColumnSums columns;
    if (whole != 0) sum_columns(corner, whole * P, columns);
    for (std::size_t k = 0; k < span.count; ++k) {
      const std::size_t index = span.grid_row * patches_.grid_cols() + span.first + k;
      if (k >= whole || !measure_summed(columns, k * P, index, unit)) {
        measure_patch(span.grid_row, span.first + k, index, unit);
      }
    }
  }

 private:
  static constexpr bool sums_originals = Plan<Policy>::sums_originals;
  static constexpr bool sums_terms = requires(T x) { Scorer::term(x); };

  /// Sums over the columns of a run of patches.
  struct ColumnSums {
    alignas(64) T terms[kEncodeRun<T, P> * P];
    alignas(64) T means[kEncodeRun<T, P> * P];
    alignas(64) T originals[kEncodeRun<T, P> * P];
  };

  /// Takes four rows at a time. Prefetchers can follow that many streams, and each sum is loaded
  /// and stored only once for eight elements.
  void sum_columns(const PatchExtent& corner, std::size_t columns, ColumnSums& sums) const {
    constexpr std::size_t kRows = 4;
    using L = Lanes<Wide>;
    const auto load = [](const T* from, std::size_t i)
                          DELTADCT_INLINE_LAMBDA { return i == 0 ? Wide(T(0)) : L::load(from); };
    for (std::size_t i = 0; i < P; i += kRows) {
      typename Source::Row rows[kRows];
      for (std::size_t r = 0; r < kRows; ++r) rows[r] = source_.row(corner.row + i + r, corner.col);
      for (std::size_t j = 0; j < columns; j += L::count) {
        Wide terms = load(sums.terms + j, i);
        Wide means = load(sums.means + j, i);
        Wide originals = load(sums.originals + j, i);
        repeat<kRows>([&](int r) DELTADCT_INLINE_LAMBDA {
          const Wide x = rows[r].template lanes<Wide>(j);
          if constexpr (sums_terms) terms = terms + Scorer::term(x);
          means = means + x * Wide(reciprocal(area));
          if constexpr (sums_originals) originals = originals + Rescale::original(x);
        });
        L::store(sums.terms + j, terms);
        L::store(sums.means + j, means);
        L::store(sums.originals + j, originals);
      }
    }
  }

  // Elements are divided before they are summed, so that the mean of values near the type's limit
  // does not overflow.
  static T reciprocal(std::size_t elements) noexcept { return T(1) / static_cast<T>(elements); }

  /// Measures a patch by the sums of its columns. Returns false if they do not suffice.
  bool measure_summed(ColumnSums& columns, std::size_t first, std::size_t index,
                      UnitSums& unit) const {
    const T mean = fold_columns<P>(columns.means + first);
    if (!all_finite(&mean, 1)) return false;
    if constexpr (sums_terms) {
      const T terms = fold_columns<P>(columns.terms + first);
      T score = 0;
      if (!Scorer::from_sum(terms, score)) return false;
      scores_[index] = rankable(score);
    }
    means_[index] = mean;
    if constexpr (sums_originals) {
      unit.sums.original += static_cast<double>(fold_columns<P>(columns.originals + first));
    }
    return true;
  }

  /// Measures any patch, by itself.
  void measure_patch(std::size_t grid_row, std::size_t grid_col, std::size_t index,
                     UnitSums& unit) const {
    alignas(64) T patch[area];
    patches_.template load<V>(source_, grid_row, grid_col, patch);
    if (!all_finite(patch, P * P)) return unit.fail(index);
    const auto score =
        static_cast<T>(Scorer{}.template operator()<P, T>(std::span<const T, area>(patch, area)));
    scores_[index] = rankable(score);
    const T part = reciprocal(patches_.extent(grid_row, grid_col).elements());
    means_[index] = sum_patch<P, T>(patch, [part](T x) { return x * part; });
    if constexpr (sums_originals) {
      const T original = sum_patch<P, T>(patch, [](T x) { return Rescale::original(x); });
      unit.sums.original += static_cast<double>(original);
    }
  }

  const Patches& patches_;
  const Source& source_;
  std::span<T> scores_;
  std::span<T> means_;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
