// Options for reading files: what is accepted, and what is refused.
#pragma once

#include <deltadct/io/input_file.hpp>

#include <cstddef>
#include <cstdint>
#include <string>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// The longest header the format allows, in bytes.
inline constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;

/// What a reader accepts before it throws limit_exceeded (for depth: bad_container). `tensors` also
/// limits the number of metadata entries.
struct Limits {
  std::uint64_t header_bytes = kMaxHeaderBytes;  ///< of a header, an index or a manifest
  std::size_t tensors = 1'000'000;
  std::size_t rank = 16;
  int depth = 16;
  std::size_t shards = 100'000;
  /// Of all tensors that an archive restores: 16 TiB.
  std::uint64_t bytes = std::uint64_t{1} << 44;
  /// Bytes that an archive may restore per byte of its own, beyond 64 MiB and twice its base's
  /// bytes.
  double expansion = 1000;
  std::uint64_t file_bytes = std::uint64_t{64} << 20;    ///< of a file beside the weights
  std::uint64_t files_bytes = std::uint64_t{256} << 20;  ///< of all these files together
};

namespace detail {

/// The end of an error about a limit: which one it is on the command line, and the value that
/// suffices if it is known.
inline std::string limit_advice(const char* name) {
  return std::string("; --limit ") + name + "=NUMBER allows more";
}
inline std::string limit_advice(const char* name, std::uint64_t needed) {
  return std::string("; --limit ") + name + "=" + std::to_string(needed) + " allows it";
}

}  // namespace detail

/// Whether the checksums of an archive are compared. Ignoring them is memory-safe: nothing is read
/// out of bounds. But altered weights go unnoticed.
enum class Checksums { compare, ignore };

/// What to do with a tensor of a dtype that the library does not know.
enum class UnknownDType {
  refuse,  ///< throw unsupported_dtype, naming tensor and dtype
  keep,    ///< infer its bits per element from its size, and store it without loss
};

/// What to do with violations of the format that other readers ignore.
enum class Strictness {
  lenient,  ///< ignore them, too, with a warning
  strict,   ///< throw bad_container or bad_index
};

/// How the files of a model or an archive are read.
struct ReadOptions {
  Access access = Access::map;
  Limits limits{};
  Links links = Links::refuse;  ///< for the index and shards inside a folder
  Checksums checksums = Checksums::compare;
  UnknownDType unknown_dtype = UnknownDType::refuse;
  Strictness strictness = Strictness::lenient;  ///< of models; archives are always read strictly

  bool is_strict() const noexcept { return strictness == Strictness::strict; }
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
