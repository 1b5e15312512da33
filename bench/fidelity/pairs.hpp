// The pairs of base and fine-tune on which fidelity is judged, and their tasks.
#pragma once

#include "../../examples/char_gpt/transformer.hpp"

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace fidelity {

struct Pair {
  std::string name;
  std::string task;
  std::filesystem::path base, tuned;  ///< safetensors files
  /// Judges on data held out from training. Only reads the weights, and does not keep them.
  std::function<char_gpt::Judgement(const char_gpt::Weights&)> judge;
};

/// The folders into which the two archives of models were unpacked, and a folder for temporary
/// files.
struct Folders {
  std::filesystem::path demo, models, scratch;
};

/// Opens all pairs. GPTs are judged on `windows` windows of 256 bytes. Restores those fine-tunes
/// that are stored as lossless archives.
std::vector<Pair> open_pairs(const Folders& folders, const std::filesystem::path& demo_heldout,
                             std::size_t windows);

}  // namespace fidelity
