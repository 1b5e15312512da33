// A fine-tune and its base into a delta archive.
#pragma once

#include <deltadct/io/archive_writer.hpp>
#include <deltadct/io/delta_section.hpp>
#include <deltadct/io/report.hpp>
#include <deltadct/io/restore.hpp>

#include <unordered_map>

namespace deltadct::inline DELTADCT_ABI::io {

/// What to do with a NaN or an infinity in a delta.
enum class NonFinite {
  refuse,  ///< throw non_finite, naming tensor and element
  keep,    ///< store that tensor without loss
};

struct CompressOptions {
  CodecSpec codec;        ///< double_precision is set per tensor
  bool lossless = false;  ///< every tensor is kept without loss
  /// Which tensors may be compressed, by name; others are stored without loss. Empty: all.
  std::function<bool(std::string_view)> selected;
  NonFinite non_finite = NonFinite::refuse;
  OutputOptions output;
};

namespace detail {

/// Elements below which a method without patches keeps a tensor, and below which it does so where
/// a budget is too small for what a matrix takes: those of patches of 16 x 16 and of 64 x 64.
inline constexpr std::uint64_t kSmallElements = 256;
inline constexpr std::uint64_t kSmallForBudget = 4096;

/// A tied tensor costs an entry, a small one not much more.
inline constexpr std::uint64_t kTiedBytes = 4096;

/// Elements of one floating dtype as those of another, exactly or rounded to nearest.
inline void convert_elements(std::span<const std::byte> from, DType from_dtype, DType to_dtype,
                             std::vector<std::byte>& to) {
  const std::size_t count = from.size() / dtype_bytes(from_dtype);
  to.resize(count * dtype_bytes(to_dtype));
  with_element(from_dtype, [&]<class U>() {
    with_element(to_dtype, [&]<class W>() {
      for (std::size_t i = 0; i < count; ++i) {
        U x;
        std::memcpy(&x, from.data() + i * sizeof(U), sizeof(U));
        const W y(static_cast<compute_t<W>>(static_cast<compute_t<U>>(x)));
        std::memcpy(to.data() + i * sizeof(W), &y, sizeof(W));
      }
    });
  });
}

/// Throws non_finite where rounding to another floating dtype makes a finite element infinite.
inline void require_range(std::span<const std::byte> bytes, DType dtype, DType to) {
  const std::size_t count = bytes.size() / dtype_bytes(dtype);
  with_element(dtype, [&]<class U>() {
    with_element(to, [&]<class W>() {
      for (std::size_t i = 0; i < count; ++i) {
        U x;
        std::memcpy(&x, bytes.data() + i * sizeof(U), sizeof(U));
        const auto value = static_cast<compute_t<U>>(x);
        const W rounded(static_cast<compute_t<W>>(value));
        if (!std::isfinite(value) || std::isfinite(static_cast<compute_t<W>>(rounded))) continue;
        throw Error(Errc::non_finite, "element " + std::to_string(i),
                    "beyond the range of " + std::string(dtype_name(to)) + ", the base's dtype");
      }
    });
  });
}

class Compressor {
 public:
  Compressor(const Model& base, const Model& tuned, const std::filesystem::path& output,
             const CompressOptions& options, const CodecFactory& factory,
             const ExecutorRef& executor)
      : base_(base),
        tuned_(tuned),
        options_(options),
        executor_(executor),
        codecs_(factory, options.codec.allocator),
        writer_(output, options.output, names(), tuned.metadata(), plan()) {}

  CheckpointReport run(const ProgressFn& progress) {
    if (options_.codec.allocator.budget() != nullptr) divide_budget();
    std::uint64_t total = 0;
    std::uint64_t done = 0;
    for (const ModelTensor& tensor : tuned_.tensors()) total += tensor.bytes();
    std::set<std::string, std::less<>> resumed;
    for (const ManifestEntry& entry : writer_.resumed()) {
      remember(entry);
      resumed.insert(entry.name);
    }
    for (const ModelTensor& tensor : tuned_.tensors()) {
      if (!resumed.contains(tensor.name)) add(tensor);
      done += tensor.bytes();
      if (progress) progress({tensor.name, done, total});
    }
    for (const ModelTensor& tensor : base_.tensors()) {
      if (tuned_.find(tensor.name) == nullptr && !resumed.contains(tensor.name)) remove(tensor);
    }
    report_.file_bytes = writer_.finish();
    return report_;
  }

