// Decoding on a device: unpack, dequantize, transform back, scale and add, in one pass over the
// matrix.
#pragma once

#include <deltadct/backend/cuda/phases.hpp>
#include <deltadct/codec/device/dequantize.hpp>
#include <deltadct/codec/device/place.hpp>
#include <deltadct/codec/device/tensor.hpp>
#include <deltadct/policy.hpp>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// What happens to decoded values: out = delta^, out = base + delta^, or out += delta^. In place,
/// one address serves for reading and writing.
enum class DecodeMode { store, add, add_in_place };

/// base and out do not overlap. Only DecodeMode::add uses base.
template <concepts::Element U>
struct DeviceRows {
  MatrixView<const U> base;
  MatrixView<U> out;
};

template <class Policy, concepts::Element U, DecodeMode Mode>
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
  static constexpr int min_blocks = Threads::template min_blocks<U>;
  static constexpr bool adds = Mode != DecodeMode::store;

  struct Thread {
    bool is_constant;
    T constant;
    Group base[adds ? P : 1];  // loaded before decoding: no load waits for a store
  };
  struct Shared {
    alignas(16) typename Threads::Shared values;
  };

  DeviceArrays tensor;
  DeviceRegion region;
  DeviceRows<U> rows;
  T factor;     ///< decoded values are multiplied by it
  bool packed;  ///< is_packed(), and the region's first column is a multiple of the lanes

  DecodeKernel(const DeviceArrays& tensor_, const DeviceRegion& region_, const DeviceRows<U>& rows_,
               T factor_) noexcept
      : tensor(tensor_),
        region(region_),
        rows(rows_),
        factor(factor_),
        packed(is_packed(rows_.out, lanes) &&
               (Mode != DecodeMode::add || is_packed(rows_.base, lanes)) &&
               region_.col % lanes == 0) {}

  unsigned blocks() const noexcept { return region.blocks; }

  template <int Phase>
  DELTADCT_HD DELTADCT_INLINE void run(unsigned block, int thread, Thread& own,
                                       Shared& shared) const noexcept {
    const PatchOfThread<T, P> patch(region, block, thread);
    if (!patch.exists) return;
    const Exchange<T, P> exchange(shared.values + patch.slot * Threads::area, patch.t);
    const bool is_whole = packed && patch.is_inside(region);
    if constexpr (Phase == 0) {
      if constexpr (adds) {
        if (is_whole) {
          const std::ptrdiff_t stride = source().row_stride;
          const U* base = source().data + patch.i * stride + patch.j;
          repeat<P>([&](int r) DELTADCT_INLINE_LAMBDA {
            own.base[r] = load_packed<lanes>(base + r * stride);
          });
        }
      }
      start(tensor.places[patch.index], patch.t, own, exchange);
    } else if (is_whole) {
      U* out = rows.out.data + patch.i * rows.out.row_stride + patch.j;
      finish(own, exchange, patch.t, [&](int r, V x) DELTADCT_INLINE_LAMBDA {
        if constexpr (adds) x = unpack_elements<V>(own.base[r]) + x;
        store_row(out + r * rows.out.row_stride, pack_elements<U>(x));
      });
    } else {
      finish(own, exchange, patch.t, [&](int r, V x) DELTADCT_INLINE_LAMBDA {
        for (int l = 0; l < lanes; ++l) write(patch.i + r, patch.j + l, lane(x, l));
      });
    }
  }

 private:
  /// The matrix that decoded values are added to.
  DELTADCT_HD DELTADCT_INLINE MatrixView<const U> source() const noexcept {
    if constexpr (Mode == DecodeMode::add)
      return rows.base;
    else
      return {rows.out.data, rows.out.rows, rows.out.cols, rows.out.row_stride,
              rows.out.col_stride};
  }

  /// Dequantizes thread t's columns and transforms them in the first dimension.
  DELTADCT_HD DELTADCT_INLINE void start(PatchPlace place, int t, Thread& own,
                                         const Exchange<T, P>& exchange) const noexcept {
    const DeviceClass& k = tensor.width_class(place);
    const Bound* bounds = tensor.bounds_of<Bound>(place, k);
    own.is_constant = k.bits == 0;
    if (own.is_constant) {
      own.constant = rounded_product(factor, stored_value<T>(bounds, 0));
      return;
    }
    constexpr auto gain = static_cast<T>(Policy::Transform::template gain<P>);
    V x[P];
    dequantize_columns<Policy::template Quantizer, Bound, P>(k.bits, tensor.codes_of(place, k),
                                                             bounds, factor / gain, t, x);
    ColumnTransform<typename Policy::Transform>::template inverse_first<P>(x, exchange);
  }

  /// Calls out(r, row r of the thread's columns) for every row r.
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
    if constexpr (adds) {
      x = static_cast<T>(source().data[i * source().row_stride + j * source().col_stride]) + x;
    }
    rows.out.data[i * rows.out.row_stride + j * rows.out.col_stride] = static_cast<U>(x);
  }
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
