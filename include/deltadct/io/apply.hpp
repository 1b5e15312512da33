// Applies a delta archive to a base, which gives a model; and verifies archives.
#pragma once

#include <deltadct/io/companion_files.hpp>
#include <deltadct/io/inputs.hpp>
#include <deltadct/io/model_writer.hpp>
#include <deltadct/io/plan.hpp>
#include <deltadct/io/report.hpp>
#include <deltadct/io/restore.hpp>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

struct ApplyOptions : RestoreOptions {
  OutputOptions output;
  /// Lets the output be the base: its only file, or its folder. The base is replaced in one step,
  /// once everything is written. The archive was made from the old base, so it cannot be applied
  /// again.
  bool in_place = false;
};

namespace detail {

/// Throws missing_tensor if the archive lacks a tensor of the base.
inline void require_covered(const Model& base, const DeltaArchive& archive) {
  for (const ModelTensor& tensor : base.tensors()) {
    if (archive.find(tensor.name) == nullptr) {
      throw Error(Errc::missing_tensor, tensor_place(archive.path().string(), tensor.name),
                  kOtherNames);
    }
  }
}

/// Throws whatever prevents the archive from being applied to this base, as far as that is known
/// without reading a tensor.
inline void require_applicable(const Model& base, const DeltaArchive& archive,
                               const Restorer& restorer) {
  for (const ManifestEntry& entry : archive.entries()) {
    if (entry.base) static_cast<void>(restorer.base_tensor(entry));
  }
  require_covered(base, archive);
  archive.require_proportion(base.tensor_bytes());
}

/// A path that ends in ".safetensors" asks for a file, unless the output is sharded.
inline ModelLayout layout_of(const DeltaArchive& archive, const std::filesystem::path& output,
                             const OutputOptions& options) {
  const bool asks_for_file = output.string().ends_with(".safetensors");
  const bool folder = options.max_shard_bytes != 0 || (archive.of_folder() && !asks_for_file);
  return folder ? ModelLayout::folder : ModelLayout::file;
}

/// The options of the output, after a check that it leaves the inputs alone. With in_place the base
/// may be replaced, whatever Overwrite is given.
inline OutputOptions apply_output(const Model& base, const DeltaArchive& archive,
                                  const std::filesystem::path& output,
                                  const ApplyOptions& options) {
  OutputOptions result = options.output;
  Inputs inputs;
  inputs.add(archive.files());
  if (options.in_place && is_whole_model(output, base)) {
    result.overwrite = Overwrite::input;
  } else {
    inputs.add(base.files(),
               options.in_place
                   ? "; in place, a base is replaced whole: its only file, or its folder "
                     "with nothing else in it"
                   : "; to replace the base needs ApplyOptions::in_place (--in-place)");
  }
  inputs.require_apart(output, layout_of(archive, output, result) == ModelLayout::folder);
  return result;
}

inline std::string apply_plan(const Model& base, const DeltaArchive& archive,
                              const ApplyOptions& options, const CodecFactory& factory) {
  // The first delta's codec stands for all: a factory makes codecs of one build.
  std::string build;
  for (const ManifestEntry& entry : archive.entries()) {
    if (!has_delta(entry.mode)) continue;
    try {
      build = CodecCache(factory).of(entry).build();
    } catch (const Error& error) {
      throw error.within(archive.place(entry));
    }
    break;
  }
  return nlohmann::json{{"operation", "apply"},
                        {"version", kFormatVersion},
                        {"build", build},
                        {"wrong_base", static_cast<int>(options.wrong_base)},
                        {"dtypes", static_cast<int>(options.dtypes)},
                        {"rounding", static_cast<int>(options.rounding)},
                        {"max_shard_bytes", options.output.max_shard_bytes},
                        {"base", identity_json(base)},
                        {"archive", archive.identity()}}
      .dump();
}

/// Puts the files that the archive carries into the output folder. Warns if the output is a file.
inline void add_companions(const DeltaArchive& archive, const ModelWriter& writer,
                           const std::filesystem::path& output, CheckpointReport& report) {
  const std::size_t count = archive.companions().size();
  if (writer.folder() != nullptr) {
    report.file_bytes = restore_companions(archive, *writer.folder());
    report.files = count;
  } else if (count != 0) {
    report.warnings.push_back(
        {output.string(),
         std::to_string(count) +
             " files of the fine-tune's folder are left out, because the output is a "
             "file; a name without .safetensors makes a folder that holds them",
         Loss::beside});
  }
}

/// Warns of metadata of an index where the output has none. How many parameters a model has is no
/// loss: its tensors tell.
inline void warn_of_index_metadata(const DeltaArchive& archive, const std::filesystem::path& output,
                                   CheckpointReport& report) {
  WarningCollector lost;
  for (const auto& [key, value] : archive.index_metadata().items()) {
    if (key == "total_parameters") continue;
    lost.add(tensor_place(output.string(), key),
             "metadata of the fine-tune's index, left out because the output has no index; "
             "--max-shard-size makes one",
             Loss::beside);
  }
  std::ranges::copy(lost.warnings(), std::back_inserter(report.warnings));
}

}  // namespace detail

