// Encoding on a device, once every patch has its bits: transform, fit, quantize, pack, compare.
#pragma once

#include <deltadct/codec/device/dequantize.hpp>
#include <deltadct/codec/device/measure.hpp>
#include <deltadct/codec/device/pack.hpp>
#include <deltadct/codec/device/tensor.hpp>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// The phases depend on what bounds are fitted to. Each leaves its results in shared memory.
template <class Policy, concepts::Element U, bool Subtracts>
struct QuantizeKernel {
  using T = compute_t<typename Policy::Element>;
  static constexpr int P = Policy::patch;
  static constexpr int N = P * P;
  using Patch = PatchOfThread<T, P>;
  using Threads = PatchThreads<T, P>;
  using V = typename Threads::V;
  static constexpr int threads = Threads::per_block;
  static constexpr Fitting fit = fitting_of<typename Policy::template Quantizer<1>>();

  /// The phases. A phase that a fit does not need is -1. The first two transform.
  static constexpr int kTransformRows = 0;
  static constexpr int kTransformColumns = 1;
  /// If sums of squares leave the range of T, they are computed again in another unit. Then levels
  /// are chosen; their products with the coefficients give the step.
  static constexpr int kFindUnit = fit == Fitting::energy ? 2 : -1;
  static constexpr int kSumInUnit = fit == Fitting::energy ? 3 : -1;
  static constexpr int kChooseLevels = fit == Fitting::energy ? 4 : -1;
  /// Coefficients are stored where all threads of a patch can read them.
  static constexpr int kLayDown = fit == Fitting::coefficients ? 2 : -1;
  /// Bounds are stored, and the codes that depend on them are packed.
  static constexpr int kStore = fit == Fitting::energy ? 5 : fit == Fitting::extremes ? 2 : 3;
  /// The decoded patch is transformed back. Other fits begin this in kStore, where a fit to all
  /// coefficients still reads them from the same shared memory.
  static constexpr int kInverse = fit == Fitting::coefficients ? 4 : -1;
  /// Codes go to memory, and the decoded patch is compared with the original.
  static constexpr int kWrite = kInverse == -1 ? kStore + 1 : kInverse + 1;
  static constexpr int kCompare = kWrite + 1;
  static constexpr int phases = kCompare + 1;

  static constexpr bool is_warp_wide = Threads::is_warp_wide;
  static constexpr int min_blocks = Threads::template min_blocks<U>;
  static constexpr int kWords = N / 4;  ///< words of a patch's codes, at most
  static constexpr int kRows = MeasureKernel<Policy, U, Subtracts>::kRows;

  struct Thread {
    int bits;
    bool is_stored;      // whether the bounds can be stored
    bool has_unit;       // whether the sum of squares kept its digits without another unit
    std::uint32_t mask;  // of code words: 0 if all levels are equal, which is stored as code 0
    Part<T> range;       // of the patch's coefficients
    T unit;              // this and the next two: see Energy
    T square;
    T reciprocal;
    V x[P];  // gain times the thread's coefficients
  };
  struct Shared {
    alignas(16) typename Threads::Shared values;
    Part<T> parts[2][threads];
    std::uint32_t words[Threads::patches * kWords];
  };

  DeviceDelta<T, U, Subtracts> delta;
  DeviceRegion region;
  bool packed;
  DeviceArrays tensor;
  const T* means;
  PatchSums* sums;
  DeviceOutcome* outcome;

  unsigned blocks() const noexcept { return region.blocks; }

