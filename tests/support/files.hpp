// Folders and resource limits for tests that write files.
#pragma once

#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>

#include <sys/resource.h>
#include <unistd.h>

#include <doctest/doctest.h>

namespace test {

namespace fs = std::filesystem;

/// A folder of its own for a test, removed with all its contents.
struct Folder {
  Folder() {
    std::string name = (fs::temp_directory_path() / "deltadct-io-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  Folder(const Folder&) = delete;
  ~Folder() { fs::remove_all(path); }

  fs::path operator/(const std::string& name) const { return path / name; }
  std::size_t entries() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(path), fs::directory_iterator()));
  }

  fs::path path;
};

inline void put_text(const fs::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string get_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::span<const std::byte> view_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

inline std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// While this lives, no file can grow beyond a size: such a write fails with EFBIG, like a full
/// disk with ENOSPC.
struct FileSizeLimit {
  explicit FileSizeLimit(rlim_t bytes) : handler(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before);
    const rlimit limit{bytes, before.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
  }

  rlimit before{};
  void (*handler)(int);
};

/// While this lives, no file can be opened.
struct NoMoreDescriptors {
  NoMoreDescriptors() {
    ::getrlimit(RLIMIT_NOFILE, &before);
    const rlimit limit{0, before.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  NoMoreDescriptors(const NoMoreDescriptors&) = delete;
  ~NoMoreDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before); }

  rlimit before{};
};

/// One of the first three descriptors, closed while this lives.
struct ClosedDescriptor {
  explicit ClosedDescriptor(int descriptor) : number(descriptor), kept(::dup(descriptor)) {
    ::close(number);
  }
  ClosedDescriptor(const ClosedDescriptor&) = delete;
  ~ClosedDescriptor() {
    ::dup2(kept, number);
    ::close(kept);
  }

  int number;
  int kept;
};

}  // namespace test
