// What a signal handler removes.
#include <deltadct/io/temporaries.hpp>

#include "support.hpp"

using namespace io_test;
using io::TemporaryPath;

TEST_CASE("temporaries: those that are left are removed, and no others") {
  const Folder folder;
  const auto path = [&](int k) { return (folder / std::to_string(k)).string(); };
  for (int k = 0; k < 70; ++k) put(path(k), bytes_of("x"));
  {
    TemporaryPath moved{path(0)};
    TemporaryPath first = std::move(moved);
    const TemporaryPath gone{path(1)};
    { const TemporaryPath renamed{path(2)}; }
    first = TemporaryPath{path(3)};
    TemporaryPath::remove_all();
    CHECK_FALSE(fs::exists(path(1)));
    CHECK(fs::exists(path(2)));
    CHECK_FALSE(fs::exists(path(3)));
  }
  put(path(1), bytes_of("x"));
  TemporaryPath::remove_all();
  CHECK(fs::exists(path(1)));
  // As many as there is room for.
  std::vector<TemporaryPath> all;
  for (int k = 4; k < 70; ++k) all.emplace_back(path(k));
  TemporaryPath::remove_all();
  CHECK_FALSE(fs::exists(path(67)));
  CHECK(fs::exists(path(69)));
}
