// How a fine-tune is compressed.
#pragma once

#include <deltadct/any_codec.hpp>
#include <deltadct/io/companion_files.hpp>
#include <deltadct/io/manifest.hpp>
#include <deltadct/io/output.hpp>

#include <cstdint>
#include <functional>
#include <string_view>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// What to do with a NaN or an infinity in a delta.
enum class NonFinite {
  refuse,  ///< throw non_finite, naming tensor and element
  keep,    ///< store that tensor without loss
};

struct CompressOptions {
  CodecSpec codec;        ///< double_precision is set per tensor
  bool lossless = false;  ///< store every tensor without loss
  /// Which tensors may be compressed, by name; others are stored without loss. If empty, all may.
  std::function<bool(std::string_view)> selected;
  NonFinite non_finite = NonFinite::refuse;
  bool allow_unlike = false;                  ///< continue with a warning if judge_pair() refuses
  Companions companions = Companions::carry;  ///< the small files of a fine-tune that is a folder
  /// Bytes that the whole archive may take, which are nearly used up; 0: no limit. A budget as the
  /// codec's allocator limits bits instead: those of the archive per weight of the tensors that
  /// changed.
  std::uint64_t bytes = 0;
  OutputOptions output;
  /// Called for every tensor once it is stored; may be empty.
  std::function<void(const ManifestEntry&)> on_entry;

  bool is_selected(std::string_view name) const { return !selected || selected(name); }
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
