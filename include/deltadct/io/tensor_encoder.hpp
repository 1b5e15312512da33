// How one tensor of a fine-tune is stored: as a compressed delta with its outliers, or without
// loss.
#pragma once

#include <deltadct/core/finite.hpp>
#include <deltadct/io/budget.hpp>
#include <deltadct/io/compress_options.hpp>
#include <deltadct/io/convert.hpp>
#include <deltadct/io/delta_encoder.hpp>
#include <deltadct/io/lossless.hpp>
#include <deltadct/io/quantized_scales.hpp>
#include <deltadct/io/sections.hpp>
#include <deltadct/io/warning.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io { namespace detail {

/// Tensors with fewer elements are kept without loss by a method without patches. A patch of 16 x
/// 16 has as many.
inline constexpr std::uint64_t kSmallElements = 256;

/// A warning about a delta that is lost in restoring, with the options that help.
inline Warning lost_delta(const ManifestEntry& entry) {
  const bool is_short = dtype_bytes(entry.dtype) == 2;
  const LostRows& lost = *entry.lost;
  const bool is_hidden = lost.rows != 0 && !(entry.recovery && entry.recovery->is_lost());
  std::string what = "the delta is lost";
  if (is_hidden) {
    what += lost.rows == lost.changed ? " in all " : " in " + std::to_string(lost.rows) + " of ";
    what += std::to_string(lost.changed) + " rows that changed,";
  }
  if (is_short) what += " where weights are rounded to " + std::string(dtype_name(entry.dtype));
  if (entry.recovery) {
    char numbers[80];
    std::snprintf(numbers, sizeof numbers, " (gain %.3f, SNR %.2f dB%s)", entry.recovery->gain(),
                  entry.recovery->snr_db(), is_hidden ? " in all" : "");
    what += numbers;
  }
  what += "; ";
  if (entry.tuned_dtype && lost.tuned_keeps) {
    what +=
        "apply --dtype tuned restores it in " + std::string(dtype_name(*entry.tuned_dtype)) + ", ";
  } else if (is_short) {
    what += "apply --round stochastic keeps it in the mean, ";
  }
  what += "--preset lossless, or --exclude for this tensor, keeps all of it";
  return {entry.name, std::move(what)};
}

/// Chooses how a tensor is stored, and encodes it. Its buffers are reused from tensor to tensor.
class TensorEncoder {
 public:
  TensorEncoder(const Model& base, const Model& tuned, const CompressOptions& options,
                const CodecFactory& factory, const ExecutorRef& executor)
      : base_model_(base),
        tuned_model_(tuned),
        options_(options),
        executor_(executor),
        deltas_(options.codec, factory, executor),
        scales_(base, tuned) {}

  /// Everything that the encoded bytes depend on, besides the options.
  std::string build() { return deltas_.build() + " zstd " + ZSTD_versionString(); }

  /// Why a tensor is kept without loss; nullptr if it may be compressed. The paper does not say
  /// which tensors are compressed. Here, these are floating-point tensors of rank 2 or more, with
  /// at least as many elements as a patch (of 16 x 16 for methods without patches). Scales of
  /// quantized codes are excluded: the codes themselves are restored exactly.
  const char* reason(const ManifestEntry& entry) const {
    const auto patch = static_cast<std::uint64_t>(options_.codec.patch);
    const std::uint64_t area = patch == 0 ? kSmallElements : patch * patch;
    if (options_.lossless) return "preset";
    if (!is_element(entry.dtype) || !is_element(entry.base->dtype)) return "dtype";
    if (entry.shape.size() < 2) return "rank";
    const auto common = common_rows(entry.shape, entry.base->shape);
    if (!common) return "shape";
    if (elements(*common) < area) return "small";
    if (scales_.contains(entry.name)) return "scale";
    if (!options_.is_selected(entry.name)) return "excluded";
    return nullptr;
  }

  /// Whether a tensor of that name may be restored with a loss.
  bool may_differ(std::string_view name) const {
    return options_.is_selected(name) && !scales_.contains(name);
  }

