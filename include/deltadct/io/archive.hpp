// Reads a delta archive: a model (model.hpp) whose tensors are compressed deltas. docs/format.md
// describes every byte.
//
//   delta:NAME      per matrix: bounds, width map, codes, each padded to 8     U8  [bytes]
//   outliers:NAME   single elements of that delta (outliers.hpp)               U8  [bytes]
//   lossless:NAME   chunks (lossless.hpp)                                      U8  [bytes]
//   file:PATH       chunks of a small file beside the fine-tune's weights      U8  [bytes]
//   manifest:K      what each tensor of part K is, as JSON                     U8  [bytes]
#pragma once

#include <deltadct/io/archive_contents.hpp>
#include <deltadct/io/delta_section.hpp>
#include <deltadct/io/fingerprint.hpp>
#include <deltadct/io/lossless.hpp>
#include <deltadct/io/outliers.hpp>
#include <deltadct/io/sections.hpp>

#include <algorithm>
#include <limits>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// A delta archive whose manifests have been checked and whose tensors can be read.
///
/// The contents of files are not trusted: whatever their bytes, members throw or stay within the
/// file. Several threads may call const members at once.
class DeltaArchive {
 public:
  /// `path` is an archive, or the folder or the index of a sharded one. Throws io_failure,
  /// bad_container, bad_index, corrupt_data, checksum_mismatch, unsupported_version,
  /// unsupported_dtype or limit_exceeded, naming the file and, where there is one, the tensor.
  static DeltaArchive open(const std::filesystem::path& path, const ReadOptions& options = {}) {
    ReadOptions strictly = options;
    strictly.strictness = Strictness::strict;
    return detail::require_memory(
        [&] { return path.string(); },
        [&] { return DeltaArchive(Model::open(path, strictly), strictly); });
  }

  /// The tensors in the order in which they were written: the fine-tune's, then those it removed.
  const std::vector<ManifestEntry>& entries() const noexcept { return contents_.entries(); }

  /// The tensor of that name, or nullptr.
  const ManifestEntry* find(std::string_view name) const noexcept { return contents_.find(name); }

  /// The tensor that a tied tensor equals; any other tensor itself.
  const ManifestEntry& target(const ManifestEntry& entry) const noexcept {
    return entry.mode == Mode::tied ? *find(entry.target) : entry;
  }

  const std::filesystem::path& path() const noexcept { return model().path(); }
  std::uint64_t file_bytes() const noexcept { return model().file_bytes(); }

  /// A fingerprint of the manifests and, through the checksums in them, of all the archive holds.
  const std::string& identity() const noexcept { return contents_.identity(); }

  /// The __metadata__ of the fine-tune.
  const Metadata& metadata() const noexcept { return contents_.metadata(); }

  /// The metadata of the fine-tune's index, without total_size: an object.
  const nlohmann::json& index_metadata() const noexcept { return contents_.index_metadata(); }

  /// Every file that the archive is read from.
  std::vector<ModelFile> files() const { return model().files(); }

  /// See Model::require_unchanged().
  void require_unchanged() const { model().require_unchanged(); }

  /// Whether the fine-tune was a folder.
  bool of_folder() const noexcept { return contents_.of_folder(); }

  /// The files of that folder, other than tensors, that the archive carries.
  const std::vector<FileEntry>& companions() const noexcept { return contents_.companions(); }

  /// The place to name in an error about an entry.
  std::string place(const ManifestEntry& entry) const { return contents_.place(entry); }
  std::string place(const FileEntry& file) const { return contents_.place(file); }

  /// Bytes of the archive's data that belong to a tensor.
  std::uint64_t stored_bytes(const ManifestEntry& entry) const {
    std::uint64_t bytes = 0;
    for (const char* prefix :
         {detail::kDeltaPrefix, detail::kOutliersPrefix, detail::kLosslessPrefix}) {
      if (const ModelTensor* section = model().find(prefix + entry.name)) bytes += section->bytes();
    }
    return bytes;
  }
  std::uint64_t stored_bytes(const FileEntry& file) const {
    return model().find(detail::kFilePrefix + file.name)->bytes();
  }

  /// The delta of an entry that has one: read, its checksum compared, validated. Throws
  /// checksum_mismatch, corrupt_data or io_failure, naming the file and the tensor.
  StoredDelta delta(const ManifestEntry& entry) const {
    TensorBytes stored = read_section(detail::kDeltaPrefix, entry, entry.delta_sum);
    auto outliers = read_outliers(entry);
    return within(entry, [&] {
      auto delta = StoredDelta::of_section(std::move(stored), entry.matrices);
      for (std::size_t k = 0; k < outliers.size(); ++k) {
        delta.set_outliers(k, std::move(outliers[k]));
      }
      return delta;
    });
  }

