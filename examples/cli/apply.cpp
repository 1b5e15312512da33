// The command `apply`.
#include "baselines.hpp"
#include "commands.hpp"
#include "options.hpp"
#include "progress.hpp"
#include "text.hpp"
#include "threads.hpp"

#include <cstdio>
#include <functional>

namespace cli {

namespace io = deltadct::io;

void apply(const ApplyArguments& arguments, const Common& common) {
  const auto base = open_base(arguments.base, common);
  const auto archive = io::DeltaArchive::open(arguments.delta, reading(common));
  const deltadct::OpenMpExecutor executor = start_threads(common);
  io::ApplyOptions options;
  options.wrong_base = arguments.force_base ? io::WrongBase::accept : io::WrongBase::refuse;
  options.dtypes = arguments.dtype == "tuned" ? io::OutputDTypes::tuned : io::OutputDTypes::base;
  options.rounding =
      arguments.round == "stochastic" ? io::Rounding::stochastic : io::Rounding::nearest;
  options.output = writing(common);
  options.in_place = arguments.in_place;
  io::CheckpointReport report;
  double seconds = 0;
  {
    ProgressReport progress("apply");
    report = io::apply_archive(base, archive, common.writing.output, options,
                               with_baselines(patch_factory(common)), executor, std::ref(progress));
    seconds = progress.seconds();
  }
  const std::string files =
      report.files == 0 ? "" : ", " + std::to_string(report.files) + " files beside them";
  tell_of_output([&] {
    warn(report.warnings);
    for (const std::string& name : report.wrong_bases) {
      warn({name, std::string(deltadct::describe(deltadct::Errc::wrong_base))});
    }
    std::printf("%s%s; %s in %.2f s, %.2f GB/s\n", modes_text(report).c_str(), files.c_str(),
                bytes_text(static_cast<double>(report.model_bytes)).c_str(), seconds,
                static_cast<double>(report.model_bytes) / seconds / 1e9);
  });
}

}  // namespace cli
