// The pairs of a base and a fine-tune that fidelity is judged on, and their tasks.
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
  /// On data held out from training; the weights are looked at, not kept.
  std::function<char_gpt::Judgement(const char_gpt::Weights&)> judge;
};

/// The folders the two archives of models were unpacked to, and one for what is made of them.
struct Folders {
  std::filesystem::path demo, models, scratch;
};

/// GPTs are judged on that many windows of 256 bytes. Restores the fine-tunes that are stored as
/// lossless archives.
std::vector<Pair> open_pairs(const Folders& folders, const std::filesystem::path& demo_heldout,
                             std::size_t windows);

}  // namespace fidelity
