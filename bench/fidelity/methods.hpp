// What is compared: the paper's preset and its ablations, the methods of others, unit gain.
#pragma once

#include "../../examples/char_gpt/engine.hpp"

#include <deltadct/io/model.hpp>

#include <functional>
#include <string>
#include <vector>

namespace fidelity {

struct Method {
  std::string group;  ///< the table it belongs to; see report.py
  std::string name;
  double x = 0;       ///< its place in that table or curve
  double budget = 0;  ///< bits a weight of the whole archive that are not exceeded; 0: none
  /// The codec, given the bits a weight of what it compresses where there is a budget.
  std::function<char_gpt::Codec(double bits)> codec;
};

/// UltraDelta looks at the whole pair.
std::vector<Method> all_methods(const deltadct::io::Model& base, const deltadct::io::Model& tuned);

}  // namespace fidelity
