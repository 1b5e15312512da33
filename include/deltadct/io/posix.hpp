// System calls for files and folders (POSIX; Linux for renameat2).
#pragma once

#include <deltadct/config.hpp>
#include <deltadct/core/error.hpp>
#include <deltadct/core/memory.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io { namespace detail {

using deltadct::detail::require_memory;

/// Throws io_failure for a failed system call: "path: ... (call: text of the error number)".
[[noreturn]] inline void throw_errno(const std::filesystem::path& path, std::string_view call,
                                     int number = errno) {
  throw Error(Errc::io_failure, path.string(),
              std::string(call) + ": " + std::generic_category().message(number));
}

/// Repeats a system call while signals interrupt it.
template <class Call>
auto retry(Call call) {
  auto result = call();
  while (result == -1 && errno == EINTR) result = call();
  return result;
}

/// Owns a file descriptor.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) noexcept : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor() {
    if (number_ != -1) ::close(number_);
  }

  int get() const noexcept { return number_; }

  /// Closes early, for callers that need the result of close().
  int close() noexcept { return ::close(std::exchange(number_, -1)); }

 private:
  int number_ = -1;
};

/// open(), but never as descriptor 0, 1 or 2: if a process was started without them, its output to
/// stdout or stderr would otherwise go into the file. Returns an empty Descriptor on failure, with
/// errno set.
inline Descriptor open_file(const char* path, int flags, mode_t mode = 0, int folder = AT_FDCWD) {
  Descriptor opened(retry([&] { return ::openat(folder, path, flags | O_CLOEXEC, mode); }));
  if (opened.get() == -1 || opened.get() > STDERR_FILENO) return opened;
  Descriptor moved(::fcntl(opened.get(), F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
  const int number = errno;
  opened = {};
  errno = number;
  return moved;
}

/// Fills a buffer from the file. Throws io_failure if the file ends before that.
inline void read_at(int descriptor, std::uint64_t offset, std::span<std::byte> out,
                    const std::filesystem::path& path) {
  while (!out.empty()) {
    const auto count = retry(
        [&] { return ::pread(descriptor, out.data(), out.size(), static_cast<off_t>(offset)); });
    if (count < 0) throw_errno(path, "pread");
    if (count == 0) {
      throw Error(Errc::io_failure, path.string(),
                  "the file was cut off at byte " + std::to_string(offset) + " while being read");
    }
    out = out.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
}

/// Writes a whole buffer, continuing after short writes.
inline void write_at(int descriptor, std::uint64_t offset, std::span<const std::byte> bytes,
                     const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const auto count = retry([&] {
      return ::pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    });
    if (count <= 0) throw_errno(path, "pwrite", count == 0 ? EIO : errno);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
}

/// Moves a file within a folder by way of a link, unless the new name is taken (errno EEXIST).
inline bool link_new(int folder, const std::string& from, const std::string& to) noexcept {
  if (::linkat(folder, from.c_str(), folder, to.c_str(), 0) != 0) return false;
  ::unlinkat(folder, from.c_str(), 0);
  return true;
}

/// The same in one step if the file system supports it; NFS and some FUSE ones report EINVAL.
inline bool rename_new(int folder, const std::string& from, const std::string& to) noexcept {
#if defined(RENAME_NOREPLACE)
  if (::renameat2(folder, from.c_str(), folder, to.c_str(), RENAME_NOREPLACE) == 0) return true;
  if (errno != EINVAL && errno != ENOSYS) return false;
#endif
  return link_new(folder, from, to);
}

}}}}  // namespace deltadct::inline DELTADCT_ABI::io::detail
