// Writes a delta archive, tensor by tensor: one file, or a folder of parts with an index. Each part
// is an archive of the tensors it holds.
#pragma once

#include <deltadct/io/fingerprint.hpp>
#include <deltadct/io/manifest_reader.hpp>
#include <deltadct/io/manifest_writer.hpp>
#include <deltadct/io/model.hpp>
#include <deltadct/io/output.hpp>
#include <deltadct/io/sections.hpp>
#include <functional>

#include <algorithm>
#include <array>
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

/// Writes an archive. It appears complete with finish(), or never.
class ArchiveWriter {
 public:
  /// `names` are all the tensors and files that may be added; the headers reserve room for them.
  /// `metadata` is the fine-tune's, `of_folder` tells whether that was a folder, and
  /// `index_metadata` is an object: that of its index. An interrupted run can be resumed by one
  /// with the same plan.
  ArchiveWriter(const std::filesystem::path& path, const OutputOptions& output,
                std::span<const std::string> names, Metadata metadata, std::string_view plan = {},
                bool of_folder = false, nlohmann::json index_metadata = nlohmann::json::object())
      : path_(path),
        output_(output),
        metadata_(std::move(metadata)),
        index_metadata_(std::move(index_metadata)),
        of_folder_(of_folder) {
    for (const std::string& name : names) room_left_ += room(name);
    if (output.max_shard_bytes != 0) {
      folder_.emplace(path, output.overwrite, output.resume, plan);
      while (folder_->has(part_name(parts_ + 1))) take_up();
    } else {
      begin_part();  // fails now rather than after hours of work
    }
  }

  /// What an interrupted run has already written.
  const std::vector<ManifestEntry>& resumed() const noexcept { return resumed_; }
  const std::vector<FileEntry>& resumed_files() const noexcept { return resumed_files_; }

  /// Sets the expected size of the archive, on which bytes() and overhead() depend: in a large
  /// archive, the header takes all its reserved room.
  void expect(std::uint64_t bytes) {
    has_whole_room_ = !folder_ && bytes > SafetensorsWriter::kMostHeld;
    const std::string empty = manifest_text({metadata_, {}, of_folder_, {}, index_text()});
    bytes_ += empty.size() + kCodecBytes + (has_whole_room_ ? capacity_ : kFixedHeader);
    if (!folder_) return;
    // Two neighbouring parts are more than one part can hold, of data or of headers.
    const std::uint64_t share = std::max<std::uint64_t>(output_.max_shard_bytes / 16, 1);
    bytes_ += (2 * bytes / (15 * share) + 2 * room_left_ / share) * kPartBytes;
  }

  /// Size of the archive if it ended here, within a few bytes; and the part of it that belongs to
  /// tensors of an interrupted run.
  std::uint64_t bytes() const noexcept { return bytes_; }
  std::uint64_t resumed_bytes() const noexcept { return resumed_bytes_; }

  /// Bytes that an entry adds besides the contents of its sections: to the manifest and, with the
  /// names of its sections, to the header and the index. Checksums count even if not known yet.
  std::uint64_t overhead(ManifestEntry entry, bool has_outliers) const {
    std::uint64_t names = 0;
    const auto add = [&](const char* prefix, std::string& sum) {
      sum = "0123456789abcdef";
      names += name_bytes(prefix + entry.name);
    };
    if (has_delta(entry.mode)) add(detail::kDeltaPrefix, entry.delta_sum);
    if (has_outliers) add(detail::kOutliersPrefix, entry.outliers_sum);
    if (has_lossless(entry.mode)) add(detail::kLosslessPrefix, entry.lossless_sum);
    return entry_bytes(entry) + names;
  }

  /// Adds a tensor with its sections; sets the entry's checksums.
  void add(ManifestEntry entry, const Sections& sections) {
    make_room(entry.name, sections.bytes() + entry_bytes(entry));
    if (has_delta(entry.mode)) {
      entry.delta_sum = add_section(detail::kDeltaPrefix + entry.name, sections.delta);
    }
    if (!sections.outliers.empty()) {
      entry.outliers_sum = add_section(detail::kOutliersPrefix + entry.name, sections.outliers);
    }
    if (has_lossless(entry.mode)) {
      entry.lossless_sum = add_section(detail::kLosslessPrefix + entry.name, sections.lossless);
    }
    bytes_ += sections.bytes() + overhead(entry, !sections.outliers.empty());
    entries_.push_back(std::move(entry));
  }

