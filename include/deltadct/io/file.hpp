// Files as the containers need them: read through a map or on demand, written whole or not at all.
//
// The only header that talks to the operating system (POSIX; Linux for renameat2).
#pragma once

#include <deltadct/config.hpp>
#include <deltadct/core/error.hpp>

#include <algorithm>
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
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

namespace deltadct::inline DELTADCT_ABI::io {

/// How an InputFile reaches its bytes: through a memory map, or with a read for every request.
enum class Access { map, read };

/// Whether an output may replace a file of the same name.
enum class Overwrite : bool { no, yes };

namespace detail {

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

  /// Closes early, for those who need to see what close() returns.
  int close() noexcept { return ::close(std::exchange(number_, -1)); }

 private:
  int number_ = -1;
};

/// Owns a read-only memory map; no map at all for no bytes.
class Mapping {
 public:
  Mapping() = default;
  Mapping(void* start, std::size_t length) noexcept : start_(start), length_(length) {}
  Mapping(Mapping&& other) noexcept
      : start_(std::exchange(other.start_, nullptr)), length_(std::exchange(other.length_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(start_, other.start_);
    std::swap(length_, other.length_);
    return *this;
  }
  ~Mapping() {
    if (length_ != 0) ::munmap(start_, length_);
  }

  std::span<const std::byte> bytes() const noexcept {
    return {static_cast<const std::byte*>(start_), length_};
  }

  /// Gives back the pages the range has reached the end of. The page of the first byte goes too: a
  /// forward pass over tensors smaller than a page would otherwise never give one back. The bytes
  /// stay readable; a later access fetches them from the file again.
  void release(std::size_t offset, std::size_t length) const noexcept {
    static const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    if (offset >= length_) return;
    const std::size_t end = offset + std::min(length, length_ - offset);
    const std::size_t first = offset / page * page;
    const std::size_t last = end == length_ ? end : end / page * page;
    if (first < last)
      ::madvise(static_cast<std::byte*>(start_) + first, last - first, MADV_DONTNEED);
  }

 private:
  void* start_ = nullptr;
  std::size_t length_ = 0;
};

/// Fills a buffer from the file; an end of file before that is an error.
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

/// Writes all of a buffer; what a short write leaves goes into the next one.
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

/// A name nobody can have prepared. It leaves the output's own name out, which may be as long as
/// the file system allows.
inline std::string temporary_name(const std::filesystem::path& path) {
  unsigned char random[8];
  if (::getrandom(random, sizeof random, 0) != static_cast<ssize_t>(sizeof random)) {
    throw_errno(path, "getrandom");
  }
  std::string name = ".deltadct-";
  for (const unsigned char byte : random) {
    name += "0123456789abcdef"[byte >> 4];
    name += "0123456789abcdef"[byte & 15];
  }
  return name + ".tmp";
}

/// Moves a file within a folder unless the new name is taken (errno EEXIST), by way of a link.
inline bool link_new(int folder, const std::string& from, const std::string& to) noexcept {
  if (::linkat(folder, from.c_str(), folder, to.c_str(), 0) != 0) return false;
  ::unlinkat(folder, from.c_str(), 0);
  return true;
}

/// The same in one step where the file system can; NFS and some FUSE ones say EINVAL.
inline bool rename_new(int folder, const std::string& from, const std::string& to) noexcept {
#if defined(RENAME_NOREPLACE)
  if (::renameat2(folder, from.c_str(), folder, to.c_str(), RENAME_NOREPLACE) == 0) return true;
  if (errno != EINVAL && errno != ENOSYS) return false;
#endif
  return link_new(folder, from, to);
}

}  // namespace detail

/// A regular file, open for reading. Directories, pipes, sockets and devices are refused.
///
/// Const members may be called by several threads at once, each with its own storage. As with every
/// memory map, a file that another process shortens while it is mapped raises SIGBUS on access; a
/// caller who cannot rule that out takes Access::read.
class InputFile {
 public:
  /// Throws io_failure naming the path.
  static InputFile open(const std::filesystem::path& path, Access access) {
    // Without O_NONBLOCK, opening a pipe would wait for its writer before it could be refused.
    detail::Descriptor descriptor(
        detail::retry([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); }));
    if (descriptor.get() == -1) detail::throw_errno(path, "open");
    const std::uint64_t size = regular_size(descriptor.get(), path);
    InputFile file(path, access, size);
    if (access == Access::map) {
      file.mapping_ = map(descriptor.get(), size, path);
    } else {
      file.descriptor_ = std::move(descriptor);
    }
    return file;
  }

