// Compresses the delta of one tensor: its matrices, their outliers, and how much of it is restored.
#pragma once

#include <deltadct/any_codec.hpp>
#include <deltadct/io/budget.hpp>
#include <deltadct/io/codec_cache.hpp>
#include <deltadct/io/convert.hpp>
#include <deltadct/io/delta_section.hpp>
#include <deltadct/io/measure_recovery.hpp>
#include <deltadct/io/outliers.hpp>
#include <deltadct/io/sections.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io { namespace detail {

/// Bits per weight that the codes of a mix take.
inline double rate_of(const CodecSpec& spec) {
  const auto area = static_cast<std::size_t>(spec.patch) * static_cast<std::size_t>(spec.patch);
  double bits = 0;
  for (const BitShare& share : spec.allocator.mix()) {
    bits += share.ratio * 8 * static_cast<double>(code_bytes(share.bits, area)) /
            static_cast<double>(area);
  }
  return bits;
}

/// The largest finite value of a floating-point dtype.
inline double largest_of(DType dtype) noexcept {
  if (dtype == DType::f16) return 65504;
  if (dtype == DType::bf16) return 0x1.FEp127;
  return dtype == DType::f32 ? static_cast<double>(std::numeric_limits<float>::max())
                             : std::numeric_limits<double>::max();
}

/// Matrix k of a stack.
inline AnyMatrix matrix_of(const AnyMatrix& all, std::size_t k, const MatrixStack& stack) noexcept {
  return {all.dtype, all.row(k * stack.rows, stack.cols)};
}

/// Compresses deltas as a spec says. Its buffers are reused from tensor to tensor.
class DeltaEncoder {
 public:
  DeltaEncoder(const CodecSpec& spec, const CodecFactory& factory, const ExecutorRef& executor)
      : spec_(spec), executor_(executor), codecs_(factory, spec.allocator) {}

  /// Everything that the compressed form depends on, besides the spec.
  std::string build() { return codecs_.get(spec_).build(); }

  /// Sets the weights of a stack, including padding, and the least and most bytes of its delta.
  void set_limits(const MatrixStack& stack, bool double_precision, TensorNeed& need) const {
    const auto count = static_cast<double>(stack.count);
    need.weights = count * padded_weights(stack);
    if (spec_.patch != 0) {
      const auto [least, most] = BudgetAllocator::range(spec_.patch, kUnitGainBoundsBytes);
      need.least = least * need.weights / 8 + count * kPadding;
      need.most = most * need.weights / 8;
      return;
    }
    CodecSpec spec = spec_;
    spec.double_precision = double_precision;
    const auto bytes_within = [&](double bits) {
      spec.allocator = BudgetAllocator(bits);
      return count * static_cast<double>(
                         codecs_.make(spec)->max_compressed_bytes(stack.rows, stack.cols) + 8);
    };
    need.least = bytes_within(std::numeric_limits<double>::min());
    need.most = bytes_within(std::numeric_limits<double>::max());
  }

