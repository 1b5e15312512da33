// Writes a model: one safetensors file, or a folder that holds one, or shards with an index.
#pragma once

#include <deltadct/io/output.hpp>
#include <deltadct/io/safetensors.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// The layout of a model if its files have no maximum size.
enum class ModelLayout {
  file,    ///< the file itself
  folder,  ///< a folder with model.safetensors
};

/// Writes a model whose tensors are known beforehand. It appears complete with finish(), or never.
class ModelWriter {
 public:
  /// `tensors` come in the order in which they will be written; their offsets are ignored. `files`
  /// are the files that a folder will hold beside them. `index_metadata` is an object, for the
  /// index of shards. An interrupted run can be resumed by one with the same plan.
  ModelWriter(const std::filesystem::path& path, const OutputOptions& output,
              std::vector<TensorInfo> tensors, Metadata metadata, std::string_view plan = {},
              ModelLayout layout = ModelLayout::file, FileSums files = {},
              nlohmann::json index_metadata = nlohmann::json::object())
      : path_(path),
        output_(output),
        metadata_(std::move(metadata)),
        index_metadata_(std::move(index_metadata)) {
    divide(std::move(tensors));
    if (output.max_shard_bytes != 0 || layout == ModelLayout::folder) {
      folder_.emplace(path, output.overwrite, output.resume, plan, std::move(files));
    } else {
      begin_shard();  // fails now rather than after hours of work
    }
    skip_finished();
  }

  /// The folder that is written, for adding files to it; nullptr if the output is a file.
  const AtomicFolder* folder() const noexcept { return folder_ ? &*folder_ : nullptr; }

  /// Whether the next tensor must be written. An interrupted run may have written it.
  bool wants_next() const noexcept { return !skipped(); }

  /// The offset of the next tensor in its file. Call it only if wants_next().
  std::uint64_t next_offset() {
    if (!writer_) begin_shard();
    return writer_->position();
  }

  /// Writes the next tensor. The bytes of one that is not wanted are ignored. Throws shape_mismatch
  /// if there are more or fewer bytes than it has.
  void write(std::span<const std::byte> bytes) {
    const Shard& shard = shards_[shard_];
    if (!skipped()) {
      if (!writer_) begin_shard();
      const TensorInfo& tensor = shard.tensors[next_];
      writer_->begin(tensor.name, tensor.dtype, tensor.shape);
      writer_->write(bytes);
    }
    if (++next_ < shard.tensors.size() || !folder_) return;  // finish() completes a single file
    finish_shard();
    skip_finished();
  }

  /// Puts the model in place. Returns the bytes of its files.
  std::uint64_t finish() {
    const bool empty = shards_[0].tensors.empty() && !shards_[0].finished;
    if (empty && folder_ && !is_sharded()) begin_shard();  // no tensor has begun the file
    if (writer_) finish_shard();
    if (!folder_) return file_bytes_;
    if (!is_sharded()) {
      folder_->publish();
      return file_bytes_;
    }
    ShardIndex index;
    for (const auto& [key, value] : index_metadata_.items()) {
      index.other_metadata.emplace(key, value);
    }
    index.total_size = 0;
    for (std::size_t i = 0; i < shards_.size(); ++i) {
      auto& names = index.shards[shard_name(i)];
      for (const TensorInfo& tensor : shards_[i].tensors) {
        names.push_back(tensor.name);
        *index.total_size += tensor.bytes();
      }
    }
    return file_bytes_ + publish_shards(*folder_, "model.safetensors.index.json", index);
  }

 private:
  struct Shard {
    std::vector<TensorInfo> tensors;
    bool finished = false;
  };

  bool is_sharded() const noexcept { return output_.max_shard_bytes != 0; }

  void divide(std::vector<TensorInfo>&& tensors) {
    shards_.emplace_back();
    std::uint64_t end = 0;
    for (TensorInfo& tensor : tensors) {
      const std::uint64_t bytes = tensor.bytes();
      const bool full =
          is_sharded() && !shards_.back().tensors.empty() && end + bytes > output_.max_shard_bytes;
      if (full) {
        shards_.emplace_back();
        end = 0;
      }
      tensor.begin = end;
      tensor.end = end += bytes;
      shards_.back().tensors.push_back(std::move(tensor));
    }
  }

  std::string shard_name(std::size_t shard) const {
    if (!is_sharded()) return "model.safetensors";
    return numbered("model", shard + 1) + numbered("-of", shards_.size()) + ".safetensors";
  }

  bool skipped() const noexcept { return shard_ < shards_.size() && shards_[shard_].finished; }

  void skip_finished() {
    if (!folder_ || shard_ == shards_.size() || !folder_->has(shard_name(shard_))) return;
    shards_[shard_].finished = true;
    const std::filesystem::path path = folder_->stage() / shard_name(shard_);
    file_bytes_ += InputFile::open(path, Access::read, Links::refuse).size();
  }

  void begin_shard() {
    const auto path = folder_ ? folder_->stage() / shard_name(shard_) : path_;
    writer_.emplace(path, folder_ ? Overwrite::no : output_.overwrite,
                    header_bytes(shards_[shard_].tensors, metadata_));
  }

  void finish_shard() {
    if (writer_) file_bytes_ += writer_->finish(metadata_);
    writer_.reset();
    ++shard_;
    next_ = 0;
  }

  std::filesystem::path path_;
  OutputOptions output_;
  Metadata metadata_;
  nlohmann::json index_metadata_;
  std::vector<Shard> shards_;
  std::optional<AtomicFolder> folder_;
  std::optional<SafetensorsWriter> writer_;
  std::size_t shard_ = 0;
  std::size_t next_ = 0;
  std::uint64_t file_bytes_ = 0;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
