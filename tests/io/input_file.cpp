// Input files in both access modes.
#include "../support/caught.hpp"
#include "../support/files.hpp"

#include <deltadct/io/input_file.hpp>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

using deltadct::Errc;
using namespace deltadct::io;
using namespace test;

namespace {

constexpr Access kBoth[] = {Access::map, Access::read};

}  // namespace

TEST_CASE("io/input_file: ranges are read in both modes") {
  const Folder folder;
  put_text(folder / "a", "0123456789");
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

TEST_CASE("io/input_file: a map leaves the storage alone, a read fills it") {
  const Folder folder;
  put_text(folder / "a", "0123456789");
  std::vector<std::byte> storage(3);
  const auto mapped = InputFile::open(folder / "a", Access::map);
  CHECK(mapped.bytes(1, 5, storage).data() != storage.data());
  CHECK(storage.size() == 3);
  const auto read = InputFile::open(folder / "a", Access::read);
  const auto view = read.bytes(1, 5, storage);
  CHECK(view.data() == storage.data());
  CHECK(storage.size() == 5);
}

TEST_CASE("io/input_file: ranges outside the file are refused") {
  const Folder folder;
  put_text(folder / "a", "0123456789");
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

TEST_CASE("io/input_file: an empty file is fine") {
  const Folder folder;
  put_text(folder / "a", "");
  for (const Access access : kBoth) {
    const auto file = InputFile::open(folder / "a", access);
    std::vector<std::byte> storage;
    CHECK(file.size() == 0);
    CHECK(file.bytes(0, 0, storage).empty());
    CHECK(caught([&] { file.bytes(0, 1, storage); }).code() == Errc::io_failure);
    file.release(0, 0);
  }
}

TEST_CASE("io/input_file: what is not a regular file is refused") {
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

TEST_CASE("io/input_file: released pages read the same again") {
  const Folder folder;
  std::string text(100'000, '?');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i / 1000 % 26);
  put_text(folder / "a", text);
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

TEST_CASE("io/input_file: a forward pass in small steps gives its pages back") {
  const Folder folder;
  constexpr std::size_t kSize = 16 << 20;
  put_text(folder / "a", std::string(kSize, 'x'));
  const auto file = InputFile::open(folder / "a", Access::map);
  std::vector<std::byte> storage;
  for (std::uint64_t offset = 0; offset < kSize; offset += 1024) {
    const auto step = file.bytes(offset, 1024, storage);
    REQUIRE(std::to_integer<char>(step[0]) == 'x');
    file.release(offset, 1024);
  }
  // mincore() would show the page cache; smaps shows what this process holds.
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

TEST_CASE("io/input_file: a file cut off while open in read mode is an error") {
  const Folder folder;
  put_text(folder / "a", "0123456789");
  const auto file = InputFile::open(folder / "a", Access::read);
  fs::resize_file(folder / "a", 4);
  std::vector<std::byte> storage;
  check_names(caught([&] { file.bytes(0, 10, storage); }), Errc::io_failure, folder / "a",
              "cut off at byte 4");
}

TEST_CASE("io/input_file: inputs move") {
  static_assert(!std::is_copy_constructible_v<InputFile>);
  static_assert(!std::is_copy_assignable_v<InputFile>);
  const Folder folder;
  put_text(folder / "a", "aaaa");
  put_text(folder / "b", "bbbbbb");
  for (const Access access : kBoth) {
    std::vector<std::byte> storage;
    auto first = InputFile::open(folder / "a", access);
    auto second = std::move(first);
    CHECK(text_of(second.bytes(0, 4, storage)) == "aaaa");
    second = InputFile::open(folder / "b", access);
    CHECK(text_of(second.bytes(0, 6, storage)) == "bbbbbb");
  }
}