 private:
  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const ModelTensor& tensor : tuned_.tensors()) result.push_back(tensor.name);
    for (const ModelTensor& tensor : base_.tensors()) {
      if (tuned_.find(tensor.name) == nullptr) result.push_back(tensor.name);
    }
    return result;
  }

  /// All that the archive's bytes depend on.
  std::string plan() {
    Fingerprint selected;
    for (const ModelTensor& tensor : tuned_.tensors()) {
      selected.add(std::array{std::byte{is_selected(tensor.name)}});
    }
    return nlohmann::json{{"operation", "compress"},
                          {"version", kFormatVersion},
                          {"build", build()},
                          {"patch", options_.codec.patch},
                          {"transform", options_.codec.transform},
                          {"quantizer", options_.codec.quantizer},
                          {"allocator", options_.codec.allocator.text()},
                          {"lossless", options_.lossless},
                          {"selected", selected.hex()},
                          {"non_finite", static_cast<int>(options_.non_finite)},
                          {"max_shard_bytes", options_.output.max_shard_bytes},
                          {"base", identity_json(base_)},
                          {"tuned", identity_json(tuned_)}}
        .dump();
  }

  std::string build() {
    return codecs_.get(options_.codec).build() + " zstd " + ZSTD_versionString();
  }

  /// Gives each tensor that may be compressed its share of the budget.
  void divide_budget() {
    const int patch = options_.codec.patch;
    const auto side = static_cast<std::size_t>(patch);
    std::vector<double> weights;
    std::vector<std::string> tensors;
    for (const ModelTensor& tensor : tuned_.tensors()) {
      const ModelTensor* base = base_.find(tensor.name);
      if (base == nullptr) continue;
      ManifestEntry entry;
      entry.name = tensor.name;
      entry.dtype = tensor.dtype;
      entry.shape = tensor.shape;
      entry.base = BaseTensor{base->dtype, base->shape, {}};
      if (reason(entry) != nullptr) continue;
      const MatrixStack stack = stack_of(*common_rows(entry.shape, entry.base->shape));
      weights.push_back(static_cast<double>(stack.count * ceil_div(stack.rows, side) *
                                            ceil_div(stack.cols, side) * side * side));
      tensors.push_back(tensor.name);
    }
    const auto shares =
        options_.codec.allocator.budget()->divide(weights, patch, kUnitGainSideBytes);
    for (std::size_t k = 0; k < tensors.size(); ++k) budgets_.emplace(tensors[k], shares[k]);
  }

  bool is_selected(const std::string& name) const {
    return !options_.selected || options_.selected(name);
  }

  void add(const ModelTensor& tensor) {
    const ModelTensor* base = base_.find(tensor.name);
    tuned_.read(tensor, tuned_bytes_);
    ManifestEntry entry;
    entry.name = tensor.name;
    entry.dtype = tensor.dtype;
    entry.shape = tensor.shape;
    entry.tuned = fingerprint(tuned_bytes_.bytes());
    if (base != nullptr) {
      base_.read(*base, base_bytes_);
      entry.base = BaseTensor{base->dtype, base->shape, fingerprint(base_bytes_.bytes())};
    }
    delta_section_.clear();
    lossless_section_.clear();
    choose(entry);
    tuned_bytes_.release();
    if (base != nullptr) base_bytes_.release();
    writer_.add(entry, delta_section_, lossless_section_);
    remember(entry);
  }

  void remove(const ModelTensor& tensor) {
    base_.read(tensor, base_bytes_);
    ManifestEntry entry;
    entry.name = tensor.name;
    entry.mode = Mode::removed;
    entry.dtype = tensor.dtype;
    entry.shape = tensor.shape;
    entry.base = BaseTensor{tensor.dtype, tensor.shape, fingerprint(base_bytes_.bytes())};
    base_bytes_.release();
    writer_.add(entry, {}, {});
    remember(entry);
  }

  /// Sets the entry's mode, and the sections that go with it.
  void choose(ManifestEntry& entry) {
    if (is_same(entry)) {
      entry.mode = Mode::same;
    } else if (const std::string* target = find_twin(entry)) {
      entry.mode = Mode::tied;
      entry.target = *target;
    } else if (entry.base && !add_delta(entry)) {
      entry.mode = Mode::lossless;
      add_lossless(tuned_bytes_.bytes(), base_bytes_.bytes(), entry);
    } else if (!entry.base) {
      entry.mode = Mode::added;
      add_lossless(tuned_bytes_.bytes(), {}, entry);
    }
  }