  /// The patches of one matrix that a block needs (see StoredDelta::of_block()). Reads the whole
  /// width map, but only those patches' bounds and codes. No checksum covers a part. Throws
  /// bad_range, corrupt_data or io_failure.
  StoredDelta delta_block(const ManifestEntry& entry, const Block& block) const {
    if (block.matrix >= entry.matrices.size()) throw Error(Errc::bad_range, place(entry), "matrix");
    const ModelTensor& from = contents_.section(detail::kDeltaPrefix, entry);
    const auto read = [&](std::uint64_t offset, std::uint64_t length, TensorBytes& into) {
      model().read(from, offset, length, into);
    };
    auto outliers = read_outliers(entry);
    return within(entry, [&] {
      auto delta = StoredDelta::of_block(entry.matrices, from.bytes(), block, read);
      if (outliers.empty()) return delta;
      const TensorHeader& whole = entry.matrices[block.matrix];
      const TensorHeader& part = *delta.view().header;
      const std::size_t row = block.row - whole.within_patch(block.row);
      const std::size_t col = block.col - whole.within_patch(block.col);
      std::vector<Outlier> inside;
      for (const Outlier& outlier : outliers[block.matrix]) {
        const std::size_t i = outlier.row - row;  // before the part, this wraps around to beyond it
        const std::size_t j = outlier.col - col;
        if (i < part.rows && j < part.cols) inside.push_back({i, j, outlier.value});
      }
      delta.set_outliers(0, std::move(inside));
      return delta;
    });
  }

  /// Restores the bytes that an entry keeps without loss: all of them, or those of the rows that
  /// the base lacks. `base` is the base's tensor; it may be empty for modes that do not need it
  /// (added, grown). Throws corrupt_data or io_failure; checksum_mismatch if the result is not the
  /// fine-tune's.
  template <concepts::Executor Executor>
  void lossless(const ManifestEntry& entry, std::span<const std::byte> base,
                std::span<std::byte> out, const Executor& executor) const {
    const TensorBytes stored = read_section(detail::kLosslessPrefix, entry, entry.lossless_sum);
    within(entry, [&] {
      if (out.size() != lossless_bytes(entry)) throw Error(Errc::bad_range, "out");
      decode_lossless(stored.bytes(), base, dtype_bytes(entry.dtype), out, executor);
    });
    stored.release();
    const bool whole = entry.mode != Mode::grown;
    if (whole && checksums_ == Checksums::compare && fingerprint(out) != entry.tuned) {
      throw Error(Errc::checksum_mismatch, place(entry), "the restored tensor");
    }
  }

  /// Restores the bytes [offset, offset + out.size()) of what lossless() restores. Reads only the
  /// chunks that contain them. `base(from, bytes)` returns that range of the base's tensor.
  template <class BaseRange>
  void lossless_range(const ManifestEntry& entry, std::uint64_t offset, std::span<std::byte> out,
                      BaseRange&& base) const {
    const std::uint64_t whole = lossless_bytes(entry);
    if (offset > whole || out.size() > whole - offset) {
      throw Error(Errc::bad_range, place(entry), "range");
    }
    const ModelTensor& from = contents_.section(detail::kLosslessPrefix, entry);
    TensorBytes stored;
    std::vector<std::byte> chunk;
    within(entry, [&] {
      const std::size_t table = detail::chunk_table_bytes(whole);
      if (table > from.bytes()) detail::fail_lossless("size of the section");
      model().read(from, 0, table, stored);
      const auto places = detail::read_chunk_table(stored.bytes(), whole, from.bytes());
      detail::ChunkDecoder decoder(dtype_bytes(entry.dtype));
      while (!out.empty()) {
        const auto k = static_cast<std::size_t>(offset / kChunkBytes);
        const std::uint64_t first = std::uint64_t{k} * kChunkBytes;
        chunk.resize(static_cast<std::size_t>(std::min<std::uint64_t>(kChunkBytes, whole - first)));
        model().read(from, places[k].offset, places[k].stored, stored);
        decoder.decode(places[k].coding, stored.bytes(), base(first, chunk.size()), chunk);
        const auto skip = static_cast<std::size_t>(offset - first);
        const std::size_t taken = std::min(out.size(), chunk.size() - skip);
        std::ranges::copy(std::span(chunk).subspan(skip, taken), out.begin());
        out = out.subspan(taken);
        offset += taken;
      }
    });
  }

  /// Bytes of an entry that are restored from the archive alone, without a base.
  static std::uint64_t bytes_alone(const ManifestEntry& entry) noexcept {
    return entry.mode == Mode::lossless ? 0 : lossless_bytes(entry);
  }

  /// The most bytes that an archive of this size may restore without a base: see Limits::expansion.
  double expansion() const noexcept { return contents_.expansion(); }

  /// Throws limit_exceeded if the tensors are out of proportion to the archive and a base of that
  /// many bytes. Code that restores them must call this with the size of the actual base.
  void require_proportion(std::uint64_t base_bytes) const {
    contents_.require_proportion(base_bytes);
  }