  template <int Phase>
  DELTADCT_HD DELTADCT_INLINE void run(unsigned block, int thread, Thread& own,
                                       Shared& shared) const noexcept {
    const Patch patch(region, block, thread);
    if (!patch.exists) return;
    const PatchPlace place = tensor.places[patch.index];
    const DeviceClass& k = tensor.width_class(place);
    if constexpr (Phase == kTransformRows) own.bits = k.bits;
    if (own.bits == 0) {
      if (Phase == kTransformRows && patch.t == 0) store_constant(patch, place, k);
      return;
    }
    const Exchange<T, P> exchange(shared.values + patch.slot * Threads::area, patch.t);
    T* coefficients = shared.values + patch.slot * Threads::area;
    std::uint32_t* words = shared.words + patch.slot * kWords;
    const int first = patch.slot * Threads::per_patch;
    // Parts to read and parts to write alternate between two buffers.
    const Part<T>* parts = shared.parts[(Phase + 1) % 2] + first;
    Part<T>& part = shared.parts[Phase % 2][thread];
    if constexpr (Phase == kTransformRows) {
      for (int w = patch.t; w < kWords; w += Threads::per_patch) words[w] = 0;
      transform_rows(patch, exchange);
    } else if constexpr (Phase == kTransformColumns) {
      Columns::template forward_second<P>(exchange, own.x);
      part = fit == Fitting::energy ? Part<T>{sum_of_squares(own.x), T(0)} : range_of(own.x);
    } else if constexpr (Phase == kFindUnit || Phase == kSumInUnit || Phase == kChooseLevels) {
      sum_energy<Phase>(patch.t, own, parts, part, coefficients, words);
    } else if constexpr (Phase == kLayDown) {
      set_range(own, join_ranges(parts, Threads::per_patch));
      lay_down(patch.t, own.x, coefficients);
    } else if constexpr (Phase == kStore && fit == Fitting::energy) {
      Fit<T> fitted{{own.unit, own.square, own.reciprocal}};
      fitted.product = sum_parts(parts, Threads::per_patch).a;
      store_step(patch, place, k, own, fitted, exchange, words);
    } else if constexpr (Phase == kStore) {
      if constexpr (fit == Fitting::extremes)
        set_range(own, join_ranges(parts, Threads::per_patch));
      part = quantize_elements(patch, place, k, own, coefficients, exchange, words);
    } else if constexpr (Phase == kInverse) {
      if constexpr (reconstructs) {
        if (own.is_stored) Columns::template inverse_first<P>(own.x, exchange);
      }
      part = parts[patch.t];
    } else if constexpr (Phase == kWrite) {
      if constexpr (reconstructs)
        part = {T(0), own.is_stored ? reconstructed(patch, exchange) : T(0)};
      else if constexpr (compares_elements)
        part = parts[patch.t];
      copy_words(patch.t, Threads::per_patch, words, own.mask,
                 const_cast<std::byte*>(tensor.codes_of(place, k)),
                 static_cast<int>(k.codes_stride));
    } else if constexpr (reconstructs || compares_elements) {
      if (patch.t == 0 && own.is_stored) compare(patch, own, sum_parts(parts, Threads::per_patch));
    }
  }

 private:
  using Bound = typename Policy::Bound;
  using Rescale = typename Policy::Rescale;
  using Columns = ColumnTransform<typename Policy::Transform>;
  using Plan = detail::Plan<Policy>;
  template <int Bits>
  using Quantizer = typename Policy::template Quantizer<Bits>;
  static constexpr int lanes = Threads::lanes;
  static constexpr auto gain = static_cast<T>(Policy::Transform::template gain<P>);
  /// Whether Rescale's comparison needs the patch transformed back.
  static constexpr bool reconstructs = Plan::sums_originals;
  /// Whether each coefficient is compared with its level. An energy fit knows the sums.
  static constexpr bool compares_elements = Plan::compares_coefficients && fit != Fitting::energy;

  DELTADCT_HD Bound* bounds_of(PatchPlace place, const DeviceClass& k) const noexcept {
    return const_cast<Bound*>(tensor.bounds_of<Bound>(place, k));
  }

  /// Rounds a value to the dtype of the bounds and stores it. Returns it as a decoder will see it.
  DELTADCT_HD static T store(Bound* bounds, int k, T value) noexcept {
    bounds[k] = static_cast<Bound>(static_cast<compute_t<Bound>>(value));
    return stored_value<T>(bounds, k);
  }

  /// Records a patch that cannot be stored. RefusalKernel finds out why.
  DELTADCT_HD void fail(const Patch& patch) const noexcept {
    keep_least(&outcome->failed, static_cast<std::uint32_t>(patch.index));
  }

