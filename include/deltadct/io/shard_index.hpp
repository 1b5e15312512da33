// The index of a sharded model, and how it is reconciled with what the shards hold.
//
//   model.safetensors.index.json   {"metadata": {"total_size": 26, ...},
//                                   "weight_map": {"NAME": "model-00001-of-00002.safetensors",
//                                   ...}}
//
// Shards must be plain names of regular files in the index's folder, and every tensor of weight_map
// must be in the shard to which it is mapped. Other readers ignore all other inconsistencies. So
// does this one, with a warning, unless it is to be strict.
#pragma once

#include <deltadct/io/safetensors_header.hpp>
#include <deltadct/io/warning.hpp>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// The contents of an index. Shards are in the order of their names.
struct ShardIndex {
  std::map<std::string, std::vector<std::string>> shards;  ///< file name -> tensor names
  std::map<std::string, std::string> metadata;             ///< its string values
  std::map<std::string, nlohmann::json> other_metadata;    ///< its values of other types
  std::optional<std::uint64_t> total_size;
  std::vector<std::string> unknown;  ///< members of the index itself that no reader knows
  std::vector<Warning> warnings;     ///< about what was ignored
};

namespace detail {

/// Throws bad_index unless the name cannot lead out of the folder on any system.
inline void check_shard_name(const std::string& name, std::string_view where) {
  constexpr std::size_t kLongest = 255;
  const bool plain = !name.empty() && name.size() <= kLongest && name != "." && name != ".." &&
                     name.find_first_of("/\\:") == name.npos && !has_controls(name);
  if (!plain) {
    throw Error(Errc::bad_index, where, "'" + shortened(name) + "' is not a plain file name");
  }
}

inline void read_total_size(ShardIndex& index, const nlohmann::json& value, std::string_view where,
                            const ReadOptions& options) {
  if (options.is_strict() || is_json_unsigned(value)) {
    index.total_size = json_unsigned(value, where, "total_size");
    return;
  }
  index.warnings.push_back({std::string(where),
                            "total_size is not an integer, and is ignored, as by transformers, "
                            "vLLM and mlx-lm (--strict refuses it)"});
}

inline void read_index_metadata(ShardIndex& index, const nlohmann::json& value,
                                std::string_view where, const ReadOptions& options) {
  if (!value.is_object()) {
    if (options.is_strict()) throw Error(Errc::bad_index, where, "metadata is not an object");
    index.warnings.push_back({std::string(where),
                              "metadata is not an object, and is ignored, as by vLLM and mlx-lm; "
                              "transformers fails on it (--strict refuses it)"});
    return;
  }
  for (const auto& [key, item] : value.items()) {
    if (key == "total_size") {
      read_total_size(index, item, where, options);
    } else if (item.is_string()) {
      index.metadata.emplace(key, item.get_ref<const std::string&>());
    } else {
      index.other_metadata.emplace(key, item);
    }
  }
}

inline void read_weight_map(ShardIndex& index, const nlohmann::json& value, std::string_view where,
                            const Limits& limits) {
  if (!value.is_object()) throw Error(Errc::bad_index, where, "weight_map is not an object");
  if (value.size() > limits.tensors) {
    throw Error(Errc::limit_exceeded, where,
                "too many tensors" + limit_advice("tensors", value.size()));
  }
  for (const auto& [tensor, item] : value.items()) {
    const std::string& file = json_string(item, where, shortened(tensor));
    auto found = index.shards.find(file);
    if (found == index.shards.end()) {
      check_shard_name(file, where);
      if (index.shards.size() == limits.shards) {
        throw Error(Errc::limit_exceeded, where, "too many shards" + limit_advice("shards"));
      }
      found = index.shards.emplace(file, std::vector<std::string>{}).first;
    }
    found->second.push_back(tensor);
  }
}

}  // namespace detail

/// Parses an index. Reads no file: `where` only names it in errors. Throws bad_container for a text
/// that is not strict JSON or has values of wrong types, bad_index for one that is not an index,
/// limit_exceeded.
inline ShardIndex parse_shard_index(std::string_view text, std::string_view where,
                                    const ReadOptions& options = {}) {
  const Limits& limits = options.limits;
  if (text.size() > limits.header_bytes) {
    throw Error(Errc::limit_exceeded, where,
                "index of " + std::to_string(text.size()) + " bytes" +
                    detail::limit_advice("header", text.size()));
  }
  ShardIndex index;
  bool mapped = false;
  const auto take = [&](const std::string& key, nlohmann::json&& value) {
    if (key == "metadata") {
      detail::read_index_metadata(index, value, where, options);
    } else if (key == "weight_map") {
      detail::read_weight_map(index, value, where, limits);
      mapped = true;
    } else {
      index.unknown.push_back(key);
    }
  };
  parse_json_members(text, where, take, limits.depth, detail::member_values(limits));
  if (!mapped) throw Error(Errc::bad_index, where, "weight_map is missing");
  return index;
}