  static bool equal(std::span<const std::byte> a, std::span<const std::byte> b) noexcept {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
  }

  bool is_same(const ManifestEntry& entry) const noexcept {
    return entry.base && *entry.base == BaseTensor{entry.dtype, entry.shape, entry.tuned} &&
           equal(base_bytes_.bytes(), tuned_bytes_.bytes());
  }

  static std::string twin_key(const ManifestEntry& entry, bool exact) {
    return entry.tuned + std::string(dtype_name(entry.dtype)) + shape_text(entry.shape) +
           (exact ? "" : "~");
  }

  /// A tensor of the fine-tune stored before with the same bytes, or nullptr. One that comes back
  /// exactly; or nearly, where this tensor may do so, too.
  const std::string* find_twin(const ManifestEntry& entry) {
    const bool may_differ = is_selected(entry.name);
    for (const bool exact : {true, false}) {
      const auto found = twins_.find(twin_key(entry, exact));
      if (found == twins_.end() || (!exact && !may_differ)) continue;
      tuned_.read(*tuned_.find(found->second), twin_bytes_);
      if (equal(twin_bytes_.bytes(), tuned_bytes_.bytes())) return &found->second;
    }
    return nullptr;
  }

  void remember(const ManifestEntry& entry) {
    report_.add(entry);
    // A tensor restored in another dtype than the fine-tune's is no twin of it.
    const ModelTensor* tensor = tuned_.find(entry.name);
    const bool eligible = entry.mode != Mode::removed && entry.mode != Mode::tied &&
                          entry.bytes() >= kTiedBytes && tensor->dtype == entry.dtype;
    if (eligible) twins_.emplace(twin_key(entry, !has_delta(entry.mode)), entry.name);
  }

  /// Why a tensor is kept without loss; nullptr where it may be compressed. The paper does not say
  /// which tensors are; ours: floating, of rank 2 or more, of at least one patch's elements (of 16
  /// x 16, where there are none).
  const char* reason(const ManifestEntry& entry) const {
    const auto patch = static_cast<std::uint64_t>(options_.codec.patch);
    const std::uint64_t area = patch == 0 ? kSmallElements : patch * patch;
    if (options_.lossless) return "preset";
    if (!is_element(entry.dtype) || !is_element(entry.base->dtype)) return "dtype";
    if (entry.shape.size() < 2) return "rank";
    const auto common = common_rows(entry.shape, entry.base->shape);
    if (!common) return "shape";
    if (elements(*common) < area) return "small";
    if (!is_selected(entry.name)) return "excluded";
    return nullptr;
  }

  /// Stores a delta where that may and should be; else sets the reason why not.
  bool add_delta(ManifestEntry& entry) {
    if (const char* why = reason(entry)) {
      entry.reason = why;
      return false;
    }
    const DType tuned_dtype = std::exchange(entry.dtype, entry.base->dtype);
    const auto fall_back = [&](const char* why) {
      entry.reason = why;
      entry.dtype = tuned_dtype;
      entry.matrices.clear();
      delta_section_.clear();
      return false;
    };
    const auto common = *common_rows(entry.shape, entry.base->shape);
    const std::uint64_t common_bytes = *tensor_bytes(entry.dtype, common);
    try {
      if (tuned_dtype != entry.dtype) {
        require_range(tuned_bytes_.bytes(), tuned_dtype, entry.dtype);
      }
      encode(entry, common, tuned_dtype);
    } catch (const Error& error) {
      if (error.code() == Errc::non_finite && options_.non_finite == NonFinite::keep) {
        return fall_back("non_finite");
      }
      if (error.code() == Errc::bad_mix && options_.codec.patch == 0 &&
          elements(common) < kSmallForBudget) {
        return fall_back("small");
      }
      throw error.within(entry.name);
    }
    // Patches that are mostly padding can cost more than the weights they hold.
    if (delta_section_.size() >= common_bytes) return fall_back("larger");
    const std::uint64_t mine = entry.shape[0];
    const std::uint64_t its = entry.base->shape[0];
    entry.mode = mine > its ? Mode::grown : mine < its ? Mode::shrunk : Mode::delta;
    if (entry.mode == Mode::grown) add_tail(entry, tuned_dtype, elements(common));
    return true;
  }