  /// The same without a base, when only bytes_alone() can be restored. Returns how many more bytes
  /// may be restored.
  double require_proportion() const {
    double left = expansion();
    for (const ManifestEntry& entry : entries()) {
      left -= static_cast<double>(bytes_alone(entry));
      if (left >= 0) continue;
      throw Error(Errc::limit_exceeded, place(entry),
                  "it expands too much; --base FILE or --limit expansion=NUMBER allows more");
    }
    return left;
  }

  /// Compares the checksum of an entry's lossless section and checks the section as far as possible
  /// without the base. Data that does not depend on the base (added, grown) is decoded, chunk by
  /// chunk. Data that does is decoded as long as `budget`, which is counted down, lasts; later
  /// chunks are only examined. Throws corrupt_data or io_failure; checksum_mismatch also if a
  /// tensor that needs no base is not the fine-tune's.
  void verify_lossless(const ManifestEntry& entry, double& budget) const {
    const TensorBytes stored = read_section(detail::kLosslessPrefix, entry, entry.lossless_sum);
    const std::uint64_t base =
        entry.mode == Mode::lossless ? detail::ArchiveContents::base_bytes(entry) : 0;
    double unlimited = std::numeric_limits<double>::infinity();
    Fingerprint all;
    const bool is_known = within(entry, [&] {
      return check_lossless(stored.bytes(), lossless_bytes(entry), base, dtype_bytes(entry.dtype),
                            entry.mode == Mode::lossless ? budget : unlimited,
                            [&](std::span<const std::byte> chunk) { all.add(chunk); });
    });
    stored.release();
    if (is_known && entry.mode != Mode::grown && checksums_ == Checksums::compare &&
        all.hex() != entry.tuned) {
      throw Error(Errc::checksum_mismatch, place(entry), "the restored tensor");
    }
  }

  /// Passes the bytes of a carried file to write(bytes), piece by piece. Throws corrupt_data,
  /// io_failure or checksum_mismatch, possibly only after the last piece.
  template <class Fn>
  void read(const FileEntry& file, Fn&& write) const {
    const TensorBytes stored = read_section(detail::kFilePrefix, file, file.section);
    double unlimited = std::numeric_limits<double>::infinity();
    Fingerprint all;
    within(file, [&] {
      check_lossless(stored.bytes(), file.bytes, 0, 1, unlimited,
                     [&](std::span<const std::byte> chunk) {
                       all.add(chunk);
                       write(chunk);
                     });
    });
    stored.release();
    if (checksums_ == Checksums::compare && all.hex() != file.sum) {
      throw Error(Errc::checksum_mismatch, place(file), "the restored file");
    }
  }

  /// Throws corrupt_data if the section is too small for the chunks that a tensor kept without loss
  /// must have. Call it before allocating memory for the tensor.
  void require_chunks(const ManifestEntry& entry) const {
    const std::uint64_t stored = contents_.section(detail::kLosslessPrefix, entry).bytes();
    if (detail::chunk_table_bytes(lossless_bytes(entry)) > stored) {
      contents_.fail(entry, "size of the lossless section");
    }
  }

  /// Bytes that an entry keeps without loss.
  static std::uint64_t lossless_bytes(const ManifestEntry& entry) noexcept {
    if (!has_lossless(entry.mode)) return 0;
    return entry.bytes() -
           (entry.mode == Mode::grown ? detail::ArchiveContents::base_bytes(entry) : 0);
  }

 private:
  DeltaArchive(Model&& model, const ReadOptions& options)
      : contents_(std::move(model), options), checksums_(options.checksums) {}

  const Model& model() const noexcept { return contents_.model(); }

  template <class Entry, class Fn>
  auto within(const Entry& entry, Fn&& fn) const -> decltype(fn()) {
    try {
      return detail::require_memory([&] { return place(entry); }, fn);
    } catch (const Error& error) {
      // These errors already say where.
      if (error.code() == Errc::io_failure || error.code() == Errc::out_of_memory) throw;
      throw error.within(place(entry));
    }
  }

  /// Throws checksum_mismatch unless the section is the one that was written.
  template <class Entry>
  TensorBytes read_section(const char* prefix, const Entry& entry, const std::string& sum) const {
    TensorBytes stored;
    model().read(contents_.section(prefix, entry), stored);
    if (checksums_ == Checksums::compare && fingerprint(stored.bytes()) != sum) {
      throw Error(Errc::checksum_mismatch, place(entry), "what is stored");
    }
    return stored;
  }

  /// The outliers of each matrix; empty if the tensor has no section of outliers.
  std::vector<std::vector<Outlier>> read_outliers(const ManifestEntry& entry) const {
    if (entry.outliers_sum.empty()) return {};
    const TensorBytes stored = read_section(detail::kOutliersPrefix, entry, entry.outliers_sum);
    return within(entry, [&] {
      return parse_outliers(stored.bytes(), entry.stack, detail::compute_dtype(entry.dtype));
    });
  }

  detail::ArchiveContents contents_;
  Checksums checksums_;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