  DELTADCT_HD void store_constant(const Patch& patch, PatchPlace place,
                                  const DeviceClass& k) const noexcept {
    const T mean = means[patch.index];
    const T stored = store(bounds_of(place, k), 0, Quantizer<0>::constant(mean));
    if (!is_finite(stored)) return fail(patch);
    const auto elements = static_cast<double>(patch.elements(region));
    const PatchSums own = constant_sums<Policy>(mean, stored, elements);
    PatchSums& sum = sums[patch.index];
    sum.reconstructed = own.reconstructed;
    sum.largest = own.largest;
    sum.lost = own.lost;
  }

  DELTADCT_HD DELTADCT_INLINE void transform_rows(const Patch& patch,
                                                  const Exchange<T, P>& exchange) const noexcept {
    V x[P];
    repeat<P / kRows>([&](int n) DELTADCT_INLINE_LAMBDA {
      V rows[kRows];
      delta.load(patch, region, packed, n * kRows, rows);
      repeat<kRows>([&](int r) DELTADCT_INLINE_LAMBDA { x[n * kRows + r] = rows[r]; });
    });
    Columns::template forward_first<P, V>([&](int r) DELTADCT_INLINE_LAMBDA { return x[r]; },
                                          Threads::spatial_column(patch.t, 0), exchange);
  }

  /// The phases that compute the energy of a patch and then choose its levels.
  template <int Phase>
  DELTADCT_HD DELTADCT_INLINE void sum_energy(int t, Thread& own, const Part<T>* parts,
                                              Part<T>& part, T* coefficients,
                                              std::uint32_t* words) const noexcept {
    if constexpr (Phase == kFindUnit) {
      own.square = sum_parts(parts, Threads::per_patch).a;
      own.unit = T(1);
      own.is_stored = own.has_unit = is_within_range(own.square);
      if (!own.has_unit) part = range_of(own.x);
      if (own.bits < 0) lay_down(t, own.x, coefficients);
    } else if constexpr (Phase == kSumInUnit) {
      if (own.has_unit) return;
      set_range(own, join_ranges(parts, Threads::per_patch));
      repeat<P>([&](int r) DELTADCT_INLINE_LAMBDA { own.x[r] = own.x[r] * V(own.unit); });
      part = {sum_of_squares(own.x), T(0)};
    } else {
      if (!own.has_unit) own.square = sum_parts(parts, Threads::per_patch).a;
      own.reciprocal = own.square == 0 ? T(0) : std::sqrt(static_cast<T>(N) / own.square);
      part = {choose_levels(t, own, coefficients, words), T(0)};
    }
  }

  DELTADCT_HD DELTADCT_INLINE static void set_range(Thread& own, const Part<T>& range) noexcept {
    own.range = range;
    own.is_stored = is_finite(range.a) && is_finite(range.b);
    const T peak = Lanes<T>::max(Lanes<T>::abs(range.a), Lanes<T>::abs(range.b));
    own.unit = own.is_stored ? unit_of(peak) : T(1);
  }

  /// Packs the codes of levels that follow the energy. Returns the thread's part of the sum of
  /// unit * coefficient * level.
  DELTADCT_HD DELTADCT_INLINE T choose_levels(int t, Thread& own, const T* coefficients,
                                              std::uint32_t* words) const noexcept {
    if (own.square == 0) return T(0);
    // Coefficients are divided by their root mean square in place. Otherwise compilers would keep
    // the quotients, which all widths share, beside the coefficients.
    T reciprocal(1);
    if (own.bits > 1) {
      reciprocal = own.reciprocal;
      repeat<P>([&](int c) DELTADCT_INLINE_LAMBDA { own.x[c] = own.x[c] * V(reciprocal); });
    }
    T sum = 0;
    with_width<Policy::template Quantizer, N>(own.bits, [&]<int Bits>() {
      using Q = Quantizer<Bits>;
      if constexpr (Bits > 0)
        sum = pack_levels<Q, Bits>(t, own.x, words);
      else if constexpr (Bits < 0)
        sum = pack_groups<Q, T, P>(t, coefficients, own.unit, words);
    });
    return sum / reciprocal;
  }

