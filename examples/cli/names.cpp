// Regular expressions on the names of tensors.
#include "names.hpp"

#include "text.hpp"

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

void warn_of_unmatched(const char* option, const std::vector<std::string>& patterns,
                       const io::Model& model) {
  for (const std::string& pattern : patterns) {
    const std::vector<std::regex> compiled = compile({pattern});
    const bool is_matched = std::ranges::any_of(
        model.tensors(), [&](const io::ModelTensor& t) { return matches(compiled, t.name); });
    if (!is_matched) warn({std::string(option) + " " + pattern, "matches no tensor"});
  }
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
  std::vector<bool> used(rules.size());
  io::Model other = std::move(model).renamed([&](std::string_view name) {
    std::string result(name);
    for (std::size_t k = 0; k < renamings.size(); ++k) {
      require_matchable(result);
      if (!std::regex_search(result, renamings[k].from)) continue;
      used[k] = true;
      result = std::regex_replace(result, renamings[k].from, renamings[k].to);
    }
    return result;
  });
  for (std::size_t k = 0; k < rules.size(); ++k) {
    if (!used[k]) warn({"--rename " + rules[k], "matches no tensor of BASE"});
  }
  return other;
}

}  // namespace cli
