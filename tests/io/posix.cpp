// Substitutes for system calls that not every file system supports.
#include "../support/files.hpp"

#include <deltadct/io/posix.hpp>

#include <doctest/doctest.h>

using namespace deltadct::io;
using namespace test;

TEST_CASE("io/posix: a file never becomes one of the first three descriptors") {
  const Folder folder;
  for (const int closed : {0, 1, 2}) {
    int opened = -1;
    int written = -1;
    bool none = false;
    {
      const ClosedDescriptor without(closed);
      const detail::Descriptor in = detail::open_file(folder.path.c_str(), O_RDONLY | O_DIRECTORY);
      const detail::Descriptor out =
          detail::open_file("file", O_WRONLY | O_CREAT | O_EXCL, 0600, in.get());
      opened = in.get();
      written = out.get();
      none = detail::open_file("file", O_WRONLY | O_CREAT | O_EXCL, 0600, in.get()).get() == -1 &&
             errno == EEXIST;
      ::unlinkat(in.get(), "file", 0);
    }
    CHECK(opened > 2);
    CHECK(written > 2);
    CHECK(none);
  }
}

TEST_CASE("io/posix: links stand in for a rename that cannot refuse") {
  const Folder folder;
  const detail::Descriptor descriptor(::open(folder.path.c_str(), O_RDONLY | O_DIRECTORY));
  put_text(folder / "from", "text");
  put_text(folder / "taken", "other");
  CHECK_FALSE(detail::link_new(descriptor.get(), "from", "taken"));
  CHECK(errno == EEXIST);
  CHECK(get_text(folder / "taken") == "other");
  CHECK(detail::link_new(descriptor.get(), "from", "to"));
  CHECK(get_text(folder / "to") == "text");
  CHECK(folder.entries() == 2);
}