  const std::filesystem::path& path() const noexcept { return path_; }

  /// Bytes, as of open().
  std::uint64_t size() const noexcept { return size_; }

  /// A range of the file. Mapped: a view that lives as long as this object, storage is untouched.
  /// Read: storage is resized and filled, the view is of it. The view has no alignment.
  /// Throws io_failure where the range leaves the file or reading fails.
  std::span<const std::byte> bytes(std::uint64_t offset, std::uint64_t length,
                                   std::vector<std::byte>& storage) const {
    check_range(offset, length);
    const auto count = static_cast<std::size_t>(length);
    if (access_ == Access::map) {
      return mapping_.bytes().subspan(static_cast<std::size_t>(offset), count);
    }
    storage.resize(count);
    detail::read_at(descriptor_.get(), offset, storage, path_);
    return storage;
  }

  /// Tells that a forward pass is done with a range, so that a pass over a huge file keeps few
  /// pages resident. Views stay valid. Nothing happens in read mode.
  void release(std::uint64_t offset, std::uint64_t length) const noexcept {
    if (offset > size_ || length > size_ - offset) return;
    mapping_.release(static_cast<std::size_t>(offset), static_cast<std::size_t>(length));
  }

 private:
  InputFile(std::filesystem::path path, Access access, std::uint64_t size)
      : path_(std::move(path)), access_(access), size_(size) {}

  static std::uint64_t regular_size(int descriptor, const std::filesystem::path& path) {
    struct stat status {};
    if (::fstat(descriptor, &status) != 0) detail::throw_errno(path, "fstat");
    if (S_ISDIR(status.st_mode)) detail::throw_errno(path, "open", EISDIR);
    if (!S_ISREG(status.st_mode)) {
      throw Error(Errc::io_failure, path.string(), "open: not a regular file");
    }
    return static_cast<std::uint64_t>(status.st_size);
  }

  static detail::Mapping map(int descriptor, std::uint64_t size,
                             const std::filesystem::path& path) {
    if (size == 0) return {};  // mmap refuses a length of 0
    if (!std::in_range<std::size_t>(size)) detail::throw_errno(path, "mmap", EFBIG);
    const auto length = static_cast<std::size_t>(size);
    void* const start = ::mmap(nullptr, length, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (start == MAP_FAILED) detail::throw_errno(path, "mmap");
    return {start, length};
  }

  void check_range(std::uint64_t offset, std::uint64_t length) const {
    if (offset <= size_ && length <= size_ - offset && std::in_range<std::size_t>(length)) return;
    throw Error(Errc::io_failure, path_.string(),
                std::to_string(length) + " bytes from byte " + std::to_string(offset) +
                    " leave the file of " + std::to_string(size_) + " bytes");
  }

  std::filesystem::path path_;
  Access access_;
  std::uint64_t size_;
  detail::Descriptor descriptor_;
  detail::Mapping mapping_;
};

/// An output that appears under its name complete, or not at all. It is written to a temporary file
/// in the same folder, which commit() moves into place and the destructor otherwise removes.
///
/// An output that is a symbolic link is replaced, not followed. What is neither absent nor a
/// regular file (a folder, /dev/null) is refused. Every error is io_failure with the path and the
/// system's text, except output_exists. Writes are not buffered: hand over large pieces.
class AtomicFile {
 public:
  /// Creates the temporary file. Overwrite::no throws output_exists where the output exists.
  AtomicFile(std::filesystem::path path, Overwrite overwrite)
      : path_(std::move(path)), name_(path_.filename().string()), overwrite_(overwrite) {
    open_folder();
    check_output();
    create_temporary();
  }

  AtomicFile(AtomicFile&& other) noexcept { swap(other); }
  AtomicFile& operator=(AtomicFile&& other) noexcept {
    swap(other);
    return *this;
  }
  ~AtomicFile() {
    if (!temporary_.empty()) ::unlinkat(folder_.get(), temporary_.c_str(), 0);
  }