/// Writes the fine-tune, up to the loss of compression, to `output`, with its metadata and its
/// tensors in their order. Compressed tensors have the base's dtypes, or the fine-tune's if that is
/// asked for. All other tensors are as they were, bit for bit. If the fine-tune was a folder, the
/// output is one too, with the files that the archive carries, unless `output` ends in
/// ".safetensors", which asks for a file. Sharded outputs are always folders. Throws
/// output_is_input if the output is one of the inputs or contains one; wrong_base, naming the
/// tensor, if the base is not the one the archive was made from. After an error there is no output,
/// or still the previous one.
inline CheckpointReport apply_archive(const Model& base, const DeltaArchive& archive,
                                      const std::filesystem::path& output,
                                      const ApplyOptions& options, const CodecFactory& factory,
                                      const ExecutorRef& executor = SerialExecutor{},
                                      const ProgressFn& progress = {}) {
  const OutputOptions where = detail::apply_output(base, archive, output, options);
  Restorer restorer(base, archive, factory, executor, options);
  CheckpointReport report;
  std::vector<TensorInfo> tensors;
  for (const ManifestEntry& entry : archive.entries()) {
    report.add(entry);
    if (entry.mode == Mode::removed) continue;
    const StoredDType dtype = restorer.dtype(entry);
    tensors.push_back({entry.name, dtype, entry.shape, 0, *tensor_bytes(dtype, entry.shape)});
  }
  detail::require_applicable(base, archive, restorer);
  const ModelLayout layout = detail::layout_of(archive, output, where);
  if (layout == ModelLayout::folder) detail::check_companions(archive);
  ModelWriter writer(output, where, std::move(tensors), archive.metadata(),
                     detail::apply_plan(base, archive, options, factory), layout,
                     companion_sums(archive), archive.index_metadata());
  if (where.max_shard_bytes == 0) detail::warn_of_index_metadata(archive, output, report);
  std::uint64_t done = 0;
  for (const ManifestEntry& entry : archive.entries()) {
    if (entry.mode == Mode::removed) {
      restorer.check_base(entry);
      continue;
    }
    if (!writer.wants_next() && entry.base && options.wrong_base == WrongBase::accept) {
      restorer.check_base(entry);
    }
    writer.write(writer.wants_next() ? restorer.restore(entry, writer.next_offset())
                                     : std::span<const std::byte>{});
    done += entry.bytes();
    if (progress) progress({entry.name, done, report.model_bytes});
  }
  report.wrong_bases.assign(restorer.wrong_bases().begin(), restorer.wrong_bases().end());
  detail::add_companions(archive, writer, output, report);
  base.require_unchanged();
  archive.require_unchanged();
  report.file_bytes += writer.finish();  // last: nothing may fail once the output is in place
  return report;
}

namespace detail {

/// Throws unless every delta can be decoded by some codec of this version.
inline void verify_delta(const DeltaArchive& archive, const ManifestEntry& entry,
                         CodecCache& codecs) {
  const StoredDelta delta = archive.delta(entry);
  const auto validate = [&] {
    const AnyCodec& codec = codecs.of(entry);
    for (std::size_t k = 0; k < delta.size(); ++k) codec.validate(delta.view(k), entry.dtype);
  };
  try {
    require_memory([] { return ""; }, validate);
  } catch (const Error& error) {
    throw error.within(archive.place(entry));
  }
  delta.release();
}

}  // namespace detail

/// Reads the whole archive and checks every checksum, that every file is sound, and that every
/// delta can be decoded by some codec of this version. With a base, also checks that it is the
/// right one, and that tensors kept without loss are restored bit for bit. Without a base, checks
/// this for tensors that need none, and decodes the others as far as Limits::expansion allows.
/// Throws at the first bad tensor; limit_exceeded if the archive is out of proportion to what it
/// would restore from a base that is not given.
inline void verify_archive(const DeltaArchive& archive, const Model* base,
                           const CodecFactory& factory,
                           const ExecutorRef& executor = SerialExecutor{},
                           const ProgressFn& progress = {}) {
  std::optional<Restorer> restorer;
  if (base != nullptr) {
    restorer.emplace(*base, archive, factory, executor);
    detail::require_applicable(*base, archive, *restorer);
  }
  double budget = base == nullptr ? archive.require_proportion() : 0;
  detail::CodecCache codecs(factory);
  std::uint64_t done = 0;
  done += detail::check_companions(archive);
  for (const ManifestEntry& entry : archive.entries()) {
    if (has_delta(entry.mode)) detail::verify_delta(archive, entry, codecs);
    if (restorer && entry.mode == Mode::lossless) {
      static_cast<void>(restorer->restore(entry));
    } else {
      if (has_lossless(entry.mode)) archive.verify_lossless(entry, budget);
      if (restorer && entry.base) restorer->check_base(entry);
    }
    done += archive.stored_bytes(entry);
    if (progress) progress({entry.name, done, archive.file_bytes()});
  }
}

}}}  // namespace deltadct::inline DELTADCT_ABI::io
