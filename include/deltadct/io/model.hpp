// A model on disk: one safetensors file, or a folder of shards with an index.
#pragma once

#include <deltadct/io/model_folder.hpp>
#include <deltadct/io/tensor_bytes.hpp>

#include <memory>
#include <mutex>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// A tensor of a model, and the shard that contains it.
struct ModelTensor : TensorInfo {
  std::size_t shard = 0;
};

namespace detail {

/// Indices of tensors sorted by name.
template <class Tensor>
std::vector<std::size_t> sorted_by_name(const std::vector<Tensor>& tensors) {
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {},
                    [&](std::size_t i) -> const std::string& { return tensors[i].name; });
  return order;
}

/// The tensor of that name, or nullptr; O(log n).
template <class Tensor>
const Tensor* find_by_name(const std::vector<Tensor>& tensors,
                           const std::vector<std::size_t>& by_name,
                           std::string_view name) noexcept {
  const auto found = std::ranges::lower_bound(
      by_name, name, {}, [&](std::size_t i) -> std::string_view { return tensors[i].name; });
  return found == by_name.end() || tensors[*found].name != name ? nullptr : &tensors[*found];
}

}  // namespace detail

/// A file from which a model is read, identified when it was opened.
struct ModelFile {
  std::filesystem::path path;
  FileIdentity identity;
};

namespace detail {

/// Throws io_failure if a file is not the one that was opened, or has changed since.
inline void require_unchanged(const std::vector<ModelFile>& files) {
  for (const ModelFile& file : files) {
    if (InputFile::open(file.path, Access::read).identity() == file.identity) continue;
    throw Error(Errc::io_failure, file.path.string(), "changed while it was read");
  }
}

}  // namespace detail

/// A model whose headers have been checked and whose tensors can be read.
///
/// A shard is open only while a TensorBytes holds bytes of it, so thousands of shards need no open
/// files. A shard that was replaced or changed in between is refused. Several threads may call
/// const members at once, each with its own TensorBytes.
class Model {
 public:
  /// `path` is a safetensors file, a folder, or an index. In a folder, the first that exists is
  /// taken of: model.safetensors.index.json, model.safetensors, the only other index, the only
  /// other *.safetensors, a complete set of shards without an index. Adapters are ignored, and so
  /// are delta archives if there is anything else.
  ///
  /// Throws io_failure, bad_container, bad_index, no_model, unsupported_dtype or limit_exceeded,
  /// naming the file and, if there is one, the tensor.
  static Model open(const std::filesystem::path& path, const ReadOptions& options = {}) {
    return detail::require_memory([&] { return path.string(); },
                                  [&] { return opened(path, options); });
  }

  /// The same model with its tensors under the names that `rename` returns. Throws name_clash,
  /// naming both, if two tensors get the same name, and bad_container for a name that cannot be
  /// stored.
  Model renamed(const std::function<std::string(std::string_view)>& rename) && {
    std::vector<std::string> before;
    for (ModelTensor& tensor : tensors_) {
      before.push_back(tensor.name);
      tensor.name = rename(before.back());
      detail::quoted_name(tensor.name, path_.string());
    }
    by_name_ = detail::sorted_by_name(tensors_);
    const auto twice = std::ranges::adjacent_find(
        by_name_, {}, [&](std::size_t i) -> const std::string& { return tensors_[i].name; });
    if (twice == by_name_.end()) return std::move(*this);
    throw Error(Errc::name_clash, detail::tensor_place(path_.string(), tensors_[*twice].name),
                "renamed from '" + detail::shortened(before[*twice]) + "' and '" +
                    detail::shortened(before[*std::next(twice)]) + "'");
  }

  const std::filesystem::path& path() const noexcept { return path_; }

  /// Shard by shard in the order of their names; within a shard, in the order of the data.
  const std::vector<ModelTensor>& tensors() const noexcept { return tensors_; }

  /// The tensor of that name, or nullptr. O(log n).
  const ModelTensor* find(std::string_view name) const noexcept {
    return detail::find_by_name(tensors_, by_name_, name);
  }

  std::size_t shards() const noexcept { return shards_.size(); }
  const std::filesystem::path& shard_path(const ModelTensor& tensor) const {
    return shards_[tensor.shard].path;
  }

  /// The __metadata__ of a shard; empty beyond the last one.
  const Metadata& metadata(std::size_t shard = 0) const {
    static const Metadata none;
    return shard < shards_.size() ? shards_[shard].metadata : none;
  }

  /// The __metadata__ of all shards: every key, with its value in the first shard that has it.
  Metadata merged_metadata() const {
    Metadata merged;
    for (const Shard& shard : shards_) merged.insert(shard.metadata.begin(), shard.metadata.end());
    return merged;
  }

  /// The strings in the metadata of the index; empty for a single file.
  const Metadata& index_metadata() const noexcept { return index_metadata_; }

  /// All metadata of the index except total_size, as a JSON object; empty for a single file.
  nlohmann::json whole_index_metadata() const {
    nlohmann::json whole = nlohmann::json::object();
    for (const auto& [key, text] : index_metadata_) whole[key] = text;
    for (const auto& [key, value] : other_index_metadata_) whole[key] = value;
    return whole;
  }

