// Files as the containers need them: read through a map or on demand, written whole or not at all.
//
// The only header that talks to the operating system (POSIX; Linux for renameat2).
#pragma once

#include <deltadct/config.hpp>
#include <deltadct/core/arithmetic.hpp>
#include <deltadct/core/error.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <new>
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

/// Whether a name that is a symbolic link is followed.
enum class Links { refuse, follow };

/// What tells a file from another one, or from itself before a change.
struct FileIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t bytes = 0;
  std::int64_t modified_ns = 0;  ///< since 1970

  bool operator==(const FileIdentity&) const = default;
};

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
  static InputFile open(const std::filesystem::path& path, Access access,
                        Links links = Links::follow) {
    // Without O_NONBLOCK, opening a pipe would wait for its writer before it could be refused.
    const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | (links == Links::refuse ? O_NOFOLLOW : 0);
    detail::Descriptor descriptor(detail::retry([&] { return ::open(path.c_str(), flags); }));
    if (descriptor.get() == -1) {
      if (links == Links::refuse && errno == ELOOP) {
        throw Error(Errc::io_failure, path.string(), "open: a symbolic link");
      }
      detail::throw_errno(path, "open");
    }
    const FileIdentity identity = regular_file(descriptor.get(), path);
    InputFile file(path, access, identity);
    if (access == Access::map) {
      file.mapping_ = map(descriptor.get(), identity.bytes, path);
    } else {
      file.descriptor_ = std::move(descriptor);
    }
    return file;
  }

  const std::filesystem::path& path() const noexcept { return path_; }

  /// Bytes, as of open().
  std::uint64_t size() const noexcept { return identity_.bytes; }

  /// As of open().
  const FileIdentity& identity() const noexcept { return identity_; }

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
    if (offset > size() || length > size() - offset) return;
    mapping_.release(static_cast<std::size_t>(offset), static_cast<std::size_t>(length));
  }

 private:
  InputFile(std::filesystem::path path, Access access, const FileIdentity& identity)
      : path_(std::move(path)), access_(access), identity_(identity) {}

  static FileIdentity regular_file(int descriptor, const std::filesystem::path& path) {
    struct stat status {};
    if (::fstat(descriptor, &status) != 0) detail::throw_errno(path, "fstat");
    if (S_ISDIR(status.st_mode)) detail::throw_errno(path, "open", EISDIR);
    if (!S_ISREG(status.st_mode)) {
      throw Error(Errc::io_failure, path.string(), "open: not a regular file");
    }
    return {static_cast<std::uint64_t>(status.st_dev), static_cast<std::uint64_t>(status.st_ino),
            static_cast<std::uint64_t>(status.st_size),
            std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec};
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
    if (offset <= size() && length <= size() - offset && std::in_range<std::size_t>(length)) return;
    throw Error(Errc::io_failure, path_.string(),
                std::to_string(length) + " bytes from byte " + std::to_string(offset) +
                    " leave the file of " + std::to_string(size()) + " bytes");
  }

  std::filesystem::path path_;
  Access access_;
  FileIdentity identity_;
  detail::Descriptor descriptor_;
  detail::Mapping mapping_;
};

