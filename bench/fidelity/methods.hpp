// The methods that are compared: the paper's preset and its ablations, the baselines, and unit
// gain.
#pragma once

#include "../../examples/char_gpt/engine.hpp"

#include <deltadct/io/model.hpp>

#include <functional>
#include <string>
#include <vector>

namespace fidelity {

struct Method {
  std::string group;  ///< the table it belongs to (see report.py)
  std::string name;
  double x = 0;       ///< its place in that table or curve
  double budget = 0;  ///< the most bits per weight of the whole archive; 0 for none
  /// Makes the codec. With a budget, `bits` is the number of bits per weight of what it compresses.
  std::function<char_gpt::Codec(double bits)> codec;
};

/// All methods for a pair. UltraDelta needs the whole pair.
std::vector<Method> all_methods(const deltadct::io::Model& base, const deltadct::io::Model& tuned);

}  // namespace fidelity
