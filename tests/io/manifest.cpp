// What a manifest consists of: modes, and shapes seen as matrices.
#include <deltadct/io/manifest.hpp>

#include "support.hpp"

using namespace io_test;
using io::Mode;

TEST_CASE("rows that two shapes have in common") {
  CHECK(io::common_rows(Shape{}, Shape{}) == Shape{});
  CHECK(io::common_rows(Shape{3}, Shape{5}) == Shape{3});
  CHECK(io::common_rows(Shape{5, 2}, Shape{3, 2}) == Shape{3, 2});
  CHECK(io::common_rows(Shape{0, 2}, Shape{3, 2}) == Shape{0, 2});
  CHECK(io::common_rows(Shape{2, 3, 4}, Shape{2, 3, 4}) == Shape{2, 3, 4});
  CHECK_FALSE(io::common_rows(Shape{3, 2}, Shape{3, 3}));
  CHECK_FALSE(io::common_rows(Shape{3}, Shape{3, 1}));
  CHECK_FALSE(io::common_rows(Shape{}, Shape{1}));
}

TEST_CASE("shapes as text") {
  CHECK(io::shape_text(Shape{}) == "scalar");
  CHECK(io::shape_text(Shape{7}) == "7");
  CHECK(io::shape_text(Shape{768, 0, 256}) == "768x0x256");
}

TEST_CASE("what a mode reads and stores") {
  for (const Mode mode : io::kModes) {
    CAPTURE(std::string(io::mode_name(mode)));
    CHECK(io::has_delta(mode) ==
          (mode == Mode::delta || mode == Mode::grown || mode == Mode::shrunk));
    CHECK(io::has_lossless(mode) ==
          (mode == Mode::lossless || mode == Mode::added || mode == Mode::grown));
    CHECK(io::needs_base(mode) ==
          (mode != Mode::added && mode != Mode::removed && mode != Mode::tied));
  }
}

TEST_CASE("modes have distinct names") {
  std::vector<std::string> found;
  for (const Mode mode : io::kModes) found.emplace_back(io::mode_name(mode));
  CHECK(found == std::vector<std::string>{"same", "delta", "grown", "shrunk", "lossless", "added",
                                          "removed", "tied"});
}
