// UltraDelta: quantizes the whole matrix uniformly, then drops the same share of elements at every
// quantization level. Matrices with a lower variance lose a larger share (Wang et al., arXiv
// 2505.13563, sections 3.2 and 3.3).
#pragma once

#include <deltadct/baseline/baseline_codec.hpp>
#include <deltadct/baseline/thinned.hpp>
#include <deltadct/core/text.hpp>

#include <array>

namespace deltadct { inline namespace DELTADCT_ABI {

/// The standard deviation of a delta's elements, and how many there are.
struct DeltaStatistics {
  double deviation = 0;
  double elements = 0;

  template <class T>
  static DeltaStatistics of(std::span<const T> delta) noexcept {
    const auto count = static_cast<double>(delta.size());
    double sum = 0;
    for (const T x : delta) sum += static_cast<double>(x);
    double squares = 0;
    for (const T x : delta) {
      const double apart = static_cast<double>(x) - sum / count;
      squares += apart * apart;
    }
    return {delta.empty() ? 0 : std::sqrt(squares / count), count};
  }
};

/// Elements are rounded to 16 levels between the least and the greatest element. Of the elements
/// with the same code a share, the sparsity, is dropped at random; the others are divided by 1 -
/// sparsity. The publication also scales by the trace norms of several tasks' deltas. That is left
/// out, because it needs the other tasks.
///
/// Packed: u64, the seed of this matrix; in the compute type, the least and the greatest element,
/// each divided by 1 - sparsity; 16 x u32, the greatest draw that is kept of each code; and in 4
/// bits each, in order, the codes of all elements whose draw (see Dare) does not exceed the
/// greatest of those 16. Of these elements, one is kept if its draw does not exceed the greatest
/// draw of its own code.
struct UltraDelta {
 private:
  static constexpr int kBits = 4;
  static constexpr std::size_t kCodes = 1 << kBits;
  static constexpr double kMost = 0.99;
  template <class T>
  struct Packed;

 public:
  static constexpr std::string_view name = "ultra_delta";

  /// The sparsity of matrices whose standard deviation does not exceed `deviation`.
  struct Group {
    double deviation = std::numeric_limits<double>::infinity();
    double sparsity = 0.97;
  };

  std::array<Group, 3> groups;  ///< by increasing deviation; the last has no limit; see survey()
  std::uint64_t seed = 0;       ///< each matrix derives its own from this and its elements

  /// The groups for deltas that are compressed together. The least varying deltas, with a third of
  /// all elements, get sparsity s + d and the next third s. The others get the sparsity that makes
  /// the mean s. All are clamped to [0, 0.99]. Deltas whose deviation is not finite are ignored:
  /// they cannot be encoded.
  static UltraDelta survey(std::vector<DeltaStatistics> deltas, double s = 0.97, double d = 0.01,
                           std::uint64_t seed = 0) {
    std::erase_if(deltas, [](const DeltaStatistics& x) { return !detail::is_finite(x.deviation); });
    std::ranges::sort(deltas, {}, &DeltaStatistics::deviation);
    double total = 0;
    for (const DeltaStatistics& delta : deltas) total += delta.elements;
    UltraDelta method;
    method.seed = seed;
    std::array<double, 3> elements{};
    double before = 0;
    for (const DeltaStatistics& delta : deltas) {
      const std::size_t k = before < total / 3 ? 0 : before < total * 2 / 3 ? 1 : 2;
      elements[k] += delta.elements;
      before += delta.elements;
      if (k < 2) method.groups[k].deviation = delta.deviation;
    }
    if (elements[1] == 0) method.groups[1].deviation = method.groups[0].deviation;
    const auto clamped = [](double x) { return std::clamp(x, 0.0, kMost); };
    method.groups[0].sparsity = clamped(s + d);
    method.groups[1].sparsity = clamped(s);
    const double rest = total * s - elements[0] * method.groups[0].sparsity -
                        elements[1] * method.groups[1].sparsity;
    method.groups[2].sparsity = clamped(elements[2] == 0 ? s : rest / elements[2]);
    return method;
  }

  std::string text() const {
    std::string text = std::to_string(seed);
    for (const Group& group : groups) {
      text += " " + detail::exact_text(group.deviation) + ":" + detail::exact_text(group.sparsity);
    }
    return text;
  }

  template <class T>
  std::size_t max_bytes(std::size_t rows, std::size_t cols) const {
    constexpr std::size_t front =
        sizeof(std::uint64_t) + 2 * sizeof(T) + kCodes * sizeof(std::uint32_t);
    const std::size_t codes = bits::dense_bytes(kBits, count_elements(rows, cols));
    return checked_size(SaturatingSize(codes) + front, rows, cols);
  }