  /// Adds a file with its section and sets its checksum.
  void add(FileEntry file, std::span<const std::byte> section) {
    make_room(file.name, section.size() + entry_bytes(file));
    file.section = add_section(detail::kFilePrefix + file.name, section);
    files_.push_back(std::move(file));
    bytes_ += section.size() + overhead(files_);
  }

  /// Puts the archive in place. Returns the bytes of its files, after check(bytes), which may
  /// throw.
  std::uint64_t finish(const std::function<void(std::uint64_t)>& check = [](std::uint64_t) {}) {
    if (!part_ && parts_ == 0) begin_part();
    if (!folder_) {
      finish_part(check);
      return file_bytes_;
    }
    if (part_) finish_part([](std::uint64_t) {});
    index_.metadata = {{"format", "deltadct"},
                       {"version", std::to_string(kFormatVersion)},
                       {"manifests", manifests_.hex()}};
    index_.total_size = total_bytes_;
    check(file_bytes_ + shard_index_text(index_).size());
    return file_bytes_ + publish_shards(*folder_, "delta.safetensors.index.json", index_);
  }

 private:
  std::string index_text() const {
    return index_metadata_.empty() ? std::string() : index_metadata_.dump();
  }

  // Room in a header for metadata and manifest. room() adds, for each section, its name and at most
  // 100 bytes of punctuation, dtype, extent and offsets.
  static constexpr std::size_t kFixedRoom = 512;
  // Estimates for planning, in bytes: the header without sections; a section's dtype, shape and
  // offsets in it, without their digits; a section's place in an index; a codec in the manifest.
  static constexpr std::size_t kFixedHeader = 170;
  static constexpr std::size_t kSectionHeader = 60;
  static constexpr std::size_t kSectionInIndex = 40;
  static constexpr std::size_t kCodecBytes = 80;
  static constexpr std::size_t kPartBytes = 400;  // header, manifest and index of one more part

  /// How the writer reads back what it wrote. The limits on what it was made from were the
  /// caller's.
  static constexpr ReadOptions kReadOwn{.limits = {.header_bytes = ~std::uint64_t{0},
                                                   .tensors = ~std::size_t{0},
                                                   .rank = ~std::size_t{0},
                                                   .depth = 1'000'000},
                                        .unknown_dtype = UnknownDType::keep,
                                        .strictness = Strictness::strict};
  static std::size_t room(const std::string& name) {
    return 3 * (json_quoted(name, "tensor").size() + 100);
  }

  /// Bytes that the name of a section takes in the header and the index.
  std::uint64_t name_bytes(const std::string& section) const {
    const std::size_t name = json_quoted(section, "section").size();
    return (has_whole_room_ ? 0 : name + kSectionHeader) + (folder_ ? name + kSectionInIndex : 0);
  }

  /// Bytes that the last of `files` adds besides its section. The first file also adds their list.
  std::uint64_t overhead(std::span<const FileEntry> files) const {
    constexpr std::size_t kAnnounced = 33;  // "files":[],"requires":["files"],
    const FileEntry& file = files.back();
    return (files.size() == 1 ? kAnnounced : 0) + entry_bytes(file) +
           name_bytes(detail::kFilePrefix + file.name);
  }

  static std::size_t entry_bytes(const FileEntry& file) {
    return detail::file_json(file).dump().size() + 1;
  }

  /// Bytes that an entry adds to the manifest, together with its codec.
  static std::size_t entry_bytes(const ManifestEntry& entry) {
    std::vector<nlohmann::json> codecs;
    return detail::entry_json(entry, codecs).dump().size() + 1;
  }

  /// Begins another part if this one has no room for a tensor or file of that many bytes.
  void make_room(const std::string& name, std::uint64_t bytes) {
    const std::size_t header = room(name);
    const bool full = folder_ && !(entries_.empty() && files_.empty()) &&
                      (capacity_ + data_bytes_ + bytes > output_.max_shard_bytes ||
                       header_bytes_ + header > capacity_);
    if (full) finish_part([](std::uint64_t) {});
    if (!part_) begin_part(header);
    data_bytes_ += bytes;
    header_bytes_ += header;
    room_left_ -= std::min(room_left_, header);
  }

  static std::string part_name(std::size_t part) {
    return numbered("delta", part) + ".safetensors";
  }

