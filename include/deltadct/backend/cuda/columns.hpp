// How threads share a patch. Each thread holds one or two columns. Between the two dimensions of
// the transform, threads exchange columns through shared memory. L is the number of lanes, l a
// lane:
//
//     spatial side       thread t holds columns L t ... L t + L - 1, adjacent in the matrix
//     coefficient side   thread t holds columns t + l P / L (k_row), whose codes share words
//
// Neither side has bank conflicts in shared memory: element (k_row, column) of a patch lies at
// k_row * pitch + column, and patches lie P words apart, modulo the 32 banks.
#pragma once

#include <deltadct/backend/cuda/pair.hpp>
#include <deltadct/dct/transform.hpp>

#include <bit>
#include <type_traits>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// What a thread transforms at once: two columns if registers can hold them.
template <class T, int P>
using ThreadVector =
    std::conditional_t<std::is_same_v<T, float> && (P == 4 || P == 8 || P == 16 || P == 32),
                       Pair<T>, T>;

template <class T, int P>
struct PatchThreads {
  using V = ThreadVector<T, P>;
  static constexpr int lanes = Lanes<V>::count;
  static constexpr int per_patch = P / lanes;
  /// Patches of a block: as many as about 128 threads transform, or 64 in double.
  static constexpr int patches = static_cast<int>(std::bit_floor(512 / sizeof(T) / per_patch));
  static constexpr int per_block = patches * per_patch;
  /// Whether a patch's threads all belong to one warp.
  static constexpr bool is_warp_wide = 32 % per_patch == 0;

  /// Registers that a thread may use for its part of patches and of a matrix of U: enough to avoid
  /// spills. Without this limit, ptxas spills in order to fit more blocks.
  template <class U>
  static constexpr int registers = sizeof(T) == 8 ? 255
                                   : P <= 8       ? (sizeof(U) == 4 ? 72 : 64)
                                   : P == 12      ? 128
                                   : P == 16      ? (sizeof(U) == 4 ? 96 : 80)
                                                  : (sizeof(U) == 4 ? 255 : 168);
  /// The number of blocks of a multiprocessor for which those registers suffice.
  template <class U>
  static constexpr int min_blocks = 65536 / (registers<U> * per_block);

  static constexpr int pitch = P + lanes;
  static constexpr int area = P * pitch + (32 + P - P * pitch % 32) % 32;

  using Shared = T[patches * area];

  DELTADCT_HD static constexpr int spatial_column(int t, int l) noexcept { return lanes * t + l; }
  DELTADCT_HD static constexpr int coefficient_column(int t, int l) noexcept {
    return t + l * per_patch;
  }
};

/// Thread t's view of its patch in shared memory.
template <class T, int P>
class Exchange {
  using Threads = PatchThreads<T, P>;
  using V = typename Threads::V;
  static constexpr int L = Threads::lanes;
  static constexpr int pitch = Threads::pitch;

 public:
  DELTADCT_HD Exchange(T* patch, int t) noexcept
      : spatial_(patch + L * t), coefficient_(patch + t * pitch), identity_(patch + t), t_(t) {}

  /// Row k_row of the thread's spatial columns.
  DELTADCT_HD DELTADCT_INLINE V load_spatial(int k_row) const noexcept {
    return unpack_elements<V>(load_packed<L>(spatial_ + k_row * pitch));
  }
  DELTADCT_HD DELTADCT_INLINE void store_spatial(int k_row, V x) const noexcept {
    store_packed(spatial_ + k_row * pitch, pack_elements<T>(x));
  }

