// The command `verify`.
#include "baselines.hpp"
#include "commands.hpp"
#include "options.hpp"
#include "progress.hpp"
#include "threads.hpp"

#include <cstdio>
#include <functional>
#include <optional>

namespace cli {

namespace io = deltadct::io;

void verify(const std::string& delta, const std::string& base_path, const Common& common) {
  const auto archive = io::DeltaArchive::open(delta, reading(common));
  std::optional<io::Model> base;
  if (!base_path.empty()) base.emplace(open_base(base_path, common));
  const deltadct::OpenMpExecutor executor = start_threads(common);
  {
    ProgressReport progress("verify");
    io::verify_archive(archive, base ? &*base : nullptr, with_baselines(patch_factory(common)),
                       executor, std::ref(progress));
  }
  const std::size_t count = archive.companions().size();
  const std::string files = count == 0 ? "" : " and " + std::to_string(count) + " files";
  std::printf("%s: %zu tensors%s sound%s\n",
              deltadct::printable(delta, deltadct::kLongestText).c_str(), archive.entries().size(),
              files.c_str(), base ? ", made from this base" : "");
}

}  // namespace cli
