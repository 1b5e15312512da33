// Archives that a test writes tensor by tensor, and all that can be read of one.
#pragma once

#include "support.hpp"

#include <deltadct/io/archive.hpp>
#include <deltadct/io/archive_writer.hpp>

#include <optional>

namespace io_test {

using deltadct::CompressedTensor;
using deltadct::RatioAllocator;
using deltadct::SerialExecutor;
using io::Access;
using io::ArchiveWriter;
using io::BaseTensor;
using io::DeltaArchive;
using io::ManifestEntry;
using io::Mode;
using io::OutputOptions;
using io::Overwrite;
using io::StoredDelta;

inline const RatioAllocator kPaper{};
inline const RatioAllocator kOne{{4, 1.0}};
inline const RatioAllocator kZero{{0, 1.0}};
inline const RatioAllocator kThree{{8, 0.2}, {2, 0.5}, {0, 0.3}};
inline const RatioAllocator kFour{{6, 0.1}, {3, 0.3}, {1, 0.4}, {0, 0.2}};
inline const RatioAllocator kFive{{8, 0.2}, {4, 0.2}, {2, 0.2}, {1, 0.2}, {0, 0.2}};
inline const RatioAllocator kSeven{{8, 0.1}, {6, 0.1}, {4, 0.1}, {3, 0.1},
                                   {2, 0.2}, {1, 0.2}, {0, 0.2}};

inline const io::Metadata kMetadata{{"made by", "tests"}};

/// What an archive says about a tensor, and its own bytes or the reconstructed delta.
struct Content {
  std::string name;
  Mode mode;
  DType dtype;
  Shape shape;
  std::optional<BaseTensor> base;
  std::string tuned;
  std::string reason;
  std::string target;
  Bytes bytes;

  bool operator==(const Content&) const = default;
};

/// How far reading got.
enum class Step { open, read, validate };

/// The bytes of a base's tensor; empty if a file made up its size.
inline Bytes base_bytes(DType dtype, const Shape& shape) {
  if (*io::tensor_bytes(dtype, shape) > 1 << 24) return {};
  return noise("", dtype, shape, 99).bytes;
}

inline BaseTensor base_of(DType dtype, const Shape& shape) {
  return {dtype, shape, io::fingerprint(base_bytes(dtype, shape))};
}

inline std::unique_ptr<deltadct::AnyCodec> codec_of(const ManifestEntry& entry) {
  const deltadct::TensorHeader& header = entry.matrices.at(0);
  return serial_codec({.patch = header.patch,
                       .transform = header.transform,
                       .quantizer = header.quantizer,
                       .double_precision = entry.dtype == DType::f64});
}

inline std::size_t matrix_bytes(const ManifestEntry& entry) {
  return entry.stack.rows * entry.stack.cols * deltadct::dtype_bytes(entry.dtype);
}

/// The deltas of all matrices, added to zeros.
inline Bytes decoded(const StoredDelta& delta, const ManifestEntry& entry) {
  const auto codec = codec_of(entry);
  for (std::size_t k = 0; k < delta.size(); ++k) codec->validate(delta.view(k), entry.dtype);
  const std::size_t matrix = matrix_bytes(entry);
  Bytes weights(delta.size() * matrix);
  for (std::size_t k = 0; k < delta.size(); ++k) {
    std::byte* out = weights.data() + k * matrix;
    codec->decode_add(delta.view(k), entry.dtype, out, out, 1, SerialExecutor{});
  }
  return weights;
}

inline Bytes restored(const DeltaArchive& archive, const ManifestEntry& entry) {
  Bytes base;
  if (entry.mode == Mode::lossless) base = base_bytes(entry.base->dtype, entry.base->shape);
  Bytes out(static_cast<std::size_t>(DeltaArchive::lossless_bytes(entry)));
  archive.lossless(entry, base, out, SerialExecutor{});
  return out;
}

inline std::vector<Content> read_all(const DeltaArchive& archive, Step& step) {
  std::vector<Content> contents;
  for (const ManifestEntry& entry : archive.entries()) {
    step = Step::read;
    Content content{entry.name,  entry.mode,   entry.dtype,  entry.shape, entry.base,
                    entry.tuned, entry.reason, entry.target, {}};
    if (io::has_delta(entry.mode)) {
      const StoredDelta delta = archive.delta(entry);
      step = Step::validate;
      try {
        content.bytes = decoded(delta, entry);
      } catch (const Error& error) {
        throw error.within(archive.place(entry));
      }
      delta.release();
    }
    if (io::has_lossless(entry.mode)) {
      step = Step::read;
      const Bytes bytes = restored(archive, entry);
      content.bytes.insert(content.bytes.end(), bytes.begin(), bytes.end());
    }
    contents.push_back(std::move(content));
  }
  CHECK(archive.metadata() == kMetadata);
  return contents;
}

inline std::vector<Content> read_all(const fs::path& path, const io::ReadOptions& options,
                                     Step& step) {
  step = Step::open;
  return read_all(DeltaArchive::open(path, options), step);
}

inline std::vector<Content> read_all(const fs::path& path, Access access = Access::map) {
  Step step;
  return read_all(path, {.access = access}, step);
}

/// Writes an archive and remembers what it should contain.
class Builder {
 public:
  Builder(const fs::path& path, const std::vector<std::string>& names,
          const OutputOptions& output = {.overwrite = Overwrite::yes})
      : writer_(path, output, names, kMetadata) {}

