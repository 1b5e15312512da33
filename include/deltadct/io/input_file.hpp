// A file that is read through a memory map or on demand.
#pragma once

#include <deltadct/io/posix.hpp>

#include <algorithm>
#include <compare>
#include <vector>

#include <sys/mman.h>
#include <sys/stat.h>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// How an InputFile reaches its bytes: through a memory map, or with a read for every request.
enum class Access { map, read };

/// Whether a name that is a symbolic link is followed.
enum class Links { refuse, follow };

/// What distinguishes a file from another one, or from itself before a change.
struct FileIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t bytes = 0;
  std::int64_t modified_ns = 0;  ///< since 1970

  auto operator<=>(const FileIdentity&) const = default;
};

namespace detail {

/// Owns a read-only memory map. An empty file has no map.
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

  /// Gives back the pages that end within the range, including the page of its first byte. Without
  /// that one, a forward pass over tensors smaller than a page would never give any back. The bytes
  /// remain readable; a later access reads them from the file again.
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

}  // namespace detail

/// A regular file, open for reading. Directories, pipes, sockets and devices are refused.
///
/// Several threads may call const members at once, each with its own storage. As with every memory
/// map, accessing a mapped file that another process has shortened raises SIGBUS. A caller who
/// cannot rule that out uses Access::read.
class InputFile {
 public:
  /// Throws io_failure naming the path.
  static InputFile open(const std::filesystem::path& path, Access access,
                        Links links = Links::follow) {
    // Without O_NONBLOCK, opening a pipe would wait for a writer before it could be refused.
    const int flags = O_RDONLY | O_NONBLOCK | (links == Links::refuse ? O_NOFOLLOW : 0);
    detail::Descriptor descriptor = detail::open_file(path.c_str(), flags);
    if (descriptor.get() == -1) {
      if (links == Links::refuse && errno == ELOOP) {
        throw Error(Errc::io_failure, path.string(),
                    "open: a symbolic link, which --follow-links follows");
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

  /// The size in bytes when the file was opened.
  std::uint64_t size() const noexcept { return identity_.bytes; }

  /// The identity when the file was opened.
  const FileIdentity& identity() const noexcept { return identity_; }

  /// A range of the file. With Access::map, a view that lives as long as this object; storage is
  /// unused. With Access::read, storage is resized and filled, and the view refers to it. The view
  /// need not be aligned. Throws io_failure if the range leaves the file or reading fails.
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

  /// Marks a range as no longer needed by a forward pass, so that a pass over a huge file keeps few
  /// pages resident. Views stay valid. Does nothing with Access::read.
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
    if (start == MAP_FAILED && errno == ENOMEM) {
      throw Error(Errc::out_of_memory, path.string(),
                  "to map it; Access::read (--io read) maps nothing");
    }
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

}}}  // namespace deltadct::inline DELTADCT_ABI::io