  /// Stores the bounds of a patch, or reports that they cannot be stored.
  template <int Values>
  DELTADCT_HD DELTADCT_INLINE void store_bounds(const Patch& patch, PatchPlace place,
                                                const DeviceClass& k, const Thread& own,
                                                const Bound (&stored)[Values], T largest,
                                                T lost) const noexcept {
    if (patch.t != 0) return;
    if (!own.is_stored) return fail(patch);
    for (int n = 0; n < Values; ++n) bounds_of(place, k)[n] = stored[n];
    sums[patch.index].largest = largest_element<Policy>(largest);
    sums[patch.index].lost = lost_element<Policy>(lost);
  }

  /// Stores the step of levels whose codes are packed, and begins Rescale's comparison. If
  /// coefficients suffice, it sums those of the whole patch; otherwise it begins the inverse
  /// transform.
  DELTADCT_HD DELTADCT_INLINE void store_step(const Patch& patch, PatchPlace place,
                                              const DeviceClass& k, Thread& own,
                                              const Fit<T>& fitted, const Exchange<T, P>& exchange,
                                              std::uint32_t* words) const noexcept {
    Bound stored[1];
    const T bounds[] = {store(stored, 0, fitted.step() / gain)};
    const T step = bounds[0];
    T largest = step;
    own.is_stored = own.is_stored && is_finite(step);
    with_width<Policy::template Quantizer, N>(own.bits, [&]<int Bits>() {
      if constexpr (Bits != 0) {
        own.is_stored = own.is_stored && Quantizer<Bits>::representable(bounds, gain);
        largest = Quantizer<Bits>::largest(bounds);
      }
    });
    own.mask = step == 0 ? 0 : ~0u;
    store_bounds(patch, place, k, own, stored, largest, lost_of(fitted.step(), gain * step));
    if constexpr (reconstructs) {
      V y[P];
      if (step == 0)
        repeat<P>([&](int c) DELTADCT_INLINE_LAMBDA { y[c] = V(T(0)); });
      else
        dequantize_columns<Policy::template Quantizer, Bound, P>(
            own.bits, reinterpret_cast<const std::byte*>(words), stored, T(1) / gain, patch.t, y);
      Columns::template inverse_first<P>(y, exchange);
    } else if (Plan::compares_coefficients && patch.t == 0) {
      PatchSums& sum = sums[patch.index];
      sum.original = fitted.original(static_cast<double>(gain));
      sum.reconstructed =
          fitted.reconstructed(static_cast<double>(gain), static_cast<double>(step));
    }
  }

  /// Fits and stores the bounds, and packs the codes that depend on them. Returns the thread's part
  /// of {original, reconstructed} if coefficients suffice for Rescale. Otherwise leaves the decoded
  /// coefficients in own.x.
  DELTADCT_HD DELTADCT_INLINE Part<T> quantize_elements(const Patch& patch, PatchPlace place,
                                                        const DeviceClass& k, Thread& own,
                                                        const T* coefficients,
                                                        const Exchange<T, P>& exchange,
                                                        std::uint32_t* words) const noexcept {
    Part<T> compared{T(0), T(0)};
    with_width<Policy::template Quantizer, N>(own.bits, [&]<int Bits>() {
      static_assert(Bits >= 0, "groups are fitted by their energy");
      if constexpr (Bits > 0) {
        using Q = Quantizer<Bits>;
        T bounds[Q::bound_count];
        const auto fitted = fit_bounds<Q>(own, coefficients, bounds);
        Bound stored[Q::bound_count];
        T lost = 0;
        for (int n = 0; n < Q::bound_count; ++n) {
          const T exact = bounds[n];
          bounds[n] = store(stored, n, exact / gain);
          lost = Lanes<T>::max(lost, lost_of(exact, gain * bounds[n]));
          own.is_stored = own.is_stored && is_finite(bounds[n]);
        }
        own.is_stored = own.is_stored && Q::representable(bounds, gain);
        if constexpr (requires { Q::lost(bounds, gain); })
          lost = Lanes<T>::max(lost, Q::lost(bounds, gain));
        store_bounds(patch, place, k, own, stored, Q::largest(bounds), lost);
        const typename Q::template Decoder<T> level(bounds, T(1));
        own.mask = level(T(0)) == level(T((1 << Bits) - 1)) ? 0 : ~0u;
        if (!own.is_stored) return;
        const typename Q::template Encoder<T> encoder(bounds, fitted, gain);
        const typename Q::template Decoder<T> decoder(
            bounds, compares_elements ? own.unit * gain : T(1) / gain);
        if constexpr (reconstructs && kInverse == -1) {
          // For each width by itself: coefficients that live on after all widths would be spilled.
          V y[P];
          pack_elements<Bits>(patch.t, own, encoder, decoder, y, words);
          Columns::template inverse_first<P>(y, exchange);
        } else {
          compared = pack_elements<Bits>(patch.t, own, encoder, decoder, own.x, words);
        }
      }
    });
    return compared;
  }

