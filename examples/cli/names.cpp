// Regular expressions on the names of tensors.
#include "names.hpp"

#include <algorithm>
#include <stdexcept>

namespace cli {

namespace io = deltadct::io;

namespace {

/// The standard library's matcher uses a stack frame per character.
void require_matchable(std::string_view name) {
  constexpr std::size_t kLongest = 4096;
  if (name.size() > kLongest) {
    throw deltadct::Error(deltadct::Errc::limit_exceeded, name,
                          "the name is too long for a pattern");
  }
}

}  // namespace

std::vector<std::regex> compile(const std::vector<std::string>& patterns) {
  return {patterns.begin(), patterns.end()};
}

bool matches(const std::vector<std::regex>& patterns, std::string_view name) {
  if (!patterns.empty()) require_matchable(name);
  return std::ranges::any_of(patterns, [&](const std::regex& pattern) {
    return std::regex_search(name.begin(), name.end(), pattern);
  });
}

Renaming parse_renaming(const std::string& text) {
  const std::size_t equals = text.rfind('=');
  if (equals == text.npos) {
    throw std::invalid_argument("'" + text + "' is not a renaming: expected FROM=TO");
  }
  return {std::regex(text.substr(0, equals)), text.substr(equals + 1)};
}

io::Model renamed(io::Model&& model, const std::vector<std::string>& rules) {
  std::vector<Renaming> renamings;
  for (const std::string& rule : rules) renamings.push_back(parse_renaming(rule));
  return std::move(model).renamed([&](std::string_view name) {
    std::string result(name);
    for (const Renaming& renaming : renamings) {
      require_matchable(result);
      result = std::regex_replace(result, renaming.from, renaming.to);
    }
    return result;
  });
}

}  // namespace cli
