// Restores tensors from a base and a delta archive: whole tensors, or blocks of them.
#pragma once

#include <deltadct/any_codec.hpp>
#include <deltadct/io/archive.hpp>
#include <deltadct/io/atomic_file.hpp>
#include <deltadct/io/codec_cache.hpp>
#include <deltadct/io/convert.hpp>
#include <deltadct/io/kept_targets.hpp>
#include <deltadct/io/outliers.hpp>

#include <set>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// What to do if the base is not the one that the archive was made from.
enum class WrongBase {
  refuse,  ///< throw wrong_base, naming the tensor
  accept,  ///< continue where possible, and remember the tensor
};

/// The dtypes of tensors that are restored from a delta.
enum class OutputDTypes {
  base,   ///< the base's
  tuned,  ///< the fine-tune's, which may hold a delta that the base's would round away
};

/// How tensors are restored.
struct RestoreOptions {
  WrongBase wrong_base = WrongBase::refuse;
  OutputDTypes dtypes = OutputDTypes::base;
  Rounding rounding = Rounding::nearest;  ///< of tensors restored from a delta to F16 or BF16
};

namespace detail {

inline constexpr const char* kOtherNames = "if the base has other names, use --rename FROM=TO";

}  // namespace detail

/// Restores the tensors of the fine-tune, up to the loss of compression. Use it from one thread at
/// a time; its buffers are reused from tensor to tensor. Model, archive and executor must outlive
/// it.
class Restorer {
 public:
  Restorer(const Model& base, const DeltaArchive& archive, CodecFactory factory,
           const ExecutorRef& executor, const RestoreOptions& options = {})
      : base_(base),
        archive_(archive),
        codecs_(std::move(factory)),
        executor_(executor),
        options_(options),
        kept_(archive) {}

  /// The dtype that restore() gives an entry.
  StoredDType dtype(const ManifestEntry& tied) const {
    const ManifestEntry& entry = archive_.target(tied);
    const bool is_tuned = options_.dtypes == OutputDTypes::tuned && entry.tuned_dtype;
    return is_tuned ? StoredDType(*entry.tuned_dtype) : entry.dtype;
  }

  /// Reads the base's tensor of an entry and compares it with the one that the archive was made
  /// from. Throws missing_tensor, dtype_mismatch, shape_mismatch or wrong_base, naming file and
  /// tensor.
  void check_base(const ManifestEntry& entry) {
    read_base(entry);
    base_bytes_.release();
  }

  /// Compares only dtypes and shapes. Throws missing_tensor, dtype_mismatch or shape_mismatch.
  const ModelTensor& base_tensor(const ManifestEntry& entry) const {
    const ModelTensor* found = base_.find(entry.name);
    if (found == nullptr) {
      throw Error(Errc::missing_tensor, detail::tensor_place(base_.path().string(), entry.name),
                  detail::kOtherNames);
    }
    if (found->dtype != entry.base->dtype) {
      throw Error(Errc::dtype_mismatch, base_.place(*found),
                  std::string(dtype_name(found->dtype)) + " where the archive has " +
                      std::string(dtype_name(entry.base->dtype)));
    }
    if (found->shape != entry.base->shape) {
      throw Error(
          Errc::shape_mismatch, base_.place(*found),
          shape_text(found->shape) + " where the archive has " + shape_text(entry.base->shape));
    }
    return *found;
  }

  /// The whole tensor, row-major, in dtype(entry). Compares the base's tensor with the one that the
  /// archive was made from, and what is stored with its checksum. Valid until the next call. A
  /// caller that writes the result to a file from `offset` on can do so without a copy
  /// (AtomicFile): where possible, the result's address equals `offset` modulo the page size.
  std::span<const std::byte> restore(const ManifestEntry& tied, std::uint64_t offset = 0) {
    return detail::require_memory([&] { return archive_.place(tied); },
                                  [&] { return restored(tied, offset); });
  }

  /// The stack to which a block of an entry refers: that of the whole tensor, even if the archive
  /// has a delta of only a part of it.
  MatrixStack stack(const ManifestEntry& tied) const {
    const ManifestEntry& entry = archive_.target(tied);
    if (!has_delta(entry.mode)) return stack_of(entry.shape);
    MatrixStack stack = entry.stack;
    const auto common = common_rows(entry.shape, entry.base->shape);
    // For a rank above 2, a single matrix does not tell whether the tensor continues with more
    // matrices or with more rows: [1, 64, 64] of [3, 64, 64] is 1 x 64 x 64 either way. Compression
    // uses stack_of(), so a stack that matches it is read in the same way.
    if (stack == stack_of(*common)) return stack_of(entry.shape);
    if (stack.rows == 0 || stack.cols == 0) return stack;
    const auto all = static_cast<std::size_t>(elements(entry.shape));
    if (stack.count == 1) {
      stack.rows = all / stack.cols;
    } else {
      stack.count = all / (stack.rows * stack.cols);
    }
    return stack;
  }

