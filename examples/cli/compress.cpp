// The command `compress`.
#include "baselines.hpp"
#include "commands.hpp"
#include "names.hpp"
#include "options.hpp"
#include "progress.hpp"
#include "text.hpp"
#include "threads.hpp"

#include <algorithm>
#include <cstdio>
#include <functional>

namespace cli {

using deltadct::Errc;
using deltadct::Error;
namespace io = deltadct::io;

namespace {

void print_summary(const io::CheckpointReport& report, double seconds) {
  const auto model = static_cast<double>(report.model_bytes);
  std::printf("tensors          %s\n", modes_text(report).c_str());
  if (report.files != 0) std::printf("files            %zu beside them\n", report.files);
  std::printf("size             %s, %.2f times smaller than %s\n",
              bytes_text(static_cast<double>(report.file_bytes)).c_str(),
              model / static_cast<double>(std::max<std::uint64_t>(report.file_bytes, 1)),
              bytes_text(model).c_str());
  std::printf("bits per weight  %.3f (every byte of the archive over every weight)\n",
              report.bits_per_weight());
  if (report.changed_elements != report.elements) {
    std::printf("  of what changed %.3f (over every weight of the tensors that changed)\n",
                per_weight(report.file_bytes, report.changed_elements));
  }
  std::printf("  of the deltas  %.3f with bounds and widths, %.3f codes alone\n",
              per_weight(report.delta_bytes, report.delta_elements),
              per_weight(report.code_bytes, report.delta_elements));
  std::printf("|D|/|W|          %.3g\n", report.weights_ratio);
  if (report.recovery.energy != 0) {
    std::printf("restored         %s (of the deltas, rounded to the output's dtypes)\n",
                recovery_text(report.recovery).c_str());
  }
  std::printf("time             %.2f s, %.2f GB/s\n", seconds, model / seconds / 1e9);
}

/// Prints a line for --verbose.
void print_entry(const io::ManifestEntry& entry) {
  std::string remark = entry.reason;
  if (entry.recovery) remark = recovery_text(*entry.recovery);
  std::printf("%-44s %-8s %s\n", deltadct::printable(entry.name).c_str(),
              std::string(io::mode_name(entry.mode)).c_str(), remark.c_str());
}

}  // namespace

void compress(const CompressArguments& arguments, const Common& common) {
  io::CompressOptions options;
  if (arguments.preset == "unit_gain") options.codec = deltadct::unit_gain_spec();
  if (arguments.no_dct) options.codec.transform = deltadct::Identity::name;
  if (arguments.patch != 0) options.codec.patch = arguments.patch;
  if (!arguments.mix.empty()) options.codec.allocator = parse_mix(arguments.mix);
  options.lossless = arguments.preset == "lossless";
  options.non_finite = arguments.non_finite == "keep" ? io::NonFinite::keep : io::NonFinite::refuse;
  options.allow_unlike = arguments.allow_unlike;
  options.companions = arguments.no_files ? io::Companions::leave : io::Companions::carry;
  options.output = writing(common);
  const auto include = compile(arguments.include);
  const auto exclude = compile(arguments.exclude);
  options.selected = [&](std::string_view name) {
    return (include.empty() || matches(include, name)) && !matches(exclude, name);
  };
  const auto base = open_base(arguments.base, common);
  const auto tuned = open_model(arguments.tuned, common);
  warn_of_unmatched("--include", arguments.include, tuned);
  warn_of_unmatched("--exclude", arguments.exclude, tuned);
  const deltadct::OpenMpExecutor executor = start_threads(common);
  deltadct::CodecFactory codecs = patch_factory(common);
  if (is_baseline(arguments.preset)) {
    codecs = with_preset(arguments, base, tuned, options, std::move(codecs));
  }
  if (arguments.verbose) options.on_entry = print_entry;
  if (arguments.bits_per_weight != 0) {
    options.codec.allocator = deltadct::BudgetAllocator(arguments.bits_per_weight);
  }
  options.bytes = arguments.bytes;
  io::CheckpointReport report;
  double seconds = 0;
  {
    ProgressReport progress("compress");
    report = io::compress_model(base, tuned, common.writing.output, options, codecs, executor,
                                std::ref(progress));
    seconds = progress.seconds();
  }
  tell_of_output([&] {
    warn(report.warnings);
    print_summary(report, seconds);
  });
}

}  // namespace cli
