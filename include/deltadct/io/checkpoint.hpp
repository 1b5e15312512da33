// Whole models: compress a pair into a delta archive, apply an archive to a base, verify one.
// Tensor by tensor: memory is bounded by the largest tensor, not by the model.
#pragma once

#include <deltadct/any_codec.hpp>
#include <deltadct/io/archive.hpp>

#include <functional>
#include <map>
#include <tuple>

namespace deltadct::inline DELTADCT_ABI::io {

/// Where a long operation stands; reported after every tensor.
struct Progress {
  std::string_view tensor;
  std::uint64_t bytes_done;
  std::uint64_t bytes_total;
};
using ProgressFn = std::function<void(const Progress&)>;

/// What to do with a NaN or an infinity in a delta.
enum class NonFinite {
  refuse,  ///< throw non_finite, naming tensor and element
  keep,    ///< store that tensor without loss
};

struct CompressOptions {
  CodecSpec codec;  ///< double_precision is set per tensor
  /// Which tensors may be compressed, by name; others are stored without loss. Empty: all.
  std::function<bool(std::string_view)> selected;
  NonFinite non_finite = NonFinite::refuse;
  Overwrite overwrite = Overwrite::no;
};

/// What an operation did, in tensors, elements and bytes.
struct CheckpointReport {
  std::size_t delta_tensors = 0;
  std::size_t raw_tensors = 0;
  std::size_t same_tensors = 0;
  std::uint64_t elements = 0;        ///< of all tensors
  std::uint64_t delta_elements = 0;  ///< of those stored as deltas
  std::uint64_t delta_bytes = 0;     ///< bounds, widths and codes
  std::uint64_t code_bytes = 0;      ///< codes alone: the paper's account
  std::uint64_t model_bytes = 0;     ///< of all tensors in the model
  std::uint64_t file_bytes = 0;      ///< of the file written or read

  /// Every byte of the archive over every weight it covers.
  double bits_per_weight() const noexcept {
    return elements == 0 ? 0
                         : 8.0 * static_cast<double>(file_bytes) / static_cast<double>(elements);
  }
};

namespace detail {

/// The bytes of a tensor at an address aligned to its dtype: where they are, or copied to storage.
inline std::span<const std::byte> aligned_data(const SafetensorsFile& file,
                                               const TensorInfo& tensor,
                                               std::vector<std::byte>& storage) {
  const auto bytes = file.data(tensor, storage);
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % dtype_bytes(tensor.dtype) == 0) return bytes;
  storage.assign(bytes.begin(), bytes.end());
  return storage;
}

/// The codecs an operation needs, made once each.
class CodecCache {
 public:
  CodecCache(CodecFactory factory, RatioAllocator allocator = {})
      : factory_(std::move(factory)), allocator_(std::move(allocator)) {}

  const AnyCodec& get(int patch, const std::string& transform, bool double_precision) {
    auto& codec = codecs_[{patch, transform, double_precision}];
    if (!codec) codec = factory_({patch, transform, double_precision, allocator_});
    if (!codec) {
      throw Error(Errc::codec_mismatch, "codec",
                  "none for transform '" + printable(transform) + "'");
    }
    return *codec;
  }

 private:
  CodecFactory factory_;
  RatioAllocator allocator_;
  std::map<std::tuple<int, std::string, bool>, std::unique_ptr<AnyCodec>> codecs_;
};

inline std::string shape_text(std::span<const std::uint64_t> shape) {
  std::string text = "[";
  for (const std::uint64_t extent : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(extent);
  }
  return text + "]";
}

inline const TensorInfo& counterpart(const SafetensorsFile& file, const TensorInfo& tensor) {
  const TensorInfo* found = file.find(tensor.name);
  const std::string where = tensor_place(file.path().string(), tensor.name);
  if (found == nullptr) throw Error(Errc::missing_tensor, where);
  if (found->dtype != tensor.dtype) {
    throw Error(Errc::dtype_mismatch, where,
                std::string(dtype_name(found->dtype)) + " where " +
                    std::string(dtype_name(tensor.dtype)) + " is expected");
  }
  if (found->shape != tensor.shape) {
    throw Error(Errc::shape_mismatch, where,
                shape_text(found->shape) + " where " + shape_text(tensor.shape) + " is expected");
  }
  return *found;
}

/// Throws missing_tensor where `file` has a tensor that `other` lacks.
inline void require_subset(const SafetensorsFile& file, const SafetensorsFile& other) {
  for (const TensorInfo& tensor : file.tensors()) counterpart(other, tensor);
}

class Compressor {
 public:
  Compressor(const SafetensorsFile& base, const SafetensorsFile& tuned,
             const std::filesystem::path& output, const CompressOptions& options,
             const CodecFactory& factory, const ExecutorRef& executor)
      : base_(base),
        tuned_(tuned),
        options_(options),
        executor_(executor),
        codecs_(factory, options.codec.allocator),
        writer_(output, options.overwrite, base.tensors()) {}

