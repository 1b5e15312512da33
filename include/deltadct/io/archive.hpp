// Reads a delta archive: a model (model.hpp) whose tensors are compressed deltas (every byte:
// docs/format.md).
//
//   delta:NAME      per matrix: bounds, width map, codes, each padded to 8     U8  [bytes]
//   lossless:NAME   chunks (lossless.hpp)                                      U8  [bytes]
//   manifest:K      what each tensor of part K is, as JSON                     U8  [bytes]
#pragma once

#include <deltadct/io/fingerprint.hpp>
#include <deltadct/io/lossless.hpp>
#include <deltadct/io/manifest.hpp>
#include <deltadct/io/model.hpp>

#include <algorithm>
#include <array>

namespace deltadct::inline DELTADCT_ABI::io {

/// Rows and columns of one matrix of a tensor.
struct Block {
  std::size_t matrix = 0;
  std::size_t row = 0;
  std::size_t col = 0;
  std::size_t rows = 0;
  std::size_t cols = 0;
};

namespace detail {

using deltadct::detail::fail_validation;

inline constexpr const char* kDeltaPrefix = "delta:";
inline constexpr const char* kLosslessPrefix = "lossless:";
inline constexpr const char* kManifestPrefix = "manifest:";

/// Bytes of the packed width map.
inline std::size_t width_map_bytes(std::size_t patches, std::size_t classes) noexcept {
  return padded((patches * static_cast<std::size_t>(width_map_bits(classes)) + 7) / 8);
}

/// Class indices of the patches, packed lowest bits first.
inline std::vector<std::byte> pack_widths(std::span<const PatchPlace> places, std::size_t classes) {
  const auto bits = static_cast<std::size_t>(width_map_bits(classes));
  std::vector<std::byte> map(width_map_bytes(places.size(), classes));
  if (bits == 0) return map;
  for (std::size_t i = 0; i < places.size(); ++i) {
    map[i * bits / 8] |= static_cast<std::byte>(places[i].width_class() << (i * bits % 8));
  }
  return map;
}

/// Throws corrupt_data where bits are set that are no patch's.
inline std::vector<PatchPlace> unpack_widths(std::span<const std::byte> map, std::size_t patches,
                                             std::size_t classes) {
  const auto bits = static_cast<std::size_t>(width_map_bits(classes));
  std::vector<PatchPlace> places(patches, PatchPlace{0});
  if (bits != 0) {
    for (std::size_t i = 0; i < patches; ++i) {
      const auto byte = static_cast<std::uint32_t>(map[i * bits / 8]);
      places[i] = {(byte >> (i * bits % 8)) & ((1u << bits) - 1u)};
    }
  }
  const std::size_t used = patches * bits;
  const bool partial = used % 8 != 0 && (map[used / 8] >> (used % 8)) != std::byte{0};
  if (partial || !is_zero(map.subspan((used + 7) / 8))) fail_validation("padding is not zero");
  return places;
}

/// Bytes of the parts of a matrix in its section, padded.
struct MatrixLayout {
  std::size_t bounds = 0;
  std::size_t widths = 0;
  std::size_t codes = 0;

  std::size_t bytes() const noexcept { return bounds + widths + codes; }
};

/// Sets the header's layout. The header has been validated, so that nothing overflows but the sum
/// of the parts of implausible ones, which is then larger than any section.
inline MatrixLayout lay_out(TensorHeader& header) noexcept {
  const auto [bounds, codes] = header.lay_out();
  return {padded(bounds), width_map_bytes(header.patches(), header.classes.size()), padded(codes)};
}

/// Fixes the places of patches whose classes are known, and compares the classes' counts with the
/// header's.
inline void place_patches(std::vector<PatchPlace>& places, const TensorHeader& header) {
  std::vector<WidthClass> counted = header.classes;
  assign_slots(places, counted);
  for (std::size_t k = 0; k < counted.size(); ++k) {
    if (counted[k].patches != header.classes[k].patches)
      fail_validation("patches of a width class");
  }
}

}  // namespace detail

/// Compressed matrices read from an archive. Their arrays lie in the archive's mapping or in
/// storage of their own; mapped, the archive's file stays open as long as they live.
class StoredDelta {
 public:
  StoredDelta(StoredDelta&&) = default;
  StoredDelta& operator=(StoredDelta&&) = default;

