// How threads share a patch. Each holds one or two columns; between the two dimensions of the
// transform they exchange them through shared memory.
//
//     spatial side       thread t holds columns L t ... L t + L - 1, side by side in the matrix
//     coefficient side   thread t holds columns t + l P / L (k_row), whose codes share words
//
// Both sides read and write shared memory without bank conflicts: element (k_row, column) of a
// patch lies at k_row * pitch + column, patches lie P words apart modulo the 32 banks.
#pragma once

#include <deltadct/backend/cuda/pair.hpp>
#include <deltadct/dct/randomized.hpp>

#include <bit>
#include <type_traits>

namespace deltadct::inline DELTADCT_ABI::detail {

/// What a thread transforms at once: two columns where registers hold them.
template <class T, int P>
using ThreadVector =
    std::conditional_t<std::is_same_v<T, float> && (P == 4 || P == 8 || P == 16 || P == 32),
                       Pair<T>, T>;

template <class T, int P>
struct PatchThreads {
  using V = ThreadVector<T, P>;
  static constexpr int lanes = Lanes<V>::count;
  static constexpr int per_patch = P / lanes;
  /// Patches of a block: what some 128 threads transform, half as many in double.
  static constexpr int patches = static_cast<int>(std::bit_floor(512 / sizeof(T) / per_patch));
  static constexpr int per_block = patches * per_patch;
  /// Whether a patch's threads all belong to one warp.
  static constexpr bool is_warp_wide = 32 % per_patch == 0;

  /// Registers that a thread may take for its part of patches and of a matrix of U: enough that
  /// none are spilled, as compilers do for the sake of more blocks where they may choose.
  template <class U>
  static constexpr int registers = sizeof(T) == 8 ? 255
                                   : P <= 8       ? 64
                                   : P == 12      ? 128
                                   : P == 16      ? (sizeof(U) == 4 ? 96 : 80)
                                                  : (sizeof(U) == 4 ? 255 : 168);
  /// Blocks that a multiprocessor must have those registers for.
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
      : spatial_(patch + L * t), coefficient_(patch + t * pitch), identity_(patch + t) {}

  /// Row k_row of the thread's spatial columns.
  DELTADCT_HD DELTADCT_INLINE V load_spatial(int k_row) const noexcept {
    return unpack_elements<V>(load_packed<L>(spatial_ + k_row * pitch));
  }
  DELTADCT_HD DELTADCT_INLINE void store_spatial(int k_row, V x) const noexcept {
    store_packed(spatial_ + k_row * pitch, pack_elements<T>(x));
  }

  /// Column after column of the thread's coefficient columns.
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

  /// The same for a transform that does not turn patches: row `row` of the coefficient columns.
  DELTADCT_HD DELTADCT_INLINE V load_unturned(int row) const noexcept {
    V x;
    for (int l = 0; l < L; ++l) lane(x, l) = identity_[row * pitch + l * P / L];
    return x;
  }
  DELTADCT_HD DELTADCT_INLINE void store_unturned(int row, V x) const noexcept {
    for (int l = 0; l < L; ++l) identity_[row * pitch + l * P / L] = lane(x, l);
  }

 private:
  T* spatial_;
  T* coefficient_;
  T* identity_;
};

/// A transform as its threads run it, each dimension between two barriers; of coefficients times
/// gain, as the transform of a whole patch is.
template <class Transform>
struct ColumnTransform;

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

  /// out(i, row i of the thread's spatial columns, which begin at column j).
  template <int P, class V, class T, class Out>
  DELTADCT_HD DELTADCT_INLINE static void inverse_second(const Exchange<T, P>& exchange, int,
                                                         const Out& out) {
    deltadct::inverse<P, V>([&](int k) DELTADCT_INLINE_LAMBDA { return exchange.load_spatial(k); },
                            out);
  }

  /// load(i) is row i of the thread's spatial columns, which begin at column j.
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

/// Changes the signs of row i of columns j, j + 1, ... as SignTable does.
template <int P, class V>
DELTADCT_HD DELTADCT_INLINE V change_column_signs(V x, int i, int j) noexcept {
  using T = typename Lanes<V>::scalar;
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  using Row = std::conditional_t<P <= 32, std::uint32_t, std::uint64_t>;
  constexpr int lanes = Lanes<V>::count;
  constexpr int last = 8 * sizeof(Row) - 1;
  // The last lane's bit, then one after another, moves to the top: one shift by what is not known
  // beforehand.
  const Row row = static_cast<Row>(random_bits(0, static_cast<std::uint64_t>(i)))
                  << (last + 1 - lanes - j);
  for (int l = 0; l < lanes; ++l) {
    const Row bit = row << (lanes - 1 - l) & Row{1} << last;
    Bits sign;
    if constexpr (sizeof(Bits) < sizeof(Row))
      sign = static_cast<Bits>(bit >> 32);
    else
      sign = static_cast<Bits>(bit) << (8 * (sizeof(Bits) - sizeof(Row)));
    lane(x, l) = std::bit_cast<T>(std::bit_cast<Bits>(lane(x, l)) ^ sign);
  }
  return x;
}

template <>
struct ColumnTransform<RandomizedDct> : ColumnTransform<Dct> {
  template <int P, class V, class T, class Out>
  DELTADCT_HD DELTADCT_INLINE static void inverse_second(const Exchange<T, P>& exchange, int j,
                                                         const Out& out) {
    ColumnTransform<Dct>::inverse_second<P, V>(exchange, j, [&](int i, V x) DELTADCT_INLINE_LAMBDA {
      out(i, change_column_signs<P>(x, i, j));
    });
  }

  template <int P, class V, class T, class Load>
  DELTADCT_HD DELTADCT_INLINE static void forward_first(const Load& load, int j,
                                                        const Exchange<T, P>& exchange) {
    ColumnTransform<Dct>::forward_first<P, V>(
        [&](int i) DELTADCT_INLINE_LAMBDA { return change_column_signs<P>(load(i), i, j); }, j,
        exchange);
  }
};

template <>
struct ColumnTransform<Identity> {
  template <int P, class T, class V>
  DELTADCT_HD DELTADCT_INLINE static void inverse_first(const V (&coefficients)[P],
                                                        const Exchange<T, P>& exchange) {
    repeat<P>([&](int i) DELTADCT_INLINE_LAMBDA { exchange.store_unturned(i, coefficients[i]); });
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
    repeat<P>([&](int i) DELTADCT_INLINE_LAMBDA { coefficients[i] = exchange.load_unturned(i); });
  }
};

}  // namespace deltadct::inline DELTADCT_ABI::detail