  CheckpointReport run(const ProgressFn& progress) {
    for (const TensorInfo& tensor : base_.tensors()) {
      report_.elements += tensor.elements();
      report_.model_bytes += tensor.bytes();
    }
    std::uint64_t done = 0;
    std::vector<const TensorInfo*> raw;
    for (const TensorInfo& tensor : base_.tensors()) {
      if (!add(tensor)) raw.push_back(&tensor);
      done += tensor.bytes();
      if (progress) progress({tensor.name, done, report_.model_bytes});
    }
    // Raw tensors last, the widest elements first: a shape of odd size then misaligns nothing.
    std::ranges::stable_sort(raw, std::ranges::greater{},
                             [](const TensorInfo* t) { return dtype_bytes(t->dtype); });
    for (const TensorInfo* tensor : raw) add_raw(*tensor);
    report_.file_bytes = writer_.finish();
    return report_;
  }

 private:
  /// Stores a tensor unless it must be kept without loss; false then.
  bool add(const TensorInfo& tensor) {
    const TensorInfo& other = counterpart(tuned_, tensor);
    const auto base = aligned_data(base_, tensor, base_storage_);
    const auto tuned = aligned_data(tuned_, other, tuned_storage_);
    const bool same = std::ranges::equal(base, tuned);
    const bool stored = same || (compressible(tensor) && add_delta(tensor, base, tuned));
    if (same) {
      writer_.add_same(tensor, fingerprint(base));
      ++report_.same_tensors;
    }
    base_.release(tensor);
    tuned_.release(other);
    return stored;
  }

  // The paper does not say which tensors; ours: floating, of rank 2 or more, at least one patch.
  bool compressible(const TensorInfo& tensor) const {
    const auto area = static_cast<std::uint64_t>(options_.codec.patch * options_.codec.patch);
    return is_element(tensor.dtype) && tensor.shape.size() >= 2 && tensor.elements() >= area &&
           (!options_.selected || options_.selected(tensor.name));
  }

  bool add_delta(const TensorInfo& tensor, std::span<const std::byte> base,
                 std::span<const std::byte> tuned) {
    const auto [rows, cols] = matrix_shape(tensor.shape);
    const AnyCodec& codec =
        codecs_.get(options_.codec.patch, options_.codec.transform, tensor.dtype == DType::f64);
    try {
      codec.encode_into(delta_, workspace_, tensor.dtype, base.data(), tuned.data(), rows, cols,
                        executor_);
    } catch (const Error& error) {
      if (error.code() == Errc::non_finite && options_.non_finite == NonFinite::keep) return false;
      throw error.within(tensor.name);
    }
    const std::size_t bytes = delta_.codes.size() + delta_.bounds.size() +
                              width_map_bytes(delta_.places.size(), delta_.header.classes.size());
    // Patches that are mostly padding can cost more than the weights they hold.
    if (bytes >= tensor.bytes()) return false;
    writer_.add_delta(tensor, fingerprint(base), delta_);
    ++report_.delta_tensors;
    report_.delta_elements += tensor.elements();
    report_.code_bytes += delta_.codes.size();
    report_.delta_bytes += bytes;
    return true;
  }

  void add_raw(const TensorInfo& tensor) {
    const TensorInfo& other = counterpart(tuned_, tensor);
    const std::string base = fingerprint(base_.data(tensor, base_storage_));
    writer_.add_raw(tensor, base, tuned_.data(other, tuned_storage_));
    ++report_.raw_tensors;
    base_.release(tensor);
    tuned_.release(other);
  }

  const SafetensorsFile& base_;
  const SafetensorsFile& tuned_;
  const CompressOptions& options_;
  ExecutorRef executor_;
  CodecCache codecs_;
  ArchiveWriter writer_;
  CheckpointReport report_;
  CompressedTensor delta_;
  std::vector<std::byte> workspace_;
  std::vector<std::byte> base_storage_;
  std::vector<std::byte> tuned_storage_;
};

/// Runs fn, and puts the archive and the tensor in front of what its error names.
template <class Fn>
void within_tensor(const DeltaArchive& archive, const ManifestEntry& entry, Fn&& fn) {
  try {
    fn();
  } catch (const Error& error) {
    throw error.within(tensor_place(archive.path().string(), entry.name));
  }
}

/// Throws wrong_base, missing_tensor, dtype_mismatch or shape_mismatch unless `base` holds the
/// tensor an entry was made from; returns it.
inline const TensorInfo& base_tensor(const SafetensorsFile& base, const ManifestEntry& entry) {
  return counterpart(base, {entry.name, entry.dtype, entry.shape, 0, 0});
}

inline void require_base(const SafetensorsFile& base, const ManifestEntry& entry,
                         std::span<const std::byte> bytes) {
  if (fingerprint(bytes) == entry.base) return;
  throw Error(Errc::wrong_base, tensor_place(base.path().string(), entry.name));
}

/// Throws missing_tensor where the archive says nothing of a tensor of the base.
inline void require_covered(const SafetensorsFile& base, const DeltaArchive& archive) {
  for (const TensorInfo& tensor : base.tensors()) {
    if (archive.find(tensor.name) == nullptr) {
      throw Error(Errc::missing_tensor, tensor_place(archive.path().string(), tensor.name));
    }
  }
}

}  // namespace detail

