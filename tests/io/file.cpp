// Input files in both access modes, and outputs that appear complete or not at all.
#include "../support/caught.hpp"
#include "../support/files.hpp"

#include <deltadct/io/file.hpp>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/resource.h>

#include <doctest/doctest.h>

using deltadct::Errc;
using deltadct::Error;
using namespace deltadct::io;
using namespace test;

namespace {

void put(const fs::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string get(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void check_names(const Error& error, Errc code, const fs::path& path, std::string_view text) {
  CHECK(error.code() == code);
  CHECK(error.where() == path.string());
  CHECK(error.detail().find(text) != std::string::npos);
}

constexpr Access kBoth[] = {Access::map, Access::read};

}  // namespace

TEST_CASE("io/file: ranges are read in both modes") {
  const Folder folder;
  put(folder / "a", "0123456789");
  for (const Access access : kBoth) {
    const auto file = InputFile::open(folder / "a", access);
    CHECK(file.size() == 10);
    CHECK(file.path() == folder / "a");
    std::vector<std::byte> storage;
    CHECK(text_of(file.bytes(0, 10, storage)) == "0123456789");
    CHECK(text_of(file.bytes(3, 4, storage)) == "3456");
    CHECK(file.bytes(10, 0, storage).empty());
  }
}

TEST_CASE("io/file: a map leaves the storage alone, a read fills it") {
  const Folder folder;
  put(folder / "a", "0123456789");
  std::vector<std::byte> storage(3);
  const auto mapped = InputFile::open(folder / "a", Access::map);
  CHECK(mapped.bytes(1, 5, storage).data() != storage.data());
  CHECK(storage.size() == 3);
  const auto read = InputFile::open(folder / "a", Access::read);
  const auto view = read.bytes(1, 5, storage);
  CHECK(view.data() == storage.data());
  CHECK(storage.size() == 5);
}

TEST_CASE("io/file: ranges outside the file are refused") {
  const Folder folder;
  put(folder / "a", "0123456789");
  constexpr std::uint64_t most = ~std::uint64_t{0};
  for (const Access access : kBoth) {
    const auto file = InputFile::open(folder / "a", access);
    const std::pair<std::uint64_t, std::uint64_t> ranges[] = {
        {0, 11}, {10, 1}, {11, 0}, {5, most}, {most, 1}, {most, most}, {most - 4, 5}};
    for (const auto& range : ranges) {
      std::vector<std::byte> storage;
      check_names(caught([&] { file.bytes(range.first, range.second, storage); }), Errc::io_failure,
                  folder / "a", "leave the file of 10 bytes");
      CHECK(storage.empty());
      file.release(range.first, range.second);
    }
  }
}

TEST_CASE("io/file: an empty file is fine") {
  const Folder folder;
  put(folder / "a", "");
  for (const Access access : kBoth) {
    const auto file = InputFile::open(folder / "a", access);
    std::vector<std::byte> storage;
    CHECK(file.size() == 0);
    CHECK(file.bytes(0, 0, storage).empty());
    CHECK(caught([&] { file.bytes(0, 1, storage); }).code() == Errc::io_failure);
    file.release(0, 0);
  }
}

TEST_CASE("io/file: what is not a regular file is refused") {
  const Folder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  for (const Access access : kBoth) {
    const auto open = [&](const fs::path& path) {
      return caught([&] { InputFile::open(path, access); });
    };
    check_names(open(folder / "none"), Errc::io_failure, folder / "none", std::strerror(ENOENT));
    check_names(open(folder.path), Errc::io_failure, folder.path, std::strerror(EISDIR));
    check_names(open(folder / "pipe"), Errc::io_failure, folder / "pipe", "not a regular file");
    check_names(open("/dev/null"), Errc::io_failure, "/dev/null", "not a regular file");
    check_names(open(""), Errc::io_failure, "", std::strerror(ENOENT));
  }
}

TEST_CASE("io/file: released pages read the same again") {
  const Folder folder;
  std::string text(100'000, '?');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i / 1000 % 26);
  put(folder / "a", text);
  for (const Access access : kBoth) {
    const auto file = InputFile::open(folder / "a", access);
    std::vector<std::byte> storage;
    const std::pair<std::uint64_t, std::uint64_t> ranges[] = {
        {0, 100'000}, {1, 99'999}, {5000, 20'000}, {10, 20}};
    for (const auto& [offset, length] : ranges) {
      file.release(offset, length);
      CHECK(text_of(file.bytes(0, 100'000, storage)) == text);
    }
  }
}

TEST_CASE("io/file: a forward pass in small steps gives its pages back") {
  const Folder folder;
  constexpr std::size_t kSize = 16 << 20;
  put(folder / "a", std::string(kSize, 'x'));
  const auto file = InputFile::open(folder / "a", Access::map);
  std::vector<std::byte> storage;
  for (std::uint64_t offset = 0; offset < kSize; offset += 1024) {
    const auto step = file.bytes(offset, 1024, storage);
    REQUIRE(std::to_integer<char>(step[0]) == 'x');
    file.release(offset, 1024);
  }
  // mincore() would tell of the page cache; smaps tells what this process holds.
  const auto start = reinterpret_cast<std::uintptr_t>(file.bytes(0, kSize, storage).data());
  std::ifstream smaps("/proc/self/smaps");
  if (!smaps) return;
  std::size_t resident = 0;
  bool inside = false;
  for (std::string line; std::getline(smaps, line);) {
    std::uintptr_t low = 0;
    std::uintptr_t high = 0;
    if (std::sscanf(line.c_str(), "%zx-%zx", &low, &high) == 2) {
      inside = low <= start && start < high;
    } else if (inside) {
      std::sscanf(line.c_str(), "Rss: %zu", &resident);
    }
  }
  CHECK(resident <= 1024);  // KiB; the kernel maps a few pages around each fault
}

TEST_CASE("io/file: a file cut off while open in read mode is an error") {
  const Folder folder;
  put(folder / "a", "0123456789");
  const auto file = InputFile::open(folder / "a", Access::read);
  fs::resize_file(folder / "a", 4);
  std::vector<std::byte> storage;
  check_names(caught([&] { file.bytes(0, 10, storage); }), Errc::io_failure, folder / "a",
              "cut off at byte 4");
}

TEST_CASE("io/file: inputs move") {
  static_assert(!std::is_copy_constructible_v<InputFile>);
  static_assert(!std::is_copy_assignable_v<InputFile>);
  const Folder folder;
  put(folder / "a", "aaaa");
  put(folder / "b", "bbbbbb");
  for (const Access access : kBoth) {
    std::vector<std::byte> storage;
    auto first = InputFile::open(folder / "a", access);
    auto second = std::move(first);
    CHECK(text_of(second.bytes(0, 4, storage)) == "aaaa");
    second = InputFile::open(folder / "b", access);
    CHECK(text_of(second.bytes(0, 6, storage)) == "bbbbbb");
  }
}

TEST_CASE("io/file: an output appears with commit and not before") {
  const Folder folder;
  AtomicFile file(folder / "out", Overwrite::no);
  file.write(bytes_of("hello "));
  file.write(bytes_of(""));
  file.write(bytes_of("world"));
  file.write_at(0, bytes_of("J"));
  CHECK(file.position() == 11);
  CHECK_FALSE(fs::exists(folder / "out"));
  CHECK(folder.entries() <= 1);  // none where a file may have no name
  file.commit();
  CHECK(get(folder / "out") == "Jello world");
  CHECK(folder.entries() == 1);
}

TEST_CASE("io/file: skipped bytes are filled by write_at") {
  const Folder folder;
  AtomicFile file(folder / "out", Overwrite::no);
  file.skip(4);
  file.write(bytes_of("tail"));
  file.write_at(1, bytes_of("ead"));
  file.commit();
  CHECK(get(folder / "out") == std::string("\0eadtail", 8));
}

TEST_CASE("io/file: bytes are the same, gathered or written from where they are") {
  constexpr std::size_t kBlock = std::size_t{4} << 20;
  const std::vector<std::byte> bytes = [] {
    std::vector<std::byte> result(2 * kBlock + 3 * AtomicFile::kPage);
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = static_cast<std::byte>(i * i / 251);
    return result;
  }();
  const auto phase = reinterpret_cast<std::uintptr_t>(bytes.data()) % AtomicFile::kPage;
  for (const std::size_t skipped : {std::size_t{0}, std::size_t{8}, AtomicFile::kPage - 1}) {
    for (const std::size_t before :
         {std::size_t{0}, std::size_t{1}, std::size_t{5000}, kBlock - 1}) {
      for (const std::size_t length : {kBlock - 1, kBlock, kBlock + 1, 2 * kBlock + 77}) {
        for (const bool in_phase : {true, false}) {
          const Folder folder;
          AtomicFile file(folder / "out", Overwrite::no);
          file.skip(skipped);
          file.write(std::span(bytes).first(before));
          const std::size_t at = (file.position() - phase + (in_phase ? 0 : 3)) % AtomicFile::kPage;
          file.write(std::span(bytes).subspan(at, length));
          file.write(std::span(bytes).first(7));
          std::string expected(skipped, '\0');
          for (const auto part :
               {std::span(bytes).first(before), std::span(bytes).subspan(at, length),
                std::span(bytes).first(7)}) {
            expected.append(reinterpret_cast<const char*>(part.data()), part.size());
          }
          CHECK(file.position() == expected.size());
          file.commit();
          CHECK((get(folder / "out") == expected));
        }
      }
    }
  }
}

TEST_CASE("io/file: an output nothing was written to is an empty file") {
  const Folder folder;
  AtomicFile(folder / "out", Overwrite::no).commit();
  CHECK(fs::file_size(folder / "out") == 0);
}

TEST_CASE("io/file: without commit nothing is left") {
  const Folder folder;
  put(folder / "out", "old");
  { AtomicFile(folder / "out", Overwrite::yes).write(bytes_of("new")); }
  CHECK(get(folder / "out") == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("io/file: overwriting is asked for") {
  const Folder folder;
  put(folder / "out", "old");
  check_names(caught([&] { AtomicFile(folder / "out", Overwrite::no); }), Errc::output_exists,
              folder / "out", "");
  CHECK(folder.entries() == 1);
  AtomicFile file(folder / "out", Overwrite::yes);
  file.write(bytes_of("new"));
  CHECK(get(folder / "out") == "old");
  file.commit();
  CHECK(get(folder / "out") == "new");
  CHECK(folder.entries() == 1);
}

TEST_CASE("io/file: an output that appears meanwhile is not replaced") {
  const Folder folder;
  {
    AtomicFile file(folder / "out", Overwrite::no);
    file.write(bytes_of("mine"));
    put(folder / "out", "theirs");
    check_names(caught([&] { file.commit(); }), Errc::output_exists, folder / "out", "");
  }
  CHECK(get(folder / "out") == "theirs");
  CHECK(folder.entries() == 1);
}

TEST_CASE("io/file: links stand in for a rename that cannot refuse") {
  const Folder folder;
  const detail::Descriptor descriptor(::open(folder.path.c_str(), O_RDONLY | O_DIRECTORY));
  put(folder / "from", "text");
  put(folder / "taken", "other");
  CHECK_FALSE(detail::link_new(descriptor.get(), "from", "taken"));
  CHECK(errno == EEXIST);
  CHECK(get(folder / "taken") == "other");
  CHECK(detail::link_new(descriptor.get(), "from", "to"));
  CHECK(get(folder / "to") == "text");
  CHECK(folder.entries() == 2);
}

TEST_CASE("io/file: outputs that cannot be replaced by a file are refused at once") {
  const Folder folder;
  fs::create_directory(folder / "folder");
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  put(folder / "file", "");
  const auto open = [&](const fs::path& path) {
    return caught([&] { AtomicFile(path, Overwrite::yes); });
  };
  check_names(open(folder / "folder"), Errc::io_failure, folder / "folder", std::strerror(EISDIR));
  check_names(open(folder / "folder/"), Errc::io_failure, folder / "folder/",
              std::strerror(EISDIR));
  check_names(open(folder / "pipe"), Errc::io_failure, folder / "pipe", "not a regular file");
  check_names(open("/dev/null"), Errc::io_failure, "/dev/null", "not a regular file");
  check_names(open(""), Errc::io_failure, "", std::strerror(ENOENT));
  check_names(open(folder / "none/out"), Errc::io_failure, folder / "none/out",
              std::strerror(ENOENT));
  check_names(open(folder / "file/out"), Errc::io_failure, folder / "file/out",
              std::strerror(ENOTDIR));
  const std::string longer(300, 'x');
  check_names(open(folder / longer), Errc::io_failure, folder / longer,
              std::strerror(ENAMETOOLONG));
  CHECK(folder.entries() == 3);
}

TEST_CASE("io/file: a symbolic link is replaced, not followed") {
  const Folder folder;
  put(folder / "target", "old");
  fs::create_symlink("target", folder / "link");
  fs::create_symlink("nowhere", folder / "dangling");
  CHECK(caught([&] { AtomicFile(folder / "dangling", Overwrite::no); }).code() ==
        Errc::output_exists);
  AtomicFile file(folder / "link", Overwrite::yes);
  file.write(bytes_of("new"));
  file.commit();
  CHECK_FALSE(fs::is_symlink(folder / "link"));
  CHECK(get(folder / "link") == "new");
  CHECK(get(folder / "target") == "old");
}

TEST_CASE("io/file: a write that fails leaves the old output and nothing else") {
  const Folder folder;
  put(folder / "out", "old");
  const std::string big(5'000'000, 'x');  // more than is gathered before it is written
  {
    AtomicFile file(folder / "out", Overwrite::yes);
    {
      const FileSizeLimit limit(65'536);
      check_names(caught([&] { file.write(bytes_of(big)); }), Errc::io_failure, folder / "out",
                  std::strerror(EFBIG));
    }
    check_names(caught([&] { file.commit(); }), Errc::io_failure, folder / "out",
                "an earlier write failed");
  }
  CHECK(get(folder / "out") == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("io/file: the mode is that of any new file") {
  const Folder folder;
  const mode_t before = ::umask(027);
  AtomicFile(folder / "out", Overwrite::no).commit();
  ::umask(before);
  CHECK(fs::status(folder / "out").permissions() == static_cast<fs::perms>(0640));
}

TEST_CASE("io/file: the mode is that of the output that is replaced") {
  const Folder folder;
  put(folder / "out", "old");
  fs::permissions(folder / "out", static_cast<fs::perms>(0600));
  AtomicFile(folder / "out", Overwrite::yes).commit();
  CHECK(fs::status(folder / "out").permissions() == static_cast<fs::perms>(0600));
}

TEST_CASE("io/file: a relative output stays where it was opened") {
  const Folder folder;
  const fs::path before = fs::current_path();
  fs::current_path(folder.path);
  AtomicFile file("out", Overwrite::no);
  fs::current_path(before);
  file.commit();
  CHECK(fs::exists(folder / "out"));
}

TEST_CASE("io/file: a name as long as the file system allows") {
  const Folder folder;
  AtomicFile(folder / std::string(255, 'x'), Overwrite::no).commit();
  CHECK(folder.entries() == 1);
}

TEST_CASE("io/file: outputs move") {
  static_assert(!std::is_copy_constructible_v<AtomicFile>);
  const Folder folder;
  {
    AtomicFile first(folder / "a", Overwrite::no);
    first.write(bytes_of("one "));
    AtomicFile second(std::move(first));
    second.write(bytes_of("two"));
    second.commit();
    CHECK(get(folder / "a") == "one two");
    AtomicFile third(folder / "b", Overwrite::no);
    third = AtomicFile(folder / "c", Overwrite::no);
    third.commit();
  }
  CHECK(fs::exists(folder / "c"));
  CHECK(folder.entries() == 2);
}