  const std::filesystem::path& path() const noexcept { return path_; }

  /// Where the next write() goes.
  std::uint64_t position() const noexcept { return position_; }

  /// Appends.
  void write(std::span<const std::byte> bytes) {
    write_at(position_, bytes);
    position_ += bytes.size();
  }

  /// Leaves bytes out, to be filled by write_at(); they read as zero until then.
  void skip(std::uint64_t bytes) noexcept { position_ += bytes; }

  /// Writes elsewhere, without moving the position.
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
    try {
      detail::write_at(descriptor_.get(), offset, bytes, path_);
    } catch (...) {
      failed_ = true;
      throw;
    }
  }

  /// Brings the bytes to the disk and then under the output's name; to be called once, last.
  /// Overwrite::no throws output_exists where the output has appeared meanwhile. After a failed
  /// write there is nothing worth keeping, so commit() refuses.
  void commit() {
    if (failed_) throw Error(Errc::io_failure, path_.string(), "commit: an earlier write failed");
    if (detail::retry([&] { return ::fsync(descriptor_.get()); }) != 0) fail("fsync");
    if (descriptor_.close() != 0 && errno != EINTR) fail("close");
    publish();
    temporary_.clear();
    // Some file systems cannot sync a folder, and say EINVAL; the file is in place all the same.
    const int synced = detail::retry([&] { return ::fsync(folder_.get()); });
    if (synced != 0 && errno != EINVAL) fail("fsync folder");
  }

 private:
  [[noreturn]] void fail(std::string_view call, int number = errno) const {
    detail::throw_errno(path_, call, number);
  }

  // Every later call goes through the folder's descriptor, so that a change of the working folder
  // or a renamed parent cannot tear the temporary file and the output apart.
  void open_folder() {
    if (name_.empty()) fail("open", path_.empty() ? ENOENT : EISDIR);
    const auto parent = path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
    folder_ = detail::Descriptor(
        detail::retry([&] { return ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
    if (folder_.get() == -1) fail("open folder");
  }

  // Refusing here spares the caller hours of work that could not be stored. For a privileged user
  // it also keeps rename() from replacing a device such as /dev/null by a file.
  void check_output() const {
    struct stat status {};
    if (::fstatat(folder_.get(), name_.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) return;
      fail("stat");
    }
    if (overwrite_ == Overwrite::no) throw Error(Errc::output_exists, path_.string());
    if (::fstatat(folder_.get(), name_.c_str(), &status, 0) != 0) return;  // a link to nowhere
    if (S_ISDIR(status.st_mode)) fail("open", EISDIR);
    if (!S_ISREG(status.st_mode)) {
      throw Error(Errc::io_failure, path_.string(), "open: not a regular file");
    }
  }

  void create_temporary() {
    std::string name;
    do {
      name = detail::temporary_name(path_);
      descriptor_ = detail::Descriptor(detail::retry([&] {
        return ::openat(folder_.get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      }));
    } while (descriptor_.get() == -1 && errno == EEXIST);
    if (descriptor_.get() == -1) fail("open temporary file");
    temporary_ = std::move(name);
  }

  void publish() const {
    if (overwrite_ == Overwrite::yes) {
      const int folder = folder_.get();
      if (::renameat(folder, temporary_.c_str(), folder, name_.c_str()) != 0) fail("rename");
    } else if (!detail::rename_new(folder_.get(), temporary_, name_)) {
      if (errno == EEXIST) throw Error(Errc::output_exists, path_.string());
      fail("rename");
    }
  }

  void swap(AtomicFile& other) noexcept {
    path_.swap(other.path_);
    name_.swap(other.name_);
    temporary_.swap(other.temporary_);
    std::swap(overwrite_, other.overwrite_);
    std::swap(failed_, other.failed_);
    std::swap(position_, other.position_);
    std::swap(folder_, other.folder_);
    std::swap(descriptor_, other.descriptor_);
  }

  std::filesystem::path path_;
  std::string name_;
  std::string temporary_;  // empty: nothing to remove
  Overwrite overwrite_ = Overwrite::no;
  bool failed_ = false;
  std::uint64_t position_ = 0;
  detail::Descriptor folder_;
  detail::Descriptor descriptor_;
};

}  // namespace deltadct::inline DELTADCT_ABI::io
