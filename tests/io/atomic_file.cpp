// Outputs that appear complete or not at all.
#include "../support/caught.hpp"
#include "../support/files.hpp"

#include <deltadct/io/atomic_file.hpp>

#include <cstring>
#include <filesystem>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

using deltadct::Errc;
using namespace deltadct::io;
using namespace test;

TEST_CASE("io/atomic_file: an output appears with commit and not before") {
  const Folder folder;
  AtomicFile file(folder / "out", Overwrite::no);
  file.write(view_of("hello "));
  file.write(view_of(""));
  file.write(view_of("world"));
  file.write_at(0, view_of("J"));
  CHECK(file.position() == 11);
  CHECK_FALSE(fs::exists(folder / "out"));
  CHECK(folder.entries() <= 1);  // none where files without a name are possible
  file.commit();
  CHECK(get_text(folder / "out") == "Jello world");
  CHECK(folder.entries() == 1);
}

TEST_CASE("io/atomic_file: skipped bytes are filled by write_at") {
  const Folder folder;
  AtomicFile file(folder / "out", Overwrite::no);
  file.skip(4);
  file.write(view_of("tail"));
  file.write_at(1, view_of("ead"));
  file.commit();
  CHECK(get_text(folder / "out") == std::string("\0eadtail", 8));
}

TEST_CASE("io/atomic_file: bytes are the same, gathered or written from where they are") {
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
          CHECK((get_text(folder / "out") == expected));
        }
      }
    }
  }
}

TEST_CASE("io/atomic_file: an output nothing was written to is an empty file") {
  const Folder folder;
  AtomicFile(folder / "out", Overwrite::no).commit();
  CHECK(fs::file_size(folder / "out") == 0);
}

TEST_CASE("io/atomic_file: without commit nothing is left") {
  const Folder folder;
  put_text(folder / "out", "old");
  { AtomicFile(folder / "out", Overwrite::yes).write(view_of("new")); }
  CHECK(get_text(folder / "out") == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("io/atomic_file: overwriting is asked for") {
  const Folder folder;
  put_text(folder / "out", "old");
  check_names(caught([&] { AtomicFile(folder / "out", Overwrite::no); }), Errc::output_exists,
              folder / "out", "");
  CHECK(folder.entries() == 1);
  AtomicFile file(folder / "out", Overwrite::yes);
  file.write(view_of("new"));
  CHECK(get_text(folder / "out") == "old");
  file.commit();
  CHECK(get_text(folder / "out") == "new");
  CHECK(folder.entries() == 1);
}

TEST_CASE("io/atomic_file: an output that appears meanwhile is not replaced") {
  const Folder folder;
  {
    AtomicFile file(folder / "out", Overwrite::no);
    file.write(view_of("mine"));
    put_text(folder / "out", "theirs");
    check_names(caught([&] { file.commit(); }), Errc::output_exists, folder / "out", "");
  }
  CHECK(get_text(folder / "out") == "theirs");
  CHECK(folder.entries() == 1);
}

TEST_CASE("io/atomic_file: outputs that cannot be replaced by a file are refused at once") {
  const Folder folder;
  fs::create_directory(folder / "folder");
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  put_text(folder / "file", "");
  const auto open = [&](const fs::path& path) {
    return caught([&] { AtomicFile(path, Overwrite::yes); });
  };
  check_names(open(folder / "folder"), Errc::io_failure, folder / "folder", std::strerror(EISDIR));
  check_names(open(folder / "folder/"), Errc::io_failure, folder / "folder/",
              "the name is that of a folder");
  check_names(open(folder / "pipe"), Errc::io_failure, folder / "pipe", "not a regular file");
  check_names(open("/dev/null"), Errc::io_failure, "/dev/null", "not a regular file");
  check_names(open(""), Errc::io_failure, "", "a file needs a name");
  check_names(open(folder / "none/out"), Errc::io_failure, folder / "none/out",
              std::strerror(ENOENT));
  check_names(open(folder / "file/out"), Errc::io_failure, folder / "file/out",
              std::strerror(ENOTDIR));
  const std::string longer(300, 'x');
  check_names(open(folder / longer), Errc::io_failure, folder / longer,
              std::strerror(ENAMETOOLONG));
  CHECK(folder.entries() == 3);
}

TEST_CASE("io/atomic_file: a symbolic link is replaced, not followed") {
  const Folder folder;
  put_text(folder / "target", "old");
  fs::create_symlink("target", folder / "link");
  fs::create_symlink("nowhere", folder / "dangling");
  CHECK(caught([&] { AtomicFile(folder / "dangling", Overwrite::no); }).code() ==
        Errc::output_exists);
  AtomicFile file(folder / "link", Overwrite::yes);
  file.write(view_of("new"));
  file.commit();
  CHECK_FALSE(fs::is_symlink(folder / "link"));
  CHECK(get_text(folder / "link") == "new");
  CHECK(get_text(folder / "target") == "old");
}

TEST_CASE("io/atomic_file: a write that fails leaves the old output and nothing else") {
  const Folder folder;
  put_text(folder / "out", "old");
  const std::string big(5'000'000, 'x');  // more than is gathered before a write
  {
    AtomicFile file(folder / "out", Overwrite::yes);
    {
      const FileSizeLimit limit(65'536);
      check_names(caught([&] { file.write(view_of(big)); }), Errc::io_failure, folder / "out",
                  std::strerror(EFBIG));
    }
    check_names(caught([&] { file.commit(); }), Errc::io_failure, folder / "out",
                "an earlier write failed");
  }
  CHECK(get_text(folder / "out") == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("io/atomic_file: the mode is that of any new file") {
  const Folder folder;
  const mode_t before = ::umask(027);
  AtomicFile(folder / "out", Overwrite::no).commit();
  ::umask(before);
  CHECK(fs::status(folder / "out").permissions() == static_cast<fs::perms>(0640));
}

TEST_CASE("io/atomic_file: the mode is that of the output that is replaced") {
  const Folder folder;
  put_text(folder / "out", "old");
  fs::permissions(folder / "out", static_cast<fs::perms>(0600));
  AtomicFile(folder / "out", Overwrite::yes).commit();
  CHECK(fs::status(folder / "out").permissions() == static_cast<fs::perms>(0600));
}

TEST_CASE("io/atomic_file: a relative output stays where it was opened") {
  const Folder folder;
  const fs::path before = fs::current_path();
  fs::current_path(folder.path);
  AtomicFile file("out", Overwrite::no);
  fs::current_path(before);
  file.commit();
  CHECK(fs::exists(folder / "out"));
}

TEST_CASE("io/atomic_file: a name as long as the file system allows") {
  const Folder folder;
  AtomicFile(folder / std::string(255, 'x'), Overwrite::no).commit();
  CHECK(folder.entries() == 1);
}

TEST_CASE("io/atomic_file: outputs move") {
  static_assert(!std::is_copy_constructible_v<AtomicFile>);
  const Folder folder;
  {
    AtomicFile first(folder / "a", Overwrite::no);
    first.write(view_of("one "));
    AtomicFile second(std::move(first));
    second.write(view_of("two"));
    second.commit();
    CHECK(get_text(folder / "a") == "one two");
    AtomicFile third(folder / "b", Overwrite::no);
    third = AtomicFile(folder / "c", Overwrite::no);
    third.commit();
  }
  CHECK(fs::exists(folder / "c"));
  CHECK(folder.entries() == 2);
}
