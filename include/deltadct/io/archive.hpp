// The delta archive: a safetensors file that holds compressed deltas (every byte: docs/format.md).
//
//   bounds:NAME   per width class, per patch: the stored values     dtype of the bounds  [values]
//   widths:NAME   the class of every patch, packed                  U8  [bytes, padded to 8]
//   codes:NAME    per width class, per patch: the codes             U8  [bytes, padded to 8]
//   raw:NAME      a tensor kept without loss                        its own dtype and shape
//   manifest      what each tensor is, as JSON                      U8  [bytes]
#pragma once

#include <deltadct/io/fingerprint.hpp>
#include <deltadct/io/manifest.hpp>

#include <algorithm>
#include <array>
#include <map>

namespace deltadct::inline DELTADCT_ABI::io {

namespace detail {

inline constexpr const char* kManifestName = "manifest";
inline constexpr std::array<std::byte, 8> kPadding{};

inline std::size_t padded(std::size_t bytes) noexcept {
  return (bytes + 7) / 8 * 8;
}

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

inline std::vector<PatchPlace> unpack_widths(std::span<const std::byte> map, std::size_t patches,
                                             std::size_t classes) {
  const auto bits = static_cast<std::size_t>(width_map_bits(classes));
  std::vector<PatchPlace> places(patches, PatchPlace{0});
  if (bits == 0) return places;
  for (std::size_t i = 0; i < patches; ++i) {
    const auto byte = static_cast<std::uint32_t>(map[i * bits / 8]);
    places[i] = {(byte >> (i * bits % 8)) & ((1u << bits) - 1u)};
  }
  return places;
}

}  // namespace detail

/// Writes a delta archive, tensor by tensor; the file appears complete with finish(), or never.
class ArchiveWriter {
 public:
  /// `tensors` are all that may be added: the header's room is reserved for them.
  ArchiveWriter(const std::filesystem::path& path, Overwrite overwrite,
                std::span<const TensorInfo> tensors)
      : writer_(path, overwrite, header_room(tensors)) {}

  /// Adds a compressed delta. `tensor` and `base` describe the base's tensor.
  void add_delta(const TensorInfo& tensor, const std::string& base, const CompressedTensor& delta) {
    const std::vector<std::byte> widths =
        detail::pack_widths(delta.places, delta.header.classes.size());
    Fingerprint payload;
    const std::uint64_t values = delta.bounds.size() / dtype_bytes(delta.header.bound);
    add_section("bounds:" + tensor.name, delta.header.bound, values, delta.bounds, payload);
    add_section("widths:" + tensor.name, DType::u8, widths.size(), widths, payload);
    add_section("codes:" + tensor.name, DType::u8, detail::padded(delta.codes.size()), delta.codes,
                payload);
    entries_.push_back(
        {tensor.name, Mode::delta, tensor.dtype, tensor.shape, base, payload.hex(), delta.header});
  }

  /// Adds a tensor as it is.
  void add_raw(const TensorInfo& tensor, const std::string& base,
               std::span<const std::byte> bytes) {
    writer_.begin("raw:" + tensor.name, tensor.dtype, tensor.shape);
    writer_.write(bytes);
    entries_.push_back(
        {tensor.name, Mode::raw, tensor.dtype, tensor.shape, base, fingerprint(bytes), {}});
  }

  /// Adds a tensor that equals the base's.
  void add_same(const TensorInfo& tensor, const std::string& base) {
    entries_.push_back({tensor.name, Mode::same, tensor.dtype, tensor.shape, base, {}, {}});
  }

  /// Writes the manifest and puts the file in place. Returns the file's bytes.
  std::uint64_t finish() {
    const std::string text = manifest_text(entries_);
    const auto bytes = std::as_bytes(std::span<const char>(text));
    writer_.begin(detail::kManifestName, DType::u8, std::array{std::uint64_t{bytes.size()}});
    writer_.write(bytes);
    return writer_.finish({{"format", "deltadct"},
                           {"version", std::to_string(kFormatVersion)},
                           {"manifest", fingerprint(bytes)}});
  }

