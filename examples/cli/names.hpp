// Regular expressions on the names of tensors.
#pragma once

#include <deltadct/io/model.hpp>

#include <regex>
#include <string>
#include <string_view>
#include <vector>

namespace cli {

/// Throws std::regex_error for what is no regular expression.
std::vector<std::regex> compile(const std::vector<std::string>& patterns);

/// Whether one of them is found in a name. Throws limit_exceeded for too long a name.
bool matches(const std::vector<std::regex>& patterns, std::string_view name);

/// FROM=TO: what a name has of FROM becomes TO, wherever it is found.
struct Renaming {
  std::regex from;
  std::string to;  ///< $1 is the first group
};

/// Throws std::regex_error, or std::invalid_argument for a text without '='. The last '=' divides:
/// those of FROM, as in (?=x), stay.
Renaming parse_renaming(const std::string& text);

/// The same model, its tensors under the names that the rules, in their order, give them.
deltadct::io::Model renamed(deltadct::io::Model&& model, const std::vector<std::string>& rules);

}  // namespace cli
