// Archives taken apart, altered, and reassembled with matching checksums.
#pragma once

#include "support.hpp"

#include <deltadct/io/archive.hpp>

#include <zstd.h>

namespace io_test {

/// Like write_model(), for hundreds of files that need not survive a power failure.
inline void write_unsynced(const fs::path& path, std::span<const Tensor> tensors,
                           const io::Metadata& metadata) {
  std::vector<io::TensorInfo> infos;
  Bytes data;
  for (const Tensor& tensor : tensors) {
    infos.push_back(tensor.info());
    infos.back().begin = data.size();
    data.insert(data.end(), tensor.bytes.begin(), tensor.bytes.end());
    infos.back().end = data.size();
  }
  const std::string header = io::detail::header_text(infos, metadata, "");
  const std::uint64_t length = header.size();
  Bytes all(8);
  std::memcpy(all.data(), &length, 8);
  const Bytes text = bytes_of(header);
  all.insert(all.end(), text.begin(), text.end());
  all.insert(all.end(), data.begin(), data.end());
  put(path, all);
}

/// A sound archive taken apart, to be altered and reassembled with matching checksums.
struct Draft {
  explicit Draft(const fs::path& path) {
    const io::Model file = io::Model::open(path);
    io::TensorBytes stored;
    for (const io::ModelTensor& info : file.tensors()) {
      file.read(info, stored);
      const std::span<const std::byte> bytes = stored.bytes();
      if (info.name == "manifest:1") {
        const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        manifest = nlohmann::json::parse(text);
      } else {
        sections.push_back({info.name, info.dtype, info.shape, {bytes.begin(), bytes.end()}});
      }
    }
    metadata = file.metadata();
    metadata.erase("manifest");
  }

  nlohmann::json& entry(const std::string& name) {
    for (nlohmann::json& tensor : manifest["tensors"]) {
      if (tensor["name"] == name) return tensor;
    }
    FAIL("no entry");
    return manifest;
  }

  Tensor& section(const std::string& name) {
    const auto found = std::ranges::find(sections, name, &Tensor::name);
    REQUIRE(found != sections.end());
    return *found;
  }

  /// Replaces a section's bytes.
  void replace(const std::string& name, Bytes bytes) {
    Tensor& tensor = section(name);
    tensor.bytes = std::move(bytes);
    tensor.shape = {tensor.bytes.size() / deltadct::dtype_bytes(tensor.dtype)};
  }

  void resize(const std::string& name, std::size_t bytes) {
    Bytes all = section(name).bytes;
    all.resize(bytes);
    replace(name, std::move(all));
  }

  void drop(const std::string& name) {
    sections.erase(std::ranges::find(sections, name, &Tensor::name));
  }

  /// Computes an entry's checksums from the existing sections.
  void seal(const std::string& name) {
    for (const std::string key : {"delta", "lossless"}) {
      const auto found = std::ranges::find(sections, key + ":" + name, &Tensor::name);
      if (found != sections.end()) entry(name)[key] = io::fingerprint(found->bytes);
    }
  }

  void write(const fs::path& path) const { write(path, manifest.dump()); }

  void write(const fs::path& path, const std::string& text) const {
    io::Metadata all = metadata;
    all.emplace("manifest", io::fingerprint(bytes_of(text)));
    std::vector<Tensor> tensors = sections;
    tensors.push_back({"manifest:1", DType::u8, {text.size()}, bytes_of(text)});
    write_unsynced(path, tensors, all);
  }

  nlohmann::json manifest;
  std::vector<Tensor> sections;
  io::Metadata metadata;
};

/// A lossless section of chunks, each {coding, stored bytes}.
inline Bytes section_of(const std::vector<std::pair<unsigned, Bytes>>& chunks) {
  Bytes section(io::detail::padded(4 * chunks.size()));
  for (std::size_t k = 0; k < chunks.size(); ++k) {
    const auto word = static_cast<std::uint32_t>(16 * chunks[k].second.size()) | chunks[k].first;
    std::memcpy(section.data() + 4 * k, &word, 4);
  }
  for (const auto& [coding, stored] : chunks) {
    section.insert(section.end(), stored.begin(), stored.end());
  }
  section.resize(io::detail::padded(section.size()));
  return section;
}

inline Bytes zstd_frame(std::span<const std::byte> bytes) {
  Bytes frame(ZSTD_compressBound(bytes.size()));
  frame.resize(ZSTD_compress(frame.data(), frame.size(), bytes.data(), bytes.size(), 3));
  return frame;
}

}  // namespace io_test
