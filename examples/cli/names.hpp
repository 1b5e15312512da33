// Regular expressions on the names of tensors.
#pragma once

#include <deltadct/io/model.hpp>

#include <regex>
#include <string>
#include <string_view>
#include <vector>

namespace cli {

/// Throws std::regex_error if a pattern is not a regular expression.
std::vector<std::regex> compile(const std::vector<std::string>& patterns);

/// Whether a pattern matches some part of a name. Throws limit_exceeded if the name is too long.
bool matches(const std::vector<std::regex>& patterns, std::string_view name);

/// Warns of patterns of an option that match no tensor: they are probably misspelled.
void warn_of_unmatched(const char* option, const std::vector<std::string>& patterns,
                       const deltadct::io::Model& model);

/// FROM=TO: every part of a name that matches FROM is replaced with TO.
struct Renaming {
  std::regex from;
  std::string to;  ///< $1 stands for the first group
};

/// Throws std::regex_error, or std::invalid_argument for a text without '='. The last '=' is the
/// separator, so FROM may contain others, as in (?=x).
Renaming parse_renaming(const std::string& text);

/// The same model, with its tensors renamed by the rules in their order. Warns of rules that match
/// no tensor.
deltadct::io::Model renamed(deltadct::io::Model&& model, const std::vector<std::string>& rules);

}  // namespace cli