  std::size_t size() const noexcept { return matrices_.size(); }

  /// The k-th matrix; valid until this object is assigned to or ends.
  CompressedView view(std::size_t k = 0) const& noexcept {
    const Matrix& matrix = matrices_[k];
    return {&matrix.header, matrix.places, matrix.bounds, matrix.codes};
  }
  CompressedView view(std::size_t k = 0) const&& = delete;

  /// Tells that a forward pass is done with it.
  void release() const noexcept { bytes_.release(); }

 private:
  friend class DeltaArchive;

  struct Matrix {
    TensorHeader header;
    std::vector<PatchPlace> places;
    std::span<const std::byte> bounds;
    std::span<const std::byte> codes;
  };

  StoredDelta() = default;

  std::vector<Matrix> matrices_;
  TensorBytes bytes_;
  std::vector<std::byte> bounds_;  // gathered ones
  std::vector<std::byte> codes_;
};

/// A delta archive, its manifests checked and its tensors within reach.
///
/// What a file says is not trusted: whatever its bytes, members throw or stay within it. Const
/// members may be called by several threads at once.
class DeltaArchive {
 public:
  /// `path` is an archive, or the folder or the index of a sharded one. Throws io_failure,
  /// bad_container, bad_index, corrupt_data, checksum_mismatch, unsupported_version,
  /// unsupported_dtype or limit_exceeded, naming the file and, where there is one, the tensor.
  static DeltaArchive open(const std::filesystem::path& path, const ReadOptions& options = {}) {
    return DeltaArchive(Model::open(path, options), options);
  }

  /// In the order they were written: the fine-tune's, then what it removed.
  const std::vector<ManifestEntry>& entries() const noexcept { return entries_; }

  /// The tensor of that name, or nullptr.
  const ManifestEntry* find(std::string_view name) const noexcept {
    return detail::find_by_name(entries_, by_name_, name);
  }

  /// The tensor a tied one equals; any other is its own.
  const ManifestEntry& target(const ManifestEntry& entry) const noexcept {
    return entry.mode == Mode::tied ? *find(entry.target) : entry;
  }

  const std::filesystem::path& path() const noexcept { return model_.path(); }
  std::uint64_t file_bytes() const noexcept { return model_.file_bytes(); }

  /// A fingerprint of its manifests, and by the checksums in them of all it holds.
  const std::string& identity() const noexcept { return identity_; }

  /// The __metadata__ of the fine-tune.
  const Metadata& metadata() const noexcept { return metadata_; }

  /// Where an error about an entry is.
  std::string place(const ManifestEntry& entry) const {
    return detail::tensor_place(path().string(), entry.name);
  }

  /// Bytes of the archive's data that belong to a tensor.
  std::uint64_t stored_bytes(const ManifestEntry& entry) const noexcept {
    std::uint64_t bytes = 0;
    for (const char* prefix : {detail::kDeltaPrefix, detail::kLosslessPrefix}) {
      if (const ModelTensor* section = model_.find(prefix + entry.name)) bytes += section->bytes();
    }
    return bytes;
  }

  /// The delta of an entry that has one: read, its checksum compared, validated. Throws
  /// checksum_mismatch, corrupt_data or io_failure, naming the file and the tensor.
  StoredDelta delta(const ManifestEntry& entry) const {
    StoredDelta delta;
    model_.read(section(detail::kDeltaPrefix, entry), delta.bytes_);
    check_sum(delta.bytes_, entry, entry.delta_sum);
    within(entry, [&] {
      std::span<const std::byte> rest = delta.bytes_.bytes();
      for (const TensorHeader& header : entry.matrices) {
        delta.matrices_.push_back({header, {}, {}, {}});
        read_matrix(delta.matrices_.back(), rest);
      }
      if (!rest.empty()) detail::fail_validation("size of the section");
    });
    return delta;
  }

