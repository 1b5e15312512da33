// Checks whether an output would replace or remove what it is made from.
#pragma once

#include <deltadct/io/folder.hpp>
#include <deltadct/io/model.hpp>

#include <compare>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <vector>

#include <sys/stat.h>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io { namespace detail {

/// Identifies a file or folder, whatever its name.
struct Node {
  std::uint64_t device;
  std::uint64_t inode;

  auto operator<=>(const Node&) const = default;
};

/// What a path leads to, following links; nothing if it leads nowhere.
inline std::optional<Node> node_of(const std::filesystem::path& path) noexcept {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  return Node{static_cast<std::uint64_t>(status.st_dev), static_cast<std::uint64_t>(status.st_ino)};
}

inline std::filesystem::path folder_of(const std::filesystem::path& file) {
  return file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
}

/// Files that an output must leave alone.
class Inputs {
 public:
  /// `advice` is appended to errors about these files.
  void add(const std::vector<ModelFile>& files, const std::string& advice = {}) {
    for (const ModelFile& file : files) files_.push_back({file, advice});
  }

  /// Throws output_is_input if the output is one of the files, under any name, or a folder that
  /// contains one. If the output is a folder, the same holds for its stage. Opens nothing.
  void require_apart(const std::filesystem::path& output, bool is_folder) const {
    check(output, output);
    if (is_folder) check(output, AtomicFolder::stage_of(output));
  }

 private:
  struct Input {
    ModelFile file;
    std::string advice;
  };

  void check(const std::filesystem::path& output, const std::filesystem::path& at) const {
    const auto node = node_of(at);
    if (!node) return;
    std::map<std::filesystem::path, bool> around;  // by folder: whether it lies in the output
    for (const Input& input : files_) {
      const FileIdentity& identity = input.file.identity;
      if (Node{identity.device, identity.inode} == *node) refuse(output, at, "is", input);
      const std::filesystem::path& path = input.file.path;
      std::error_code error;
      const auto target = std::filesystem::canonical(path, error);
      for (const auto& folder : {folder_of(path), folder_of(error ? path : target)}) {
        const auto [found, is_new] = around.try_emplace(folder);
        if (is_new) found->second = lies_in(folder, *node);
        if (found->second) refuse(output, at, "holds", input);
      }
    }
  }

  /// Whether a folder is the node or lies below it.
  static bool lies_in(const std::filesystem::path& folder, const Node& node) {
    std::error_code error;
    auto at = std::filesystem::canonical(folder, error);
    for (; !error && node_of(at) != node; at = at.parent_path()) {
      if (at == at.parent_path()) return false;
    }
    return !error;
  }

  [[noreturn]] static void refuse(const std::filesystem::path& output,
                                  const std::filesystem::path& at, const char* relation,
                                  const Input& input) {
    throw Error(Errc::output_is_input, output.string(),
                (at == output ? "it " : "its stage " + at.string() + " ") + relation + " " +
                    input.file.path.string() + input.advice);
  }

  std::vector<Input> files_;
};

/// Whether an output is exactly a model: its only file, or the folder as which it was opened, with
/// nothing else in it that would be lost.
inline bool is_whole_model(const std::filesystem::path& output, const Model& model) {
  std::set<Node> nodes;
  for (const ModelFile& file : model.files()) {
    nodes.insert({file.identity.device, file.identity.inode});
  }
  const auto node = node_of(output);
  if (!node) return false;
  if (nodes.size() == 1 && *nodes.begin() == *node) return true;
  const std::filesystem::path& path = model.path();
  std::error_code error;
  const bool is_folder = std::filesystem::is_directory(path, error);
  const bool has_index = nodes.size() > model.shards();
  if (node_of(is_folder ? path : folder_of(path)) != node || !(is_folder || has_index))
    return false;
  std::filesystem::directory_iterator at(output, error);
  for (; !error && at != std::filesystem::directory_iterator(); at.increment(error)) {
    // What a link leads to would stay, and the link would be lost.
    const auto held = at->is_symlink(error) ? std::nullopt : node_of(at->path());
    const bool known = held && nodes.contains(*held);
    if (!known && !AtomicFolder::is_mark(at->path().filename().string())) return false;
  }
  return !error;
}

}}}}  // namespace deltadct::inline DELTADCT_ABI::io::detail
