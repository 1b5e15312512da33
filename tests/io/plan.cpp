// The plan of an operation that may be resumed.
#include <deltadct/io/plan.hpp>

#include "pair.hpp"

using namespace io_test;

TEST_CASE("what was interrupted under other names is not gone on with") {
  const Pair pair = one_pair(DType::f32, {8, 8});
  const auto plan = [&](const std::string& name) {
    return io::detail::identity_json(
        Model::open(pair.folder / "base").renamed([&](std::string_view) { return name; }));
  };
  CHECK(plan("w") == io::detail::identity_json(Model::open(pair.folder / "base")));
  CHECK(plan("v") != plan("w"));
}