  /// x[j] is column j of the patch, in the thread's rows k_row.
  DELTADCT_HD DELTADCT_INLINE void load_coefficient(V (&x)[P]) const noexcept {
    repeat<P / L>([&](int group) DELTADCT_INLINE_LAMBDA {
      for (int l = 0; l < L; ++l) {
        const auto from = load_packed<L>(coefficient_ + l * P / L * pitch + group * L);
        for (int k = 0; k < L; ++k) lane(x[group * L + k], l) = from.element[k];
      }
    });
  }
  DELTADCT_HD DELTADCT_INLINE void store_coefficient(const V (&x)[P]) const noexcept {
    repeat<P / L>([&](int group) DELTADCT_INLINE_LAMBDA {
      for (int l = 0; l < L; ++l) {
        Packed<T, L> to;
        for (int k = 0; k < L; ++k) to.element[k] = lane(x[group * L + k], l);
        store_packed(coefficient_ + l * P / L * pitch + group * L, to);
      }
    });
  }

  /// The same for a transform that does not transpose patches: row `row` of the thread's
  /// coefficient columns.
  DELTADCT_HD DELTADCT_INLINE V load_untransposed(int row) const noexcept {
    V x;
    for (int l = 0; l < L; ++l) lane(x, l) = identity_[row * pitch + l * P / L];
    return x;
  }
  DELTADCT_HD DELTADCT_INLINE void store_untransposed(int row, V x) const noexcept {
    for (int l = 0; l < L; ++l) identity_[row * pitch + l * P / L] = lane(x, l);
  }

  /// The whole patch, row-major.
  DELTADCT_HD void load_patch(T* to) const noexcept {
    for (int i = 0; i < P; ++i) {
      for (int j = 0; j < P; ++j) to[i * P + j] = identity_[i * pitch + j - t_];
    }
  }
  DELTADCT_HD int coefficient_column(int l) const noexcept {
    return Threads::coefficient_column(t_, l);
  }

 private:
  T* spatial_;
  T* coefficient_;
  T* identity_;
  int t_;
};

/// A transform as the threads of a patch run it: one dimension before a barrier, the other after
/// it. Coefficients are multiplied by gain, as in the transform of a whole patch. This template
/// serves transforms without a specialisation below: every thread computes the whole patch and
/// keeps its own columns.
template <class Transform>
struct ColumnTransform {
  template <int P, class T, class V>
  DELTADCT_HD static void inverse_first(const V (&coefficients)[P],
                                        const Exchange<T, P>& exchange) {
    repeat<P>([&](int i)
                  DELTADCT_INLINE_LAMBDA { exchange.store_untransposed(i, coefficients[i]); });
  }

  template <int P, class V, class T, class Out>
  DELTADCT_HD static void inverse_second(const Exchange<T, P>& exchange, int j, const Out& out) {
    alignas(64) T from[P * P];
    alignas(64) T to[P * P];
    exchange.load_patch(from);
    Transform::template inverse<P, T>(ArraySource<T, P>{from}, ArraySink<T, P>{to});
    for (int i = 0; i < P; ++i) {
      V x;
      for (int l = 0; l < Lanes<V>::count; ++l) lane(x, l) = to[i * P + j + l];
      out(i, x);
    }
  }

  template <int P, class V, class T, class Load>
  DELTADCT_HD static void forward_first(const Load& load, int, const Exchange<T, P>& exchange) {
    repeat<P>([&](int i) DELTADCT_INLINE_LAMBDA { exchange.store_spatial(i, load(i)); });
  }

  template <int P, class T, class V>
  DELTADCT_HD static void forward_second(const Exchange<T, P>& exchange, V (&coefficients)[P]) {
    alignas(64) T from[P * P];
    alignas(64) T to[P * P];
    exchange.load_patch(from);
    Transform::template forward<P, T>(ArraySource<T, P>{from}, ArraySink<T, P>{to});
    for (int i = 0; i < P; ++i) {
      for (int l = 0; l < Lanes<V>::count; ++l) {
        lane(coefficients[i], l) = to[i * P + exchange.coefficient_column(l)];
      }
    }
  }
};

