// A file that is written whole or not at all.
#pragma once

#include <deltadct/core/arithmetic.hpp>
#include <deltadct/io/posix.hpp>
#include <deltadct/io/temporaries.hpp>

#include <algorithm>
#include <memory>
#include <new>

#include <sys/random.h>
#include <sys/stat.h>
#include <sys/xattr.h>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// Whether an output may replace what has its name.
enum class Overwrite {
  no,
  yes,    ///< a file; a folder only if this library wrote every file in it (folder.hpp)
  input,  ///< also a folder that is an input, if the caller has made sure that this is all it holds
};

namespace detail {

inline constexpr const char* kTemporaryPrefix = ".deltadct-";
inline constexpr const char* kTemporarySuffix = ".tmp";

inline constexpr const char* kWritesFolders =
    "; OutputOptions::max_shard_bytes (--max-shard-size) writes folders";

/// A name that nobody can predict. It does not include the output's own name, which may already be
/// as long as the file system allows.
inline std::string temporary_name(const std::filesystem::path& path) {
  unsigned char random[8];
  if (::getrandom(random, sizeof random, 0) != static_cast<ssize_t>(sizeof random)) {
    throw_errno(path, "getrandom");
  }
  std::string name = kTemporaryPrefix;
  for (const unsigned char byte : random) {
    name += "0123456789abcdef"[byte >> 4];
    name += "0123456789abcdef"[byte & 15];
  }
  return name + kTemporarySuffix;
}

inline bool is_temporary_name(std::string_view name) {
  return name.starts_with(kTemporaryPrefix) && name.ends_with(kTemporarySuffix);
}

/// The extended attribute by which a file is recognised as written by this library, and unchanged.
inline constexpr const char* kWrittenAttribute = "user.deltadct.written";

/// Its text: the size of the file, and the time at which it was last written. A file that is edited
/// has another time; one that is put in its place has no such attribute.
inline std::string written_text(const struct stat& status) {
  return std::to_string(status.st_size) + " " + std::to_string(status.st_mtim.tv_sec) + "." +
         std::to_string(status.st_mtim.tv_nsec);
}

}  // namespace detail

/// An output that appears under its name complete, or not at all. Where the file system allows, it
/// is written to a file in the same folder that has no name until commit(), so nothing is left if
/// the process ends before that. Elsewhere the file has a temporary name, and the destructor
/// removes it, or a signal handler (TemporaryPath). The output gets the mode of the one it
/// replaces.
///
/// Appended bytes are gathered into large blocks, which bypass the page cache where the file system
/// allows. Otherwise a model that is written once would push the inputs out of the cache, and
/// copying it there would take longer than decoding it.
///
/// An output that is a symbolic link is replaced, not followed. An existing output that is not a
/// regular file (a folder, /dev/null) is refused. Every error is io_failure with the path and the
/// system's text, except output_exists. A failed write may be reported by a later call.
class AtomicFile {
 public:
  /// Creates the temporary file. With Overwrite::no, throws output_exists if the output exists.
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

  /// The offset of the next write().
  std::uint64_t position() const noexcept { return position_; }

  /// Appends. A long span whose address equals the position modulo kPage is written directly; other
  /// bytes are copied into a block first.
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

  /// Leaves a gap for write_at() to fill. Until then its bytes read as zero.
  void skip(std::uint64_t bytes) {
    flush();
    position_ += bytes;
    begin_ = used_ = static_cast<std::size_t>(position_ % kPage);
  }

