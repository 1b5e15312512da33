// What a delta archive holds: reads the manifests of all its parts, and checks them against one
// another and against the sections.
#pragma once

#include <deltadct/io/fingerprint.hpp>
#include <deltadct/io/manifest_reader.hpp>
#include <deltadct/io/model.hpp>
#include <deltadct/io/padding.hpp>
#include <deltadct/io/sections.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io { namespace detail {

/// The model that an archive is stored as, and what its manifests say.
class ArchiveContents {
 public:
  /// Throws as DeltaArchive::open().
  ArchiveContents(Model&& model, const ReadOptions& options)
      : model_(std::move(model)), checksums_(options.checksums), limits_(options.limits) {
    check_format();
    Fingerprint all;
    std::size_t sections = 0;
    for (std::size_t part = 1; part <= std::max<std::size_t>(model_.shards(), 1); ++part) {
      read_part(part, options, all);
      ++sections;
    }
    identity_ = all.hex();
    check_parts();
    by_name_ = sorted_by_name(entries_);
    check_files(companions_, model_.path().string(), options.limits);
    check_entries(sections);
    check_size();
  }

  const Model& model() const noexcept { return model_; }
  const std::vector<ManifestEntry>& entries() const noexcept { return entries_; }
  const std::vector<FileEntry>& companions() const noexcept { return companions_; }
  const std::string& identity() const noexcept { return identity_; }
  const Metadata& metadata() const noexcept { return metadata_; }
  const nlohmann::json& index_metadata() const noexcept { return index_metadata_; }
  bool of_folder() const noexcept { return of_folder_; }

  /// The tensor of that name, or nullptr.
  const ManifestEntry* find(std::string_view name) const noexcept {
    return find_by_name(entries_, by_name_, name);
  }

  /// The place to name in an error about an entry.
  std::string place(const ManifestEntry& entry) const {
    return tensor_place(model_.path().string(), entry.name);
  }
  std::string place(const FileEntry& file) const {
    return tensor_place(model_.path().string(), kFilePrefix + file.name);
  }

  /// Throws corrupt_data.
  template <class Entry>
  [[noreturn]] void fail(const Entry& entry, std::string_view what) const {
    throw Error(Errc::corrupt_data, place(entry), what);
  }

  /// The section of an entry. Throws corrupt_data if there is none.
  template <class Entry>
  const ModelTensor& section(const char* prefix, const Entry& entry) const {
    const ModelTensor* found = model_.find(prefix + entry.name);
    if (found == nullptr || !is_bytes(*found)) {
      fail(entry, "section " + std::string(prefix) + " is missing or not U8 [bytes]");
    }
    return *found;
  }

  /// Bytes of the base's tensor, as the entry claims.
  static std::uint64_t base_bytes(const ManifestEntry& entry) noexcept {
    return *tensor_bytes(entry.base->dtype, entry.base->shape);
  }

  /// The most bytes that an archive of this size may restore without a base: see Limits::expansion.
  double expansion() const noexcept {
    constexpr double kFree = 64.0 * (1 << 20);
    return kFree + limits_.expansion * static_cast<double>(model_.file_bytes());
  }

  /// Throws limit_exceeded if the tensors are out of proportion to the archive and a base of that
  /// many bytes.
  void require_proportion(std::uint64_t base_bytes) const {
    const double most = expansion() + 2 * static_cast<double>(base_bytes);
    double total = 0;
    for (const ManifestEntry& entry : entries_) {
      if (entry.mode == Mode::removed) continue;
      total += static_cast<double>(entry.bytes());
      if (total <= most) continue;
      throw Error(Errc::limit_exceeded, place(entry),
                  "it expands too much; --limit expansion=NUMBER allows more");
    }
  }

 private:
  static bool is_bytes(const ModelTensor& section) noexcept {
    return section.dtype == DType::u8 && section.shape.size() == 1;
  }

  static const std::string* value(const Metadata& metadata, const char* key) noexcept {
    const auto found = metadata.find(key);
    return found == metadata.end() ? nullptr : &found->second;
  }

  void check_format() const {
    const std::string where = model_.path().string();
    const std::string* format = value(model_.metadata(), "format");
    if (format == nullptr || *format != "deltadct") {
      throw Error(Errc::corrupt_data, where, "a safetensors file, but not a delta archive");
    }
    for (std::size_t shard = 0; shard < model_.shards(); ++shard) {
      check_version(model_.metadata(shard));
    }
  }

  void check_version(const Metadata& metadata) const {
    const std::string* version = value(metadata, "version");
    if (version != nullptr && *version == std::to_string(kFormatVersion)) return;
    throw Error(Errc::unsupported_version, model_.path().string(),
                version == nullptr ? "none is given" : "version " + shortened(*version));
  }

