// Compresses a fine-tune and its base into a delta archive.
#pragma once

#include <deltadct/io/budget.hpp>
#include <deltadct/io/companion_files.hpp>
#include <deltadct/io/inputs.hpp>
#include <deltadct/io/plan.hpp>
#include <deltadct/io/plausibility.hpp>
#include <deltadct/io/report.hpp>
#include <deltadct/io/tensor_encoder.hpp>

#include <unordered_map>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

namespace detail {

/// Smaller tensors are not tied: storing one costs little more than an entry.
inline constexpr std::uint64_t kTiedBytes = 4096;

/// Compresses a pair of models, tensor by tensor.
class Compressor {
 public:
  Compressor(const Model& base, const Model& tuned, CompanionFiles companions,
             const std::filesystem::path& output, const CompressOptions& options,
             const CodecFactory& factory, const ExecutorRef& executor)
      : base_(base),
        tuned_(tuned),
        options_(options),
        encoder_(base, tuned, options, factory, executor),
        companions_(std::move(companions)),
        writer_(output, options.output, names(), tuned.merged_metadata(), plan(),
                companions_.folder, tuned.whole_index_metadata()) {}

  CheckpointReport run(Plausibility pair, const ProgressFn& progress) {
    report_.weights_ratio = pair.weights_ratio;
    report_.warnings = std::move(pair.warnings);
    std::ranges::copy(tuned_.lost_metadata(), std::back_inserter(report_.warnings));
    std::ranges::copy(companions_.warnings, std::back_inserter(report_.warnings));
    report_.files = companions_.files.size();
    store_companions(companions_, writer_);
    if (has_budget()) plan_budget();
    std::uint64_t total = 0;
    std::uint64_t done = 0;
    for (const ModelTensor& tensor : tuned_.tensors()) total += tensor.bytes();
    std::set<std::string, std::less<>> resumed;
    for (const ManifestEntry& entry : writer_.resumed()) {
      remember(entry);
      resumed.insert(entry.name);
    }
    std::size_t index = 0;
    for (const ModelTensor& tensor : tuned_.tensors()) {
      if (!resumed.contains(tensor.name)) {
        require_memory([&] { return tensor.name; }, [&] { add(tensor, index); });
      }
      ++index;
      done += tensor.bytes();
      if (progress) progress({tensor.name, done, total});
    }
    for (const ModelTensor& tensor : base_.tensors()) {
      if (tuned_.find(tensor.name) == nullptr && !resumed.contains(tensor.name)) remove(tensor);
    }
    base_.require_unchanged();
    tuned_.require_unchanged();
    require_unchanged(companions_.model_files());
    report_.file_bytes = writer_.finish([&](std::uint64_t bytes) { require_wanted(bytes); });
    return std::move(report_);  // nothing may fail once the output is in place
  }

