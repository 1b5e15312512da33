// Encoding, in two passes over the matrix and without a copy of the delta:
//   1. every patch: check that it is finite; compute score, mean, and the rescale factor's sums
//   2. after the allocation, every patch with codes: transform, quantize, pack, compare
#pragma once

#include <deltadct/codec/host/measure.hpp>
#include <deltadct/codec/host/quantize.hpp>
#include <deltadct/codec/host/tile.hpp>
#include <deltadct/core/executor.hpp>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// The workspace of an encode: a few values per patch, none per element.
template <class T>
struct EncodeWorkspace {
  std::span<T> scores;
  std::span<T> means;
  std::span<std::uint32_t> classes;
  std::span<std::uint32_t> order;  // the allocator's workspace
  std::span<UnitSums> units;

  static SaturatingSize bytes(std::size_t patches, std::size_t units) noexcept {
    return SaturatingSize(units) * sizeof(UnitSums) +
           SaturatingSize(patches) * (2 * sizeof(T) + 2 * sizeof(std::uint32_t)) +
           alignof(UnitSums);
  }

  /// Lays the arrays out in memory of at least bytes(patches, unit_count) bytes. Throws too_large
  /// if they do not fit.
  EncodeWorkspace(std::span<std::byte> memory, std::size_t patches, std::size_t unit_count) {
    void* at = memory.data();
    std::size_t space = memory.size();
    const std::size_t needed = bytes(patches, unit_count).value() - alignof(UnitSums);
    if (std::align(alignof(UnitSums), needed, at, space) == nullptr) {
      throw Error(Errc::too_large, "workspace",
                  std::to_string(memory.size()) + " bytes where " +
                      std::to_string(bytes(patches, unit_count).value()) + " are needed");
    }
    auto* next = static_cast<std::byte*>(at);
    units = take<UnitSums>(next, unit_count);
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
  using Plan = detail::Plan<Policy>;
  using Codec = PatchEncoder<Policy, Backend>;
  using T = typename Codec::T;
  using Allocator = typename Policy::Allocator;
  static constexpr int P = Codec::P;
  static constexpr auto area = static_cast<std::size_t>(P) * P;
  static constexpr std::size_t kRun = kEncodeRun<T, P>;
  using Walk = TileWalk<kRun, kRun>;

 public:
  /// Throws too_large if the matrix has too many patches.
  MatrixEncoder(const typename Codec::Kernel& kernel, std::size_t rows, std::size_t cols)
      : kernel_(kernel), patches_(rows, cols), count_(Plan::patches(rows, cols)) {}

  std::size_t workspace_bytes() const {
    return checked_size(EncodeWorkspace<T>::bytes(count_, walk().units()), patches_.rows(),
                        patches_.cols());
  }

  /// Encodes the matrix that `source` reads into `out`. The arrays of `out` are resized, but keep
  /// their capacity.
  template <class Source, concepts::Executor Executor>
  void run(const Source& source, const Allocator& allocator, std::span<std::byte> memory,
           CompressedTensor& out, const Executor& executor) const {
    EncodeWorkspace<T> work(memory, count_, walk().units());
    if (Plan::measures(allocator)) {
      const Measurer<Policy, Backend, Source> measurer(patches_, source, work.scores, work.means);
      executor.parallel_for(work.units.size(), [&](std::size_t unit) {
        UnitSums sums;
        measurer.run(walk().unit(unit), sums);
        work.units[unit] = sums;
      });
      refuse_non_finite(source, first_failure(work));
    }
    Plan::begin(out.header, patches_.rows(), patches_.cols(), allocator);
    allocate(allocator, work, out);
    executor.parallel_for(work.units.size(),
                          [&](std::size_t unit) { encode_unit(source, work, out, unit); });
    const std::size_t failed = first_failure(work);
    refuse_non_finite(source, failed);
    if (failed != SIZE_MAX) fail_bounds(out.header, failed);
    PatchSums sums{};
    for (const UnitSums& unit : work.units) sums.add(unit.sums);
    out.header.scale = rescale_factor<Policy>(sums);
  }

 private:
  Walk walk() const noexcept {
    return {0, count_ == 0 ? 0 : patches_.grid_rows(), 0, count_ == 0 ? 0 : patches_.grid_cols()};
  }

  void allocate(const Allocator& allocator, EncodeWorkspace<T>& work, CompressedTensor& out) const {
    out.places.resize(count_);
    Plan::allocate(allocator, work.scores, work.order, work.classes, out.header, out.places);
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
      if (bits != 0 || Plan::compares_coefficients) {
        patches_.template load<typename Codec::V>(source, span.grid_row, span.first + k, patch);
        while (next < span.count && bits_of(next) == 0) ++next;
      }
      const auto prefetch = [&] { patches_.prefetch(source, span.grid_row, span.first + next); };
      encode_patch(bits, patch, patches_.extent(span.grid_row, span.first + k), first + k, prefetch,
                   work, out, work.units[unit]);
    }
  }

