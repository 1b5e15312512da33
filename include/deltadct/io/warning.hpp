// Warnings: what an operation tells its caller besides its result.
#pragma once

#include <deltadct/config.hpp>

#include <string>
#include <utility>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// What a warning says is lost: the more, the less it may be overlooked.
enum class Loss {
  none,     ///< nothing
  beside,   ///< something beside the weights: a file, metadata
  weights,  ///< weights, or what was learnt
};

/// Something that did not stop an operation but that the user should know.
struct Warning {
  std::string where;  ///< the file, tensor or argument concerned
  std::string what;   ///< what was found, what was done about it, and the switch that helps
  Loss loss = Loss::none;
};

/// Collects warnings. Those with the same text for many places become one.
class WarningCollector {
 public:
  void add(std::string where, std::string what, Loss loss = Loss::none) {
    for (Entry& entry : entries_) {
      if (entry.first.what != what) continue;
      ++entry.more;
      return;
    }
    entries_.push_back({{std::move(where), std::move(what), loss}, 0});
  }

  /// In the order of their first occurrence.
  std::vector<Warning> warnings() const {
    std::vector<Warning> result;
    for (const Entry& entry : entries_) {
      result.push_back(entry.first);
      if (entry.more != 0) {
        result.back().what += " (and " + std::to_string(entry.more) + " more)";
      }
    }
    return result;
  }

 private:
  struct Entry {
    Warning first;
    std::size_t more;
  };

  std::vector<Entry> entries_;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