 private:
  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const ModelTensor& tensor : tuned_.tensors()) result.push_back(tensor.name);
    for (const ModelTensor& tensor : base_.tensors()) {
      if (tuned_.find(tensor.name) == nullptr) result.push_back(tensor.name);
    }
    for (const CompanionFile& file : companions_.files) result.push_back(file.name);
    return result;
  }

  /// Everything that the archive's bytes depend on.
  std::string plan() {
    Fingerprint selected;
    for (const ModelTensor& tensor : tuned_.tensors()) {
      selected.add(std::array{std::byte{options_.is_selected(tensor.name)}});
    }
    return nlohmann::json{{"operation", "compress"},
                          {"version", kFormatVersion},
                          {"build", encoder_.build()},
                          {"patch", options_.codec.patch},
                          {"transform", options_.codec.transform},
                          {"quantizer", options_.codec.quantizer},
                          {"allocator", options_.codec.allocator.text()},
                          {"bytes", options_.bytes},
                          {"lossless", options_.lossless},
                          {"selected", selected.hex()},
                          {"non_finite", static_cast<int>(options_.non_finite)},
                          {"max_shard_bytes", options_.output.max_shard_bytes},
                          {"base", identity_json(base_)},
                          {"tuned", identity_json(tuned_)},
                          {"files", identity_json(companions_)}}
        .dump();
  }

  /// The requested bytes of the archive, or nothing if no size is requested. Bits per weight that
  /// changed say nothing about an archive if none changed.
  std::optional<std::uint64_t> wanted_bytes(std::span<const TensorNeed> needs) const {
    if (options_.bytes != 0) return options_.bytes;
    const BudgetAllocator* budget = options_.codec.allocator.budget();
    if (budget == nullptr) return std::nullopt;
    double changed = 0;
    for (const TensorNeed& need : needs) changed += static_cast<double>(need.changed);
    if (changed == 0) return std::nullopt;
    return static_cast<std::uint64_t>(budget->bits_per_weight() * changed / 8);
  }

  bool has_budget() const noexcept {
    return options_.bytes != 0 || options_.codec.allocator.budget() != nullptr;
  }

  /// Surveys every tensor before the first is written, so that the archive meets its size.
  void plan_budget() {
    std::vector<TensorNeed> needs;
    for (const ModelTensor& tensor : tuned_.tensors()) needs.push_back(survey(tensor));
    for (const ModelTensor& tensor : base_.tensors()) {
      if (tuned_.find(tensor.name) == nullptr) needs.push_back(removal(tensor));
    }
    twins_.clear();
    const auto wanted = wanted_bytes(needs);
    if (!wanted) return;
    const std::uint64_t bytes = *wanted;
    writer_.expect(bytes);
    // The archive's own bytes; the tensors of an interrupted run are surveyed like the others.
    const std::uint64_t own = writer_.bytes() - writer_.resumed_bytes();
    needs.insert(needs.begin(), TensorNeed{.fixed = own});
    plan_.emplace(needs, bytes, options_.codec.patch, kUnitGainBoundsBytes);
    wanted_ = bytes;
    needs_ = std::move(needs);
  }

  /// Throws bad_mix if the complete archive has more bytes than were asked for.
  void require_wanted(std::uint64_t bytes) const {
    if (!wanted_ || bytes <= *wanted_) return;
    const double least = static_cast<double>(bytes) - above_least_;
    std::string text = std::to_string(*wanted_) + " bytes were asked for, and the archive has " +
                       std::to_string(bytes) + "; the least possible: about " +
                       std::to_string(static_cast<std::uint64_t>(std::max(least, 0.0))) + " bytes";
    if (!unforeseen_.empty()) {
      text +=
          "; --exclude '" + unforeseen_ + "', which has to be kept without loss, plans for that";
    }
    throw Error(Errc::bad_mix, "budget", text);
  }

  /// Compares what became of the index-th tensor with the plan.
  void note_outcome(const ManifestEntry& entry, std::size_t index) {
    if (!plan_ || needs_[index + 1].weights == 0) return;
    if (has_delta(entry.mode)) {
      above_least_ += static_cast<double>(sections_.delta.size() + sections_.outliers.size()) -
                      needs_[index + 1].least;
    } else if (entry.reason != "exact" && entry.reason != "larger") {
      unforeseen_ = entry.name;
    }
  }

  /// What a tensor needs of the budget.
  TensorNeed survey(const ModelTensor& tensor) {
    ManifestEntry entry = begin(tensor);
    TensorNeed need{.changed = elements(entry.shape)};
    if (is_same(entry)) {
      entry.mode = Mode::same;
      need.changed = 0;
    } else if (const std::string* target = find_twin(entry)) {
      entry.mode = Mode::tied;
      entry.target = *target;
    } else if (entry.base) {
      encoder_.survey(entry, base_bytes_, tuned_bytes_, need);
    } else {
      entry.mode = Mode::added;
      encoder_.encode_added(entry, tuned_bytes_, sections_);
      need.fixed = sections_.bytes();
    }
    end(entry);
    note_twin(entry);
    need.fixed += writer_.overhead(entry, false);
    return need;
  }

  TensorNeed removal(const ModelTensor& tensor) const {
    ManifestEntry entry = entry_of(tensor);
    entry.mode = Mode::removed;
    entry.base = BaseTensor{tensor.dtype, tensor.shape, std::string(16, '0')};
    return {.fixed = writer_.overhead(entry, false)};
  }

  static ManifestEntry entry_of(const ModelTensor& tensor) {
    ManifestEntry entry;
    entry.name = tensor.name;
    entry.dtype = tensor.dtype;
    entry.shape = tensor.shape;
    return entry;
  }

  /// Reads a tensor of the fine-tune, and the base's tensor of that name if there is one.
  ManifestEntry begin(const ModelTensor& tensor) {
    ManifestEntry entry = entry_of(tensor);
    tuned_.read(tensor, tuned_bytes_);
    entry.tuned = fingerprint(tuned_bytes_.bytes());
    if (const ModelTensor* base = base_.find(tensor.name)) {
      base_.read(*base, base_bytes_);
      entry.base = BaseTensor{base->dtype, base->shape, fingerprint(base_bytes_.bytes())};
    }
    sections_.clear();
    return entry;
  }

  void end(const ManifestEntry& entry) const noexcept {
    tuned_bytes_.release();
    if (entry.base) base_bytes_.release();
  }

  void add(const ModelTensor& tensor, std::size_t index) {
    ManifestEntry entry = begin(tensor);
    choose(entry, index);
    end(entry);
    writer_.add(entry, sections_);
    remember(entry);
  }

  void remove(const ModelTensor& tensor) {
    base_.read(tensor, base_bytes_);
    ManifestEntry entry = entry_of(tensor);
    entry.mode = Mode::removed;
    entry.base = BaseTensor{tensor.dtype, tensor.shape, fingerprint(base_bytes_.bytes())};
    base_bytes_.release();
    writer_.add(entry, {});
    remember(entry);
  }

  /// Sets the mode of the index-th tensor, and its sections.
  void choose(ManifestEntry& entry, std::size_t index) {
    if (is_same(entry)) {
      entry.mode = Mode::same;
    } else if (const std::string* target = find_twin(entry)) {
      entry.mode = Mode::tied;
      entry.target = *target;
    } else if (entry.base) {
      // The plan begins with the archive's own bytes, hence index + 1.
      const auto share =
          plan_ ? std::optional(plan_->share(index + 1, writer_.bytes())) : std::nullopt;
      encoder_.encode(entry, base_bytes_, tuned_bytes_, share, sections_);
      note_outcome(entry, index);
    } else {
      entry.mode = Mode::added;
      encoder_.encode_added(entry, tuned_bytes_, sections_);
    }
  }

  static bool equal(std::span<const std::byte> a, std::span<const std::byte> b) noexcept {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
  }

  bool is_same(const ManifestEntry& entry) const {
    return entry.base && *entry.base == BaseTensor{entry.dtype, entry.shape, entry.tuned} &&
           equal(base_bytes_.bytes(), tuned_bytes_.bytes());
  }

  static std::string twin_key(const ManifestEntry& entry, bool exact) {
    return entry.tuned + std::string(dtype_name(entry.dtype)) + shape_text(entry.shape) +
           (exact ? "" : "~");
  }

  /// The name of an earlier tensor of the fine-tune with the same bytes, or nullptr. It must be
  /// restored exactly, or this tensor must be allowed to differ, too, and come no nearer by itself.
  const std::string* find_twin(const ManifestEntry& entry) {
    const bool may_differ = encoder_.may_differ(entry.name);
    for (const bool exact : {true, false}) {
      const auto found = twins_.find(twin_key(entry, exact));
      if (found == twins_.end() || (!exact && !may_differ)) continue;
      for (const std::string& name : found->second) {
        tuned_.read(*tuned_.find(name), twin_bytes_);
        if (!equal(twin_bytes_.bytes(), tuned_bytes_.bytes())) continue;
        if (exact || is_no_nearer(entry, *base_.find(name))) return &name;
      }
    }
    return nullptr;
  }

  /// Whether the base of an entry is no nearer to it than another tensor of the base, from which
  /// the same weights are restored with a loss. That loss is in proportion to the delta.
  bool is_no_nearer(const ManifestEntry& entry, const ModelTensor& other) {
    if (!entry.base || !is_element(entry.base->dtype)) return true;
    const auto common = common_rows(entry.shape, entry.base->shape);
    if (!common) return true;
    base_.read(other, twin_bytes_);
    if (entry.base->dtype == other.dtype && equal(base_bytes_.bytes(), twin_bytes_.bytes())) {
      return true;
    }
    const auto distance = [&](const TensorBytes& base, DType dtype, std::uint64_t count) {
      return distance_between(
          base.bytes().first(static_cast<std::size_t>(count) * dtype_bytes(dtype)), dtype,
          tuned_bytes_.bytes(), entry.dtype);
    };
    return distance(twin_bytes_, other.dtype, elements(*common_rows(entry.shape, other.shape))) <=
           distance(base_bytes_, entry.base->dtype, elements(*common));
  }

  void remember(const ManifestEntry& entry) {
    report_.add(entry);
    if (entry.lost) {
      report_.warnings.push_back(lost_delta(entry));
      report_.warnings.back().loss = Loss::weights;
    }
    if (options_.on_entry) options_.on_entry(entry);
    note_twin(entry);
  }

  /// Lets later tensors be tied to this one.
  void note_twin(const ManifestEntry& entry) {
    // A tensor that is restored in a dtype other than the fine-tune's is no twin of it.
    const ModelTensor* tensor = tuned_.find(entry.name);
    const bool eligible = entry.mode != Mode::removed && entry.mode != Mode::tied &&
                          entry.bytes() >= kTiedBytes && tensor->dtype == entry.dtype;
    if (eligible) twins_[twin_key(entry, !has_delta(entry.mode))].push_back(entry.name);
  }

  const Model& base_;
  const Model& tuned_;
  const CompressOptions& options_;
  TensorEncoder encoder_;
  CompanionFiles companions_;
  ArchiveWriter writer_;
  CheckpointReport report_;
  std::unordered_map<std::string, std::vector<std::string>> twins_;
  std::optional<BudgetPlan> plan_;
  std::optional<std::uint64_t> wanted_;  // bytes of the archive
  std::vector<TensorNeed> needs_;        // of the archive itself, then of every tensor
  double above_least_ = 0;               // bytes by which deltas exceed the least possible
  std::string unforeseen_;               // a tensor whose delta was planned, and cannot be stored
  TensorBytes base_bytes_;
  TensorBytes tuned_bytes_;
  TensorBytes twin_bytes_;
  Sections sections_;
};

}  // namespace detail

/// Compresses tuned - base into an archive at `output`. Includes tensors that only one of them has,
/// or that grew or shrank along their first extent, and the small files of a fine-tune that is a
/// folder (companion_files.hpp). Refuses a pair that judge_pair() refuses. Throws output_is_input
/// if the output is one of the inputs or contains one. After any Error there is no output, or still
/// the previous one.
inline CheckpointReport compress_model(const Model& base, const Model& tuned,
                                       const std::filesystem::path& output,
                                       const CompressOptions& options, const CodecFactory& factory,
                                       const ExecutorRef& executor = SerialExecutor{},
                                       const ProgressFn& progress = {}) {
  detail::Inputs inputs;
  inputs.add(base.files());
  inputs.add(tuned.files());
  CompanionFiles companions = find_companions(tuned, options.companions);
  inputs.add(companions.model_files());
  inputs.require_apart(output, options.output.max_shard_bytes != 0);
  Plausibility pair = judge_pair(base, tuned, options.allow_unlike);
  return detail::Compressor(base, tuned, std::move(companions), output, options, factory, executor)
      .run(std::move(pair), progress);
}

}}}  // namespace deltadct::inline DELTADCT_ABI::io
