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
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace deltadct::inline DELTADCT_ABI::io {

namespace detail {

/// Tensors with fewer elements are kept without loss by a method without patches. A patch of 16 x
/// 16 has as many.
inline constexpr std::uint64_t kSmallElements = 256;

/// A warning about a delta that is lost in restoring, with the options that help.
inline Warning lost_delta(const ManifestEntry& entry) {
  char numbers[80];
  std::snprintf(numbers, sizeof numbers, " (gain %.3f, SNR %.2f dB); ", entry.recovery->gain(),
                entry.recovery->snr_db());
  const bool is_short = dtype_bytes(entry.dtype) == 2;
  std::string what = "the delta is lost";
  if (is_short) what += " where weights are rounded to " + std::string(dtype_name(entry.dtype));
  what += numbers;
  if (entry.tuned_dtype && holds_all_of(*entry.tuned_dtype, entry.dtype)) {
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
  TensorEncoder(const CompressOptions& options, const CodecFactory& factory,
                const ExecutorRef& executor, QuantizedScales scales)
      : options_(options),
        executor_(executor),
        deltas_(options.codec, factory, executor),
        scales_(std::move(scales)) {}

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
    if (why == nullptr && options_.non_finite == NonFinite::keep && !is_finite(entry)) {
      why = "non_finite";
    }
    if (why != nullptr) {
      keep(entry, why, sections);
      need.fixed = sections.bytes();
      return;
    }
    const auto common = begin_delta(entry);
    if (entry.mode == Mode::grown) add_tail(entry, elements(common), sections);
    need.fixed = sections.bytes();
    deltas_.set_limits(entry.stack, entry.dtype == DType::f64, need);
    TensorHeader header;
    header.patch = options_.codec.patch;
    header.transform = options_.codec.transform;
    header.quantizer = options_.codec.quantizer;
    header.whole_bytes = header.patch == 0 ? elements(common) : 0;
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
    const auto common = begin_delta(entry);
    const DType dtype = entry.tuned_dtype.value_or(entry.dtype);
    try {
      if (entry.tuned_dtype) require_range(tuned_->bytes(), dtype, entry.dtype);
      deltas_.encode(entry, *base_, *tuned_, share, sections);
    } catch (const Error& error) {
      if (error.code() == Errc::non_finite && options_.non_finite == NonFinite::keep) {
        return "non_finite";
      }
      if (error.code() == Errc::out_of_range) return "range";
      throw error.within(entry.name);
    }
    // Patches that are mostly padding can cost more than the weights they hold.
    if (sections.bytes() >= *tensor_bytes(entry.dtype, common)) return "larger";
    if (entry.mode == Mode::grown) add_tail(entry, elements(common), sections);
    // A section without loss is better if it costs no more.
    exact_ = encode_lossless_within(tuned_->bytes(), base_->bytes(), dtype_bytes(dtype),
                                    sections.bytes(), executor_);
    return exact_ ? "exact" : nullptr;
  }

  /// Whether base and fine-tune have neither NaN nor infinity.
  bool is_finite(const ManifestEntry& entry) const {
    const auto all_finite = [](std::span<const std::byte> bytes, DType dtype) {
      return with_element(dtype, [&]<class U>() {
        for (std::size_t at = 0; at < bytes.size(); at += sizeof(U)) {
          const auto x = static_cast<compute_t<U>>(load_element<U>(bytes.data() + at));
          if (!deltadct::detail::all_finite(&x, 1)) return false;
        }
        return true;
      });
    };
    return all_finite(base_->bytes(), entry.base->dtype) &&
           all_finite(tuned_->bytes(), entry.dtype);
  }

  /// Stores the rows that the base lacks, in the base's dtype.
  void add_tail(const ManifestEntry& entry, std::uint64_t first, Sections& sections) const {
    const DType tuned_dtype = entry.tuned_dtype.value_or(entry.dtype);
    auto rows = tuned_->bytes().subspan(static_cast<std::size_t>(first) * dtype_bytes(tuned_dtype));
    std::vector<std::byte> converted;
    if (tuned_dtype != entry.dtype) {
      converted.resize(rows.size() / dtype_bytes(tuned_dtype) * dtype_bytes(entry.dtype));
      convert_elements(rows, tuned_dtype, entry.dtype, converted, executor_);
      rows = converted;
    }
    sections.lossless = encode_lossless(rows, {}, dtype_bytes(entry.dtype), executor_);
  }

  const CompressOptions& options_;
  ExecutorRef executor_;
  DeltaEncoder deltas_;
  QuantizedScales scales_;
  TensorBytes* base_ = nullptr;  // the current tensor
  TensorBytes* tuned_ = nullptr;
  std::optional<std::vector<std::byte>> exact_;  // its lossless section, once known
};

}  // namespace detail

}  // namespace deltadct::inline DELTADCT_ABI::io
