// The small files in a model's folder that go with its weights (config.json, tokenizers, custom
// code, README, and folders of them): finds them, stores them in an archive, restores them.
//
// Left out silently: hidden files (.git, .cache), the model's own shards and index, and the plan of
// an interrupted run. Left out with a warning: weights in other formats or of other models,
// anything that is not a regular file, symbolic links unless links are followed, files beyond the
// limits, names that no archive carries (file_entry.hpp), and empty folders.
#pragma once

#include <deltadct/io/archive.hpp>
#include <deltadct/io/archive_writer.hpp>

#include <array>
#include <set>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// Whether an archive carries the small files of the fine-tune's folder.
enum class Companions : bool { leave, carry };

/// A file to carry.
struct CompanionFile {
  std::string name;  ///< relative to the folder, with '/' between its parts
  std::filesystem::path path;
  FileIdentity identity;
  bool executable = false;
};

/// The files that a model has beside its weights.
struct CompanionFiles {
  bool folder = false;               ///< whether the model is a folder, not a file
  Links links = Links::refuse;       ///< how the files are opened
  std::vector<CompanionFile> files;  ///< sorted by name
  std::vector<Warning> warnings;     ///< what is not carried, and why

  std::vector<ModelFile> model_files() const {
    std::vector<ModelFile> result;
    for (const CompanionFile& file : files) result.push_back({file.path, file.identity});
    return result;
  }
};

namespace detail {

inline constexpr const char* kLeaveThem = "--no-files leaves such files out";

/// Whether a file's lower-case name says that it holds weights, or is an index of such files.
inline bool is_weights_name(std::string_view lower) noexcept {
  constexpr std::string_view kIndex = ".index.json";
  if (lower.ends_with(kIndex)) lower.remove_suffix(kIndex.size());
  return std::ranges::any_of(std::array{".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx",
                                        ".gguf", ".h5", ".msgpack"},
                             [&](const char* ending) { return lower.ends_with(ending); });
}

/// Whether a file begins as a safetensors file does, such as an archive, whatever its name.
inline bool is_container(const InputFile& file) {
  if (file.size() <= kLengthBytes || stored_length(file) > file.size() - kLengthBytes) return false;
  std::vector<std::byte> storage;
  return file.bytes(kLengthBytes, 1, storage)[0] == std::byte{'{'};
}

/// Searches a folder for files to carry.
class CompanionFinder {
 public:
  CompanionFinder(const Model& model, std::filesystem::path folder)
      : folder_(std::move(folder)), options_(model.options()) {
    for (const ModelFile& file : model.files()) own_.insert(file.identity);
    found_.folder = true;
    found_.links = options_.links;
  }

  CompanionFiles run() {
    look_through(folder_, {});
    warn_of_weights();
    keep_within_limits();
    return std::move(found_);
  }

 private:
  using Entry = std::filesystem::directory_entry;

  void leave(const std::filesystem::path& path, const std::string& why) {
    found_.warnings.push_back({path.string(), "not carried: " + why, Loss::beside});
  }

  /// The entries of a folder sorted by name, so that the order is the same on every file system.
  static std::vector<Entry> entries(const std::filesystem::path& folder) {
    std::vector<Entry> found;
    std::error_code error;
    std::filesystem::directory_iterator at(folder, error);
    for (; !error && at != std::filesystem::directory_iterator(); at.increment(error)) {
      found.push_back(*at);
    }
    if (error) {
      throw Error(Errc::io_failure, folder.string(), error.message() + "; " + kLeaveThem);
    }
    std::ranges::sort(found);
    return found;
  }

  void look_through(const std::filesystem::path& folder, const std::string& prefix) {
    std::error_code ignored;
    const std::filesystem::path real = std::filesystem::weakly_canonical(folder, ignored);
    if (std::ranges::find(above_, real) != above_.end()) {
      return leave(folder, "a symbolic link to a folder that holds it");
    }
    above_.push_back(real);
    const std::vector<Entry> held = entries(folder);
    if (held.empty() && !prefix.empty()) leave(folder, "an empty folder");
    for (const Entry& entry : held) {
      const std::string part = entry.path().filename().string();
      const bool is_passed_over = part.starts_with('.') || AtomicFolder::is_mark(part);
      if (!is_passed_over) look_at(entry, prefix + part);
    }
    above_.pop_back();
  }

