// The only error type of the library: a code to branch on, and a text that says what went wrong and
// where.
#pragma once

#include <deltadct/config.hpp>
#include <deltadct/core/printable.hpp>

#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

namespace deltadct { inline namespace DELTADCT_ABI {

/// What went wrong. Every value has a line of text in describe().
enum class Errc {
  shape_mismatch,
  dtype_mismatch,
  bad_view,
  bad_mix,
  bad_range,
  too_large,
  non_finite,
  out_of_range,
  codec_mismatch,
  corrupt_data,
  unsupported_dtype,
  unsupported_version,
  bad_container,
  bad_index,
  wrong_base,
  missing_tensor,
  unlike_models,
  checksum_mismatch,
  limit_exceeded,
  out_of_memory,
  io_failure,
  output_exists,
  output_is_input,
  cannot_resume,
  no_plan,
  device_failure,
  no_model,
  name_clash,
};

namespace detail {

struct ErrcText {
  Errc code;
  std::string_view text;
};

inline constexpr ErrcText kErrcTexts[] = {
    {Errc::shape_mismatch, "shapes differ"},
    {Errc::dtype_mismatch, "dtypes differ"},
    {Errc::bad_view, "not a valid matrix view"},
    {Errc::bad_mix, "not a valid mix of bit widths"},
    {Errc::bad_range, "range outside the matrix"},
    {Errc::too_large, "too large"},
    {Errc::non_finite, "value is not finite"},
    {Errc::out_of_range, "values are beyond the range of the codec"},
    {Errc::codec_mismatch, "compressed by another codec"},
    {Errc::corrupt_data, "compressed data is malformed"},
    {Errc::unsupported_dtype, "dtype is not supported"},
    {Errc::unsupported_version, "format version is not supported"},
    {Errc::bad_container, "not a valid safetensors file"},
    {Errc::bad_index, "not a valid index of shards"},
    {Errc::wrong_base, "base is not the one the delta was made from"},
    {Errc::missing_tensor, "tensor is missing"},
    {Errc::unlike_models, "base and fine-tune are unlike"},
    {Errc::checksum_mismatch, "checksum differs"},
    {Errc::limit_exceeded, "limit exceeded"},
    {Errc::out_of_memory, "not enough memory"},
    {Errc::io_failure, "input or output failed"},
    {Errc::output_exists, "output exists"},
    {Errc::output_is_input, "output is one of the inputs"},
    {Errc::cannot_resume, "the interrupted operation was a different one"},
    {Errc::no_plan, "no plan for the transform"},
    {Errc::device_failure, "the device or its driver failed"},
    {Errc::no_model, "not one model"},
    {Errc::name_clash, "two tensors have one name"},
};

}  // namespace detail

/// The text of a code, without the place where it happened.
constexpr std::string_view describe(Errc code) noexcept {
  for (const detail::ErrcText& known : detail::kErrcTexts) {
    if (known.code == code) return known.text;
  }
  return "unknown error";
}

/// Thrown by everything that can fail. what() reads "where: text of the code (detail)". It is one
/// line that is safe to show on a terminal, whatever names it contains (see printable()). Copies
/// share the texts, so copying never throws.
class Error : public std::runtime_error {
 public:
  Error(Errc code, std::string_view where, std::string_view detail = {})
      : std::runtime_error(compose(code, where, detail)),
        code_(code),
        texts_(std::make_shared<const Texts>(Texts{std::string(where), std::string(detail)})) {}

  // A move copies, too, so that a moved-from error keeps its texts.
  Error(const Error&) noexcept = default;
  Error& operator=(const Error&) noexcept = default;

  Errc code() const noexcept { return code_; }

  /// The tensor, file, argument or element concerned, as raw bytes for programs. Only names of
  /// tensors longer than kLongestName are shortened, in the middle. Use printable() to show it.
  const std::string& where() const noexcept { return texts_->where; }

  /// What was found and what was expected, with names as raw bytes; may be empty.
  const std::string& detail() const noexcept { return texts_->detail; }

  /// The same error with an outer place in front of where(): "tensor: element (3, 4)".
  Error within(std::string_view outer) const {
    return {code_, std::string(outer) + (where().empty() ? "" : ": " + where()), detail()};
  }

 private:
  static std::string compose(Errc code, std::string_view where, std::string_view detail) {
    std::string text = printable(where, kLongestText);
    if (!text.empty()) text += ": ";
    text += describe(code);
    if (!detail.empty()) text.append(" (").append(printable(detail, kLongestText)).append(")");
    return text;
  }

  struct Texts {
    std::string where;
    std::string detail;
  };

  Errc code_;
  std::shared_ptr<const Texts> texts_;
};

}}  // namespace deltadct::inline DELTADCT_ABI
