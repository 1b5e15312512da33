// The only error type of the library: a code to branch on, and a text that says what went wrong and
// where.
#pragma once

#include <deltadct/config.hpp>
#include <deltadct/core/printable.hpp>

#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

namespace deltadct::inline DELTADCT_ABI {

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

/// The text of a code, without the place where it happened.
constexpr std::string_view describe(Errc code) noexcept {
  switch (code) {
    case Errc::shape_mismatch:
      return "shapes differ";
    case Errc::dtype_mismatch:
      return "dtypes differ";
    case Errc::bad_view:
      return "not a valid matrix view";
    case Errc::bad_mix:
      return "not a valid mix of bit widths";
    case Errc::bad_range:
      return "range outside the matrix";
    case Errc::too_large:
      return "too large";
    case Errc::non_finite:
      return "value is not finite";
    case Errc::out_of_range:
      return "values are beyond the range of the codec";
    case Errc::codec_mismatch:
      return "compressed by another codec";
    case Errc::corrupt_data:
      return "compressed data is malformed";
    case Errc::unsupported_dtype:
      return "dtype is not supported";
    case Errc::unsupported_version:
      return "format version is not supported";
    case Errc::bad_container:
      return "not a valid safetensors file";
    case Errc::bad_index:
      return "not a valid index of shards";
    case Errc::wrong_base:
      return "base is not the one the delta was made from";
    case Errc::missing_tensor:
      return "tensor is missing";
    case Errc::unlike_models:
      return "base and fine-tune are unlike";
    case Errc::checksum_mismatch:
      return "checksum differs";
    case Errc::limit_exceeded:
      return "limit exceeded";
    case Errc::out_of_memory:
      return "not enough memory";
    case Errc::io_failure:
      return "input or output failed";
    case Errc::output_exists:
      return "output exists";
    case Errc::output_is_input:
      return "output is one of the inputs";
    case Errc::cannot_resume:
      return "the interrupted operation was a different one";
    case Errc::no_plan:
      return "no plan for the transform";
    case Errc::device_failure:
      return "the device or its driver failed";
    case Errc::no_model:
      return "not one model";
    case Errc::name_clash:
      return "two tensors have one name";
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

}  // namespace deltadct::inline DELTADCT_ABI