  /// What an entry that differs from its base needs of a budget. Sets the mode that it will most
  /// likely have, and sample numbers for its delta that are as long as the real ones.
  void survey(ManifestEntry& entry, TensorBytes& base, TensorBytes& tuned, TensorNeed& need) {
    base_ = &base;
    tuned_ = &tuned;
    Sections sections;
    const char* why = reason(entry);
    std::uint64_t count = 0;
    if (why == nullptr) {
      count = elements(begin_delta(entry));
      deltas_.set_limits(entry.stack, entry.dtype == DType::f64, need);
      why = foresee(entry, count, need.least);
    }
    if (why != nullptr) {
      keep(entry, why, sections);
      need = {.changed = need.changed, .fixed = sections.bytes()};
      return;
    }
    if (entry.mode == Mode::grown) add_tail(entry, count, sections);
    need.fixed = sections.bytes();
    TensorHeader header;
    header.patch = options_.codec.patch;
    header.transform = options_.codec.transform;
    header.quantizer = options_.codec.quantizer;
    header.whole_bytes = header.patch == 0 ? count : 0;
    header.scale = 1.0000123456789012;
    header.classes.assign(3, {.bits = -2, .patches = 1000});
    entry.matrices.assign(entry.stack.count, header);
    entry.recovery = Recovery::of(1.234e-05, 0.9876, 12.34);
  }

  /// Sets the mode and the sections of an entry that differs from its base. `share` is the number
  /// of bytes for the delta, if there is a budget.
  void encode(ManifestEntry& entry, TensorBytes& base, TensorBytes& tuned,
              std::optional<double> share, Sections& sections) {
    base_ = &base;
    tuned_ = &tuned;
    const char* why = reason(entry);
    const auto foreseen = foreseen_.find(entry.name);
    if (why == nullptr && foreseen != foreseen_.end()) why = foreseen->second;
    if (why == nullptr) why = add_delta(entry, share, sections);
    if (why != nullptr) keep(entry, why, sections);
  }

  /// Sets the section of a tensor that the base does not have.
  void encode_added(const ManifestEntry& entry, const TensorBytes& tuned, Sections& sections) {
    sections.lossless = encode_lossless(tuned.bytes(), {}, dtype_bytes(entry.dtype), executor_);
  }

 private:
  /// Keeps a tensor without loss. Undoes what add_delta() began.
  void keep(ManifestEntry& entry, const char* why, Sections& sections) {
    entry.mode = Mode::lossless;
    entry.reason = why;
    if (entry.tuned_dtype) entry.dtype = *entry.tuned_dtype;
    entry.tuned_dtype.reset();
    entry.recovery.reset();
    entry.lost.reset();
    entry.matrices.clear();
    sections.delta.clear();
    sections.outliers.clear();
    if (!exact_) {
      exact_ =
          encode_lossless(tuned_->bytes(), base_->bytes(), dtype_bytes(entry.dtype), executor_);
    }
    sections.lossless = std::move(*exact_);
    exact_.reset();
  }

  /// Turns an entry into one with a delta. Returns the shape that tensor and base have in common.
  std::vector<std::uint64_t> begin_delta(ManifestEntry& entry) const {
    const DType dtype = std::exchange(entry.dtype, entry.base->dtype);
    if (dtype != entry.dtype) entry.tuned_dtype = dtype;
    const std::uint64_t mine = entry.shape[0];
    const std::uint64_t its = entry.base->shape[0];
    entry.mode = mine > its ? Mode::grown : mine < its ? Mode::shrunk : Mode::delta;
    auto common = *common_rows(entry.shape, entry.base->shape);
    entry.stack = stack_of(common);
    return common;
  }

  /// Stores a delta and returns nullptr, or returns the reason for not storing it.
  const char* add_delta(ManifestEntry& entry, std::optional<double> share, Sections& sections) {
    const std::uint64_t count = elements(begin_delta(entry));
    const char* why = obstacle(entry, count);
    return why != nullptr ? why : store_delta(entry, count, share, sections);
  }