  /// Stores the difference between base and tuned, as the entry's mode and stack say. `share` is
  /// the number of bytes for it, if there is a budget. Throws non_finite, out_of_range.
  void encode(ManifestEntry& entry, TensorBytes& base_bytes, TensorBytes& tuned_bytes,
              std::optional<double> share, Sections& sections) {
    prepare(entry, base_bytes, tuned_bytes);
    const MatrixStack& stack = entry.stack;
    CodecSpec spec = spec_;
    spec.double_precision = from_.dtype == DType::f64;
    std::vector<std::vector<Outlier>> outliers = find_outliers(entry, spec, share);
    std::unique_ptr<AnyCodec> own;
    if (share) {
      const double left = *share - outlier_bytes(entry, outliers);
      spec.allocator = BudgetAllocator(rate_within(left, stack));
      own = codecs_.make(spec);
    }
    const AnyCodec& codec = own ? *own : codecs_.get(spec);
    const AnyMatrix bases{entry.dtype, base_bytes.bytes().data()};
    const AnyMatrix tuneds{entry.tuned_dtype.value_or(entry.dtype), tuned_bytes.bytes().data()};
    const std::size_t all = stack.count * stack.rows * stack.cols;
    const double unit = entry.dtype == DType::f64 ? unit_of(from_, to_, all) : 1;
    Recovery recovery;
    LostRows rows{.tuned_keeps = entry.tuned_dtype.has_value()};
    bool is_lost = false;
    for (std::size_t k = 0; k < stack.count; ++k) {
      const AnyMatrix base = matrix_of(bases, k, stack);
      const AnyMatrix tuned = matrix_of(tuneds, k, stack);
      codec.encode_into(delta_, workspace_, from_.dtype, matrix_of(from_, k, stack).data,
                        without(outliers[k], k, stack).data, stack.rows, stack.cols, executor_);
      append_matrix(sections.delta, delta_);
      entry.matrices.push_back(delta_.header);
      settle(codec, base, tuned, stack.cols, outliers[k]);
      delta_.outliers = outliers[k];
      const Measured seen = measured(codec, base, tuned, unit, entry.dtype);
      recovery += seen.recovery;
      rows.rows += seen.rows.lost();
      rows.changed += seen.rows.changed;
      const bool is_matrix_lost = has_lost(seen);
      is_lost = is_lost || is_matrix_lost;
      // The fine-tune's dtype may be narrower, or hold what the base's loses.
      if (!entry.tuned_dtype) continue;
      const bool is_near =
          !holds_all_of(tuned.dtype, base.dtype) && seen.peak > 0.98 * largest_of(tuned.dtype);
      if (!is_near && !is_matrix_lost) continue;
      const Measured other = measured(codec, base, tuned, unit, tuned.dtype);
      if (is_matrix_lost && has_lost(other)) rows.tuned_keeps = false;
    }
    sections.outliers = outlier_section(outliers, stack, from_.dtype);
    if (recovery.energy != 0) entry.recovery = without_unit(recovery, unit);
    if (!is_lost && recovery.is_lost()) rows.tuned_keeps = false;
    if (is_lost || recovery.is_lost()) entry.lost = rows;
  }

 private:
  /// What becomes of the current matrix in a dtype. Throws out_of_range if an element is infinite
  /// there.
  Measured measured(const AnyCodec& codec, const AnyMatrix& base, const AnyMatrix& tuned,
                    double unit, DType to) const {
    Measured result = measure_recovery(codec, delta_, base, tuned, unit, to, executor_);
    if (delta_.header.patch == 0) result.rows.still = 0;  // some of these drop most elements
    if (deltadct::detail::is_finite(result.recovery.error)) return result;
    throw Error(Errc::out_of_range, "sum", "beyond the range of " + std::string(dtype_name(to)));
  }

  static bool has_lost(const Measured& matrix) noexcept {
    return matrix.rows.is_substantial() || matrix.recovery.is_lost();
  }

  /// Weights of one matrix of a stack, counted in whole patches.
  double padded_weights(const MatrixStack& stack) const noexcept {
    const auto side = static_cast<std::size_t>(std::max(spec_.patch, 1));
    return static_cast<double>(ceil_div(stack.rows, side) * ceil_div(stack.cols, side) * side *
                               side);
  }

  /// Bits per weight for which a tensor's deltas take at most `bytes`, or the least possible.
  double rate_within(double bytes, const MatrixStack& stack) const {
    const auto [least, most] = BudgetAllocator::range(spec_.patch, kUnitGainBoundsBytes);
    const double weights = std::max(padded_weights(stack), 1.0);
    const double bits = 8 * (bytes / static_cast<double>(stack.count) - kPadding) / weights;
    return std::clamp(bits, std::max(least, std::numeric_limits<double>::min()), most);
  }

  /// Brings base and tuned to aligned addresses, and to one dtype in from_ and to_: their own if
  /// they agree, otherwise the compute dtype of the base.
  void prepare(const ManifestEntry& entry, TensorBytes& base, TensorBytes& tuned) {
    const DType tuned_dtype = entry.tuned_dtype.value_or(entry.dtype);
    base.align(dtype_bytes(entry.dtype));
    tuned.align(dtype_bytes(tuned_dtype));
    if (!entry.tuned_dtype) {
      from_ = {entry.dtype, base.bytes().data()};
      to_ = {entry.dtype, tuned.bytes().data()};
      return;
    }
    const DType compute = compute_dtype(entry.dtype);
    const auto convert = [&](std::span<const std::byte> bytes, DType dtype,
                             std::vector<std::byte>& converted) {
      converted.resize(bytes.size() / dtype_bytes(dtype) * dtype_bytes(compute));
      convert_elements(bytes, dtype, compute, converted, executor_);
      return AnyMatrix{compute, converted.data()};
    };
    from_ = convert(base.bytes(), entry.dtype, base_converted_);
    to_ = convert(tuned.bytes(), tuned_dtype, tuned_converted_);
  }

