// Finds out which files of a folder this library wrote and nobody has changed since. They may be
// removed without losing anything.
//
// A name proves nothing: everybody's model is called model.safetensors. Where the file system has
// extended attributes, a shard or an index carries its size and the time at which it was written
// (kWrittenAttribute), and a small file beside them the fingerprint of its bytes (kSumAttribute).
// An editor that replaces the file drops the attribute; one that writes into it makes it wrong.
// Most copies lack it, too. A file for which there is no proof counts as somebody else's.
#pragma once

#include <deltadct/io/atomic_file.hpp>
#include <deltadct/io/fingerprint.hpp>
#include <deltadct/io/input_file.hpp>

#include <array>
#include <map>
#include <optional>
#include <string>

#include <sys/xattr.h>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// Fingerprints of files by their paths in a folder, with '/' between the parts.
using FileSums = std::map<std::string, std::string>;

namespace detail {

inline constexpr const char* kSumAttribute = "user.deltadct.sum";

/// The text attached to a file under that name; empty if there is none.
inline std::string attached_text(const std::filesystem::path& path, const char* name) {
  std::array<char, 64> text{};
  const auto length = ::lgetxattr(path.c_str(), name, text.data(), text.size());
  return length <= 0 ? std::string() : std::string(text.data(), static_cast<std::size_t>(length));
}

/// Whether a shard or an index is as this library wrote it.
inline bool is_marked(const std::filesystem::path& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 &&
         attached_text(path, kWrittenAttribute) == written_text(status);
}

/// The fingerprint of a regular file's bytes; nothing if it cannot be read.
inline std::optional<std::string> file_sum(const std::filesystem::path& path) {
  constexpr std::uint64_t kPiece = std::uint64_t{1} << 20;
  try {
    const InputFile file = InputFile::open(path, Access::read, Links::refuse);
    Fingerprint sum;
    std::vector<std::byte> storage;
    for (std::uint64_t at = 0; at < file.size(); at += kPiece) {
      sum.add(file.bytes(at, std::min(kPiece, file.size() - at), storage));
    }
    return sum.hex();
  } catch (const Error&) {
    return std::nullopt;
  }
}

/// Whether a file of a folder is as it was written there, or as `expected` says it will be.
inline bool is_as_written(const std::filesystem::path& folder, const std::filesystem::path& path,
                          const FileSums& expected) {
  const std::string attached = attached_text(path, kSumAttribute);
  const auto found = expected.find(path.lexically_relative(folder).generic_string());
  if (attached.empty() && found == expected.end()) return false;
  const auto sum = file_sum(path);
  return sum && (*sum == attached || (found != expected.end() && *sum == found->second));
}

/// Calls fn(entry) for everything in a folder and below, for the contents of a folder before
/// itself.
template <class Fn>
void for_each_entry(const std::filesystem::path& folder, Fn&& fn) {
  std::error_code error;
  std::filesystem::directory_iterator at(folder, error);
  for (; !error && at != std::filesystem::directory_iterator(); at.increment(error)) {
    std::error_code ignored;
    if (std::filesystem::is_directory(at->symlink_status(ignored))) for_each_entry(at->path(), fn);
    fn(*at);
  }
  if (error) throw Error(Errc::io_failure, folder.string(), error.message());
}

}  // namespace detail

}}}  // namespace deltadct::inline DELTADCT_ABI::io