  /// A block of a tensor, dense and row-major, in entry.dtype, rounded to nearest; for example the
  /// slice of a tensor-parallel rank. Reads only what the block needs of the base and the archive,
  /// so no fingerprint can be compared. Throws bad_range, also if elements smaller than a byte do
  /// not begin and end on whole bytes; corrupt_data or io_failure. Valid until the next call.
  std::span<const std::byte> restore_block(const ManifestEntry& tied, const Block& block) {
    return detail::require_memory([&] { return archive_.place(tied); },
                                  [&] { return restored_block(tied, block); });
  }

  /// Tensors whose base was not the archive's, and was accepted.
  const std::set<std::string>& wrong_bases() const noexcept { return wrong_bases_; }

 private:
  std::span<const std::byte> restored(const ManifestEntry& tied, std::uint64_t offset) {
    const ManifestEntry& entry = archive_.target(tied);
    if (&entry != &tied && tied.base) check_base(tied);
    if (kept_.take(entry, out_)) return out_;
    if (entry.base) read_base(entry);
    if (entry.mode == Mode::same) return base_bytes_.bytes();
    require_room(entry);
    if (has_delta(entry.mode)) base_bytes_.align(dtype_bytes(entry.dtype));
    reserve(entry, offset);
    if (!has_delta(entry.mode)) {
      restore_lossless(entry);
    } else if (is_rounded_apart(entry)) {
      add_delta_and_round(entry);
    } else {
      add_delta(entry, entry.dtype, base_bytes_.bytes(), out_);
    }
    if (entry.base) base_bytes_.release();
    kept_.offer(entry, out_);
    return out_;
  }

  std::span<const std::byte> restored_block(const ManifestEntry& tied, const Block& block) {
    const ManifestEntry& entry = archive_.target(tied);
    const MatrixStack whole = stack(entry);
    if (block.matrix >= whole.count || block.row > whole.rows ||
        block.rows > whole.rows - block.row || block.col > whole.cols ||
        block.cols > whole.cols - block.col) {
      throw Error(Errc::bad_range, archive_.place(entry), "block");
    }
    // Checks this first: no memory is allocated for what only a manifest claims.
    if (entry.base) static_cast<void>(base_tensor(entry));
    require_room(entry);
    block_.clear();
    if (block.rows == 0 || block.cols == 0) return block_;
    const std::size_t first = block.matrix * whole.rows + block.row;
    require_whole_bytes(entry, first, whole.cols, block);
    block_.resize(bytes_of(entry, std::uint64_t{block.rows} * block.cols));
    // First the rows that the base has, then those that it lacks.
    const std::size_t known = has_delta(entry.mode) ? entry.stack.count * entry.stack.rows : 0;
    const std::size_t below = std::min(std::max(first, known) - first, block.rows);
    const std::span<std::byte> upper = std::span(block_).first(bytes_of(entry, below * block.cols));
    const std::span<std::byte> lower = std::span(block_).subspan(upper.size());
    if (below != 0) {
      copy_base(entry, first, whole.cols, {0, 0, block.col, below, block.cols}, upper);
      add_delta_block(entry, {block.matrix, block.row, block.col, below, block.cols}, upper);
    }
    if (below == block.rows) return block_;
    if (entry.mode == Mode::same) {
      copy_base(entry, first, whole.cols, block, lower);
    } else {
      copy_lossless(entry, first + below - known, whole.cols,
                    {0, 0, block.col, block.rows - below, block.cols}, lower);
    }
    return block_;
  }

  void read_base(const ManifestEntry& entry) {
    const ModelTensor& tensor = base_tensor(entry);
    base_.read(tensor, base_bytes_);
    if (fingerprint(base_bytes_.bytes()) == entry.base->fingerprint) return;
    if (options_.wrong_base == WrongBase::refuse)
      throw Error(Errc::wrong_base, base_.place(tensor));
    wrong_bases_.insert(entry.name);
  }

  /// Throws unless the archive and the base justify the memory for a tensor.
  void require_room(const ManifestEntry& entry) {
    if (has_lossless(entry.mode)) archive_.require_chunks(entry);
    if (!is_in_proportion_) archive_.require_proportion(base_.tensor_bytes());
    is_in_proportion_ = true;
  }