 private:
  // A header entry is its name, possibly escaped to six characters a byte, and at most 200 bytes of
  // punctuation, dtype, shape and offsets, with 20 digits an extent. A tensor has at most three.
  static std::size_t header_room(std::span<const TensorInfo> tensors) {
    std::size_t room = 512;
    for (const TensorInfo& tensor : tensors) {
      const std::size_t name = json_quoted(tensor.name, "tensor").size();
      room += std::max(3 * (name + 100), name + 120 + 21 * tensor.shape.size());
    }
    return room;
  }

  void add_section(const std::string& name, DType dtype, std::uint64_t values,
                   std::span<const std::byte> bytes, Fingerprint& payload) {
    const auto padding =
        std::span(detail::kPadding)
            .first(static_cast<std::size_t>(values) * dtype_bytes(dtype) - bytes.size());
    writer_.begin(name, dtype, std::array{values});
    writer_.write(bytes);
    writer_.write(padding);
    payload.add(bytes).add(padding);
  }

  SafetensorsWriter writer_;
  std::vector<ManifestEntry> entries_;
};

/// A delta read from an archive. Its arrays lie in the archive's mapping or in its own storage; it
/// must not outlive a mapped archive.
class StoredDelta {
 public:
  StoredDelta(StoredDelta&&) = default;
  StoredDelta& operator=(StoredDelta&&) = default;

  /// Valid until this object is moved or ends.
  CompressedView view() const& noexcept { return {&header_, places_, bounds_, codes_}; }
  CompressedView view() const&& = delete;

 private:
  friend class DeltaArchive;

  StoredDelta() = default;

  TensorHeader header_;
  std::vector<PatchPlace> places_;
  std::span<const std::byte> bounds_;
  std::span<const std::byte> codes_;
  std::array<std::vector<std::byte>, 3> storage_;
};

/// A delta archive, its manifest checked and its tensors within reach.
///
/// Const members may be called by several threads at once.
class DeltaArchive {
 public:
  /// Throws io_failure, bad_container, corrupt_data, checksum_mismatch, unsupported_version,
  /// unsupported_dtype or limit_exceeded, naming the file and, where there is one, the tensor.
  static DeltaArchive open(const std::filesystem::path& path, Access access = Access::map,
                           const Limits& limits = {}) {
    return DeltaArchive(SafetensorsFile::open(path, access, limits), limits);
  }

  /// In the order they were written.
  const std::vector<ManifestEntry>& entries() const noexcept { return entries_; }

  /// The tensor of that name, or nullptr.
  const ManifestEntry* find(std::string_view name) const noexcept {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : &entries_[found->second];
  }

  const std::filesystem::path& path() const noexcept { return file_.path(); }
  std::uint64_t file_bytes() const noexcept { return file_.file_bytes(); }

  /// Bytes of the archive's data that belong to a tensor.
  std::uint64_t stored_bytes(const ManifestEntry& entry) const {
    std::uint64_t bytes = 0;
    for (const char* prefix : kSections) {
      if (const TensorInfo* section = file_.find(prefix + entry.name)) bytes += section->bytes();
    }
    return bytes;
  }

  /// The delta of an entry of mode delta: read, its checksum compared, validated. Throws
  /// corrupt_data, checksum_mismatch or io_failure, naming the file and the tensor.
  StoredDelta delta(const ManifestEntry& entry) const {
    const std::string where = place(entry);
    within(where, [&] { validate_header(entry.header); });
    StoredDelta delta;
    delta.header_ = entry.header;
    const auto [bounds_bytes, codes_bytes] = delta.header_.lay_out();
    const auto bounds = section("bounds:", entry, delta.header_.bound, delta.storage_[0]);
    const auto widths = section("widths:", entry, DType::u8, delta.storage_[1]);
    const auto codes = section("codes:", entry, DType::u8, delta.storage_[2]);
    require_checksum(Fingerprint().add(bounds).add(widths).add(codes).hex(), entry);

    const std::size_t patches = delta.header_.patches();
    if (widths.size() != detail::width_map_bytes(patches, delta.header_.classes.size()) ||
        codes.size() != detail::padded(codes_bytes) || bounds.size() != bounds_bytes) {
      throw Error(Errc::corrupt_data, where, "size of a section");
    }
    delta.bounds_ = bounds;
    delta.codes_ = codes.first(codes_bytes);
    within(where, [&] {
      const std::vector<WidthClass> declared = delta.header_.classes;
      delta.places_ = detail::unpack_widths(widths, patches, declared.size());
      assign_slots(delta.places_, delta.header_.classes);
      for (std::size_t k = 0; k < declared.size(); ++k) {
        if (declared[k].patches != delta.header_.classes[k].patches) {
          throw Error(Errc::corrupt_data, "patches of a width class");
        }
      }
      validate(delta.view());
    });
    return delta;
  }

