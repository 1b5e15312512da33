// Encoding on a device, once every patch has its bits: transform, fit, quantize, pack, and compare
// with what will decode.
#pragma once

#include <deltadct/codec/device/codes.hpp>
#include <deltadct/codec/device/measure.hpp>
#include <deltadct/codec/device/tensor.hpp>

namespace deltadct::inline DELTADCT_ABI::detail {

/// Whether a quantizer's levels follow the coefficients' spread, as those do that coefficients
/// share: the one stored value is the step that gives unit gain. Others follow the extremes.
template <class Q>
inline constexpr bool is_of_spread = requires {
  typename Q::Levels;
};

/// Its phases: both dimensions of the transform, 0 and 1; sums that levels follow the spread of, to
/// be had again in a unit where they leave the range of T, and those levels, 2 to 4; kStore, where
/// bounds are stored and codes between extremes are packed; what decodes, and the codes to memory;
/// and what Rescale compares.
template <class Policy, concepts::Element U, bool Subtracts>
struct QuantizeKernel {
  using T = compute_t<typename Policy::Element>;
  static constexpr int P = Policy::patch;
  static constexpr int N = P * P;
  using Patch = PatchOfThread<T, P>;
  using Threads = PatchThreads<T, P>;
  using V = typename Threads::V;
  static constexpr int threads = Threads::per_block;
  /// Whether levels follow the spread of the coefficients.
  static constexpr bool needs_spread = is_of_spread<typename Policy::template Quantizer<1>>;
  /// The phase that stores what a patch's codes need, when its coefficients are measured.
  static constexpr int kStore = needs_spread ? 5 : 2;
  static constexpr int phases = kStore + 3;
  static constexpr bool is_warp_wide = Threads::is_warp_wide;
  static constexpr int min_blocks = Threads::template min_blocks<U>;
  static constexpr int kWords = N / 4;  ///< of a patch's codes, at most
  static constexpr int kRows = MeasureKernel<Policy, U, Subtracts>::kRows;

  struct Thread {
    int bits;
    bool is_stored;      // whether the bounds can be
    bool has_unit;       // whether squares were summed in a unit that keeps their digits
    std::uint32_t mask;  // of code words: 0 where all levels are one, of which the code is 0
    T lowest;            // of the patch's coefficients
    T highest;
    T unit;  // see Spread, as the next two
    T square;
    T reciprocal;
    V x[P];  // gain times the thread's coefficients
  };
  struct Shared {
    alignas(16) typename Threads::Shared values;
    FitPart<T> parts[2][threads];
    std::uint32_t words[Threads::patches * kWords];
  };

  DeviceDelta<T, U, Subtracts> delta;
  DeviceRegion region;
  bool packed;
  DeviceArrays tensor;
  const T* means;
  DeviceSums* sums;
  std::uint32_t* failed;  ///< the first patch whose coefficients leave the range of the bounds

  unsigned blocks() const noexcept { return region.blocks; }

