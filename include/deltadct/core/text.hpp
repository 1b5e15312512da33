// Numbers as text.
#pragma once

#include <deltadct/config.hpp>

#include <charconv>
#include <string>

namespace deltadct { inline namespace DELTADCT_ABI { namespace detail {

/// The shortest text that reads back as the same number.
inline std::string exact_text(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

}}}  // namespace deltadct::inline DELTADCT_ABI::detail