/// An output that appears under its name complete, or not at all. It is written to a file in the
/// same folder that has no name until commit(), where the file system has such files: nothing is
/// left of it however the process ends before. Elsewhere its name is temporary, and the destructor
/// removes it. It has the mode of the output it replaces.
///
/// Appended bytes are gathered into large blocks, which bypass the page cache where the file system
/// allows that: a model written once would else push out what is read, and copying it there takes
/// longer than decoding it.
///
/// An output that is a symbolic link is replaced, not followed. What is neither absent nor a
/// regular file (a folder, /dev/null) is refused. Every error is io_failure with the path and the
/// system's text, except output_exists. A write that fails may be reported by a later call.
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

  /// Appends. Many bytes whose address is the position modulo kPage are written from where they
  /// are, others by way of a block.
  void write(std::span<const std::byte> bytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(bytes.data());
    if (bytes.size() >= kBlock && (address - position_) % kPage == 0) {
      bytes = gather(bytes, static_cast<std::size_t>(-position_ % kPage));
      flush();
      for (std::size_t left = bytes.size() / kPage * kPage; left != 0;) {
        const auto piece = bytes.first(std::min(left, kPiece));
        put(position_, piece, Cache::bypass);
        position_ += piece.size();
        bytes = bytes.subspan(piece.size());
        left -= piece.size();
      }
    }
    while (!bytes.empty()) {
      bytes = gather(bytes, std::min(bytes.size(), kBlock - used_));
      if (used_ == kBlock) flush();
    }
  }

  /// Leaves bytes out, to be filled by write_at(); they read as zero until then.
  void skip(std::uint64_t bytes) {
    flush();
    position_ += bytes;
    begin_ = used_ = static_cast<std::size_t>(position_ % kPage);
  }

  /// Writes elsewhere, without moving the position.
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
    flush();
    put(offset, bytes, Cache::use);
  }

  /// Brings the bytes to the disk and then under the output's name; to be called once, last.
  /// Overwrite::no throws output_exists where the output has appeared meanwhile. After a failed
  /// write there is nothing worth keeping, so commit() refuses.
  void commit() {
    flush();
    if (failed_) throw Error(Errc::io_failure, path_.string(), "commit: an earlier write failed");
    if (detail::retry([&] { return ::fsync(descriptor_.get()); }) != 0) fail("fsync");
    if (mode_ != 0 && ::fchmod(descriptor_.get(), mode_) != 0) fail("chmod");
    if (temporary_.empty()) give_name();
    if (descriptor_.close() != 0 && errno != EINTR) fail("close");
    publish();
    temporary_.clear();
    // Some file systems cannot sync a folder, and say EINVAL; the file is in place all the same.
    const int synced = detail::retry([&] { return ::fsync(folder_.get()); });
    if (synced != 0 && errno != EINVAL) fail("fsync folder");
  }

  /// What bypassing the cache asks of offsets, lengths and addresses.
  static constexpr std::size_t kPage = 4096;

 private:
  enum class Cache : bool { bypass, use };

  // So many bytes are worth it; no system takes more than 2 GiB in one call.
  static constexpr std::size_t kBlock = std::size_t{4} << 20;
  static constexpr std::size_t kPiece = std::size_t{1} << 30;
  static constexpr std::align_val_t kAlignment{kPage};

  struct FreeBlock {
    void operator()(std::byte* block) const noexcept { ::operator delete(block, kAlignment); }
  };

  [[noreturn]] void fail(std::string_view call, int number = errno) const {
    detail::throw_errno(path_, call, number);
  }

  /// Takes bytes into the block, which has room for them. Returns the others.
  std::span<const std::byte> gather(std::span<const std::byte> bytes, std::size_t taken) {
    if (!block_) block_.reset(static_cast<std::byte*>(::operator new(kBlock, kAlignment)));
    std::ranges::copy(bytes.first(taken), block_.get() + used_);
    used_ += taken;
    position_ += taken;
    return bytes.subspan(taken);
  }

  /// Writes what has been gathered: [begin_, used_) of the block, whose end is at the position.
  /// Byte i of the block belongs at an offset that is i modulo a page; so what lies between two
  /// page boundaries can bypass the cache.
  void flush() {
    const std::span<const std::byte> bytes(block_.get(), used_);
    const std::uint64_t origin = position_ - used_;
    const std::size_t head = std::min(used_, ceil_div(begin_, kPage) * kPage);
    const std::size_t tail = std::max(head, used_ / kPage * kPage);
    const std::size_t begin = begin_;
    begin_ = used_ = static_cast<std::size_t>(position_ % kPage);
    put(origin + begin, bytes.subspan(begin, head - begin), Cache::use);
    put(origin + head, bytes.subspan(head, tail - head), Cache::bypass);
    put(origin + tail, bytes.subspan(tail), Cache::use);
  }

  void put(std::uint64_t offset, std::span<const std::byte> bytes, Cache cache) {
    if (bytes.empty()) return;
    try {
      if (cache == Cache::bypass && put_directly(offset, bytes)) return;
      set_direct(false);
      detail::write_at(descriptor_.get(), offset, bytes, path_);
    } catch (...) {
      failed_ = true;
      throw;
    }
  }

  /// False where the file system does not have it, and something may have been written.
  bool put_directly(std::uint64_t offset, std::span<const std::byte> bytes) {
    if (!may_bypass_) return false;
    may_bypass_ = set_direct(true);
    if (!may_bypass_) return false;
    const auto count = detail::retry([&] {
      return ::pwrite(descriptor_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    });
    if (count == static_cast<ssize_t>(bytes.size())) return true;
    // A short write, an unsuitable file system, or an error that the plain write meets again.
    may_bypass_ = count >= 0;
    return false;
  }

  bool set_direct(bool on) noexcept {
#if defined(O_DIRECT)
    if (on == direct_) return true;
    const int flags = ::fcntl(descriptor_.get(), F_GETFL);
    const int wanted = on ? flags | O_DIRECT : flags & ~O_DIRECT;
    if (flags == -1 || ::fcntl(descriptor_.get(), F_SETFL, wanted) == -1) return false;
    direct_ = on;
    return true;
#else
    return !on;
#endif
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
  void check_output() {
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
    mode_ = status.st_mode & 0777;
  }

  void create_temporary() {
    if (create_nameless()) return;
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

  /// By this name a file without one is linked.
  std::string descriptor_path() const {
    return "/proc/self/fd/" + std::to_string(descriptor_.get());
  }

  bool create_nameless() {
#if defined(O_TMPFILE)
    descriptor_ = detail::Descriptor(detail::retry(
        [&] { return ::openat(folder_.get(), ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, 0666); }));
    if (descriptor_.get() != -1 && ::access(descriptor_path().c_str(), F_OK) == 0) return true;
    descriptor_ = {};
#endif
    return false;
  }

  void give_name() {
    std::string name;
    int linked = 0;
    do {
      name = detail::temporary_name(path_);
      linked = ::linkat(AT_FDCWD, descriptor_path().c_str(), folder_.get(), name.c_str(),
                        AT_SYMLINK_FOLLOW);
    } while (linked != 0 && errno == EEXIST);
    if (linked != 0) fail("link");
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
    std::swap(mode_, other.mode_);
    std::swap(failed_, other.failed_);
    std::swap(position_, other.position_);
    block_.swap(other.block_);
    std::swap(begin_, other.begin_);
    std::swap(used_, other.used_);
    std::swap(may_bypass_, other.may_bypass_);
    std::swap(direct_, other.direct_);
    std::swap(folder_, other.folder_);
    std::swap(descriptor_, other.descriptor_);
  }

  std::filesystem::path path_;
  std::string name_;
  std::string temporary_;  // empty: nothing to remove, or no name yet
  Overwrite overwrite_ = Overwrite::no;
  mode_t mode_ = 0;  // of the output that is replaced
  bool failed_ = false;
  std::uint64_t position_ = 0;
  std::unique_ptr<std::byte, FreeBlock> block_;
  std::size_t begin_ = 0;  // of what has been gathered in the block, and its end
  std::size_t used_ = 0;
  bool may_bypass_ = true;
  bool direct_ = false;
  detail::Descriptor folder_;
  detail::Descriptor descriptor_;
};

}  // namespace deltadct::inline DELTADCT_ABI::io