  /// The outliers of every matrix. Methods without patches have none. If there is a budget and they
  /// would take more than half of it, or leave less than patches need, there are none, either.
  std::vector<std::vector<Outlier>> find_outliers(const ManifestEntry& entry, const CodecSpec& spec,
                                                  std::optional<double> share) const {
    const MatrixStack& stack = entry.stack;
    std::vector<std::vector<Outlier>> outliers(stack.count);
    if (spec.patch == 0) return outliers;
    const double rate = share ? rate_within(*share, stack) : rate_of(spec);
    for (std::size_t k = 0; k < stack.count; ++k) {
      with_element(from_.dtype, [&]<class U>() {
        outliers[k] = io::find_outliers(reinterpret_cast<const U*>(matrix_of(from_, k, stack).data),
                                        reinterpret_cast<const U*>(matrix_of(to_, k, stack).data),
                                        stack.rows, stack.cols, rate, executor_);
      });
    }
    if (!share) return outliers;
    TensorNeed need;
    set_limits(stack, spec.double_precision, need);
    const double bytes = outlier_bytes(entry, outliers);
    if (2 * bytes > *share || bytes > *share - need.least) outliers.assign(stack.count, {});
    return outliers;
  }

  /// Bytes that a tensor's outliers add to an archive: their section, and its names and checksum.
  double outlier_bytes(const ManifestEntry& entry,
                       std::span<const std::vector<Outlier>> outliers) const {
    constexpr std::size_t kNamed = 200;
    const std::size_t bytes = outlier_section(outliers, entry.stack, from_.dtype).size();
    return bytes == 0 ? 0 : static_cast<double>(bytes + kNamed + 2 * entry.name.size());
  }

  /// Matrix k of the fine-tune, with the base's elements in place of its outliers.
  AnyMatrix without(std::span<const Outlier> outliers, std::size_t k, const MatrixStack& stack) {
    const AnyMatrix tuned = matrix_of(to_, k, stack);
    if (outliers.empty()) return tuned;
    const std::size_t element = dtype_bytes(tuned.dtype);
    const AnyMatrix base = matrix_of(from_, k, stack);
    rest_.assign(tuned.data, tuned.data + stack.rows * stack.cols * element);
    for (const Outlier& outlier : outliers) {
      const std::size_t at = (outlier.row * stack.cols + outlier.col) * element;
      std::memcpy(rest_.data() + at, base.data + at, element);
    }
    return {tuned.dtype, rest_.data()};
  }

  /// Sets the outliers' values: what is missing after the patches are added and the sum is rounded.
  void settle(const AnyCodec& codec, const AnyMatrix& base, const AnyMatrix& tuned,
              std::size_t cols, std::span<Outlier> outliers) const {
    with_element(base.dtype, [&]<class U>() {
      with_element(tuned.dtype, [&]<class W>() {
        for (Outlier& outlier : outliers) {
          const std::size_t at = outlier.row * cols + outlier.col;
          U x = reinterpret_cast<const U*>(base.data)[at];
          codec.decode_add_block(delta_, base.dtype, outlier.row, outlier.col, &x, 1, 1, 1.0,
                                 SerialExecutor{});
          const W wanted = reinterpret_cast<const W*>(tuned.data)[at];
          outlier.value = static_cast<double>(
              static_cast<compute_t<U>>(static_cast<double>(static_cast<compute_t<W>>(wanted)) -
                                        static_cast<double>(static_cast<compute_t<U>>(x))));
        }
      });
    });
  }

  // Bounds, widths and codes of a matrix are padded to 8 bytes each.
  static constexpr double kPadding = 24;

  const CodecSpec& spec_;
  ExecutorRef executor_;
  CodecCache codecs_;
  CompressedTensor delta_;
  std::vector<std::byte> workspace_;
  AnyMatrix from_;  // the elements of the current tensor in one dtype
  AnyMatrix to_;
  std::vector<std::byte> base_converted_;
  std::vector<std::byte> tuned_converted_;
  std::vector<std::byte> rest_;
};

}}}}  // namespace deltadct::inline DELTADCT_ABI::io::detail
