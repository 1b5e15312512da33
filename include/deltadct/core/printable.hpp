// Makes untrusted text safe to show: one line that cannot control the terminal and hides nothing.
#pragma once

#include <deltadct/config.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI {

/// The most bytes shown of a name; and of a sentence, or of a path together with an item of that
/// file.
inline constexpr std::size_t kLongestName = 200;
inline constexpr std::size_t kLongestText = 1000;

namespace detail {

/// The first character of a text, or its first byte if that is not valid UTF-8.
struct Character {
  std::uint32_t code;
  std::size_t bytes;
  bool valid;
};

constexpr bool continues(char c) noexcept {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

/// The text must not be empty.
constexpr Character first_character(std::string_view text) noexcept {
  constexpr std::uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};  // by length; excludes overlong
  const auto lead = static_cast<unsigned char>(text[0]);
  const Character invalid{lead, 1, false};
  if (lead < 0x80) return {lead, 1, true};
  const std::size_t bytes = lead < 0xC0   ? 0
                            : lead < 0xE0 ? 2
                            : lead < 0xF0 ? 3
                            : lead < 0xF8 ? 4
                                          : 0;
  if (bytes == 0 || bytes > text.size()) return invalid;
  std::uint32_t code = lead & (0x7Fu >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) {
    if (!continues(text[i])) return invalid;
    code = code << 6 | (static_cast<unsigned char>(text[i]) & 0x3Fu);
  }
  const bool surrogate = code >= 0xD800 && code < 0xE000;
  if (code < kLeast[bytes] || code > 0x10FFFF || surrogate) return invalid;
  return {code, bytes, true};
}

constexpr bool is_control(std::uint32_t code) noexcept {
  return code < 0x20 || (code >= 0x7F && code < 0xA0);
}

/// Whether a character is visible and changes nothing around it. The others are control characters,
/// line separators, characters that set the direction of writing, and those that Unicode calls
/// default ignorable: joiners, fillers, selectors and tags, with which two different names can look
/// the same.
constexpr bool is_shown(std::uint32_t code) noexcept {
  struct Range {
    std::uint32_t first, last;
  };
  constexpr Range kHidden[] = {
      {0x00AD, 0x00AD},   {0x034F, 0x034F}, {0x061C, 0x061C},   {0x115F, 0x1160},
      {0x17B4, 0x17B5},   {0x180B, 0x180F}, {0x200B, 0x200F},   {0x2028, 0x202E},
      {0x2060, 0x206F},   {0x3164, 0x3164}, {0xFE00, 0xFE0F},   {0xFEFF, 0xFEFF},
      {0xFFA0, 0xFFA0},   {0xFFF0, 0xFFFB}, {0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A},
      {0xE0000, 0xE0FFF},
  };
  if (is_control(code)) return false;
  return std::ranges::none_of(
      kHidden, [&](const Range& range) { return range.first <= code && code <= range.last; });
}

inline bool has_controls(std::string_view text) noexcept {
  while (!text.empty()) {
    const Character character = first_character(text);
    if (character.valid && is_control(character.code)) return true;
    text.remove_prefix(character.bytes);
  }
  return false;
}

/// A backslash, a letter, and a number in that many hexadecimal digits.
inline std::string escape(char letter, int digits, std::uint32_t number) {
  std::string text{'\\', letter};
  while (digits-- > 0) text += "0123456789abcdef"[number >> (4 * digits) & 15];
  return text;
}

/// A text with escapes, and the offset at which each of its characters begins.
struct Escaped {
  std::string text;
  std::vector<std::size_t> begins;
};

inline Escaped escaped(std::string_view text) {
  Escaped result;
  while (!text.empty()) {
    const Character character = first_character(text);
    const std::uint32_t code = character.code;
    result.begins.push_back(result.text.size());
    if (!character.valid || code < 0x20 || code == 0x7F) {
      result.text += escape('x', 2, code);
    } else if (!is_shown(code)) {
      result.text += code < 0x10000 ? escape('u', 4, code) : escape('U', 8, code);
    } else {
      if (code == '\\') result.text += '\\';
      result.text += text.substr(0, character.bytes);
    }
    text.remove_prefix(character.bytes);
  }
  return result;
}

/// At most the last `bytes` bytes of a text, beginning at the start of a character.
constexpr std::string_view last_characters(std::string_view text, std::size_t bytes) noexcept {
  text.remove_prefix(text.size() - std::min(text.size(), bytes));
  for (int most = 3; most > 0 && !text.empty() && continues(text[0]); --most) text.remove_prefix(1);
  return text;
}

inline constexpr std::string_view kCut = "...";

/// Cuts a text longer than `most` bytes in the middle, between characters, because both ends of a
/// name carry information: the file and the element. Escapes nothing.
inline std::string shortened(std::string_view text, std::size_t most = kLongestName) {
  if (text.size() <= most) return std::string(text);
  const std::size_t half = (most - kCut.size()) / 2;
  std::size_t head = half;
  for (int back = 3; back > 0 && continues(text[head]); --back) --head;
  return std::string(text.substr(0, head)).append(kCut).append(last_characters(text, half));
}

}  // namespace detail

/// Makes a text safe to show on a terminal or in a log, whatever its bytes. Anything invisible, or
/// that would change how the rest is shown, is escaped: as \x1b (a control character, or a byte
/// that is not UTF-8), \u202e or \U000e0001. A backslash is doubled. Two different texts therefore
/// never look the same, unless they are long: of a text that takes more than `most` bytes the
/// middle is left out.
inline std::string printable(std::string_view text, std::size_t most = kLongestName) {
  if (text.size() <= most) {
    detail::Escaped whole = detail::escaped(text);
    if (whole.text.size() <= most) return std::move(whole.text);
  }
  // Escaping never shortens a text, so both ends come from its first and its last `most` bytes.
  const std::size_t half = (most - detail::kCut.size()) / 2;
  const detail::Escaped head = detail::escaped(text.substr(0, most));
  const detail::Escaped tail = detail::escaped(detail::last_characters(text, most));
  const auto end = std::ranges::upper_bound(head.begins, half) - 1;
  const auto begin = std::ranges::lower_bound(tail.begins, tail.text.size() - half);
  std::string result = head.text.substr(0, *end).append(detail::kCut);
  if (begin != tail.begins.end()) result += tail.text.substr(*begin);
  return result;
}

}}  // namespace deltadct::inline DELTADCT_ABI
