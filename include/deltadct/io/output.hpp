// How a model or an archive is written: as one file, or as a folder of shards with an index.
#pragma once

#include <deltadct/io/folder.hpp>
#include <deltadct/io/shard_index.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// How a model or an archive is written.
struct OutputOptions {
  Overwrite overwrite = Overwrite::no;
  /// 0: one file. Otherwise a folder of files of about this many bytes; a tensor is never split.
  std::uint64_t max_shard_bytes = 0;
  Resume resume = Resume::no;  ///< for a folder
};

/// "model", 3 -> "model-00003"
inline std::string numbered(const char* stem, std::size_t number) {
  char text[32];
  std::snprintf(text, sizeof text, "-%05zu", number);
  return stem + std::string(text);
}

/// Puts shards in place, together with their index. Returns the bytes of the index.
inline std::uint64_t publish_shards(AtomicFolder& folder, const char* name,
                                    const ShardIndex& index) {
  const std::string text = shard_index_text(index);
  AtomicFile file(folder.stage() / name, Overwrite::yes);
  file.write(std::as_bytes(std::span(text)));
  file.commit();
  folder.publish();
  return text.size();
}

}}}  // namespace deltadct::inline DELTADCT_ABI::io