template <>
struct ColumnTransform<Dct> {
  template <int P, class T, class V>
  DELTADCT_HD DELTADCT_INLINE static void inverse_first(const V (&coefficients)[P],
                                                        const Exchange<T, P>& exchange) {
    V x[P];
    deltadct::inverse<P, V>([&](int k) DELTADCT_INLINE_LAMBDA { return coefficients[k]; },
                            [&](int i, V y) DELTADCT_INLINE_LAMBDA { x[i] = y; });
    exchange.store_coefficient(x);
  }

  /// Calls out(i, x), where x is row i of the thread's spatial columns.
  template <int P, class V, class T, class Out>
  DELTADCT_HD DELTADCT_INLINE static void inverse_second(const Exchange<T, P>& exchange, int,
                                                         const Out& out) {
    deltadct::inverse<P, V>([&](int k) DELTADCT_INLINE_LAMBDA { return exchange.load_spatial(k); },
                            out);
  }

  /// load(i) returns row i of the thread's spatial columns.
  template <int P, class V, class T, class Load>
  DELTADCT_HD DELTADCT_INLINE static void forward_first(const Load& load, int,
                                                        const Exchange<T, P>& exchange) {
    deltadct::forward<P, V>(
        load, [&](int k, V x) DELTADCT_INLINE_LAMBDA { exchange.store_spatial(k, x); });
  }

  template <int P, class T, class V>
  DELTADCT_HD DELTADCT_INLINE static void forward_second(const Exchange<T, P>& exchange,
                                                         V (&coefficients)[P]) {
    V x[P];
    exchange.load_coefficient(x);
    deltadct::forward<P, V>([&](int j) DELTADCT_INLINE_LAMBDA { return x[j]; },
                            [&](int k, V y) DELTADCT_INLINE_LAMBDA { coefficients[k] = y; });
  }
};

template <concepts::MappedTransform Transform>
struct ColumnTransform<Transform> : ColumnTransform<typename Transform::Base> {
  using Base = ColumnTransform<typename Transform::Base>;

  template <int P, class V, class T, class Out>
  DELTADCT_HD DELTADCT_INLINE static void inverse_second(const Exchange<T, P>& exchange, int j,
                                                         const Out& out) {
    Base::template inverse_second<P, V>(exchange, j, [&](int i, V x) DELTADCT_INLINE_LAMBDA {
      out(i, Transform::template map<P>(x, i, j));
    });
  }

  template <int P, class V, class T, class Load>
  DELTADCT_HD DELTADCT_INLINE static void forward_first(const Load& load, int j,
                                                        const Exchange<T, P>& exchange) {
    Base::template forward_first<P, V>(
        [&](int i) DELTADCT_INLINE_LAMBDA { return Transform::template map<P>(load(i), i, j); }, j,
        exchange);
  }
};

template <>
struct ColumnTransform<Identity> {
  template <int P, class T, class V>
  DELTADCT_HD DELTADCT_INLINE static void inverse_first(const V (&coefficients)[P],
                                                        const Exchange<T, P>& exchange) {
    repeat<P>([&](int i)
                  DELTADCT_INLINE_LAMBDA { exchange.store_untransposed(i, coefficients[i]); });
  }

  template <int P, class V, class T, class Out>
  DELTADCT_HD DELTADCT_INLINE static void inverse_second(const Exchange<T, P>& exchange, int,
                                                         const Out& out) {
    repeat<P>([&](int i) DELTADCT_INLINE_LAMBDA { out(i, exchange.load_spatial(i)); });
  }

  template <int P, class V, class T, class Load>
  DELTADCT_HD DELTADCT_INLINE static void forward_first(const Load& load, int,
                                                        const Exchange<T, P>& exchange) {
    repeat<P>([&](int i) DELTADCT_INLINE_LAMBDA { exchange.store_spatial(i, load(i)); });
  }

  template <int P, class T, class V>
  DELTADCT_HD DELTADCT_INLINE static void forward_second(const Exchange<T, P>& exchange,
                                                         V (&coefficients)[P]) {
    repeat<P>([&](int i)
                  DELTADCT_INLINE_LAMBDA { coefficients[i] = exchange.load_untransposed(i); });
  }
};

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