  /// What merged_metadata() and whole_index_metadata() leave out, as warnings: values that differ
  /// between shards, and members of the index that no reader knows.
  std::vector<Warning> lost_metadata() const {
    WarningCollector lost;
    const Metadata merged = merged_metadata();
    for (const Shard& shard : shards_) {
      for (const auto& [key, text] : shard.metadata) {
        if (merged.at(key) == text) continue;
        lost.add(detail::tensor_place(shard.path.string(), key),
                 "metadata, left out because an earlier shard has another value", Loss::beside);
      }
    }
    for (const std::string& key : unknown_in_index_) {
      lost.add(detail::tensor_place(index_->path.string(), key),
               "left out: an index has metadata and weight_map", Loss::beside);
    }
    return lost.warnings();
  }

  /// Bytes of all tensors.
  std::uint64_t tensor_bytes() const noexcept {
    std::uint64_t total = 0;  // at most the bytes of the files, so no overflow
    for (const ModelTensor& tensor : tensors_) total += tensor.bytes();
    return total;
  }

  /// Bytes of all files: shards and index.
  std::uint64_t file_bytes() const noexcept { return file_bytes_; }

  /// The identity of every shard, to notice that a model has changed.
  std::vector<FileIdentity> identity() const {
    std::vector<FileIdentity> result;
    for (const Shard& shard : shards_) result.push_back(shard.identity);
    return result;
  }

  /// Every file that the model is read from: the shards, and the index if there is one.
  std::vector<ModelFile> files() const {
    std::vector<ModelFile> result;
    for (const Shard& shard : shards_) result.push_back({shard.path, shard.identity});
    if (index_) result.push_back(*index_);
    return result;
  }

  /// Throws io_failure, naming the file, unless every file is still the one that was opened, of the
  /// same size and not written since. Call it after the last read: bytes of a mapped file may be
  /// those of another process.
  void require_unchanged() const { detail::require_unchanged(files()); }

  /// The options with which it was opened.
  const ReadOptions& options() const noexcept { return options_; }

  /// What the user should know about how the model was read.
  std::vector<Warning> warnings() const { return warnings_.warnings(); }

  /// The place to name in an error about a tensor: its file and name.
  std::string place(const ModelTensor& tensor) const {
    return detail::tensor_place(shard_path(tensor).string(), tensor.name);
  }

  /// A tensor's bytes: little-endian elements, row-major, not aligned. Throws io_failure.
  void read(const ModelTensor& tensor, TensorBytes& into) const {
    read(tensor, 0, tensor.bytes(), into);
  }

  /// `length` bytes of a tensor, from `offset` on. Throws bad_range, io_failure.
  void read(const ModelTensor& tensor, std::uint64_t offset, std::uint64_t length,
            TensorBytes& into) const {
    if (offset > tensor.bytes() || length > tensor.bytes() - offset) {
      throw Error(Errc::bad_range, place(tensor),
                  std::to_string(length) + " bytes from byte " + std::to_string(offset));
    }
    try {
      into.bytes_ = {};
      into.file_ = file_of(tensor);
      into.offset_ = shards_[tensor.shard].data_begin + tensor.begin + offset;
      into.bytes_ = detail::require_memory(
          [&] { return place(tensor); },
          [&] { return into.file_->bytes(into.offset_, length, into.storage_); });
    } catch (const Error& error) {
      throw Error(error.code(), place(tensor), error.detail());
    }
  }

 private:
  struct Shard {
    std::filesystem::path path;
    Links links;
    FileIdentity identity;
    std::uint64_t data_begin;
    Metadata metadata;
    mutable std::weak_ptr<const InputFile> file;
  };

  explicit Model(const ReadOptions& options) : options_(options) {}

  static bool is_index(const std::filesystem::path& path) {
    return path.string().ends_with(".index.json");
  }

  static Model opened(const std::filesystem::path& path, const ReadOptions& options) {
    Model model(options);
    std::error_code ignored;  // what cannot be examined cannot be opened either
    if (std::filesystem::is_directory(path, ignored)) {
      model.open_folder(path);
    } else if (is_index(path)) {
      model.open_index(path, Links::follow);
    } else {
      model.add_shard(path, Links::follow);
    }
    model.path_ = path;
    model.by_name_ = detail::sorted_by_name(model.tensors_);
    return model;
  }

  void open_folder(const std::filesystem::path& folder) {
    const auto paths = detail::model_in_folder(folder, options_);
    if (paths.size() > 1) return open_set(folder, paths);
    const auto& path = paths[0];
    if (!is_index(path)) return add_shard(path, options_.links);
    const auto single = folder / detail::kUsualFile;
    if (!options_.is_strict() && detail::has_entry(single)) {
      if (const auto lacking = detail::lacking_shard(path, options_)) {
        warnings_.add(path.string(), "ignored, because its shard '" + detail::shortened(*lacking) +
                                         "' does not exist; " + detail::kUsualFile +
                                         " is read, as by transformers (--strict refuses it)");
        return add_shard(single, options_.links);
      }
    }
    open_index(path, options_.links);
    const bool named = std::ranges::find(shards_, single, &Shard::path) != shards_.end();
    if (named || !detail::has_entry(single)) return;
    warnings_.add(single.string(),
                  "ignored in favour of an index that does not name it, as by vLLM; transformers "
                  "reads it instead. Give its path to read it");
  }