  template <int Phase>
  DELTADCT_HD DELTADCT_INLINE void run(unsigned block, int thread, Thread& own,
                                       Shared& shared) const noexcept {
    const Patch patch(region, block, thread);
    if (!patch.exists) return;
    const PatchPlace place = tensor.places[patch.index];
    const DeviceClass& k = tensor.width_class(place);
    if constexpr (Phase == 0) own.bits = k.bits;
    if (own.bits == 0) {
      if (Phase == 0 && patch.t == 0) store_constant(patch, place, k);
      return;
    }
    const Exchange<T, P> exchange(shared.values + patch.slot * Threads::area, patch.t);
    T* coefficients = shared.values + patch.slot * Threads::area;
    std::uint32_t* words = shared.words + patch.slot * kWords;
    const int first = patch.slot * Threads::per_patch;
    // Parts that are read and parts that are written take turns.
    const FitPart<T>* parts = shared.parts[(Phase + 1) % 2] + first;
    FitPart<T>& part = shared.parts[Phase % 2][thread];
    if constexpr (Phase == 0) {
      for (int w = patch.t; w < kWords; w += Threads::per_patch) words[w] = 0;
      V x[P];
      repeat<P / kRows>([&](int n) DELTADCT_INLINE_LAMBDA {
        V rows[kRows];
        delta.load(patch, region, packed, n * kRows, rows);
        repeat<kRows>([&](int r) DELTADCT_INLINE_LAMBDA { x[n * kRows + r] = rows[r]; });
      });
      Columns::template forward_first<P, V>([&](int r) DELTADCT_INLINE_LAMBDA { return x[r]; },
                                            Threads::spatial_column(patch.t, 0), exchange);
    } else if constexpr (Phase == 1) {
      Columns::template forward_second<P>(exchange, own.x);
      if constexpr (needs_spread)
        part = {sum_of_squares(own.x), T(0)};
      else
        part = range_of(own.x);
    } else if constexpr (Phase == 2 && needs_spread) {
      own.square = sum_parts(parts, Threads::per_patch).a;
      own.unit = T(1);
      own.is_stored = own.has_unit = is_within_range(own.square);
      if (!own.has_unit) part = range_of(own.x);
      if (shares && own.bits < 0) lay_down(patch.t, own.x, coefficients);
    } else if constexpr (Phase == 3 && needs_spread) {
      if (own.has_unit) return;
      set_range(own, parts);
      repeat<P>([&](int r) DELTADCT_INLINE_LAMBDA { own.x[r] = own.x[r] * V(own.unit); });
      part = {sum_of_squares(own.x), T(0)};
    } else if constexpr (Phase < kStore) {
      if (!own.has_unit) own.square = sum_parts(parts, Threads::per_patch).a;
      own.reciprocal = own.square == 0 ? T(0) : std::sqrt(static_cast<T>(N) / own.square);
      part = {choose_levels(patch.t, own, coefficients, words), T(0)};
    } else if constexpr (Phase == kStore && needs_spread) {
      Fit<T> fit{{own.unit, own.square, own.reciprocal}};
      fit.product = sum_parts(parts, Threads::per_patch).a;
      store_step(patch, place, k, own, fit, exchange, words);
    } else if constexpr (Phase == kStore) {
      set_range(own, parts);
      part = quantize_extremes(patch, place, k, own, exchange, words);
    } else if constexpr (Phase == kStore + 1) {
      if constexpr (reconstructs)
        part = {T(0), own.is_stored ? reconstructed(patch, exchange) : T(0)};
      else if constexpr (compares_extremes)
        part = parts[patch.t];
      copy_words(patch.t, words, own.mask, const_cast<std::byte*>(tensor.codes_of(place, k)),
                 static_cast<int>(k.codes_stride));
    } else if constexpr (reconstructs || compares_extremes) {
      if (patch.t == 0 && own.is_stored) compare(patch, own, sum_parts(parts, Threads::per_patch));
    }
  }

 private:
  using Bound = typename Policy::Bound;
  using Rescale = typename Policy::Rescale;
  using Columns = ColumnTransform<typename Policy::Transform>;
  template <int Bits>
  using Quantizer = typename Policy::template Quantizer<Bits>;
  static constexpr int lanes = Threads::lanes;
  static constexpr auto gain = static_cast<T>(Policy::Transform::template gain<P>);
  static constexpr bool shares = shares_codes<Policy::template Quantizer>;
  /// Whether what Rescale compares must be transformed back.
  static constexpr bool reconstructs = Rescale::enabled && !compares_coefficients<Policy>;
  /// Whether coefficients are compared with what their codes stand for; a spread says it of all.
  static constexpr bool compares_extremes = compares_coefficients<Policy> && !needs_spread;

  DELTADCT_HD Bound* bounds_of(PatchPlace place, const DeviceClass& k) const noexcept {
    return const_cast<Bound*>(tensor.bounds_of<Bound>(place, k));
  }

  /// Rounds a value to the bound's dtype; returns it as a decoder will see it.
  DELTADCT_HD static T store(Bound* bounds, int k, T value) noexcept {
    bounds[k] = static_cast<Bound>(static_cast<compute_t<Bound>>(value));
    return stored_value<T>(bounds, k);
  }

  DELTADCT_HD void fail(const Patch& patch) const noexcept {
    keep_least(failed, static_cast<std::uint32_t>(patch.index));
  }

  DELTADCT_HD void store_constant(const Patch& patch, PatchPlace place,
                                  const DeviceClass& k) const noexcept {
    const T mean = means[patch.index];
    const T stored = store(bounds_of(place, k), 0, Quantizer<0>::template constant<T>(mean));
    if (!is_finite(stored)) return fail(patch);
    DeviceSums& sum = sums[patch.index];
    const auto within = [](std::int64_t rest) { return rest < P ? rest : P; };
    const auto n =
        static_cast<double>(within(region.rows - patch.i) * within(region.cols - patch.j));
    sum.reconstructed =
        Rescale::constant(static_cast<double>(mean) * n, n, static_cast<double>(stored));
    sum.largest = std::abs(static_cast<double>(stored));
    sum.lost = static_cast<double>(lost_of(mean, stored));
  }