  /// Throws bad_range for a sparsity outside [0, 0.99], and out_of_range if an element divided by 1
  /// - sparsity is infinite.
  template <class T>
  void encode(MatrixView<const T> delta, std::vector<std::byte>& out) const {
    const std::size_t elements = delta.rows * delta.cols;
    const std::span<const T> values(delta.data, elements);
    const double sparsity = sparsity_of(values);
    if (detail::is_nan(sparsity) || sparsity < 0 || sparsity > kMost) {
      throw Error(Errc::bad_range, "sparsity", detail::exact_text(sparsity));
    }
    const double kept = 1 - sparsity;
    const auto [least, greatest] = std::ranges::minmax(values);
    const T ends[] = {static_cast<T>(static_cast<double>(least) / kept),
                      static_cast<T>(static_cast<double>(greatest) / kept)};
    if (!detail::all_finite(ends, 2)) {
      throw Error(Errc::out_of_range, "delta", "divided by 1 - sparsity");
    }
    const std::uint64_t own = detail::seed_of(seed, delta.data, elements);
    std::vector<std::uint8_t> codes(elements);
    std::array<std::vector<std::uint32_t>, kCodes> draws;
    // Halved, because the full range can be twice the largest number.
    const double range = static_cast<double>(greatest) / 2 - static_cast<double>(least) / 2;
    for (std::size_t s = 0; s < elements; ++s) {
      const double above = static_cast<double>(values[s]) / 2 - static_cast<double>(least) / 2;
      const double code = range == 0 ? 0 : std::nearbyint(above / range * (kCodes - 1));
      codes[s] = static_cast<std::uint8_t>(code);
      draws[codes[s]].push_back(detail::draw(own, s));
    }
    std::array<std::uint32_t, kCodes> last;
    std::ranges::transform(draws, last.begin(), [&](auto& of) { return last_of(of, kept); });

    detail::PackedWriter writer(out);
    writer.put(own);
    writer.put(ends);
    writer.put(last);
    const std::uint32_t greatest_draw = std::ranges::max(last);
    std::vector<std::uint8_t> candidates;
    for (std::size_t s = 0; s < elements; ++s) {
      if (detail::draw(own, s) <= greatest_draw) candidates.push_back(codes[s]);
    }
    std::byte* packed = writer.room(bits::dense_bytes(kBits, candidates.size())).data();
    for (std::size_t k = 0; k < candidates.size(); ++k) {
      bits::put_dense(packed, kBits, k, candidates[k]);
    }
  }

  /// A bound on the decoded magnitudes. Throws corrupt_data.
  template <class T>
  static T check(std::span<const std::byte> packed, std::size_t rows, std::size_t cols) {
    Packed<T> all(packed, rows * cols);
    all.take_codes(detail::Thinned::count(all.seed, all.greatest, rows * cols));
    return all.largest();
  }

  template <class T>
  class Decoder {
   public:
    Decoder(std::span<const std::byte> packed, std::size_t rows, std::size_t cols)
        : packed_(packed, rows * cols), candidates_(packed_.seed, packed_.greatest, rows, cols) {
      packed_.take_codes(candidates_.count());
      for (std::size_t code = 0; code < kCodes; ++code) {
        const T share = static_cast<T>(code) / T(kCodes - 1);
        level_[code] = packed_.ends[0] * (1 - share) + packed_.ends[1] * share;
      }
    }

    T largest() const noexcept { return packed_.largest(); }

    void block(std::size_t row, std::size_t rows, std::size_t col, std::size_t cols,
               T* out) const noexcept {
      const std::byte* codes = packed_.codes.data();
      std::fill_n(out, rows * cols, T(0));
      for (std::size_t i = 0; i < rows; ++i, out += cols) {
        candidates_.for_each(row + i, col, cols,
                             [&](std::size_t j, std::size_t k, std::uint32_t draw) {
                               const std::uint32_t code = bits::get_dense(codes, kBits, k);
                               if (draw <= packed_.last[code]) out[j - col] = level_[code];
                             });
      }
    }

   private:
    Packed<T> packed_;
    detail::Thinned candidates_;
    std::array<T, kCodes> level_{};
  };

 private:
  template <class T>
  double sparsity_of(std::span<const T> values) const noexcept {
    const double deviation = DeltaStatistics::of(values).deviation;
    const auto group =
        std::ranges::find_if(groups, [&](const Group& g) { return deviation <= g.deviation; });
    return group == groups.end() ? groups.back().sparsity : group->sparsity;
  }

  /// The packed form. The constructor reads only what takes constant time.
  template <class T>
  struct Packed {
    detail::PackedReader reader;
    std::uint64_t seed;
    std::array<T, 2> ends;  // the least and the greatest element
    std::array<std::uint32_t, kCodes> last;
    std::uint32_t greatest;
    std::span<const std::byte> codes;

    Packed(std::span<const std::byte> packed, std::size_t elements)
        : reader(packed),
          seed(reader.take<std::uint64_t>("seed")),
          ends(reader.take<std::array<T, 2>>("least and greatest element")),
          last(reader.take<std::array<std::uint32_t, kCodes>>("greatest draws")),
          greatest(std::ranges::max(last)) {
      if (!detail::all_finite(ends.data(), 2) || !(ends[0] <= ends[1])) {
        detail::fail_validation("least and greatest element");
      }
      detail::Thinned::check_count(greatest, elements, reader.left() * 8 / kBits);
    }

    T largest() const noexcept { return std::max(std::abs(ends[0]), std::abs(ends[1])); }

    void take_codes(std::size_t count) {
      codes = reader.bytes(bits::dense_bytes(kBits, count), "codes");
      if (!bits::is_dense_padded(codes.data(), kBits, count)) {
        detail::fail_validation("padding is not zero");
      }
      reader.finish();
    }
  };

  /// The greatest draw that is kept, given the draws of all elements with the same code.
  static std::uint32_t last_of(std::vector<std::uint32_t>& draws, double kept) {
    // The greatest of a few draws says little, and may be large enough to make candidates of many
    // elements of other codes. Few elements are therefore kept by probability instead.
    constexpr std::size_t kFew = 32;
    const auto count =
        static_cast<std::size_t>(std::rint(kept * static_cast<double>(draws.size())));
    if (count < kFew) return detail::last_draw(kept);
    const auto last = draws.begin() + static_cast<std::ptrdiff_t>(count) - 1;
    std::ranges::nth_element(draws, last);
    return *last;
  }
};

}}  // namespace deltadct::inline DELTADCT_ABI