  void reserve(const ManifestEntry& entry, std::uint64_t offset) {
    const auto bytes = static_cast<std::size_t>(*tensor_bytes(dtype(entry), entry.shape));
    if (storage_.size() < bytes + AtomicFile::kPage) {
      storage_ = {};
      storage_.resize(bytes + AtomicFile::kPage);
    }
    const auto address = reinterpret_cast<std::uintptr_t>(storage_.data());
    if (offset % dtype_bytes(dtype(entry)) != 0) offset = 0;
    out_ = std::span(storage_).subspan((offset - address) % AtomicFile::kPage, bytes);
  }

  template <class Fn>
  void within(const ManifestEntry& entry, Fn&& fn) const {
    try {
      fn();
    } catch (const Error& error) {
      throw error.within(archive_.place(entry));
    }
  }

  /// Whether the sum of base and delta is rounded to the output's dtype in a separate pass.
  bool is_rounded_apart(const ManifestEntry& entry) const {
    const DType to = dtype(entry);
    return to != entry.dtype ||
           (options_.rounding == Rounding::stochastic && to != detail::compute_dtype(to));
  }

  /// out = base + delta, in `dtype`; below it the rows that the base lacks, in entry.dtype.
  void add_delta(const ManifestEntry& entry, DType dtype, std::span<const std::byte> base,
                 std::span<std::byte> out) {
    const StoredDelta delta = archive_.delta(entry);
    const std::size_t matrix = entry.stack.rows * entry.stack.cols * dtype_bytes(dtype);
    within(entry, [&] {
      const AnyCodec& with = codecs_.of(entry);
      for (std::size_t k = 0; k < delta.size(); ++k) with.validate(delta.view(k), dtype);
      for (std::size_t k = 0; k < delta.size(); ++k) {
        CompressedView view = delta.view(k);
        const auto outliers = view.outliers;
        // Their values are meant for sums that are rounded to entry.dtype.
        if (dtype != entry.dtype) view.outliers = {};
        with.decode_add(view, dtype, base.data() + k * matrix, out.data() + k * matrix, 1.0,
                        executor_);
        if (dtype == entry.dtype) continue;
        add_outliers_to_rounded(outliers, 0, entry.stack.rows, entry.stack.cols, entry.dtype,
                                out.data() + k * matrix);
      }
    });
    delta.release();
    if (entry.mode != Mode::grown) return;
    const std::size_t tail = delta.size() * matrix;
    archive_.lossless(
        entry, {}, out.subspan(tail, static_cast<std::size_t>(DeltaArchive::lossless_bytes(entry))),
        executor_);
  }

  /// The same in the compute dtype, then rounded.
  void add_delta_and_round(const ManifestEntry& entry) {
    const DType wide = detail::compute_dtype(entry.dtype);
    const std::size_t shared = entry.stack.count * entry.stack.rows * entry.stack.cols;
    const auto tail = static_cast<std::size_t>(DeltaArchive::lossless_bytes(entry));
    wide_.resize(shared * dtype_bytes(wide) + tail);
    const auto sums = std::span(wide_).first(shared * dtype_bytes(wide));
    detail::convert_elements(base_bytes_.bytes().first(shared * dtype_bytes(entry.dtype)),
                             entry.dtype, wide, sums, executor_);
    add_delta(entry, wide, sums, wide_);
    const DType to = dtype(entry);
    detail::convert_elements(sums, wide, to, out_, executor_, options_.rounding,
                             XXH3_64bits(entry.name.data(), entry.name.size()));
    detail::convert_elements(std::span(wide_).subspan(sums.size()), entry.dtype, to,
                             out_.subspan(shared * dtype_bytes(to)), executor_);
  }

  void restore_lossless(const ManifestEntry& entry) {
    const auto base = entry.base ? base_bytes_.bytes() : std::span<const std::byte>{};
    const bool wrong = wrong_bases_.contains(entry.name);
    try {
      archive_.lossless(entry, base, out_, executor_);
    } catch (const Error& error) {
      if (!wrong || error.code() != Errc::checksum_mismatch) throw;
      fail_lossless(entry);
    }
    // The archive compares checksums only if asked to.
    if (wrong && fingerprint(out_) != entry.tuned) fail_lossless(entry);
  }

  [[noreturn]] void fail_lossless(const ManifestEntry& entry) const {
    throw Error(Errc::wrong_base, detail::tensor_place(base_.path().string(), entry.name),
                "it is kept without loss, and cannot be restored from another base");
  }