  /// The lowest and the highest; infinite where a coefficient is not finite.
  DELTADCT_HD DELTADCT_INLINE static FitPart<T> range_of(const V (&x)[P]) noexcept {
    V lowest = x[0];
    V highest = x[0];
    Magnitudes<T> magnitudes{};
    repeat<P>([&](int k) DELTADCT_INLINE_LAMBDA {
      lowest = Lanes<V>::min(lowest, x[k]);
      highest = Lanes<V>::max(highest, x[k]);
      magnitudes.see(x[k]);
    });
    FitPart<T> range{lane(lowest, 0), lane(highest, 0)};
    for (int l = 1; l < lanes; ++l) {
      range.a = Lanes<T>::min(range.a, lane(lowest, l));
      range.b = Lanes<T>::max(range.b, lane(highest, l));
    }
    constexpr T infinity = std::numeric_limits<T>::infinity();
    return magnitudes.are_finite() ? range : FitPart<T>{-infinity, infinity};
  }

  DELTADCT_HD DELTADCT_INLINE static void set_range(Thread& own, const FitPart<T>* parts) noexcept {
    own.lowest = parts[0].a;
    own.highest = parts[0].b;
    for (int t = 1; t < Threads::per_patch; ++t) {
      own.lowest = Lanes<T>::min(own.lowest, parts[t].a);
      own.highest = Lanes<T>::max(own.highest, parts[t].b);
    }
    own.is_stored = is_finite(own.lowest) && is_finite(own.highest);
    const T peak = Lanes<T>::max(Lanes<T>::abs(own.lowest), Lanes<T>::abs(own.highest));
    own.unit = own.is_stored ? unit_of(peak) : T(1);
  }

  DELTADCT_HD DELTADCT_INLINE static T sum_of_squares(const V (&x)[P]) noexcept {
    V sum(T(0));
    repeat<P>([&](int k) DELTADCT_INLINE_LAMBDA { sum = sum + x[k] * x[k]; });
    return sum_lanes(sum);
  }

  DELTADCT_HD DELTADCT_INLINE static T sum_lanes(V x) noexcept {
    T sum = lane(x, 0);
    for (int l = 1; l < lanes; ++l) sum = sum + lane(x, l);
    return sum;
  }

  /// Lays the thread's coefficients where all of the patch's threads find them, in their order.
  DELTADCT_HD DELTADCT_INLINE static void lay_down(int t, const V (&x)[P],
                                                   T* coefficients) noexcept {
    repeat<P>([&](int k) DELTADCT_INLINE_LAMBDA {
      for (int l = 0; l < lanes; ++l) {
        coefficients[k * P + Threads::coefficient_column(t, l)] = lane(x[k], l);
      }
    });
  }

  /// Packs the codes of levels that follow the spread; returns the thread's part of the sum of unit
  /// times the coefficients, times their levels.
  DELTADCT_HD DELTADCT_INLINE T choose_levels(int t, Thread& own, const T* coefficients,
                                              std::uint32_t* words) const noexcept {
    if (own.square == 0) return T(0);
    if (shares && own.bits < 0) return largest_of_groups(t, own, coefficients, words);
    // Divided by their root mean square in place, lest compilers keep what all widths have in
    // common beside the coefficients.
    T reciprocal(1);
    if (own.bits > 1) {
      reciprocal = own.reciprocal;
      repeat<P>([&](int c) DELTADCT_INLINE_LAMBDA { own.x[c] = own.x[c] * V(reciprocal); });
    }
    T sum = 0;
    with_bits<Policy::template Quantizer>(own.bits, [&]<int Bits>() {
      using Q = Quantizer<Bits>;
      if constexpr (is_of_spread<Q>) {
        const T one[] = {T(1)};
        const typename Q::template Encoder<T> encoder(T(1));
        const typename Q::template Decoder<T> level(one, T(1));
        repeat<lanes>([&](int l) DELTADCT_INLINE_LAMBDA {
          T products = 0;
          pack_column<Bits, P>(words, Threads::coefficient_column(t, l),
                               [&](int c) DELTADCT_INLINE_LAMBDA {
                                 const T x = lane(own.x[c], l);
                                 if constexpr (Bits == 1) {  // its code is its sign
                                   products = products + Lanes<T>::abs(x);
                                   return x < 0 ? 0u : 1u;
                                 } else {
                                   const T code = encoder(x);
                                   products = products + x * level(code);
                                   return static_cast<std::uint32_t>(code);
                                 }
                               });
          sum = sum + products;
        });
      }
    });
    return sum / reciprocal;
  }

