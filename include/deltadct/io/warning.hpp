// What an operation tells its caller beside its result.
#pragma once

#include <deltadct/config.hpp>

#include <string>

namespace deltadct::inline DELTADCT_ABI::io {

/// Something that did not stop an operation but that its user should know.
struct Warning {
  std::string where;  ///< the file, tensor or argument concerned
  std::string what;   ///< what was met, what was done about it, and the switch that helps
};

}  // namespace deltadct::inline DELTADCT_ABI::io