  /// Opens all shards of a model that has no index.
  void open_set(const std::filesystem::path& folder,
                const std::vector<std::filesystem::path>& paths) {
    for (const auto& path : paths) add_shard(path, options_.links);
    warnings_.add(folder.string(), "no index; its " + std::to_string(paths.size()) +
                                       " shards are read, as by vLLM (--strict refuses them)");
    std::vector<std::string_view> names;
    for (const ModelTensor& tensor : tensors_) names.push_back(tensor.name);
    std::ranges::sort(names);
    const auto twice = std::ranges::adjacent_find(names);
    if (twice == names.end()) return;
    throw Error(Errc::bad_index, detail::tensor_place(folder.string(), *twice),
                "in several shards, and there is no index");
  }

  void open_index(const std::filesystem::path& path, Links links) {
    auto [index, identity] = detail::read_index(path, options_, links);
    for (const Warning& warning : index.warnings) warnings_.add(warning.where, warning.what);
    file_bytes_ += identity.bytes;
    index_ = {path, identity};
    std::map<std::string, std::string> absent;
    for (auto& [name, tensors] : index.shards) {
      const std::size_t first = tensors_.size();
      add_shard(path.parent_path() / name, options_.links);
      detail::check_shard(path.string(), name, tensors,
                          std::span<const ModelTensor>(tensors_).subspan(first), options_, absent);
    }
    detail::settle_tensors(path.string(), index, std::move(absent), tensors_, warnings_);
    check_total(path, index);
    index_metadata_ = std::move(index.metadata);
    other_index_metadata_ = std::move(index.other_metadata);
    unknown_in_index_ = std::move(index.unknown);
  }

  void add_shard(const std::filesystem::path& path, Links links) {
    detail::Container container = detail::open_container(path, options_, links);
    for (TensorInfo& tensor : container.header.tensors) {
      if (tensors_.size() == options_.limits.tensors) {
        throw Error(Errc::limit_exceeded, path.string(),
                    "too many tensors" + detail::limit_advice("tensors"));
      }
      tensors_.push_back({std::move(tensor), shards_.size()});
    }
    if (container.header.null_metadata) {
      warnings_.add(detail::tensor_place(path.string(), detail::kMetadataKey),
                    "it is null, and treated as absent, as by safetensors (--strict refuses it)");
    }
    if (container.header.leading_blanks) {
      warnings_.add(path.string(),
                    "its header does not start with '{' but with blanks, which safetensors reads "
                    "(--strict refuses it)");
    }
    if (container.header.array_entries) {
      warnings_.add(path.string(),
                    "entries of its header are arrays, which safetensors reads (--strict refuses "
                    "them)");
    }
    if (container.header.other_members) {
      warnings_.add(path.string(),
                    "entries of its header have other members than dtype, shape and data_offsets, "
                    "which are left out",
                    Loss::beside);
    }
    file_bytes_ += container.file.size();
    shards_.push_back({path,
                       links,
                       container.file.identity(),
                       container.data_begin,
                       std::move(container.header.metadata),
                       {}});
  }

  void check_total(const std::filesystem::path& path, const ShardIndex& index) {
    if (!index.total_size) return;
    const std::uint64_t total = tensor_bytes();
    if (total == *index.total_size) return;
    const std::string what = "total_size is " + std::to_string(*index.total_size) +
                             ", the tensors have " + std::to_string(total) + " bytes";
    if (options_.is_strict()) throw Error(Errc::bad_index, path.string(), what);
    warnings_.add(path.string(),
                  what + "; transformers, vLLM and mlx-lm ignore it (--strict refuses it)");
  }

  std::shared_ptr<const InputFile> file_of(const ModelTensor& tensor) const {
    const std::lock_guard lock(*mutex_);
    const Shard& shard = shards_[tensor.shard];
    if (auto file = shard.file.lock()) return file;
    auto file = std::make_shared<const InputFile>(
        InputFile::open(shard.path, options_.access, shard.links));
    if (file->identity() != shard.identity) {
      throw Error(Errc::io_failure, shard.path.string(), "changed since it was opened");
    }
    shard.file = file;
    return file;
  }

  ReadOptions options_;
  std::filesystem::path path_;
  std::vector<Shard> shards_;
  std::vector<ModelTensor> tensors_;
  std::vector<std::size_t> by_name_;
  std::optional<ModelFile> index_;
  Metadata index_metadata_;
  std::map<std::string, nlohmann::json> other_index_metadata_;
  std::vector<std::string> unknown_in_index_;
  std::uint64_t file_bytes_ = 0;
  WarningCollector warnings_;
  std::unique_ptr<std::mutex> mutex_ = std::make_unique<std::mutex>();  // keeps the model movable
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