  void look_at(const Entry& entry, const std::string& name) {
    std::error_code error;
    const bool is_link = std::filesystem::is_symlink(entry.symlink_status(error));
    const auto status = entry.status(error);
    const bool is_folder = std::filesystem::is_directory(status);
    const bool is_file = std::filesystem::is_regular_file(status);
    if (is_weights_name(lower_case(name)) && !is_folder) {
      note_weights(entry, name);
    } else if (is_link && options_.links == Links::refuse) {
      leave(entry.path(), "a symbolic link (--follow-links takes what it leads to)");
    } else if (!is_folder && !is_file) {
      leave(entry.path(), is_link ? "a symbolic link that leads nowhere" : "not a regular file");
    } else if (const char* fault = name_fault(name, is_folder)) {
      leave(entry.path(), fault);
    } else if (is_folder) {
      look_through(entry.path(), name + "/");
    } else {
      look_into(entry.path(), name);
    }
  }

  const char* name_fault(const std::string& name, bool is_folder) const {
    try {
      static_cast<void>(json_quoted(name, {}));
    } catch (const Error&) {
      return "its path is not UTF-8";
    }
    return file_name_fault(is_folder ? name + "/x" : name);
  }

  bool is_of_model(const FileIdentity& identity) const { return own_.contains(identity); }

  InputFile open(const std::filesystem::path& path) const {
    try {
      return InputFile::open(path, Access::read, options_.links);
    } catch (const Error& error) {
      throw Error(error.code(), error.where(), std::string(error.detail()) + "; " + kLeaveThem);
    }
  }

  void look_into(const std::filesystem::path& path, const std::string& name) {
    const InputFile file = open(path);
    if (is_of_model(file.identity())) return;
    if (is_container(file)) {
      weights_.push_back(name);
    } else if (file.size() > options_.limits.file_bytes) {
      leave(path, std::to_string(file.size()) + " bytes are more than the limit of " +
                      std::to_string(options_.limits.file_bytes) + " (--limit file=NUMBER)");
    } else if (const char* fault = names_.add(name)) {
      leave(path, fault);
    } else if (found_.files.size() == kMaxFiles) {
      throw Error(Errc::limit_exceeded, folder_.string(),
                  "more than " + std::to_string(kMaxFiles) + " files; " + kLeaveThem);
    } else {
      found_.files.push_back({name, path, file.identity(), ::access(path.c_str(), X_OK) == 0});
    }
  }

  void note_weights(const Entry& entry, const std::string& name) {
    try {
      if (is_of_model(InputFile::open(entry.path(), Access::read).identity())) return;
    } catch (const Error&) {  // whatever it is, it is not of this model
    }
    weights_.push_back(name);
  }

  void warn_of_weights() {
    constexpr std::size_t kNamed = 5;
    if (weights_.empty()) return;
    std::string text;
    for (std::size_t i = 0; i < std::min(kNamed, weights_.size()); ++i) {
      text += (i == 0 ? "" : ", ") + shortened(weights_[i]);
    }
    if (weights_.size() > kNamed)
      text += " and " + std::to_string(weights_.size() - kNamed) + " more";
    leave(folder_, text +
                       ": weights, or indices of weights, that are not of this model, or of "
                       "another format");
  }

  /// Keeps smaller files first, so that the larger ones are left out.
  void keep_within_limits() {
    std::vector<CompanionFile> kept;
    std::uint64_t left = options_.limits.files_bytes;
    std::ranges::stable_sort(found_.files, {},
                             [](const auto& file) { return file.identity.bytes; });
    for (CompanionFile& file : found_.files) {
      if (file.identity.bytes <= left) {
        left -= file.identity.bytes;
        kept.push_back(std::move(file));
        continue;
      }
      leave(file.path, "its " + std::to_string(file.identity.bytes) +
                           " bytes exceed what is left of the limit of " +
                           std::to_string(options_.limits.files_bytes) +
                           " for all files (--limit files=NUMBER)");
    }
    std::ranges::sort(kept, {}, &CompanionFile::name);
    found_.files = std::move(kept);
  }