  template <class Q>
  DELTADCT_HD DELTADCT_INLINE static auto fit_bounds(const Thread& own, const T* coefficients,
                                                     T (&bounds)[Q::bound_count]) noexcept {
    if constexpr (fit == Fitting::extremes) {
      static_assert(Q::bound_count == 2, "extremes are two bounds");
      bounds[0] = own.range.a;
      bounds[1] = own.range.b;
      return T(0);
    } else {
      return Q::template fit<T>(coefficients, N, bounds);
    }
  }

  template <int Bits, class Encoder, class Decoder>
  DELTADCT_HD DELTADCT_INLINE static Part<T> pack_elements(int t, const Thread& own,
                                                           const Encoder& encoder,
                                                           const Decoder& decoder, V (&decoded)[P],
                                                           std::uint32_t* words) noexcept {
    Part<T> compared{T(0), T(0)};
    repeat<lanes>([&](int l) DELTADCT_INLINE_LAMBDA {
      Part<T> sum{T(0), T(0)};
      const auto code_of = [&](int c) DELTADCT_INLINE_LAMBDA {
        const T x = lane(own.x[c], l);
        const bool is_flat = fit == Fitting::coefficients && own.mask == 0;
        const T code = is_flat ? T(0) : encoder(x);
        if constexpr (compares_elements) {
          sum.a = sum.a + Rescale::original(x * own.unit);
          sum.b = sum.b + Rescale::reconstructed(x * own.unit, decoder(code));
        } else if constexpr (reconstructs) {
          lane(decoded[c], l) = decoder(code);
        }
        return static_cast<std::uint32_t>(code);
      };
      pack_column<Bits, P>(words, Threads::coefficient_column(t, l), code_of);
      compared = {compared.a + sum.a, compared.b + sum.b};
    });
    return compared;
  }

  /// The thread's part of Rescale's sum over the original and the decoded patch.
  DELTADCT_HD DELTADCT_INLINE T reconstructed(const Patch& patch,
                                              const Exchange<T, P>& exchange) const noexcept {
    T sum = 0;
    const bool is_whole = patch.is_inside(region);
    Columns::template inverse_second<P, V>(
        exchange, Threads::spatial_column(patch.t, 0), [&](int r, V y) DELTADCT_INLINE_LAMBDA {
          for (int l = 0; l < lanes; ++l) {
            if (!is_whole && (patch.i + r >= region.rows || patch.j + l >= region.cols)) continue;
            sum = sum + Rescale::reconstructed(delta.at(patch.i + r, patch.j + l), lane(y, l));
          }
        });
    return sum;
  }

  DELTADCT_HD DELTADCT_INLINE void compare(const Patch& patch, const Thread& own,
                                           const Part<T>& compared) const noexcept {
    PatchSums& sum = sums[patch.index];
    if constexpr (reconstructs) {
      sum.reconstructed = static_cast<double>(compared.b);
    } else {
      const double units = static_cast<double>(own.unit) * static_cast<double>(gain);
      sum.original = static_cast<double>(compared.a) / units / units;
      sum.reconstructed = static_cast<double>(compared.b) / units / units;
    }
  }
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