  static std::size_t bytes_of(const ManifestEntry& entry, std::uint64_t elements) noexcept {
    return static_cast<std::size_t>(
        detail::packed_bytes(elements, dtype_bits(entry.dtype)).value_or(0));
  }

  /// Throws bad_range unless every row of a block, or all its rows together if they are whole ones,
  /// begins and ends on a whole byte.
  void require_whole_bytes(const ManifestEntry& entry, std::size_t first, std::size_t cols,
                           const Block& block) const {
    const unsigned bits = dtype_bits(entry.dtype);
    const auto whole = [&](std::size_t elements) { return elements % 8 * bits % 8 == 0; };
    if (whole(cols) && whole(block.col) && whole(block.cols)) return;
    if (block.cols == cols && whole(first * cols) && whole(block.rows * cols)) return;
    throw Error(Errc::bad_range, archive_.place(entry),
                "the block begins or ends within a byte: its elements have " +
                    std::to_string(bits) + " bits");
  }

  /// Copies rows from `first` on, in the block's columns, of a base tensor with `cols` columns.
  void copy_base(const ManifestEntry& entry, std::size_t first, std::size_t cols,
                 const Block& block, std::span<std::byte> out) {
    const ModelTensor& tensor = base_tensor(entry);
    copy_rows(entry, first, cols, block, out, [&](std::uint64_t offset, std::span<std::byte> to) {
      base_.read(tensor, offset, to.size(), base_bytes_);
      std::ranges::copy(base_bytes_.bytes(), to.begin());
    });
  }

  void copy_lossless(const ManifestEntry& entry, std::size_t first, std::size_t cols,
                     const Block& block, std::span<std::byte> out) {
    const auto base_range = [&](std::uint64_t offset, std::size_t length) {
      if (entry.mode != Mode::lossless) return std::span<const std::byte>{};
      const ModelTensor& tensor = base_tensor(entry);
      const std::uint64_t begin = std::min(offset, tensor.bytes());
      base_.read(tensor, begin, std::min<std::uint64_t>(length, tensor.bytes() - begin),
                 base_bytes_);
      return base_bytes_.bytes();
    };
    // Reads whole rows, from the first to the last: chunks are far longer than most rows.
    rows_.resize(bytes_of(entry, std::uint64_t{block.rows} * cols));
    archive_.lossless_range(entry, bytes_of(entry, std::uint64_t{first} * cols), rows_, base_range);
    copy_rows(entry, 0, cols, block, out, [&](std::uint64_t offset, std::span<std::byte> to) {
      std::ranges::copy(std::span(rows_).subspan(static_cast<std::size_t>(offset), to.size()),
                        to.begin());
    });
  }

  /// Calls copy(offset, to) for every run of bytes of a block of columns. If the block has whole
  /// rows, they are one run.
  template <class Copy>
  static void copy_rows(const ManifestEntry& entry, std::size_t first, std::size_t cols,
                        const Block& block, std::span<std::byte> out, Copy copy) {
    if (block.cols == cols) return copy(bytes_of(entry, std::uint64_t{first} * cols), out);
    const std::size_t run = bytes_of(entry, block.cols);
    for (std::size_t i = 0; i < block.rows; ++i) {
      copy(bytes_of(entry, (std::uint64_t{first} + i) * cols + block.col),
           out.subspan(i * run, run));
    }
  }

  void add_delta_block(const ManifestEntry& entry, const Block& block, std::span<std::byte> out) {
    const StoredDelta delta = archive_.delta_block(entry, block);
    within(entry, [&] {
      const AnyCodec& with = codecs_.of(entry);
      with.validate(delta.view(), entry.dtype);
      const TensorHeader& header = entry.matrices[0];
      with.decode_add_block(delta.view(), entry.dtype, header.within_patch(block.row),
                            header.within_patch(block.col), out.data(), block.rows, block.cols, 1.0,
                            executor_);
    });
  }

  const Model& base_;
  const DeltaArchive& archive_;
  detail::CodecCache codecs_;
  ExecutorRef executor_;
  RestoreOptions options_;
  bool is_in_proportion_ = false;
  std::set<std::string> wrong_bases_;
  detail::KeptTargets kept_;
  TensorBytes base_bytes_;
  std::vector<std::byte> storage_;
  std::vector<std::byte> wide_;
  std::span<std::byte> out_;  // of storage_, or of what kept_ holds
  std::vector<std::byte> block_;
  std::vector<std::byte> rows_;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