  /// prefetch() requests what will be read next. It is called twice, because processors drop some
  /// of so many requests: with one call, the whole of encode() takes 1.15 times as long (Zen 3,
  /// 4096 x 4096 float).
  template <class Prefetch>
  void encode_patch(int bits, const T* patch, const PatchExtent& extent, std::size_t index,
                    const Prefetch& prefetch, const EncodeWorkspace<T>& work, CompressedTensor& out,
                    UnitSums& unit) const {
    const CompressedView view = out;
    const PatchPlace place = out.places[index];
    std::byte* bounds = out.bounds.data() + (view.bounds_of(place) - view.bounds.data());
    if (bits == 0) {
      const T mean = work.means[index];
      const T stored = Codec::encode_constant(mean, bounds);
      if (!all_finite(&stored, 1)) unit.fail(index);
      if constexpr (Plan::compares_coefficients) {
        unit.sums.original +=
            sum_patch<P, double>(patch, [](double x) { return Policy::Rescale::original(x); });
      }
      unit.sums.add(constant_sums<Policy>(mean, stored, static_cast<double>(extent.elements())));
      return;
    }
    std::byte* codes = out.codes.data() + (view.codes_of(place) - view.codes.data());
    alignas(64) T coefficients[area];
    prefetch();
    Codec::transform(kernel_, patch, coefficients);
    const bool is_stored = Codec::quantize(bits, coefficients, codes, bounds, unit.sums);
    prefetch();
    if (!is_stored) {
      unit.fail(index);
    } else if constexpr (Plan::sums_originals) {
      unit.sums.reconstructed += Codec::compare(kernel_, patch, extent, bits, codes, bounds);
    }
    unit.sums.largest =
        std::max(unit.sums.largest, largest_element<Policy>(bits, bounds, out.header.bound));
  }

  static std::size_t first_failure(const EncodeWorkspace<T>& work) noexcept {
    std::size_t failed = SIZE_MAX;
    for (const UnitSums& unit : work.units) failed = std::min(failed, unit.failed);
    return failed;
  }

  /// Throws non_finite, naming the first element of a patch that is not finite, if there is one.
  template <class Source>
  void refuse_non_finite(const Source& source, std::size_t patch) const {
    if (patch == SIZE_MAX) return;
    const PatchExtent at =
        patches_.extent(patch / patches_.grid_cols(), patch % patches_.grid_cols());
    for (std::size_t i = at.row; i < at.row + at.rows; ++i) {
      for (std::size_t j = at.col; j < at.col + at.cols; ++j) {
        T value;
        source.read(i, j, 1, &value);
        if (all_finite(&value, 1)) continue;
        throw Error(Errc::non_finite,
                    "element (" + std::to_string(i) + ", " + std::to_string(j) + ")");
      }
    }
  }

  const typename Codec::Kernel& kernel_;
  Patchifier<typename Policy::Element, P> patches_;
  std::size_t count_;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
