// DARE: drops weights at random and rescales the others (Yu et al., arXiv 2311.03099, section 3.2).
#pragma once

#include <deltadct/baseline/baseline_codec.hpp>
#include <deltadct/baseline/thinned.hpp>
#include <deltadct/core/text.hpp>

namespace deltadct { inline namespace DELTADCT_ABI {

/// Each element is kept with probability 1 - p and then divided by 1 - p.
///
/// Packed: u64, the seed of this matrix; u32, the greatest draw; in the compute type, the largest
/// magnitude of the kept elements after division by 1 - p; and in half, the kept elements, divided
/// by 1 - p and by that magnitude. The draw of element s, row-major, is the upper half of random
/// number s of the seed (core/random.hpp). An element is kept if its draw does not exceed the
/// greatest draw.
struct Dare {
 private:
  template <class T>
  struct Packed;

 public:
  static constexpr std::string_view name = "dare";

  double drop = 15.0 / 16;  ///< p; 15/16 gives one bit per weight. 0 <= p <= 1023/1024
  std::uint64_t seed = 0;   ///< each matrix derives its own from this and its elements

  std::string text() const { return detail::exact_text(drop) + " " + std::to_string(seed); }

  template <class T>
  std::size_t max_bytes(std::size_t rows, std::size_t cols) const {
    constexpr std::size_t front = sizeof(std::uint64_t) + sizeof(std::uint32_t) + sizeof(T);
    return checked_size(SaturatingSize(rows) * cols * sizeof(half) + front, rows, cols);
  }

  /// Throws bad_range if p is outside its range, and out_of_range if an element divided by 1 - p is
  /// infinite.
  template <class T>
  void encode(MatrixView<const T> delta, std::vector<std::byte>& out) const {
    if (detail::is_nan(drop) || drop < 0 || drop > 1 - detail::Thinned::kLeastChance) {
      throw Error(Errc::bad_range, "p", detail::exact_text(drop));
    }
    const std::size_t elements = delta.rows * delta.cols;
    const std::uint64_t own = detail::seed_of(seed, delta.data, elements);
    const std::uint32_t last = detail::last_draw(1 - drop);
    const auto for_each_kept = [&](auto fn) {
      for (std::size_t s = 0; s < elements; ++s) {
        if (detail::draw(own, s) <= last) fn(delta.data[s] / static_cast<T>(1 - drop));
      }
    };
    T largest = 0;
    for_each_kept([&](T x) { largest = std::max(largest, std::abs(x)); });
    if (!detail::all_finite(&largest, 1)) {
      throw Error(Errc::out_of_range, "delta", "divided by 1 - p");
    }
    detail::PackedWriter writer(out);
    writer.put(own);
    writer.put(last);
    writer.put(largest);
    for_each_kept(
        [&](T x) { writer.put(half(static_cast<float>(largest == 0 ? T(0) : x / largest))); });
  }

  /// A bound on the decoded magnitudes. Throws corrupt_data.
  template <class T>
  static T check(std::span<const std::byte> packed, std::size_t rows, std::size_t cols) {
    Packed<T> all(packed, rows * cols);
    all.take_values(detail::Thinned::count(all.seed, all.last, rows * cols));
    return all.largest;
  }

  template <class T>
  class Decoder {
   public:
    Decoder(std::span<const std::byte> packed, std::size_t rows, std::size_t cols)
        : packed_(packed, rows * cols), kept_(packed_.seed, packed_.last, rows, cols) {
      packed_.take_values(kept_.count());
    }

    T largest() const noexcept { return packed_.largest; }

    void block(std::size_t row, std::size_t rows, std::size_t col, std::size_t cols,
               T* out) const noexcept {
      std::fill_n(out, rows * cols, T(0));
      for (std::size_t i = 0; i < rows; ++i, out += cols) {
        kept_.for_each(row + i, col, cols, [&](std::size_t j, std::size_t k, std::uint32_t) {
          out[j - col] = packed_.largest * packed_.value(k);
        });
      }
    }

   private:
    Packed<T> packed_;
    detail::Thinned kept_;
  };

 private:
  /// The packed form. The constructor reads only what takes constant time.
  template <class T>
  struct Packed {
    detail::PackedReader reader;
    std::uint64_t seed;
    std::uint32_t last;
    T largest;
    std::span<const std::byte> values;

    Packed(std::span<const std::byte> packed, std::size_t elements)
        : reader(packed),
          seed(reader.take<std::uint64_t>("seed")),
          last(reader.take<std::uint32_t>("greatest draw")),
          largest(reader.take<T>("largest magnitude")) {
      if (detail::is_nan(largest) || largest < 0) detail::fail_validation("largest magnitude");
      detail::Thinned::check_count(last, elements, reader.left() / sizeof(half));
    }

    void take_values(std::size_t count) {
      values = reader.bytes(count * sizeof(half), "elements kept");
      reader.finish();
      for (std::size_t k = 0; k < count; ++k) {
        if ((stored(k).bits & 0x7FFFu) > half(1.0F).bits) detail::fail_validation("elements kept");
      }
    }

    half stored(std::size_t k) const noexcept {
      half stored;
      std::memcpy(&stored, values.data() + k * sizeof(half), sizeof(half));
      return stored;
    }
    T value(std::size_t k) const noexcept { return static_cast<T>(static_cast<float>(stored(k))); }
  };
};

}}  // namespace deltadct::inline DELTADCT_ABI
