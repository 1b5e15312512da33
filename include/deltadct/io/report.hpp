// What operations on whole models report, while they run and afterwards.
#pragma once

#include <deltadct/io/delta_section.hpp>
#include <deltadct/io/manifest.hpp>
#include <deltadct/io/warning.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// The state of a long operation; reported after every tensor.
struct Progress {
  std::string_view tensor;
  std::uint64_t bytes_done;
  std::uint64_t bytes_total;
};
using ProgressFn = std::function<void(const Progress&)>;

/// What an operation did, in tensors, elements and bytes. Removed tensors count only in `tensors`.
struct CheckpointReport {
  std::array<std::size_t, std::size(kModes)> tensors{};  ///< by mode
  std::uint64_t elements = 0;                            ///< of all tensors of the model
  std::uint64_t changed_elements = 0;                    ///< of those that differ from the base's
  std::uint64_t delta_elements = 0;                      ///< of those stored as deltas
  std::uint64_t delta_bytes = 0;                         ///< bounds, widths and codes
  std::uint64_t code_bytes = 0;                          ///< codes alone, as the paper counts
  std::uint64_t model_bytes = 0;                         ///< of all tensors of the model
  std::uint64_t file_bytes = 0;                          ///< of the files written or read
  Recovery recovery;                                     ///< of tensors stored as deltas
  std::size_t files = 0;                                 ///< carried beside the tensors
  /// For compress_model(): |D| / |W|, the norm of all deltas over that of the fine-tune's weights.
  double weights_ratio = 0;
  std::vector<std::string> wrong_bases;  ///< tensors of another base, which was accepted
  std::vector<Warning> warnings;         ///< what the user should know, in order of occurrence

  std::size_t count(Mode mode) const noexcept { return tensors[static_cast<std::size_t>(mode)]; }

  /// Bits of the archive per weight that it covers.
  double bits_per_weight() const noexcept {
    return elements == 0 ? 0
                         : 8.0 * static_cast<double>(file_bytes) / static_cast<double>(elements);
  }

  void add(const ManifestEntry& entry) {
    ++tensors[static_cast<std::size_t>(entry.mode)];
    if (entry.mode == Mode::removed) return;
    elements += io::elements(entry.shape);
    changed_elements += entry.mode == Mode::same ? 0 : io::elements(entry.shape);
    model_bytes += entry.bytes();
    delta_elements +=
        has_delta(entry.mode) ? entry.stack.count * entry.stack.rows * entry.stack.cols : 0;
    if (entry.recovery) recovery += *entry.recovery;
    for (TensorHeader header : entry.matrices) {
      delta_bytes += detail::lay_out(header).bytes();
      code_bytes += header.lay_out().second;
    }
  }
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