  void encode(ManifestEntry& entry, std::span<const std::uint64_t> common, DType tuned_dtype) {
    entry.stack = stack_of(common);
    const DType dtype = prepare(entry.dtype, tuned_dtype);
    CodecSpec spec = options_.codec;
    spec.double_precision = dtype == DType::f64;
    std::unique_ptr<AnyCodec> own;
    if (const auto budget = budgets_.find(entry.name); budget != budgets_.end()) {
      spec.allocator = BudgetAllocator(budget->second);
      own = codecs_.make(spec);
    }
    const AnyCodec& codec = own ? *own : codecs_.get(spec);
    const std::size_t matrix = entry.stack.rows * entry.stack.cols * dtype_bytes(dtype);
    for (std::size_t k = 0; k < entry.stack.count; ++k) {
      codec.encode_into(delta_, workspace_, dtype, from_base_ + k * matrix,
                        from_tuned_ + k * matrix, entry.stack.rows, entry.stack.cols, executor_);
      append_matrix(delta_section_, delta_);
      entry.matrices.push_back(delta_.header);
    }
  }

  /// Brings base and tuned to one dtype and to aligned addresses: their own dtype where they agree,
  /// what the base is computed in where not.
  DType prepare(DType base_dtype, DType tuned_dtype) {
    if (base_dtype == tuned_dtype) {
      base_bytes_.align(dtype_bytes(base_dtype));
      tuned_bytes_.align(dtype_bytes(base_dtype));
      from_base_ = base_bytes_.bytes().data();
      from_tuned_ = tuned_bytes_.bytes().data();
      return base_dtype;
    }
    const DType compute = base_dtype == DType::f64 ? DType::f64 : DType::f32;
    convert_elements(base_bytes_.bytes(), base_dtype, compute, base_converted_);
    convert_elements(tuned_bytes_.bytes(), tuned_dtype, compute, tuned_converted_);
    from_base_ = base_converted_.data();
    from_tuned_ = tuned_converted_.data();
    return compute;
  }

  /// The rows that the base lacks, in the base's dtype.
  void add_tail(const ManifestEntry& entry, DType tuned_dtype, std::uint64_t first) {
    auto rows =
        tuned_bytes_.bytes().subspan(static_cast<std::size_t>(first) * dtype_bytes(tuned_dtype));
    std::vector<std::byte> converted;
    if (tuned_dtype != entry.dtype) {
      convert_elements(rows, tuned_dtype, entry.dtype, converted);
      rows = converted;
    }
    add_lossless(rows, {}, entry);
  }

  void add_lossless(std::span<const std::byte> bytes, std::span<const std::byte> base,
                    const ManifestEntry& entry) {
    lossless_section_ = encode_lossless(bytes, base, dtype_bytes(entry.dtype), executor_);
  }

  const Model& base_;
  const Model& tuned_;
  const CompressOptions& options_;
  ExecutorRef executor_;
  CodecCache codecs_;
  ArchiveWriter writer_;
  CheckpointReport report_;
  std::unordered_map<std::string, std::string> twins_;
  std::unordered_map<std::string, double> budgets_;  // bits a weight, by tensor
  CompressedTensor delta_;
  std::vector<std::byte> workspace_;
  TensorBytes base_bytes_;
  TensorBytes tuned_bytes_;
  TensorBytes twin_bytes_;
  std::vector<std::byte> base_converted_;
  std::vector<std::byte> tuned_converted_;
  const std::byte* from_base_ = nullptr;
  const std::byte* from_tuned_ = nullptr;
  std::vector<std::byte> delta_section_;
  std::vector<std::byte> lossless_section_;
};

}  // namespace detail

/// Compresses tuned - base into an archive at `output`. Tensors that only one of them has, or that
/// grew or shrank along their first extent, are taken along. Throws Error and leaves no output, or
/// the one that was there.
inline CheckpointReport compress_model(const Model& base, const Model& tuned,
                                       const std::filesystem::path& output,
                                       const CompressOptions& options, const CodecFactory& factory,
                                       const ExecutorRef& executor = SerialExecutor{},
                                       const ProgressFn& progress = {}) {
  return detail::Compressor(base, tuned, output, options, factory, executor).run(progress);
}

}  // namespace deltadct::inline DELTADCT_ABI::io