/// Compresses tuned - base into an archive at `output`. The two models have the same tensors, of
/// the same shapes and dtypes. Throws Error and leaves no output, or the one that was there.
inline CheckpointReport compress_model(const SafetensorsFile& base, const SafetensorsFile& tuned,
                                       const std::filesystem::path& output,
                                       const CompressOptions& options, const CodecFactory& factory,
                                       const ExecutorRef& executor = SerialExecutor{},
                                       const ProgressFn& progress = {}) {
  detail::require_subset(tuned, base);
  detail::require_subset(base, tuned);
  return detail::Compressor(base, tuned, output, options, factory, executor).run(progress);
}

/// Writes base + delta to `output`, in the base's dtypes, order and metadata. Throws wrong_base,
/// naming the tensor, where the base is not the one the archive was made from; leaves no output
/// then, or the one that was there.
inline CheckpointReport apply_archive(const SafetensorsFile& base, const DeltaArchive& archive,
                                      const std::filesystem::path& output, Overwrite overwrite,
                                      const CodecFactory& factory,
                                      const ExecutorRef& executor = SerialExecutor{},
                                      const ProgressFn& progress = {}) {
  CheckpointReport report;
  for (const ManifestEntry& entry : archive.entries()) {
    const TensorInfo& tensor = detail::base_tensor(base, entry);
    report.elements += tensor.elements();
    report.model_bytes += tensor.bytes();
  }
  detail::require_covered(base, archive);
  detail::CodecCache codecs(factory);
  SafetensorsWriter writer(output, overwrite, header_bytes(base.tensors(), base.metadata()));
  std::vector<std::byte> weights;
  std::vector<std::byte> storage;
  std::uint64_t done = 0;
  for (const TensorInfo& tensor : base.tensors()) {
    const ManifestEntry& entry = *archive.find(tensor.name);
    const auto bytes = base.data(tensor, storage);
    detail::require_base(base, entry, bytes);
    writer.begin(tensor.name, tensor.dtype, tensor.shape);
    if (entry.mode == Mode::same) {
      writer.write(bytes);
      ++report.same_tensors;
    } else if (entry.mode == Mode::raw) {
      writer.write(archive.raw(entry, storage));
      ++report.raw_tensors;
    } else {
      weights.assign(bytes.begin(), bytes.end());
      const StoredDelta delta = archive.delta(entry);
      detail::within_tensor(archive, entry, [&] {
        codecs.get(entry.header.patch, entry.header.transform, tensor.dtype == DType::f64)
            .decode_add(delta.view(), tensor.dtype, weights.data(), 1.0, executor);
      });
      writer.write(weights);
      ++report.delta_tensors;
      report.delta_elements += tensor.elements();
    }
    base.release(tensor);
    archive.release(entry);
    done += tensor.bytes();
    if (progress) progress({tensor.name, done, report.model_bytes});
  }
  report.file_bytes = writer.finish(base.metadata());
  return report;
}

/// Reads the whole archive: every checksum, and that every delta can be decoded by some codec of
/// this version. With a base, also that it is the right one. Throws at the first bad tensor.
inline void verify_archive(const DeltaArchive& archive, const SafetensorsFile* base,
                           const CodecFactory& factory, const ProgressFn& progress = {}) {
  if (base != nullptr) detail::require_covered(*base, archive);
  detail::CodecCache codecs(factory);
  std::vector<std::byte> storage;
  std::uint64_t done = 0;
  for (const ManifestEntry& entry : archive.entries()) {
    if (entry.mode == Mode::delta) {
      const StoredDelta delta = archive.delta(entry);
      detail::within_tensor(archive, entry, [&] {
        codecs.get(entry.header.patch, entry.header.transform, entry.dtype == DType::f64)
            .check(delta.view(), entry.dtype);
      });
    } else if (entry.mode == Mode::raw) {
      static_cast<void>(archive.raw(entry, storage));
    }
    if (base != nullptr) {
      const TensorInfo& tensor = detail::base_tensor(*base, entry);
      detail::require_base(*base, entry, base->data(tensor, storage));
      base->release(tensor);
    }
    done += archive.stored_bytes(entry);
    archive.release(entry);
    if (progress) progress({entry.name, done, archive.file_bytes()});
  }
}

}  // namespace deltadct::inline DELTADCT_ABI::io