  void read_part(std::size_t part, const ReadOptions& options, Fingerprint& all) {
    const std::string name = kManifestPrefix + std::to_string(part);
    const ModelTensor* section = model_.find(name);
    if (section == nullptr || !is_bytes(*section)) {
      throw Error(Errc::corrupt_data, model_.path().string(),
                  name + " is missing or not U8 [bytes]");
    }
    const std::string where = model_.shard_path(*section).string();
    if (section->bytes() > limits_.header_bytes) {
      throw Error(Errc::limit_exceeded, where,
                  name + detail::limit_advice("header", section->bytes()));
    }
    TensorBytes bytes;
    model_.read(*section, bytes);
    const std::string* checksum = value(model_.metadata(section->shard), "manifest");
    if (checksums_ == Checksums::compare &&
        (checksum == nullptr || *checksum != fingerprint(bytes.bytes()))) {
      throw Error(Errc::checksum_mismatch, where, name);
    }
    const std::string* number = value(model_.metadata(section->shard), "part");
    if (number != nullptr && *number != std::to_string(part)) {
      throw Error(Errc::corrupt_data, where, "part " + shortened(*number) + " has " + name);
    }
    all.add(bytes.bytes());
    Manifest manifest =
        parse_manifest({reinterpret_cast<const char*>(bytes.bytes().data()), bytes.size()}, where,
                       options, most_matrices() - matrices_);
    if (part == 1) metadata_ = std::move(manifest.metadata);
    if (part == 1) of_folder_ = manifest.folder;
    if (part == 1 && !manifest.index_metadata.empty()) {
      index_metadata_ = nlohmann::json::parse(manifest.index_metadata);
    }
    std::ranges::move(manifest.files, std::back_inserter(companions_));
    if (manifest.entries.size() > limits_.tensors - entries_.size()) {
      throw Error(Errc::limit_exceeded, where,
                  "too many tensors" + detail::limit_advice("tensors"));
    }
    for (const ManifestEntry& entry : manifest.entries) matrices_ += entry.matrices.size();
    std::ranges::move(manifest.entries, std::back_inserter(entries_));
  }

  /// The most matrices that all manifests together may have. A matrix takes far more memory than
  /// bytes of its manifest, but its section holds at least the padding. An empty matrix has no
  /// bytes in a section, but an entry of its own in the manifest.
  std::size_t most_matrices() const noexcept {
    return static_cast<std::size_t>(
        std::min<std::uint64_t>(limits_.tensors, model_.file_bytes() / kPadding));
  }

  /// A sharded archive is opened by its index, which distinguishes its parts from those of others.
  void check_parts() const {
    const std::string* manifests = value(model_.index_metadata(), "manifests");
    const bool sharded = value(model_.metadata(), "part") != nullptr;
    if (!sharded && manifests == nullptr) return;
    if (manifests == nullptr) {
      throw Error(Errc::corrupt_data, model_.path().string(),
                  "a part of a sharded archive, without index");
    }
    check_version(model_.index_metadata());
    if (checksums_ == Checksums::compare && *manifests != identity_) {
      throw Error(Errc::checksum_mismatch, model_.path().string(), "manifests of the parts");
    }
  }

  /// Checks that every entry has the sections its mode needs, and that no section is left over.
  void check_entries(std::size_t sections) const {
    for (std::size_t i = 1; i < by_name_.size(); ++i) {
      if (entries_[by_name_[i]].name == entries_[by_name_[i - 1]].name) {
        fail(entries_[by_name_[i]], "named twice");
      }
    }
    for (const ManifestEntry& entry : entries_) {
      if (has_delta(entry.mode)) {
        static_cast<void>(section(kDeltaPrefix, entry));
        ++sections;
      }
      if (!entry.outliers_sum.empty()) {
        static_cast<void>(section(kOutliersPrefix, entry));
        ++sections;
      }
      if (has_lossless(entry.mode)) {
        static_cast<void>(section(kLosslessPrefix, entry));
        ++sections;
      }
      if (entry.mode == Mode::tied) check_tie(entry);
    }
    for (const FileEntry& file : companions_) {
      static_cast<void>(section(kFilePrefix, file));
      ++sections;
    }
    if (sections != model_.tensors().size()) {
      throw Error(Errc::corrupt_data, model_.path().string(),
                  "it has sections that no tensor owns");
    }
  }

  void check_tie(const ManifestEntry& entry) const {
    const ManifestEntry* to = find(entry.target);
    if (to == nullptr) fail(entry, "tied to a tensor that is not there");
    if (to->mode == Mode::tied || to->mode == Mode::removed) {
      fail(entry, "tied to a tensor that is " + std::string(mode_name(to->mode)));
    }
    if (to->dtype != entry.dtype || to->shape != entry.shape || to->tuned != entry.tuned) {
      fail(entry, "tied to a tensor of another dtype, shape or fingerprint");
    }
  }

  /// Checks that the bytes to restore are within limits, and in proportion to the archive and to
  /// the base that it claims.
  void check_size() const {
    std::uint64_t total = 0;
    std::uint64_t base = 0;
    for (const ManifestEntry& entry : entries_) {
      // The sum saturates, because these sizes are claims.
      constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
      if (entry.base) base += std::min(base_bytes(entry), most - base);
      if (entry.mode == Mode::removed) continue;
      const std::uint64_t bytes = entry.bytes();
      if (bytes > limits_.bytes - total) {
        throw Error(Errc::limit_exceeded, place(entry),
                    "bytes of the tensors" + detail::limit_advice("bytes"));
      }
      total += bytes;
    }
    require_proportion(base);
  }

  Model model_;
  Checksums checksums_;
  Limits limits_;
  std::size_t matrices_ = 0;
  std::string identity_;
  Metadata metadata_;
  bool of_folder_ = false;
  nlohmann::json index_metadata_ = nlohmann::json::object();
  std::vector<FileEntry> companions_;
  std::vector<ManifestEntry> entries_;
  std::vector<std::size_t> by_name_;
};

}}}}  // namespace deltadct::inline DELTADCT_ABI::io::detail