  /// Packs the codes that coefficients share, see LargestOf; each thread takes some of the groups.
  DELTADCT_HD T largest_of_groups(int t, const Thread& own, const T* coefficients,
                                  std::uint32_t* words) const noexcept {
    const int k = -own.bits;
    const int groups = N >> k;
    T sum = 0;
    for (int j = t; j < groups; j += Threads::per_patch) {
      int index = 0;
      T largest = Lanes<T>::abs(coefficients[j]);
      for (int i = 1; i < 1 << k; ++i) {
        const T x = Lanes<T>::abs(coefficients[i * groups + j]);
        if (largest < x) index = i;
        largest = Lanes<T>::max(largest, x);
      }
      const T x = coefficients[index * groups + j] * own.unit;
      pack_dense(words, k + 1, j, static_cast<std::uint32_t>(2 * index + (x < 0 ? 1 : 0)));
      sum += Lanes<T>::abs(x);
    }
    return sum;
  }

  /// Stores what a patch's codes need, or says that it cannot be.
  template <int Values>
  DELTADCT_HD DELTADCT_INLINE void store_bounds(const Patch& patch, PatchPlace place,
                                                const DeviceClass& k, const Thread& own,
                                                const Bound (&stored)[Values], T largest,
                                                T lost) const noexcept {
    if (patch.t != 0) return;
    if (!own.is_stored) return fail(patch);
    for (int n = 0; n < Values; ++n) bounds_of(place, k)[n] = stored[n];
    sums[patch.index].largest = P * static_cast<double>(largest);
    sums[patch.index].lost = P * static_cast<double>(lost) / static_cast<double>(gain);
  }

  /// Stores the step of levels whose codes are packed, and begins what Rescale compares: the whole
  /// patch's where coefficients will do, else the inverse transform.
  DELTADCT_HD DELTADCT_INLINE void store_step(const Patch& patch, PatchPlace place,
                                              const DeviceClass& k, Thread& own, const Fit<T>& fit,
                                              const Exchange<T, P>& exchange,
                                              std::uint32_t* words) const noexcept {
    Bound stored[1];
    const T step = store(stored, 0, fit.step() / gain);
    own.is_stored = own.is_stored && is_finite(step);
    T largest = step;
    if (own.bits > 0) {
      with_bits<Policy::template Quantizer>(own.bits, [&]<int Bits>() {
        using Q = Quantizer<Bits>;
        if constexpr (is_of_spread<Q>) {
          const T side[] = {step};
          own.is_stored = own.is_stored && Q::representable(side, gain);
          largest = Q::largest(side);
        }
      });
    }
    own.mask = step == 0 ? 0 : ~0u;
    store_bounds(patch, place, k, own, stored, largest, lost_of(fit.step(), gain * step));
    if constexpr (reconstructs) {
      V y[P];
      if (step == 0)
        repeat<P>([&](int c) DELTADCT_INLINE_LAMBDA { y[c] = V(T(0)); });
      else
        dequantize_columns<Policy::template Quantizer, Bound, P>(
            own.bits, reinterpret_cast<const std::byte*>(words), stored, T(1) / gain, patch.t, y);
      Columns::template inverse_first<P>(y, exchange);
    } else if (compares_coefficients<Policy> && patch.t == 0) {
      DeviceSums& sum = sums[patch.index];
      sum.original = fit.original(static_cast<double>(gain));
      sum.reconstructed = fit.reconstructed(static_cast<double>(gain), static_cast<double>(step));
    }
  }

