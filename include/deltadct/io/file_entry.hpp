// A small file that an archive carries beside tensors: its entry in the manifest, and which names
// may be restored.
#pragma once

#include <deltadct/core/error.hpp>
#include <deltadct/io/read_options.hpp>
#include <deltadct/io/tensor_info.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// The most files an archive carries.
inline constexpr std::size_t kMaxFiles = 10'000;

/// A file of the fine-tune's folder that holds no weights.
struct FileEntry {
  std::string name;  ///< its path within the folder, with '/' between its parts
  std::uint64_t bytes = 0;
  std::string sum;      ///< fingerprint of its bytes
  std::string section;  ///< fingerprint of the section file:NAME
  bool executable = false;

  bool operator==(const FileEntry&) const = default;
};

namespace detail {

using deltadct::detail::has_controls;

/// ASCII letters in lower case. On some file systems, names that differ only in case are the same.
inline std::string lower_case(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

/// Whether a lower-case name is one of the model's own files in an output.
inline bool is_model_name(std::string_view lower) noexcept {
  return lower.ends_with(".safetensors") || lower.ends_with(".safetensors.index.json");
}

/// Why no file of that name is carried or restored; nullptr if it may be. A valid name cannot lead
/// out of the folder on any system. It is not the name of one of the model's own files or of an
/// interrupted run's, and is not hidden (files in .git/hooks would be run).
inline const char* file_name_fault(std::string_view name) {
  constexpr std::size_t kLongest = 1024;
  constexpr std::size_t kLongestPart = 255;
  constexpr std::size_t kMostParts = 16;
  if (name.size() > kLongest) return "its path is too long";
  if (name.find_first_of("\\:") != name.npos || has_controls(name)) {
    return "its path has characters that are not portable";
  }
  std::size_t parts = 0;
  for (std::size_t begin = 0; begin <= name.size(); ++parts) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (part.empty()) return "its path is absolute or has an empty part";
    if (part.front() == '.') return "a part of its path is hidden, or leads elsewhere";
    if (part.size() > kLongestPart) return "its path is too long";
    const std::string lower = lower_case(part);
    if (is_model_name(lower)) return "its name is one of the model's own files";
    if (lower.starts_with("deltadct.")) return "its name is one of an interrupted run's files";
    begin = end + 1;
  }
  return parts > kMostParts ? "it lies too deep" : nullptr;
}

/// Names that a file system can hold together, whether or not it distinguishes upper and lower
/// case: no two are the same, and none is the folder of another.
class FileNames {
 public:
  /// Why a name without a fault of its own cannot join the others; nullptr if it has joined them.
  const char* add(std::string_view name) {
    std::string lower = lower_case(name);
    if (files_.contains(lower)) return "another file has its path, but for upper and lower case";
    if (folders_.contains(lower)) return "a folder has its path";
    for (std::size_t end = lower.find('/'); end != lower.npos; end = lower.find('/', end + 1)) {
      if (files_.contains(lower.substr(0, end))) return "a file has the path of its folder";
    }
    for (std::size_t end = lower.find('/'); end != lower.npos; end = lower.find('/', end + 1)) {
      folders_.insert(lower.substr(0, end));
    }
    files_.insert(std::move(lower));
    return nullptr;
  }

 private:
  std::set<std::string, std::less<>> files_;
  std::set<std::string, std::less<>> folders_;
};

/// Throws corrupt_data for a name that is not safe to restore, limit_exceeded beyond the limits.
inline void check_files(std::span<const FileEntry> files, std::string_view where,
                        const Limits& limits) {
  if (files.size() > kMaxFiles) throw Error(Errc::limit_exceeded, where, "too many files");
  FileNames names;
  std::uint64_t left = limits.files_bytes;
  for (const FileEntry& file : files) {
    const char* fault = file_name_fault(file.name);
    if (fault == nullptr) fault = names.add(file.name);
    const std::string place = tensor_place(where, file.name);
    if (fault != nullptr) throw Error(Errc::corrupt_data, place, std::string("a file: ") + fault);
    const std::string size = "a file of " + std::to_string(file.bytes) + " bytes ";
    if (file.bytes > limits.file_bytes) {
      throw Error(Errc::limit_exceeded, place, size + "(--limit file=NUMBER)");
    }
    if (file.bytes > left) {
      throw Error(Errc::limit_exceeded, place, size + "too many in all (--limit files=NUMBER)");
    }
    left -= file.bytes;
  }
}

}  // namespace detail

}}}  // namespace deltadct::inline DELTADCT_ABI::io