  /// The same after begin_delta(), for a delta of `count` elements.
  const char* store_delta(ManifestEntry& entry, std::uint64_t count, std::optional<double> share,
                          Sections& sections) {
    const DType dtype = entry.tuned_dtype.value_or(entry.dtype);
    try {
      deltas_.encode(entry, *base_, *tuned_, share, sections);
    } catch (const Error& error) {
      if (error.code() == Errc::non_finite) return non_finite(entry, count);
      if (error.code() == Errc::out_of_range) return "range";
      throw error.within(entry.name);
    }
    // Nothing is left of a sign of zero.
    if (!entry.recovery && !is_same_in(entry, dtype, count)) return "exact";
    // Patches that are mostly padding can cost more than the weights they hold.
    if (sections.bytes() >= count * dtype_bytes(dtype)) return "larger";
    if (entry.mode == Mode::grown) add_tail(entry, count, sections);
    // A section without loss is better if it costs no more.
    exact_ = encode_lossless_within(tuned_->bytes(), base_->bytes(), dtype_bytes(dtype),
                                    sections.bytes(), executor_);
    return exact_ ? "exact" : nullptr;
  }

  /// Whether the first `count` elements of the fine-tune are the base's, converted to its dtype.
  bool is_same_in(const ManifestEntry& entry, DType dtype, std::uint64_t count) const {
    const auto base = first_elements(*base_, entry.dtype, count);
    std::vector<std::byte> converted(static_cast<std::size_t>(count) * dtype_bytes(dtype));
    convert_elements(base, entry.dtype, dtype, converted, executor_);
    return std::ranges::equal(converted, first_elements(*tuned_, dtype, count));
  }

  /// Why an entry will be kept without loss although reason() knows nothing against its delta;
  /// nullptr if it will most likely have one.
  const char* foresee(const ManifestEntry& entry, std::uint64_t count, double least) {
    if (const char* why = obstacle(entry, count)) return why;
    if (is_delicate(entry, count)) {
      // Only an attempt tells, at any size.
      ManifestEntry attempt = entry;
      Sections sections;
      const char* why = store_delta(attempt, count, least, sections);
      exact_.reset();
      if (why == std::string_view("range")) foreseen_.emplace(entry.name, why);
      return why;
    }
    if (options_.non_finite == NonFinite::refuse) return nullptr;
    const DType dtype = entry.tuned_dtype.value_or(entry.dtype);
    const bool is_finite =
        !find_non_finite(first_elements(*base_, entry.dtype, count), entry.dtype) &&
        !find_non_finite(first_elements(*tuned_, dtype, count), dtype);
    return is_finite ? nullptr : "non_finite";
  }

  /// Whether a delta may be beyond the range of the codec, or the sum beyond that of a dtype.
  bool is_delicate(const ManifestEntry& entry, std::uint64_t count) const {
    // Of deltas, in both directions. The bounds of patches have eight bits of exponent or more.
    constexpr double kRange = 1e30;
    const DType dtype = entry.tuned_dtype.value_or(entry.dtype);
    double value = 0;
    double delta = 0;
    with_element(entry.dtype, [&]<class U>() {
      with_element(dtype, [&]<class W>() {
        for (std::size_t i = 0; i < count; ++i) {
          const auto b = static_cast<double>(
              static_cast<compute_t<U>>(load_element<U>(base_->bytes().data() + i * sizeof(U))));
          const auto t = static_cast<double>(
              static_cast<compute_t<W>>(load_element<W>(tuned_->bytes().data() + i * sizeof(W))));
          value = std::max({value, std::abs(b), std::abs(t)});
          delta = std::max(delta, std::abs(t - b));
        }
      });
    });
    return value > std::min(largest_of(entry.dtype), largest_of(dtype)) / 4 || delta > kRange ||
           (delta != 0 && delta < 1 / kRange);
  }

  /// Why no codec could restore the fine-tune from a delta of its first `count` elements; nullptr
  /// if nothing is known. Throws non_finite if such a tensor is to be refused.
  const char* obstacle(const ManifestEntry& entry, std::uint64_t count) {
    if (!entry.tuned_dtype) return nullptr;
    const DType dtype = *entry.tuned_dtype;
    if (entry.mode == Mode::grown && !holds_tail(entry, count)) return "rows";
    if (const auto beyond =
            find_beyond_range(first_elements(*tuned_, dtype, count), dtype, entry.dtype)) {
      if (options_.non_finite == NonFinite::keep) return "non_finite";
      fail_non_finite(
          tuned_model_, entry, *beyond,
          "beyond the range of " + std::string(dtype_name(entry.dtype)) + ", the base's dtype; ");
    }
    const DType compute = compute_dtype(entry.dtype);
    if (holds_all_of(compute, dtype)) return nullptr;
    base_->align(dtype_bytes(entry.dtype));
    tuned_->align(dtype_bytes(dtype));
    const MatrixStack& stack = entry.stack;
    for (std::size_t k = 0; k < stack.count; ++k) {
      if (is_beyond_precision(matrix_of({entry.dtype, base_->bytes().data()}, k, stack),
                              matrix_of({dtype, tuned_->bytes().data()}, k, stack), stack.rows,
                              stack.cols, compute)) {
        return "precision";
      }
    }
    return nullptr;
  }