  std::filesystem::path folder_;
  const ReadOptions& options_;
  std::set<FileIdentity> own_;                // of the model: its shards and its index
  std::vector<std::filesystem::path> above_;  // the folders being searched, outermost first
  FileNames names_;
  std::vector<std::string> weights_;  // weights that are not the model's
  CompanionFiles found_;
};

/// Identifies the files in the plan of an operation that may be resumed.
inline nlohmann::json identity_json(const CompanionFiles& companions) {
  nlohmann::json files = nlohmann::json::array({companions.folder});
  for (const CompanionFile& file : companions.files) {
    const FileIdentity& identity = file.identity;
    files.push_back(
        {file.name, identity.inode, identity.bytes, identity.modified_ns, file.executable});
  }
  return files;
}

}  // namespace detail

/// Finds the files of a model's folder that an archive carries, with the limits and the rule for
/// links with which the model was opened. For a model opened by its index, that is the folder of
/// the index. Throws io_failure, naming what cannot be read; limit_exceeded beyond kMaxFiles.
inline CompanionFiles find_companions(const Model& model, Companions companions) {
  std::error_code ignored;
  std::filesystem::path folder = model.path();
  if (!std::filesystem::is_directory(folder, ignored)) {
    if (!folder.string().ends_with(".index.json")) return {};
    folder = folder.has_parent_path() ? folder.parent_path() : std::filesystem::path(".");
  }
  if (companions == Companions::carry) return detail::CompanionFinder(model, folder).run();
  CompanionFiles none;
  none.folder = true;
  return none;
}

/// Adds the files to an archive, except those that an interrupted run has added. Throws io_failure
/// if a file has changed since it was found.
inline void store_companions(const CompanionFiles& companions, ArchiveWriter& writer) {
  std::set<std::string> stored;
  for (const FileEntry& file : writer.resumed_files()) stored.insert(file.name);
  std::vector<std::byte> storage;
  for (const CompanionFile& companion : companions.files) {
    if (stored.contains(companion.name)) continue;
    const InputFile file = InputFile::open(companion.path, Access::read, companions.links);
    if (file.identity() != companion.identity) {
      throw Error(Errc::io_failure, companion.path.string(), "changed since it was found");
    }
    const auto bytes = file.bytes(0, file.size(), storage);
    writer.add(FileEntry{companion.name, file.size(), fingerprint(bytes), {}, companion.executable},
               encode_lossless(bytes, {}, 1, SerialExecutor{}));
  }
}

/// The fingerprints of the files that an archive carries.
inline FileSums companion_sums(const DeltaArchive& archive) {
  FileSums sums;
  for (const FileEntry& file : archive.companions()) sums.emplace(file.name, file.sum);
  return sums;
}

namespace detail {

/// Reads and checks the files that an archive carries. Returns the bytes of their sections. Throws
/// as DeltaArchive::read() does.
inline std::uint64_t check_companions(const DeltaArchive& archive) {
  std::uint64_t bytes = 0;
  for (const FileEntry& entry : archive.companions()) {
    archive.read(entry, [](std::span<const std::byte>) {});
    bytes += archive.stored_bytes(entry);
  }
  return bytes;
}

}  // namespace detail

/// Writes the files that an archive carries into a folder. Returns their bytes. Throws as
/// DeltaArchive::read() does; output_exists if the file system treats two names as one.
inline std::uint64_t restore_companions(const DeltaArchive& archive, const AtomicFolder& folder) {
  std::uint64_t bytes = 0;
  for (const FileEntry& entry : archive.companions()) {
    bytes += folder.add(entry.name, [&](AtomicFile& file) {
      Fingerprint sum;
      archive.read(entry, [&](std::span<const std::byte> piece) {
        sum.add(piece);
        file.write(piece);
      });
      if (entry.executable) file.make_executable();
      return sum.hex();
    });
  }
  return bytes;
}

}}}  // namespace deltadct::inline DELTADCT_ABI::io
