// What stands in for system calls that not every file system has.
#include "../support/files.hpp"

#include <deltadct/io/posix.hpp>

#include <doctest/doctest.h>

using namespace deltadct::io;
using namespace test;

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