  /// The same for a tensor whose first `count` elements have a delta that is not finite. Between
  /// finite elements, it is only beyond the range of the codec.
  const char* non_finite(const ManifestEntry& entry, std::uint64_t count) const {
    const auto refuse = [&](const Model& model, const TensorBytes& bytes, DType dtype) {
      const auto at = find_non_finite(first_elements(bytes, dtype, count), dtype);
      if (at && options_.non_finite == NonFinite::refuse) fail_non_finite(model, entry, *at, "");
      return at.has_value();
    };
    if (refuse(tuned_model_, *tuned_, entry.tuned_dtype.value_or(entry.dtype))) return "non_finite";
    return refuse(base_model_, *base_, entry.dtype) ? "non_finite" : "range";
  }

  /// Throws non_finite for element `at` of a tensor in one of the models.
  [[noreturn]] void fail_non_finite(const Model& model, const ManifestEntry& entry, std::size_t at,
                                    const std::string& why) const {
    const MatrixStack& stack = entry.stack;
    const std::size_t matrix = stack.rows * stack.cols;
    const std::string place =
        model.place(*model.find(entry.name)) + ": " +
        (stack.count == 1 ? "" : "matrix " + std::to_string(at / matrix) + ": ");
    throw Error(Errc::non_finite,
                place + "element (" + std::to_string(at % matrix / stack.cols) + ", " +
                    std::to_string(at % stack.cols) + ")",
                why + "--non-finite keep stores the tensor without loss");
  }

  static std::span<const std::byte> first_elements(const TensorBytes& bytes, DType dtype,
                                                   std::uint64_t count) noexcept {
    return bytes.bytes().first(static_cast<std::size_t>(count) * dtype_bytes(dtype));
  }

  /// The rows that the base lacks, in the base's dtype.
  std::vector<std::byte> tail(const ManifestEntry& entry, std::uint64_t first) const {
    const DType tuned_dtype = entry.tuned_dtype.value_or(entry.dtype);
    const auto rows =
        tuned_->bytes().subspan(static_cast<std::size_t>(first) * dtype_bytes(tuned_dtype));
    // A conversion changes some NaN.
    if (tuned_dtype == entry.dtype) return {rows.begin(), rows.end()};
    std::vector<std::byte> converted(rows.size() / dtype_bytes(tuned_dtype) *
                                     dtype_bytes(entry.dtype));
    convert_elements(rows, tuned_dtype, entry.dtype, converted, executor_);
    return converted;
  }

  /// Whether the base's dtype holds these rows bit for bit.
  bool holds_tail(const ManifestEntry& entry, std::uint64_t first) const {
    const auto rows = tail(entry, first);
    const std::size_t width = dtype_bytes(*entry.tuned_dtype);
    std::vector<std::byte> back(rows.size() / dtype_bytes(entry.dtype) * width);
    convert_elements(rows, entry.dtype, *entry.tuned_dtype, back, executor_);
    return std::ranges::equal(back,
                              tuned_->bytes().subspan(static_cast<std::size_t>(first) * width));
  }

  /// Stores the rows that the base lacks.
  void add_tail(const ManifestEntry& entry, std::uint64_t first, Sections& sections) const {
    sections.lossless =
        encode_lossless(tail(entry, first), {}, dtype_bytes(entry.dtype), executor_);
  }

  const Model& base_model_;
  const Model& tuned_model_;
  const CompressOptions& options_;
  ExecutorRef executor_;
  DeltaEncoder deltas_;
  QuantizedScales scales_;
  TensorBytes* base_ = nullptr;  // the current tensor
  TensorBytes* tuned_ = nullptr;
  std::optional<std::vector<std::byte>> exact_;               // its lossless section, once known
  std::map<std::string, const char*, std::less<>> foreseen_;  // tensors that a survey found unfit
};

}  // namespace detail

}}}  // namespace deltadct::inline DELTADCT_ABI::io
