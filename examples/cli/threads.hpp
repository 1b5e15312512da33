// Threads that are started before they are needed.
#pragma once

#include "commands.hpp"

#include <deltadct/openmp.hpp>

namespace cli {

/// As many threads as were asked for, or as the system gives: OpenMP's runtime ends the process
/// where it cannot start one, be an output half written or not.
deltadct::OpenMpExecutor start_threads(const Common& common);

}  // namespace cli