/// The text of an index.
inline std::string shard_index_text(const ShardIndex& index) {
  nlohmann::json json = {{"metadata", index.metadata}, {"weight_map", nlohmann::json::object()}};
  for (const auto& [key, value] : index.other_metadata) json["metadata"][key] = value;
  if (index.total_size) json["metadata"]["total_size"] = *index.total_size;
  for (const auto& [file, tensors] : index.shards) {
    for (const std::string& tensor : tensors) json["weight_map"][tensor] = file;
  }
  return json.dump(2) + "\n";
}

namespace detail {

/// Compares what a shard holds with what the index maps to it, and sorts the mapped names. In
/// strict mode, throws bad_index if the two differ. Otherwise adds mapped names that the shard
/// lacks to `absent`, each with the shard.
template <class Tensor>
void check_shard(std::string_view index, const std::string& shard, std::vector<std::string>& mapped,
                 std::span<const Tensor> held, const ReadOptions& options,
                 std::map<std::string, std::string>& absent) {
  std::vector<std::string_view> names;
  for (const Tensor& tensor : held) names.push_back(tensor.name);
  std::ranges::sort(names);
  std::ranges::sort(mapped);
  for (const std::string& name : mapped) {
    if (std::ranges::binary_search(names, name)) continue;
    if (options.is_strict()) {
      throw Error(Errc::bad_index, tensor_place(index, name), "not in the shard '" + shard + "'");
    }
    absent.emplace(name, shard);
  }
  if (!options.is_strict()) return;
  for (const std::string_view name : names) {
    if (std::ranges::binary_search(mapped, name)) continue;
    throw Error(Errc::bad_index, tensor_place(index, name),
                "in the shard '" + shard + "', to which the index does not map it");
  }
}

/// Whether the index maps each tensor to the shard that holds it. Mapped names must be sorted.
template <class Tensor>
std::vector<bool> listed_tensors(const ShardIndex& index, const std::vector<Tensor>& tensors) {
  std::vector<const std::vector<std::string>*> mapped;
  for (const auto& [shard, names] : index.shards) mapped.push_back(&names);
  std::vector<bool> listed;
  listed.reserve(tensors.size());
  for (const Tensor& tensor : tensors) {
    listed.push_back(std::ranges::binary_search(*mapped[tensor.shard], tensor.name));
  }
  return listed;
}

/// The warning about a tensor that is not just where the index says; nullptr if it is.
inline const char* shard_remark(bool listed, bool several, bool elsewhere) noexcept {
  if (listed && several) {
    return "in several shards; the one that the index names is used, while transformers 5 and "
           "vLLM use the last (--strict refuses it)";
  }
  if (elsewhere) {
    return "in another shard than the index says; it is used, as by transformers 5 and vLLM "
           "(--strict refuses it)";
  }
  if (several) {
    return "in several shards and not in the index; the last is used, as by transformers 5 and "
           "vLLM (--strict refuses it)";
  }
  if (listed) return nullptr;
  return "in a shard, but not in the index; it is used, as by transformers 5, vLLM and mlx-lm "
         "(--strict refuses it)";
}

/// Keeps one tensor of each name, in their order: the one that the index names, or else the last.
/// `absent` has the names that the index maps to shards without them.
template <class Tensor>
void settle_tensors(std::string_view where, const ShardIndex& index,
                    std::map<std::string, std::string> absent, std::vector<Tensor>& tensors,
                    WarningCollector& warnings) {
  const std::vector<bool> listed = listed_tensors(index, tensors);
  const auto warn_of_absent = [&] {
    for (const auto& [name, shard] : absent) {
      warnings.add(tensor_place(where, name),
                   "in no shard, though the index says '" + shortened(shard) +
                       "'; ignored, as by transformers 5 and vLLM (--strict refuses it)");
    }
  };
  if (std::ranges::find(listed, false) == listed.end()) return warn_of_absent();
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {},
                           [&](std::size_t i) -> const std::string& { return tensors[i].name; });
  std::vector<bool> counts(tensors.size());
  for (std::size_t first = 0, end = 0; first < order.size(); first = end) {
    const std::string& name = tensors[order[first]].name;
    std::size_t counted = order[first];
    for (end = first; end < order.size() && tensors[order[end]].name == name; ++end) {
      if (!listed[counted]) counted = order[end];
    }
    counts[counted] = true;
    const bool elsewhere = absent.erase(name) != 0;
    const char* remark = shard_remark(listed[counted], end - first > 1, elsewhere);
    if (remark != nullptr) warnings.add(tensor_place(where, name), remark);
  }
  std::size_t kept = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!counts[i]) continue;
    if (kept != i) tensors[kept] = std::move(tensors[i]);
    ++kept;
  }
  tensors.resize(kept);
  warn_of_absent();
}

}  // namespace detail

}}}  // namespace deltadct::inline DELTADCT_ABI::io