  /// The header of a part has room for all remaining tensors, up to a bound. A part is complete
  /// when its header is full.
  void begin_part(std::size_t first = 0) {
    ++parts_;
    capacity_ = kFixedRoom + room_left_;
    if (folder_) {
      const std::uint64_t share = std::max<std::uint64_t>(output_.max_shard_bytes / 16, first);
      capacity_ = std::min(capacity_, kFixedRoom + share);
    }
    capacity_ = std::min<std::uint64_t>(capacity_, kMaxHeaderBytes);
    header_bytes_ = kFixedRoom;
    data_bytes_ = 0;
    const auto path = folder_ ? folder_->stage() / part_name(parts_) : path_;
    part_.emplace(path, folder_ ? Overwrite::no : output_.overwrite,
                  static_cast<std::size_t>(capacity_), HeaderRoom::least);
  }

  void finish_part(const std::function<void(std::uint64_t)>& check) {
    const bool first = parts_ == 1;
    const std::string text =
        manifest_text({first ? metadata_ : Metadata{}, entries_, first && of_folder_, files_,
                       first ? index_text() : std::string()});
    // Nothing is written that could not be read.
    static_cast<void>(parse_manifest(text, path_.string(), kReadOwn));
    const auto bytes = std::as_bytes(std::span(text));
    const std::string sum = add_section(detail::kManifestPrefix + std::to_string(parts_), bytes);
    Metadata metadata = {
        {"format", "deltadct"}, {"version", std::to_string(kFormatVersion)}, {"manifest", sum}};
    if (folder_) metadata.emplace("part", std::to_string(parts_));
    file_bytes_ += part_->finish(metadata, check);
    part_.reset();
    manifests_.add(bytes);
    entries_.clear();
    files_.clear();
  }

  std::string add_section(const std::string& name, std::span<const std::byte> bytes) {
    part_->begin(name, DType::u8, std::array{std::uint64_t{bytes.size()}});
    part_->write(bytes);
    note_section(name, bytes.size());
    return fingerprint(bytes);
  }

  void note_section(const std::string& name, std::uint64_t bytes) {
    total_bytes_ += bytes;
    if (folder_) index_.shards[part_name(parts_)].push_back(name);
  }

  /// Continues after a complete part.
  void take_up() {
    ++parts_;
    const Model part = Model::open(folder_->stage() / part_name(parts_), kReadOwn);
    const std::string name = detail::kManifestPrefix + std::to_string(parts_);
    const ModelTensor* section = part.find(name);
    if (section == nullptr) {
      throw Error(Errc::cannot_resume, part.path().string(), name + " is missing");
    }
    TensorBytes bytes;
    part.read(*section, bytes);
    manifests_.add(bytes.bytes());
    Manifest manifest =
        parse_manifest({reinterpret_cast<const char*>(bytes.bytes().data()), bytes.size()},
                       part.path().string(), kReadOwn);
    const std::uint64_t before = bytes_;
    for (const ModelTensor& tensor : part.tensors()) {
      note_section(tensor.name, tensor.bytes());
      const bool is_of_tensor =
          tensor.name != name && !tensor.name.starts_with(detail::kFilePrefix);
      bytes_ += is_of_tensor ? tensor.bytes() : 0;
    }
    for (const ManifestEntry& entry : manifest.entries) {
      bytes_ += overhead(entry, !entry.outliers_sum.empty());
    }
    resumed_bytes_ += bytes_ - before;
    for (ManifestEntry& entry : manifest.entries) {
      room_left_ -= std::min(room_left_, room(entry.name));
      resumed_.push_back(std::move(entry));
    }
    for (FileEntry& file : manifest.files) {
      room_left_ -= std::min(room_left_, room(file.name));
      resumed_files_.push_back(std::move(file));
      const ModelTensor* stored = part.find(detail::kFilePrefix + resumed_files_.back().name);
      bytes_ += overhead(resumed_files_) + (stored == nullptr ? 0 : stored->bytes());
    }
    file_bytes_ += part.file_bytes();
  }

  std::filesystem::path path_;
  OutputOptions output_;
  Metadata metadata_;
  nlohmann::json index_metadata_;
  bool of_folder_;
  std::optional<AtomicFolder> folder_;
  std::optional<SafetensorsWriter> part_;
  std::size_t parts_ = 0;               // begun, including the current one
  std::vector<ManifestEntry> entries_;  // of the current part
  std::vector<FileEntry> files_;        // of the current part
  std::uint64_t data_bytes_ = 0;        // of the current part, including its manifest's
  std::uint64_t header_bytes_ = 0;
  std::uint64_t capacity_ = 0;
  std::uint64_t room_left_ = 0;
  std::uint64_t file_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
  std::uint64_t bytes_ = 0;
  std::uint64_t resumed_bytes_ = 0;
  bool has_whole_room_ = false;
  ShardIndex index_;
  Fingerprint manifests_;
  std::vector<ManifestEntry> resumed_;
  std::vector<FileEntry> resumed_files_;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