  /// The patches of one matrix that a block needs; rows and columns of the result count from the
  /// block's first patch, whose corner is (row - row % P, col - col % P). Reads the width map
  /// whole, and of bounds and codes nothing but those patches'. No checksum covers a part. Throws
  /// bad_range, corrupt_data or io_failure.
  StoredDelta delta_block(const ManifestEntry& entry, const Block& block) const {
    if (block.matrix >= entry.matrices.size()) throw Error(Errc::bad_range, place(entry), "matrix");
    const ModelTensor& from = section(detail::kDeltaPrefix, entry);
    StoredDelta delta;
    within(entry, [&] {
      std::size_t at = 0;
      for (std::size_t k = 0; k < block.matrix; ++k) at += skip_matrix(entry.matrices[k]);
      delta.matrices_.push_back({entry.matrices[block.matrix], {}, {}, {}});
      gather(delta, from, at, block);
    });
    return delta;
  }

  /// Restores the bytes an entry keeps without loss: all of them, or those of the rows the base
  /// lacks. `base` is the base's tensor, or empty where that does not matter (added, grown).
  /// Throws corrupt_data or io_failure; checksum_mismatch where the result is not the fine-tune's.
  template <concepts::Executor Executor>
  void lossless(const ManifestEntry& entry, std::span<const std::byte> base,
                std::span<std::byte> out, const Executor& executor) const {
    TensorBytes stored;
    model_.read(section(detail::kLosslessPrefix, entry), stored);
    check_sum(stored, entry, entry.lossless_sum);
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

  /// Restores the bytes [offset, offset + out.size()) of those, reading only the chunks they lie
  /// in. `base(from, bytes)` returns such a range of the base's tensor.
  template <class BaseRange>
  void lossless_range(const ManifestEntry& entry, std::uint64_t offset, std::span<std::byte> out,
                      BaseRange&& base) const {
    const std::uint64_t whole = lossless_bytes(entry);
    if (offset > whole || out.size() > whole - offset) {
      throw Error(Errc::bad_range, place(entry), "range");
    }
    const ModelTensor& from = section(detail::kLosslessPrefix, entry);
    TensorBytes stored;
    std::vector<std::byte> chunk;
    within(entry, [&] {
      const std::size_t table = detail::chunk_table_bytes(whole);
      if (table > from.bytes()) detail::fail_lossless("size of the section");
      model_.read(from, 0, table, stored);
      const auto places = detail::read_chunk_table(stored.bytes(), whole, from.bytes());
      detail::ChunkDecoder decoder(dtype_bytes(entry.dtype));
      while (!out.empty()) {
        const auto k = static_cast<std::size_t>(offset / kChunkBytes);
        const std::uint64_t first = std::uint64_t{k} * kChunkBytes;
        chunk.resize(static_cast<std::size_t>(std::min<std::uint64_t>(kChunkBytes, whole - first)));
        model_.read(from, places[k].offset, places[k].stored, stored);
        decoder.decode(places[k].coding, stored.bytes(), base(first, chunk.size()), chunk);
        const auto skip = static_cast<std::size_t>(offset - first);
        const std::size_t taken = std::min(out.size(), chunk.size() - skip);
        std::ranges::copy(std::span(chunk).subspan(skip, taken), out.begin());
        out = out.subspan(taken);
        offset += taken;
      }
    });
  }

  /// Decodes what an entry keeps without its base (added, grown), piece by piece. Throws
  /// corrupt_data or io_failure; checksum_mismatch where an added tensor is not the fine-tune's.
  void verify_lossless(const ManifestEntry& entry) const {
    constexpr std::uint64_t kPiece = 64 * kChunkBytes;
    const std::uint64_t bytes = lossless_bytes(entry);
    std::vector<std::byte> piece;
    Fingerprint all;
    const auto no_base = [](std::uint64_t, std::size_t) { return std::span<const std::byte>{}; };
    for (std::uint64_t offset = 0; offset == 0 || offset < bytes; offset += kPiece) {
      require_chunks(entry);
      piece.resize(static_cast<std::size_t>(std::min(kPiece, bytes - offset)));
      lossless_range(entry, offset, piece, no_base);
      all.add(piece);
    }
    if (entry.mode == Mode::added && checksums_ == Checksums::compare && all.hex() != entry.tuned) {
      throw Error(Errc::checksum_mismatch, place(entry), "the restored tensor");
    }
  }

  /// Throws corrupt_data unless there are as many chunks as a tensor that is kept without loss has
  /// to have: whoever makes room for it should ask first.
  void require_chunks(const ManifestEntry& entry) const {
    const std::uint64_t stored = section(detail::kLosslessPrefix, entry).bytes();
    if (detail::chunk_table_bytes(lossless_bytes(entry)) > stored) {
      fail(entry, "size of the lossless section");
    }
  }

  /// Bytes an entry keeps without loss.
  static std::uint64_t lossless_bytes(const ManifestEntry& entry) noexcept {
    if (!has_lossless(entry.mode)) return 0;
    return entry.bytes() - (entry.mode == Mode::grown ? base_bytes(entry) : 0);
  }

  /// Compares the checksums of all an entry stores. Throws checksum_mismatch or io_failure.
  void verify(const ManifestEntry& entry) const {
    TensorBytes bytes;
    const auto check = [&](const char* prefix, const std::string& sum) {
      model_.read(section(prefix, entry), bytes);
      check_sum(bytes, entry, sum);
      bytes.release();
    };
    if (has_delta(entry.mode)) check(detail::kDeltaPrefix, entry.delta_sum);
    if (has_lossless(entry.mode)) check(detail::kLosslessPrefix, entry.lossless_sum);
  }

 private:
  DeltaArchive(Model&& model, const ReadOptions& options)
      : model_(std::move(model)), checksums_(options.checksums) {
    check_format();
    Fingerprint all;
    std::size_t sections = 0;
    for (std::size_t part = 1; part <= std::max<std::size_t>(model_.shards(), 1); ++part) {
      read_part(part, options.limits, all);
      ++sections;
    }
    identity_ = all.hex();
    check_parts();
    by_name_ = detail::sorted_by_name(entries_);
    check_entries(sections);
    check_size(options.limits);
  }

  static std::uint64_t base_bytes(const ManifestEntry& entry) noexcept {
    return *tensor_bytes(entry.base->dtype, entry.base->shape);
  }

  template <class Fn>
  void within(const ManifestEntry& entry, Fn&& fn) const {
    try {
      fn();
    } catch (const Error& error) {
      if (error.code() == Errc::io_failure) throw;  // it says where already
      throw error.within(place(entry));
    }
  }

  [[noreturn]] void fail(const ManifestEntry& entry, std::string_view what) const {
    throw Error(Errc::corrupt_data, place(entry), what);
  }

  void check_sum(const TensorBytes& bytes, const ManifestEntry& entry,
                 const std::string& expected) const {
    if (checksums_ == Checksums::ignore || fingerprint(bytes.bytes()) == expected) return;
    throw Error(Errc::checksum_mismatch, place(entry), "what is stored");
  }

  static const std::string* value(const Metadata& metadata, const char* key) noexcept {
    const auto found = metadata.find(key);
    return found == metadata.end() ? nullptr : &found->second;
  }

  void check_format() const {
    const std::string where = path().string();
    const std::string* format = value(model_.metadata(), "format");
    if (format == nullptr || *format != "deltadct") {
      throw Error(Errc::corrupt_data, where, "a safetensors file, but no delta archive");
    }
    for (std::size_t shard = 0; shard < model_.shards(); ++shard) {
      check_version(model_.metadata(shard));
    }
  }

  void check_version(const Metadata& metadata) const {
    const std::string* version = value(metadata, "version");
    if (version != nullptr && *version == std::to_string(kFormatVersion)) return;
    throw Error(Errc::unsupported_version, path().string(),
                version == nullptr ? "none is given" : "version " + detail::printable(*version));
  }

  void read_part(std::size_t part, const Limits& limits, Fingerprint& all) {
    const std::string name = detail::kManifestPrefix + std::to_string(part);
    const ModelTensor* section = model_.find(name);
    if (section == nullptr || !is_bytes(*section)) {
      throw Error(Errc::corrupt_data, path().string(), name + " is missing or not U8 [bytes]");
    }
    const std::string where = model_.shard_path(*section).string();
    if (section->bytes() > limits.header_bytes) {
      throw Error(Errc::limit_exceeded, where, name);
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
      throw Error(Errc::corrupt_data, where, "part " + detail::printable(*number) + " has " + name);
    }
    all.add(bytes.bytes());
    Manifest manifest = parse_manifest(
        {reinterpret_cast<const char*>(bytes.bytes().data()), bytes.size()}, where, limits);
    if (part == 1) metadata_ = std::move(manifest.metadata);
    if (manifest.entries.size() > limits.tensors - entries_.size()) {
      throw Error(Errc::limit_exceeded, where, "too many tensors");
    }
    std::ranges::move(manifest.entries, std::back_inserter(entries_));
  }

  /// A sharded archive is opened by its index, which tells its parts from those of another.
  void check_parts() const {
    const std::string* manifests = value(model_.index_metadata(), "manifests");
    const bool sharded = value(model_.metadata(), "part") != nullptr;
    if (!sharded && manifests == nullptr) return;
    if (manifests == nullptr) {
      throw Error(Errc::corrupt_data, path().string(),
                  "a part of a sharded archive, without index");
    }
    check_version(model_.index_metadata());
    if (checksums_ == Checksums::compare && *manifests != identity_) {
      throw Error(Errc::checksum_mismatch, path().string(), "manifests of the parts");
    }
  }

  /// Every entry has the sections its mode needs, and no section is left over.
  void check_entries(std::size_t sections) const {
    for (std::size_t i = 1; i < by_name_.size(); ++i) {
      if (entries_[by_name_[i]].name == entries_[by_name_[i - 1]].name) {
        fail(entries_[by_name_[i]], "named twice");
      }
    }
    for (const ManifestEntry& entry : entries_) {
      if (has_delta(entry.mode)) {
        static_cast<void>(section(detail::kDeltaPrefix, entry));
        ++sections;
      }
      if (has_lossless(entry.mode)) {
        static_cast<void>(section(detail::kLosslessPrefix, entry));
        ++sections;
      }
      if (entry.mode == Mode::tied) check_tie(entry);
    }
    if (sections != model_.tensors().size()) {
      throw Error(Errc::corrupt_data, path().string(), "it has sections that no tensor owns");
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

  /// What is to be restored is within bounds, and in proportion to the base and the archive.
  void check_size(const Limits& limits) const {
    constexpr double kFree = 64.0 * (1 << 20);
    std::uint64_t total = 0;
    double free = kFree + limits.expansion * static_cast<double>(file_bytes());
    for (const ManifestEntry& entry : entries_) {
      if (entry.base) free += 2 * static_cast<double>(base_bytes(entry));
    }
    for (const ManifestEntry& entry : entries_) {
      if (entry.mode == Mode::removed) continue;
      const std::uint64_t bytes = entry.bytes();
      if (bytes > limits.bytes - total) {
        throw Error(Errc::limit_exceeded, place(entry), "bytes of the tensors");
      }
      total += bytes;
      if (static_cast<double>(total) > free) {
        throw Error(Errc::limit_exceeded, place(entry), "it expands too much");
      }
    }
  }

  static bool is_bytes(const ModelTensor& section) noexcept {
    return section.dtype == DType::u8 && section.shape.size() == 1;
  }

  const ModelTensor& section(const char* prefix, const ManifestEntry& entry) const {
    const ModelTensor* found = model_.find(prefix + entry.name);
    if (found == nullptr || !is_bytes(*found)) {
      fail(entry, "section " + std::string(prefix) + " is missing or not U8 [bytes]");
    }
    return *found;
  }

  static std::size_t skip_matrix(TensorHeader header) noexcept {
    return detail::lay_out(header).bytes();
  }

  /// Takes a matrix from the front of its section.
  static void read_matrix(StoredDelta::Matrix& matrix, std::span<const std::byte>& rest) {
    TensorHeader& header = matrix.header;
    const detail::MatrixLayout layout = detail::lay_out(header);
    if (layout.bytes() > rest.size()) detail::fail_validation("size of the section");
    const auto [bounds, codes] = header.lay_out();
    const auto take = [&](std::size_t bytes) {
      const auto front = rest.first(bytes);
      rest = rest.subspan(bytes);
      return front;
    };
    const auto padded_bounds = take(layout.bounds);
    const auto widths = take(layout.widths);
    const auto padded_codes = take(layout.codes);
    if (!detail::is_zero(padded_bounds.subspan(bounds)) ||
        !detail::is_zero(padded_codes.subspan(codes))) {
      detail::fail_validation("padding is not zero");
    }
    matrix.bounds = padded_bounds.first(bounds);
    matrix.codes = padded_codes.first(codes);
    matrix.places = detail::unpack_widths(widths, header.patches(), header.classes.size());
    detail::place_patches(matrix.places, header);
    validate({&header, matrix.places, matrix.bounds, matrix.codes});
  }

  /// Replaces a whole matrix's header by that of the patches around a block, and gathers their
  /// bounds and codes from the section, in which the matrix begins at byte `at`.
  void gather(StoredDelta& delta, const ModelTensor& from, std::size_t at,
              const Block& block) const {
    StoredDelta::Matrix& matrix = delta.matrices_.back();
    TensorHeader whole = matrix.header;
    const detail::MatrixLayout layout = detail::lay_out(whole);
    if (at > from.bytes() || layout.bytes() > from.bytes() - at) {
      detail::fail_validation("size of the section");
    }
    if (block.row > whole.rows || block.rows > whole.rows - block.row || block.col > whole.cols ||
        block.cols > whole.cols - block.col) {
      throw Error(Errc::bad_range, "block");
    }
    const auto side = static_cast<std::size_t>(whole.patch);
    const std::size_t first_row = block.row / side;
    const std::size_t first_col = block.col / side;
    const std::size_t end_row = ceil_div(block.row + block.rows, side);
    const std::size_t end_col = ceil_div(block.col + block.cols, side);
    const std::size_t grid_cols = ceil_div(whole.cols, side);

    model_.read(from, at + layout.bounds, layout.widths, delta.bytes_);
    auto places =
        detail::unpack_widths(delta.bytes_.bytes(), whole.patches(), whole.classes.size());
    detail::place_patches(places, whole);

    matrix.header.rows =
        std::min(end_row * side, whole.rows) - std::min(first_row * side, whole.rows);
    matrix.header.cols =
        std::min(end_col * side, whole.cols) - std::min(first_col * side, whole.cols);
    std::vector<PatchPlace> wanted;
    for (std::size_t i = first_row; i < end_row; ++i) {
      for (std::size_t j = first_col; j < end_col; ++j) wanted.push_back(places[i * grid_cols + j]);
    }
    for (const PatchPlace place : wanted) matrix.places.push_back({place.width_class()});
    assign_slots(matrix.places, matrix.header.classes);
    const auto [bounds, codes] = matrix.header.lay_out();
    delta.bounds_.resize(bounds);
    delta.codes_.resize(codes);
    TensorBytes part;
    for (std::size_t k = 0; k < whole.classes.size(); ++k) {
      const WidthClass& width = whole.classes[k];
      const WidthClass& kept = matrix.header.classes[k];
      std::vector<std::uint32_t> slots;
      for (const PatchPlace place : wanted) {
        if (place.width_class() == k) slots.push_back(place.slot());
      }
      gather_slots(from, at + width.bounds_at, whole.bounds_stride(width), slots,
                   std::span(delta.bounds_).subspan(kept.bounds_at), part);
      gather_slots(from, at + layout.bounds + layout.widths + width.codes_at,
                   whole.codes_stride(width), slots, std::span(delta.codes_).subspan(kept.codes_at),
                   part);
    }
    matrix.bounds = delta.bounds_;
    matrix.codes = delta.codes_;
    validate({&matrix.header, matrix.places, matrix.bounds, matrix.codes});
  }

  /// Copies the items of ascending slots, neighbours in one read.
  void gather_slots(const ModelTensor& from, std::uint64_t begin, std::size_t stride,
                    std::span<const std::uint32_t> slots, std::span<std::byte> out,
                    TensorBytes& part) const {
    if (stride == 0) return;
    for (std::size_t i = 0; i < slots.size();) {
      std::size_t end = i + 1;
      while (end < slots.size() && slots[end] == slots[end - 1] + 1) ++end;
      model_.read(from, begin + std::uint64_t{slots[i]} * stride, (end - i) * stride, part);
      std::ranges::copy(part.bytes(), out.begin());
      out = out.subspan(part.size());
      i = end;
    }
  }

  Model model_;
  Checksums checksums_;
  std::string identity_;
  Metadata metadata_;
  std::vector<ManifestEntry> entries_;
  std::vector<std::size_t> by_name_;
};

}  // namespace deltadct::inline DELTADCT_ABI::io
