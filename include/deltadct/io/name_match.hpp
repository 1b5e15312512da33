// What the names of tensors reveal: an adapter, a prefix that only one model has, tensors that are
// fused in only one of them.
#pragma once

#include <deltadct/io/manifest.hpp>
#include <deltadct/io/model.hpp>

#include <set>
#include <unordered_map>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

using TensorList = std::vector<const ModelTensor*>;

namespace detail {

/// Calls fn(part) for each dot-separated part of a name until it returns true. Returns whether it
/// did.
template <class Fn>
bool any_part(std::string_view name, Fn&& fn) {
  for (;;) {
    const std::size_t dot = name.find('.');
    if (fn(name.substr(0, dot))) return true;
    if (dot == name.npos) return false;
    name.remove_prefix(dot + 1);
  }
}

}  // namespace detail

/// Whether a name is that of an adapter's tensor: LoRA, DoRA, IA3, VeRA, LoHa, LoKr, OFT or
/// prompts.
inline bool is_adapter_name(std::string_view name) {
  constexpr std::string_view kBeginnings[] = {"lora_",      "ia3_",   "vera_lambda",
                                              "dora_scale", "hada_w", "lokr_w",
                                              "oft_",       "boft_",  "prompt_embeddings"};
  return detail::any_part(name, [&](std::string_view part) {
    return std::ranges::any_of(kBeginnings, [&](auto text) { return part.starts_with(text); });
  });
}

/// Whether the configuration file of an adapter lies beside a model.
inline bool has_adapter_config(const Model& model) {
  std::error_code ignored;
  const bool folder = std::filesystem::is_directory(model.path(), ignored);
  const auto beside = folder ? model.path() : model.path().parent_path();
  return std::filesystem::exists(beside / "adapter_config.json", ignored);
}

/// A prefix of the base's names, and what the fine-tune has in its place.
struct PrefixChange {
  std::string from;
  std::string to;
  std::size_t tensors = 0;  ///< number of tensors that get a namesake
};

namespace detail {

/// Calls fn(prefix, rest) for a name, uncut and then cut after each of its first dots.
template <class Fn>
void each_cut(std::string_view name, Fn&& fn) {
  constexpr int kMostParts = 4;
  std::size_t begin = 0;
  for (int parts = 0; parts <= kMostParts; ++parts) {
    fn(name.substr(0, begin), name.substr(begin));
    const std::size_t dot = name.find('.', begin);
    if (dot == name.npos) return;
    begin = dot + 1;
  }
}

}  // namespace detail

/// The change of a prefix, of at most four parts, that gives the most tensors of the base a
/// namesake of a fitting shape in the fine-tune. Returns nothing unless that is three quarters of
/// the shorter list. Both lists hold the tensors without a namesake. Takes time linear in the names
/// if few of them share an ending.
inline std::optional<PrefixChange> prefix_change(const TensorList& base, const TensorList& tuned) {
  struct Ending {
    const ModelTensor* tensor;
    std::string_view prefix;
    bool unique = true;
  };
  std::unordered_map<std::string_view, Ending> endings;
  for (const ModelTensor* tensor : base) {
    detail::each_cut(tensor->name, [&](std::string_view prefix, std::string_view rest) {
      const auto [found, added] = endings.try_emplace(rest, Ending{tensor, prefix});
      if (!added) found->second.unique = false;
    });
  }
  std::map<std::pair<std::string_view, std::string_view>, std::size_t> changes;
  for (const ModelTensor* tensor : tuned) {
    detail::each_cut(tensor->name, [&](std::string_view prefix, std::string_view rest) {
      const auto found = endings.find(rest);
      if (found == endings.end() || !found->second.unique) return;
      if (!common_rows(found->second.tensor->shape, tensor->shape)) return;
      ++changes[{found->second.prefix, prefix}];
    });
  }
  PrefixChange best;
  for (const auto& [prefixes, count] : changes) {
    const auto& [from, to] = prefixes;
    const bool shorter = from.size() + to.size() < best.from.size() + best.to.size();
    if (count < best.tensors || (count == best.tensors && !shorter)) continue;
    best = {std::string(from), std::string(to), count};
  }
  if (best.tensors == 0 || 4 * best.tensors < 3 * std::min(base.size(), tuned.size())) return {};
  return best;
}

/// The command-line option that changes the base's names in this way, except those that both models
/// have; nothing if the names have special characters or there are too many to except.
inline std::optional<std::string> rename_option(const PrefixChange& change,
                                                const TensorList& shared) {
  constexpr std::size_t kMostKept = 8;
  std::set<std::string> kept;  // what follows the prefix in names that must stay
  std::string letters = change.from + change.to;
  for (const ModelTensor* tensor : shared) {
    if (!tensor->name.starts_with(change.from)) continue;
    const std::string rest = tensor->name.substr(change.from.size());
    kept.insert(rest.substr(0, rest.find('.')));
    if (kept.size() > kMostKept) return std::nullopt;
  }
  std::string pattern = "^";
  for (const char c : change.from) pattern += c == '.' ? std::string("[.]") : std::string(1, c);
  for (const std::string& part : kept) {
    letters += part;
    pattern += (part == *kept.begin() ? "(?!(" : "|") + part;
  }
  if (!kept.empty()) pattern += ")([.]|$))";
  const bool plain = std::ranges::all_of(letters, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  });
  if (!plain) return std::nullopt;
  return "--rename '" + pattern + "=" + change.to + "'";
}

namespace detail {

/// Whether experts are separate, numbered tensors or one tensor; nothing if there are none.
inline std::optional<bool> has_numbered_experts(const TensorList& tensors) {
  for (const ModelTensor* tensor : tensors) {
    bool after = false;
    std::optional<bool> numbered;
    any_part(tensor->name, [&](std::string_view part) {
      if (after) numbered = !part.empty() && part.find_first_not_of("0123456789") == part.npos;
      after = part == "experts";
      return numbered.has_value();
    });
    if (numbered) return numbered;
  }
  return std::nullopt;
}

}  // namespace detail

/// The name of something that is one tensor in `fused` and several in `apart`, or nothing.
inline std::optional<std::string> fused_part(const TensorList& fused, const TensorList& apart) {
  constexpr std::pair<std::string_view, std::string_view> kParts[] = {
      {"gate_up_proj", "gate_proj"}, {"qkv_proj", "q_proj"},        {"qkv", "q_proj"},
      {"query_key_value", "query"},  {"query_key_value", "q_proj"}, {"Wqkv", "q_proj"},
      {"c_attn", "q_proj"},          {"in_proj_weight", "q_proj"},
  };
  const auto has = [](const TensorList& tensors, std::string_view wanted) {
    return std::ranges::any_of(tensors, [&](const ModelTensor* tensor) {
      return detail::any_part(tensor->name, [&](auto part) { return part == wanted; });
    });
  };
  if (detail::has_numbered_experts(fused) == false && detail::has_numbered_experts(apart) == true) {
    return "experts";
  }
  for (const auto& [one, several] : kParts) {
    if (has(fused, one) && has(apart, several)) return std::string(one);
  }
  return std::nullopt;
}

}}}  // namespace deltadct::inline DELTADCT_ABI::io