  /// The bytes of an entry of mode raw, its checksum compared.
  std::span<const std::byte> raw(const ManifestEntry& entry,
                                 std::vector<std::byte>& storage) const {
    const auto bytes = section("raw:", entry, entry.dtype, storage);
    if (bytes.size() != *tensor_bytes(entry.dtype, entry.shape)) {
      throw Error(Errc::corrupt_data, place(entry), "size of the raw tensor");
    }
    require_checksum(fingerprint(bytes), entry);
    return bytes;
  }

  /// Tells that a forward pass is done with a tensor.
  void release(const ManifestEntry& entry) const {
    for (const char* prefix : kSections) {
      if (const TensorInfo* section = file_.find(prefix + entry.name)) file_.release(*section);
    }
  }

 private:
  static constexpr const char* kSections[] = {"bounds:", "widths:", "codes:", "raw:"};

  DeltaArchive(SafetensorsFile&& file, const Limits& limits) : file_(std::move(file)) {
    const std::string where = file_.path().string();
    const auto& metadata = file_.metadata();
    const auto format = metadata.find("format");
    const TensorInfo* manifest = file_.find(detail::kManifestName);
    if (format == metadata.end() || format->second != "deltadct" || manifest == nullptr) {
      throw Error(Errc::corrupt_data, where, "a safetensors file, but no delta archive");
    }
    const auto version = metadata.find("version");
    if (version == metadata.end() || version->second != std::to_string(kFormatVersion)) {
      throw Error(Errc::unsupported_version, where,
                  version == metadata.end() ? "none is given"
                                            : "version " + detail::printable(version->second));
    }
    std::vector<std::byte> storage;
    const auto bytes = file_.data(*manifest, storage);
    const auto checksum = metadata.find("manifest");
    if (checksum == metadata.end() || checksum->second != fingerprint(bytes)) {
      throw Error(Errc::checksum_mismatch, where, "manifest");
    }
    entries_ =
        parse_manifest({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, where, limits);
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      if (!by_name_.emplace(entries_[i].name, i).second) {
        throw Error(Errc::corrupt_data, place(entries_[i]), "named twice");
      }
    }
  }

  template <class Fn>
  static void within(const std::string& where, Fn&& fn) {
    try {
      fn();
    } catch (const Error& error) {
      throw error.within(where);
    }
  }

  std::string place(const ManifestEntry& entry) const {
    return detail::tensor_place(file_.path().string(), entry.name);
  }

  std::span<const std::byte> section(const char* prefix, const ManifestEntry& entry, DType dtype,
                                     std::vector<std::byte>& storage) const {
    const TensorInfo* info = file_.find(prefix + entry.name);
    if (info == nullptr || info->dtype != dtype) {
      throw Error(Errc::corrupt_data, place(entry),
                  std::string("section ") + prefix + " is missing or of another dtype");
    }
    return file_.data(*info, storage);
  }

  void require_checksum(const std::string& found, const ManifestEntry& entry) const {
    if (found != entry.payload) throw Error(Errc::checksum_mismatch, place(entry), "payload");
  }

  SafetensorsFile file_;
  std::vector<ManifestEntry> entries_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
};

}  // namespace deltadct::inline DELTADCT_ABI::io