  void same(const Tensor& tensor) {
    ManifestEntry entry = entry_of(tensor, Mode::same, tensor.shape);
    entry.base->fingerprint = entry.tuned;
    add(entry, {});
  }
  void removed(const Tensor& tensor) {
    ManifestEntry entry = entry_of(tensor, Mode::removed, tensor.shape);
    entry.tuned.clear();
    add(entry, {});
  }
  void tied(const Tensor& tensor, const std::string& target) {
    ManifestEntry entry = entry_of(tensor, Mode::tied, tensor.shape);
    entry.base.reset();
    entry.target = target;
    add(entry, {});
  }
  void added(const Tensor& tensor) {
    ManifestEntry entry = entry_of(tensor, Mode::added, {});
    entry.base.reset();
    keep(entry, tensor.bytes, {});
    add(entry, tensor.bytes);
  }
  void lossless(const Tensor& tensor, DType base_dtype, const Shape& base_shape) {
    ManifestEntry entry = entry_of(tensor, Mode::lossless, {});
    entry.base = base_of(base_dtype, base_shape);
    entry.reason = "a test";
    keep(entry, tensor.bytes, base_bytes(base_dtype, base_shape));
    add(entry, tensor.bytes);
  }
  void lossless(const Tensor& tensor) { lossless(tensor, tensor.dtype, tensor.shape); }

  /// Adds a delta that consists of the tensor's elements.
  void delta(const Tensor& tensor, int patch, const RatioAllocator& mix) {
    compress(tensor, Mode::delta, tensor.shape, patch, mix);
  }
  void grown(const Tensor& tensor, const Shape& base, int patch, const RatioAllocator& mix) {
    compress(tensor, Mode::grown, base, patch, mix);
  }
  void shrunk(const Tensor& tensor, const Shape& base, int patch, const RatioAllocator& mix) {
    compress(tensor, Mode::shrunk, base, patch, mix);
  }

  std::uint64_t finish() { return writer_.finish(); }

  std::vector<Content> expected;
  std::vector<CompressedTensor> matrices;  // of the last delta added

 private:
  static ManifestEntry entry_of(const Tensor& tensor, Mode mode, const Shape& base) {
    ManifestEntry entry;
    entry.name = tensor.name;
    entry.mode = mode;
    entry.dtype = tensor.dtype;
    entry.shape = tensor.shape;
    entry.base = base_of(tensor.dtype, base);
    entry.tuned = io::fingerprint(tensor.bytes);
    return entry;
  }

  void compress(const Tensor& tensor, Mode mode, const Shape& base, int patch,
                const RatioAllocator& mix) {
    ManifestEntry entry = entry_of(tensor, mode, base);
    const Shape common = *io::common_rows(tensor.shape, base);
    entry.stack = io::stack_of(common);
    const auto codec = serial_codec(
        {.patch = patch, .double_precision = tensor.dtype == DType::f64, .allocator = mix});
    const std::size_t bytes = matrix_bytes(entry);
    const Bytes zero(bytes);
    Bytes content(entry.stack.count * bytes);
    std::vector<std::byte> workspace;
    matrices.clear();
    for (std::size_t k = 0; k < entry.stack.count; ++k) {
      CompressedTensor matrix;
      codec->encode_into(matrix, workspace, tensor.dtype, zero.data(),
                         tensor.bytes.data() + k * bytes, entry.stack.rows, entry.stack.cols,
                         SerialExecutor{});
      codec->decode_add(matrix, tensor.dtype, zero.data(), content.data() + k * bytes, 1,
                        SerialExecutor{});
      io::append_matrix(sections_.delta, matrix);
      entry.matrices.push_back(matrix.header);
      matrices.push_back(std::move(matrix));
    }
    if (mode == Mode::grown) {
      const auto tail = std::span(tensor.bytes).subspan(content.size());
      keep(entry, tail, {});
      content.insert(content.end(), tail.begin(), tail.end());
    }
    add(entry, std::move(content));
  }

  void keep(const ManifestEntry& entry, std::span<const std::byte> bytes,
            std::span<const std::byte> base) {
    sections_.lossless =
        io::encode_lossless(bytes, base, deltadct::dtype_bytes(entry.dtype), SerialExecutor{});
  }

  void add(const ManifestEntry& entry, Bytes content) {
    writer_.add(entry, sections_);
    sections_.clear();
    expected.push_back({entry.name, entry.mode, entry.dtype, entry.shape, entry.base, entry.tuned,
                        entry.reason, entry.target, std::move(content)});
  }

  ArchiveWriter writer_;
  io::Sections sections_;
};

/// A small archive with one tensor of each mode. The section of "w", 8 x 12 with P = 4 and widths
/// of 2 and 0 bits, has 36 bytes of bounds and 4 of padding, 8 of widths, 12 of codes and 4 of
/// padding. That of "r" has a table of 4 bytes and 4 of padding, and a plain chunk of 10 bytes and
/// 6 of padding.
inline std::vector<Content> write_small(const fs::path& path, const RatioAllocator& mix = kPaper,
                                        const OutputOptions& output = {
                                            .overwrite = Overwrite::yes}) {
  Builder builder(path, {"w", "r", "s", "n", "g", "k", "t", "o"}, output);
  const Tensor w = noise("w", DType::f32, {8, 12}, 1);
  builder.delta(w, 4, mix);
  builder.lossless(noise("r", DType::i16, {5}, 2));
  builder.same(noise("s", DType::bf16, {2, 2}, 3));
  builder.added(noise("n", DType::u8, {3}, 4));
  builder.grown(noise("g", DType::f32, {6, 4}, 5), {4, 4}, 4, mix);
  builder.shrunk(noise("k", DType::bf16, {4, 4}, 6), {5, 4}, 4, mix);
  Tensor t = w;
  t.name = "t";
  builder.tied(t, "w");
  builder.removed(noise("o", DType::i8, {2}, 8));
  builder.finish();
  return builder.expected;
}

}  // namespace io_test
