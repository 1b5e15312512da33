// Starts threads before they are needed.
#pragma once

#include "commands.hpp"

#include <deltadct/openmp.hpp>

namespace cli {

/// The most threads that may be asked for.
inline constexpr int kMostThreads = 4096;

/// Starts as many threads as were asked for, or as the system allows. OpenMP's runtime ends the
/// process if it cannot start a thread, which must not happen while an output is half written.
deltadct::OpenMpExecutor start_threads(const Common& common);

}  // namespace cli
