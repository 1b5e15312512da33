// Finds the file of a folder that is the model, and says what the folder holds if there is none.
#pragma once

#include <deltadct/io/safetensors.hpp>
#include <deltadct/io/shard_index.hpp>

#include <optional>
#include <set>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io { namespace detail {

inline constexpr const char* kUsualIndex = "model.safetensors.index.json";
inline constexpr const char* kUsualFile = "model.safetensors";
inline constexpr const char* kAdapterFile = "adapter_model.safetensors";
inline constexpr const char* kAdapterConfig = "adapter_config.json";

/// Whether the metadata of a file or of an index is that of a delta archive.
inline bool is_archive(const Metadata& metadata) {
  const auto format = metadata.find("format");
  return format != metadata.end() && format->second == "deltadct";
}

/// Whether something has that name, even a dangling symbolic link.
inline bool has_entry(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(std::filesystem::symlink_status(path, ignored));
}

/// Reads an index and identifies its file.
inline std::pair<ShardIndex, FileIdentity> read_index(const std::filesystem::path& path,
                                                      const ReadOptions& options, Links links) {
  const InputFile file = InputFile::open(path, Access::read, links);
  if (file.size() > options.limits.header_bytes) {
    throw Error(
        Errc::limit_exceeded, path.string(),
        "index of " + std::to_string(file.size()) + " bytes" + limit_advice("header", file.size()));
  }
  std::vector<std::byte> storage;
  const auto bytes = file.bytes(0, file.size(), storage);
  if (const char* foreign = foreign_format(bytes)) {
    throw Error(Errc::bad_container, path.string(), foreign);
  }
  return {parse_shard_index({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                            path.string(), options),
          file.identity()};
}

/// The names in a folder that show what it holds, sorted.
struct FolderContents {
  explicit FolderContents(const std::filesystem::path& folder) : path(folder) {
    std::error_code error;
    std::filesystem::directory_iterator at(folder, error);
    for (; !error && at != std::filesystem::directory_iterator(); at.increment(error)) {
      add(at->path().filename().string());
    }
    if (error) throw Error(Errc::io_failure, folder.string(), error.message());
    for (auto* names : {&indices, &files, &pickles, &ggufs}) std::ranges::sort(*names);
  }

  std::filesystem::path path;
  std::vector<std::string> indices;  ///< *.safetensors.index.json
  std::vector<std::string> files;    ///< *.safetensors, except an adapter
  std::vector<std::string> pickles;
  std::vector<std::string> ggufs;
  bool adapter = false;

 private:
  void add(const std::string& name) {
    if (name == kAdapterFile || name == kAdapterConfig) {
      adapter = true;
    } else if (name.ends_with(".safetensors.index.json")) {
      indices.push_back(name);
    } else if (name.ends_with(".safetensors")) {
      files.push_back(name);
    } else if (name.ends_with(".gguf")) {
      ggufs.push_back(name);
    } else if (is_pickle(name)) {
      pickles.push_back(name);
    }
  }

  /// Files that trainers leave beside a model are no models.
  static bool is_pickle(const std::string& name) {
    for (const char* state : {"training_args", "optimizer", "scheduler", "rng_state"}) {
      if (name.starts_with(state)) return false;
    }
    return name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth") ||
           name.ends_with(".ckpt");
  }
};

/// Files of a folder that may be the model; each is an index or a safetensors file.
struct FolderCandidates {
  std::vector<std::string> models;
  std::vector<std::string> archives;  ///< delta archives
};

/// Sorts a folder's indices, and its files if no index is a model's, into models and delta
/// archives. What cannot be read counts as a model: opening it then says why.
inline FolderCandidates sort_out(const FolderContents& contents, const ReadOptions& options) {
  FolderCandidates found;
  std::set<std::string> parts;
  for (const std::string& name : contents.indices) {
    try {
      const auto index = read_index(contents.path / name, options, options.links).first;
      if (is_archive(index.metadata)) {
        found.archives.push_back(name);
        for (const auto& [shard, tensors] : index.shards) parts.insert(shard);
        continue;
      }
    } catch (const Error&) {
    }
    found.models.push_back(name);
  }
  if (!found.models.empty()) return found;
  for (const std::string& name : contents.files) {
    if (parts.contains(name)) continue;
    bool archive = false;
    try {
      archive =
          is_archive(open_container(contents.path / name, options, options.links).header.metadata);
    } catch (const Error&) {
    }
    (archive ? found.archives : found.models).push_back(name);
    if (found.models.size() > 1) break;
  }
  return found;
}

/// One or two names in quotes, and whether there are more.
inline std::string listed(const std::vector<std::string>& names) {
  std::string text = "'" + shortened(names.at(0)) + "'";
  if (names.size() > 1) text += ", '" + shortened(names[1]) + "'";
  return names.size() > 2 ? text + " and more" : text;
}

/// Says what a folder holds instead of a model, and what to do about it.
inline std::string no_model(const FolderContents& contents, const FolderCandidates& found) {
  if (found.models.size() > 1) {
    return "no " + std::string(kUsualIndex) + " or " + kUsualFile + ", but " +
           listed(found.models) + ": give the path of one";
  }
  if (!found.archives.empty()) {
    return "no model, but delta archives, or parts of one without its index: " +
           listed(found.archives);
  }
  if (contents.adapter) {
    return "no model, but an adapter (" + std::string(kAdapterConfig) + ", " + kAdapterFile +
           "): merge it into its base, as peft's merge_and_unload() does, and give the result";
  }
  if (!contents.pickles.empty()) return listed(contents.pickles) + " is " + kConvertPickle;
  if (!contents.ggufs.empty()) return listed(contents.ggufs) + " is " + kConvertGguf;
  return "no index, and no *.safetensors";
}

/// Whether sorted names are those of all shards of one model: NAME-00001-of-00003.safetensors and
/// so on.
inline bool is_complete_set(const std::vector<std::string>& files) {
  constexpr std::string_view kTail = "-00001-of-00001.safetensors";
  const auto numbered = [](std::size_t number) {
    const std::string digits = std::to_string(number);
    return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
  };
  if (files.empty() || files[0].size() <= kTail.size() || files.size() > 99999) return false;
  const std::string name = files[0].substr(0, files[0].size() - kTail.size());
  for (std::size_t k = 0; k < files.size(); ++k) {
    const std::string tail = "-" + numbered(k + 1) + "-of-" + numbered(files.size());
    if (files[k] != name + tail + ".safetensors") return false;
  }
  return true;
}

/// A shard that an index names and that does not exist; nothing if there is none, or if the index
/// cannot be read.
inline std::optional<std::string> lacking_shard(const std::filesystem::path& index,
                                                const ReadOptions& options) {
  try {
    for (const auto& [shard, tensors] : read_index(index, options, options.links).first.shards) {
      if (!has_entry(index.parent_path() / shard)) return shard;
    }
  } catch (const Error&) {
  }
  return std::nullopt;
}

/// The file to open: model.safetensors.index.json, else model.safetensors, else the only other
/// index, else the only other *.safetensors. Adapters are ignored, and so are delta archives if
/// there is anything else. Or, unless that is strict, the files to open together: all shards of a
/// model that has no index. Throws no_model or io_failure.
inline std::vector<std::filesystem::path> model_in_folder(const std::filesystem::path& folder,
                                                          const ReadOptions& options) {
  for (const char* usual : {kUsualIndex, kUsualFile}) {
    if (has_entry(folder / usual)) return {folder / usual};
  }
  const FolderContents contents(folder);
  if (contents.indices.empty() && contents.files.size() == 1) return {folder / contents.files[0]};
  if (contents.indices.empty() && !options.is_strict() && is_complete_set(contents.files)) {
    std::vector<std::filesystem::path> shards;
    for (const std::string& file : contents.files) shards.push_back(folder / file);
    return shards;
  }
  const FolderCandidates found = sort_out(contents, options);
  if (found.models.size() == 1) return {folder / found.models[0]};
  if (found.models.empty() && found.archives.size() == 1) return {folder / found.archives[0]};
  throw Error(Errc::no_model, folder.string(), no_model(contents, found));
}

}}}}  // namespace deltadct::inline DELTADCT_ABI::io::detail