  /// Stores extremes, packs the codes between them, and begins what Rescale compares: the part is
  /// of {original, reconstructed} where coefficients will do, else the inverse transform begins.
  DELTADCT_HD DELTADCT_INLINE FitPart<T> quantize_extremes(const Patch& patch, PatchPlace place,
                                                           const DeviceClass& k, Thread& own,
                                                           const Exchange<T, P>& exchange,
                                                           std::uint32_t* words) const noexcept {
    FitPart<T> compared{T(0), T(0)};
    with_bits<Policy::template Quantizer>(own.bits, [&]<int Bits>() {
      if constexpr (Bits != 0) {
        using Q = Quantizer<Bits>;
        static_assert(Q::side_values == 2, "a device fits extremes or a spread");
        Bound stored[2];
        const T side[] = {store(stored, 0, own.lowest / gain),
                          store(stored, 1, own.highest / gain)};
        own.is_stored = own.is_stored && is_finite(side[0]) && is_finite(side[1]) &&
                        Q::representable(side, gain);
        const T lost = Lanes<T>::max(Lanes<T>::max(lost_of(own.lowest, gain * side[0]),
                                                   lost_of(own.highest, gain * side[1])),
                                     Q::lost(side, gain));
        store_bounds(patch, place, k, own, stored, Q::largest(side), lost);
        const typename Q::template Decoder<T> level(side, T(1));
        own.mask = level(T(0)) == level(T((1 << Bits) - 1)) ? 0 : ~0u;
        if (!own.is_stored) return;
        const typename Q::template Encoder<T> encoder(side, T(0), gain);
        [[maybe_unused]] const typename Q::template Decoder<T> decoder(
            side, compares_extremes ? own.unit * gain : T(1) / gain);
        [[maybe_unused]] V y[P];
        repeat<lanes>([&](int l) DELTADCT_INLINE_LAMBDA {
          FitPart<T> sum{T(0), T(0)};
          pack_column<Bits, P>(words, Threads::coefficient_column(patch.t, l),
                               [&](int c) DELTADCT_INLINE_LAMBDA {
                                 const T x = lane(own.x[c], l);
                                 const T code = encoder(x);
                                 if constexpr (compares_extremes) {
                                   sum.a = sum.a + Rescale::original(x * own.unit);
                                   sum.b = sum.b + Rescale::pair(x * own.unit, decoder(code));
                                 } else if constexpr (reconstructs) {
                                   lane(y[c], l) = decoder(code);
                                 }
                                 return static_cast<std::uint32_t>(code);
                               });
          compared = {compared.a + sum.a, compared.b + sum.b};
        });
        if constexpr (reconstructs) Columns::template inverse_first<P>(y, exchange);
      }
    });
    return compared;
  }

  /// The thread's part of what Rescale sums over the original and what decodes.
  DELTADCT_HD DELTADCT_INLINE T reconstructed(const Patch& patch,
                                              const Exchange<T, P>& exchange) const noexcept {
    T sum = 0;
    const bool is_whole = patch.is_inside(region);
    Columns::template inverse_second<P, V>(
        exchange, Threads::spatial_column(patch.t, 0), [&](int r, V y) DELTADCT_INLINE_LAMBDA {
          for (int l = 0; l < lanes; ++l) {
            if (!is_whole && (patch.i + r >= region.rows || patch.j + l >= region.cols)) continue;
            sum = sum + Rescale::pair(delta.at(patch.i + r, patch.j + l), lane(y, l));
          }
        });
    return sum;
  }

  /// A patch's codes to where they belong, whose address is a multiple of four where `bytes` is.
  DELTADCT_HD DELTADCT_INLINE static void copy_words(int t, const std::uint32_t* words,
                                                     std::uint32_t mask, std::byte* to,
                                                     int bytes) noexcept {
    if (bytes % 4 == 0) {
      auto* to_words = reinterpret_cast<std::uint32_t*>(to);
      for (int w = t; w < bytes / 4; w += Threads::per_patch) to_words[w] = words[w] & mask;
    } else {
      for (int b = t; b < bytes; b += Threads::per_patch) {
        to[b] = static_cast<std::byte>((words[b / 4] & mask) >> (8 * (b % 4)));
      }
    }
  }

  DELTADCT_HD DELTADCT_INLINE void compare(const Patch& patch, const Thread& own,
                                           const FitPart<T>& compared) const noexcept {
    DeviceSums& sum = sums[patch.index];
    if constexpr (reconstructs) {
      sum.reconstructed = static_cast<double>(compared.b);
    } else {
      const double units = static_cast<double>(own.unit) * static_cast<double>(gain);
      sum.original = static_cast<double>(compared.a) / units / units;
      sum.reconstructed = static_cast<double>(compared.b) / units / units;
    }
  }
};

}  // namespace deltadct::inline DELTADCT_ABI::detail
