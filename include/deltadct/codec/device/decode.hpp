// Decoding on a device: unpack, dequantize, inverse transform, scale and add, in one pass over the
// matrix.
#pragma once

#include <deltadct/backend/cuda/phases.hpp>
#include <deltadct/codec/device/codes.hpp>
#include <deltadct/codec/device/source.hpp>
#include <deltadct/codec/device/tensor.hpp>
#include <deltadct/policy.hpp>

namespace deltadct::inline DELTADCT_ABI::detail {

/// out = delta^, or base + delta^; base and out are the same elements or do not overlap.
template <concepts::Element U, bool Adds>
struct DeviceRows {
  MatrixView<const U> base;
  MatrixView<U> out;
};

template <class Policy, concepts::Element U, bool Adds>
struct DecodeKernel {
  using T = compute_t<typename Policy::Element>;
  static constexpr int P = Policy::patch;
  using Threads = PatchThreads<T, P>;
  using V = typename Threads::V;
  using Bound = typename Policy::Bound;
  using Group = Packed<U, Threads::lanes>;
  static constexpr int lanes = Threads::lanes;
  static constexpr int threads = Threads::per_block;
  static constexpr int phases = 2;
  static constexpr bool is_warp_wide = Threads::is_warp_wide;
  /// The base is loaded before the patch is decoded, where registers hold both.
  static constexpr bool loads_ahead = Adds && P <= 16;

  struct Thread {
    bool is_constant;
    T constant;
    Group base[loads_ahead ? P : 1];
  };
  struct Shared {
    alignas(16) typename Threads::Shared values;
  };

  DeviceArrays tensor;
  DeviceRegion region;
  DeviceRows<U, Adds> rows;
  T factor;     ///< what decoded values are multiplied by
  bool packed;  ///< see is_packed(); and the region's first column is a multiple of the lanes

  DecodeKernel(const DeviceArrays& tensor_, const DeviceRegion& region_,
               const DeviceRows<U, Adds>& rows_, T factor_) noexcept
      : tensor(tensor_),
        region(region_),
        rows(rows_),
        factor(factor_),
        packed(is_packed(rows_.out, lanes) && (!Adds || is_packed(rows_.base, lanes)) &&
               region_.col % lanes == 0) {}

  unsigned blocks() const noexcept { return region.blocks; }

  template <int Phase>
  DELTADCT_HD DELTADCT_INLINE void run(unsigned block, int thread, Thread& own,
                                       Shared& shared) const noexcept {
    const PatchOfThread<T, P> patch(region, block, thread);
    if (!patch.exists) return;
    const Exchange<T, P> exchange(shared.values + patch.slot * Threads::area, patch.t);
    const bool is_whole = packed && patch.is_inside(region);
    const U* base =
        Adds && is_whole ? rows.base.data + patch.i * rows.base.row_stride + patch.j : nullptr;
    const auto load_base = [&](int r) DELTADCT_INLINE_LAMBDA {
      return load_packed<lanes>(base + r * rows.base.row_stride);
    };
    if constexpr (Phase == 0) {
      if constexpr (loads_ahead) {
        if (is_whole) {
          repeat<P>([&](int r) DELTADCT_INLINE_LAMBDA { own.base[r] = load_base(r); });
        }
      }
      start(tensor.places[patch.index], patch.t, own, exchange);
    } else if (is_whole) {
      U* out = rows.out.data + patch.i * rows.out.row_stride + patch.j;
      finish(own, exchange, patch.t, [&](int r, V x) DELTADCT_INLINE_LAMBDA {
        if constexpr (Adds) x = unpack_elements<V>(loads_ahead ? own.base[r] : load_base(r)) + x;
        store_packed(out + r * rows.out.row_stride, pack_elements<U>(x));
      });
    } else {
      finish(own, exchange, patch.t, [&](int r, V x) DELTADCT_INLINE_LAMBDA {
        for (int l = 0; l < lanes; ++l) write(patch.i + r, patch.j + l, lane(x, l));
      });
    }
  }

 private:
  /// Dequantizes thread t's columns and transforms them in the first dimension.
  DELTADCT_HD DELTADCT_INLINE void start(PatchPlace place, int t, Thread& own,
                                         const Exchange<T, P>& exchange) const noexcept {
    const DeviceClass& k = tensor.width_class(place);
    const Bound* bounds = tensor.bounds_of<Bound>(place, k);
    own.is_constant = k.bits == 0;
    if (own.is_constant) {
      own.constant = factor * stored_value<T>(bounds, 0);
      return;
    }
    constexpr auto gain = static_cast<T>(Policy::Transform::template gain<P>);
    V x[P];
    dequantize_columns<Policy::template Quantizer, Bound, P>(k.bits, tensor.codes_of(place, k),
                                                             bounds, factor / gain, t, x);
    ColumnTransform<typename Policy::Transform>::template inverse_first<P>(x, exchange);
  }

  /// out(r, row r of the thread's columns).
  template <class Out>
  DELTADCT_HD DELTADCT_INLINE void finish(const Thread& own, const Exchange<T, P>& exchange, int t,
                                          const Out& out) const noexcept {
    if (own.is_constant) {
      repeat<P>([&](int r) DELTADCT_INLINE_LAMBDA { out(r, V(own.constant)); });
    } else {
      ColumnTransform<typename Policy::Transform>::template inverse_second<P, V>(
          exchange, Threads::spatial_column(t, 0), out);
    }
  }

  DELTADCT_HD DELTADCT_INLINE void write(std::int64_t i, std::int64_t j, T x) const noexcept {
    if (i < 0 || i >= region.rows || j < 0 || j >= region.cols) return;
    if constexpr (Adds) {
      x = static_cast<T>(rows.base.data[i * rows.base.row_stride + j * rows.base.col_stride]) + x;
    }
    rows.out.data[i * rows.out.row_stride + j * rows.out.col_stride] = static_cast<U>(x);
  }
};

}  // namespace deltadct::inline DELTADCT_ABI::detail
