// The DCT of patches that lie one after another in device memory.
#pragma once

#include <deltadct/backend/cuda/columns.hpp>
#include <deltadct/backend/cuda/phases.hpp>
#include <deltadct/core/arithmetic.hpp>
#include <deltadct/core/error.hpp>

#include <cstddef>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// The orthonormal DCT, forward or inverse; see forward_dct().
template <int P, class T, bool Forward>
struct DctKernelOnDevice {
  using Threads = PatchThreads<T, P>;
  using V = typename Threads::V;
  static constexpr int threads = Threads::per_block;
  static constexpr int phases = 2;
  static constexpr bool is_warp_wide = Threads::is_warp_wide;

  struct Thread {};
  struct Shared {
    alignas(16) typename Threads::Shared values;
  };

  const T* from;
  T* to;
  std::size_t count;

  /// Throws too_large if there are more patches than one launch can transform.
  DctKernelOnDevice(const T* from_, T* to_, std::size_t count_)
      : from(from_), to(to_), count(count_) {
    constexpr std::size_t most = 0x7FFFFFFF;
    if (count / Threads::patches >= most) throw Error(Errc::too_large, "number of patches");
  }

  unsigned blocks() const noexcept {
    return static_cast<unsigned>(ceil_div(count, static_cast<std::size_t>(Threads::patches)));
  }

  template <int Phase>
  DELTADCT_HD DELTADCT_INLINE void run(unsigned block, int thread, Thread&,
                                       Shared& shared) const noexcept {
    const int t = thread % Threads::per_patch;
    const int k = thread / Threads::per_patch;
    const std::size_t patch = std::size_t{block} * Threads::patches + static_cast<unsigned>(k);
    if (patch >= count) return;
    const Exchange<T, P> exchange(shared.values + k * Threads::area, t);
    const int j = Threads::spatial_column(t, 0);
    const T* spatial_from = from + patch * (P * P) + j;
    T* spatial_to = to + patch * (P * P) + j;
    constexpr auto norm = T(1) / static_cast<T>(Dct::gain<P>);
    V x[P];
    if constexpr (Forward && Phase == 0) {
      repeat<P>([&](int i) DELTADCT_INLINE_LAMBDA {
        x[i] = unpack_elements<V>(load_packed<Threads::lanes>(spatial_from + i * P));
      });
      ColumnTransform<Dct>::forward_first<P, V>([&](int i) DELTADCT_INLINE_LAMBDA { return x[i]; },
                                                j, exchange);
    } else if constexpr (Forward) {
      ColumnTransform<Dct>::forward_second<P>(exchange, x);
      repeat<P>([&](int i) DELTADCT_INLINE_LAMBDA {
        for (int l = 0; l < Threads::lanes; ++l) {
          to[patch * (P * P) + coefficient(i, t, l)] = norm * lane(x[i], l);
        }
      });
    } else if constexpr (Phase == 0) {
      repeat<P>([&](int i) DELTADCT_INLINE_LAMBDA {
        for (int l = 0; l < Threads::lanes; ++l) {
          lane(x[i], l) = from[patch * (P * P) + coefficient(i, t, l)];
        }
      });
      ColumnTransform<Dct>::inverse_first<P>(x, exchange);
    } else {
      ColumnTransform<Dct>::inverse_second<P, V>(
          exchange, j, [&](int i, V y) DELTADCT_INLINE_LAMBDA {
            store_row(spatial_to + i * P, pack_elements<T>(y * V(norm)));
          });
    }
  }

 private:
  DELTADCT_HD static std::size_t coefficient(int k, int t, int l) noexcept {
    return static_cast<std::size_t>(k * P + Threads::coefficient_column(t, l));
  }
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