  /// Writes at an offset, without moving the position.
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
    flush();
    put(offset, bytes, Cache::use);
  }

  /// Lets everybody run the file who may read it.
  void make_executable() {
    struct stat status {};
    if (::fstat(descriptor_.get(), &status) != 0) fail("fstat");
    const mode_t mode = status.st_mode & 07777;
    if (::fchmod(descriptor_.get(), mode | ((mode & 0444) >> 2)) != 0) fail("fchmod");
  }

  /// Attaches a text to the file as an extended attribute, where the file system supports these.
  void attach(const char* name, std::string_view text) noexcept {
    static_cast<void>(::fsetxattr(descriptor_.get(), name, text.data(), text.size(), 0));
  }

  /// Writes the bytes to disk, then gives the file the output's name. Call this once, last. With
  /// Overwrite::no, throws output_exists if the output has appeared in the meantime. Fails after a
  /// failed write, because the file is then incomplete.
  void commit() {
    flush();
    if (failed_) throw Error(Errc::io_failure, path_.string(), "commit: an earlier write failed");
    if (detail::retry([&] { return ::fsync(descriptor_.get()); }) != 0) fail("fsync");
    mark_as_written();
    if (mode_ != 0 && ::fchmod(descriptor_.get(), mode_) != 0) fail("chmod");
    if (temporary_.empty()) give_name();
    // Once the output has its name, nothing is a failure.
    if (descriptor_.close() != 0 && errno != EINTR && !temporary_.empty()) fail("close");
    if (!temporary_.empty()) publish();
    temporary_.clear();
    noted_ = {};
    // The file is in place, so failing to sync the folder is no error: after a system crash the old
    // output may be there, but never a part of the new one.
    static_cast<void>(detail::retry([&] { return ::fsync(folder_.get()); }));
  }

  /// The alignment of offsets, lengths and addresses that bypassing the cache requires.
  static constexpr std::size_t kPage = 4096;

 private:
  enum class Cache : bool { bypass, use };

  // From kBlock bytes on, bypassing pays. No system takes more than 2 GiB in one call.
  static constexpr std::size_t kBlock = std::size_t{4} << 20;
  static constexpr std::size_t kPiece = std::size_t{1} << 30;
  static constexpr std::align_val_t kAlignment{kPage};

  struct FreeBlock {
    void operator()(std::byte* block) const noexcept { ::operator delete(block, kAlignment); }
  };

  [[noreturn]] void fail(std::string_view call, int number = errno) const {
    detail::throw_errno(path_, call, number);
  }

  void mark_as_written() noexcept {
    struct stat status {};
    if (::fstat(descriptor_.get(), &status) != 0) return;
    try {
      attach(detail::kWrittenAttribute, detail::written_text(status));
    } catch (const std::bad_alloc&) {  // without the mark, the file counts as somebody else's
    }
  }

  /// Copies the first `taken` bytes into the block, which must have room. Returns the others.
  std::span<const std::byte> gather(std::span<const std::byte> bytes, std::size_t taken) {
    if (!block_) block_.reset(static_cast<std::byte*>(::operator new(kBlock, kAlignment)));
    std::ranges::copy(bytes.first(taken), block_.get() + used_);
    used_ += taken;
    position_ += taken;
    return bytes.subspan(taken);
  }

  /// Writes what has been gathered: bytes [begin_, used_) of the block, whose end is at the
  /// position. Byte i of the block belongs at a file offset that equals i modulo the page size, so
  /// whole pages of the block can bypass the cache.
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

  /// Returns false if the cache cannot be bypassed. Some bytes may have been written even then.
  bool put_directly(std::uint64_t offset, std::span<const std::byte> bytes) {
    if (!may_bypass_) return false;
    may_bypass_ = set_direct(true);
    if (!may_bypass_) return false;
    const auto count = detail::retry([&] {
      return ::pwrite(descriptor_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    });
    if (count == static_cast<ssize_t>(bytes.size())) return true;
    // A short write, an unsuitable file system, or an error that the plain write will meet again.
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

  // Every later call uses the folder's descriptor, so that a changed working folder or a renamed
  // parent cannot separate the temporary file from the output.
  void open_folder() {
    if (name_.empty()) {
      throw Error(Errc::io_failure, path_.string(),
                  path_.empty() ? "a file needs a name"
                                : "the name is that of a folder, and the output is a file" +
                                      std::string(detail::kWritesFolders));
    }
    const auto parent = path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
    folder_ = detail::open_file(parent.c_str(), O_RDONLY | O_DIRECTORY);
    if (folder_.get() == -1) fail("open folder");
  }

  // Refusing here saves the caller hours of work that could not be stored. For a privileged user it
  // also prevents rename() from replacing a device such as /dev/null with a file.
  void check_output() {
    struct stat status {};
    if (::fstatat(folder_.get(), name_.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) return;
      fail("stat");
    }
    if (overwrite_ == Overwrite::no) throw Error(Errc::output_exists, path_.string());
    if (::fstatat(folder_.get(), name_.c_str(), &status, 0) != 0) return;  // a dangling link
    if (S_ISDIR(status.st_mode)) {
      throw Error(Errc::io_failure, path_.string(),
                  "open: " + std::generic_category().message(EISDIR) + detail::kWritesFolders);
    }
    if (!S_ISREG(status.st_mode)) {
      throw Error(Errc::io_failure, path_.string(), "open: not a regular file");
    }
    mode_ = status.st_mode & 0777;
  }

  void create_temporary() {
    if (create_nameless()) return;
    std::string name;
    do {
      name = choose_name();
      descriptor_ =
          detail::open_file(name.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0666, folder_.get());
    } while (descriptor_.get() == -1 && errno == EEXIST);
    if (descriptor_.get() == -1) fail("open temporary file");
    temporary_ = std::move(name);
  }

  /// The path by which a file without a name is linked.
  std::string descriptor_path() const {
    return "/proc/self/fd/" + std::to_string(descriptor_.get());
  }

  bool create_nameless() {
#if defined(O_TMPFILE)
    descriptor_ = detail::open_file(".", O_WRONLY | O_TMPFILE, 0666, folder_.get());
    if (descriptor_.get() != -1 && ::access(descriptor_path().c_str(), F_OK) == 0) return true;
    descriptor_ = {};
#endif
    return false;
  }

  /// A new temporary name, noted before there is a file of that name.
  std::string choose_name() {
    std::string name = detail::temporary_name(path_);
    noted_ = TemporaryPath((path_.parent_path() / name).string());
    return name;
  }

  /// Links a file without a name. Returns false if the name is taken.
  bool link_as(const std::string& name) const {
    const std::string from = descriptor_path();
    if (::linkat(AT_FDCWD, from.c_str(), folder_.get(), name.c_str(), AT_SYMLINK_FOLLOW) == 0)
      return true;
    if (errno != EEXIST) fail("link");
    return false;
  }

  /// Gives a file without a name the output's or, where it replaces something, a temporary one.
  void give_name() {
    if (overwrite_ == Overwrite::no) {
      if (!link_as(name_)) throw Error(Errc::output_exists, path_.string());
      return;
    }
    std::string name;
    do name = choose_name();
    while (!link_as(name));
    temporary_ = std::move(name);
  }

  void publish() const {
    if (overwrite_ != Overwrite::no) {
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
    std::swap(noted_, other.noted_);
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
  TemporaryPath noted_;    // for signal handlers
  Overwrite overwrite_ = Overwrite::no;
  mode_t mode_ = 0;  // of the output that is replaced
  bool failed_ = false;
  std::uint64_t position_ = 0;
  std::unique_ptr<std::byte, FreeBlock> block_;
  std::size_t begin_ = 0;  // where the gathered bytes begin in the block; they end at used_
  std::size_t used_ = 0;
  bool may_bypass_ = true;
  bool direct_ = false;
  detail::Descriptor folder_;
  detail::Descriptor descriptor_;
};

}}}  // namespace deltadct::inline DELTADCT_ABI::io
