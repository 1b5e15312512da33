// Whole models by the methods of baseline/: what they leave alone, and what they ask of all layers.
#include "pair.hpp"

#include <deltadct/baseline/any_baseline.hpp>
#include <deltadct/io/survey.hpp>

#include <limits>

using namespace io_test;
using deltadct::AnyBaseline;
using deltadct::DeltaCome;
using deltadct::make_codec;
using deltadct::Serial;

namespace {

Tensor layer(const std::string& name, Shape shape, unsigned seed) {
  return noise(name, DType::f32, std::move(shape), seed);
}

void compress(const Pair& pair, const AnyBaseline& method) {
  CompressOptions options;
  options.output.overwrite = Overwrite::yes;
  options.codec = deltadct::baseline_spec(method);
  io::compress_model(Model::open(pair.folder / "base"), Model::open(pair.folder / "tuned"),
                     pair.folder / "delta", options,
                     deltadct::with_baselines(make_codec<Serial>, method), SerialExecutor{});
}

}  // namespace

TEST_CASE("baselines: a tensor that is too small for the method, or for its budget, is kept") {
  const Pair pair(
      {layer("small", {3, 5}, 1), layer("medium", {16, 17}, 2), layer("w", {128, 128}, 3)},
      {layer("small", {3, 5}, 4), layer("medium", {16, 17}, 5), layer("w", {128, 128}, 6)});
  compress(pair, DeltaCome{.bits_per_weight = 0.5});
  CHECK(pair.reason("small") == "small");
  CHECK(pair.reason("medium") == "small");
  CHECK(pair.mode("w") == Mode::delta);
  compress(pair, DeltaCome{});
  CHECK(pair.reason("small") == "small");
  CHECK(pair.mode("medium") == Mode::delta);
  // What no budget of the kind suffices for is an error still.
  const Error error = caught([&] { compress(pair, DeltaCome{.bits_per_weight = 0.01}); });
  CHECK(error.code() == Errc::bad_mix);
  CHECK(test::names(error, "w"));
}

TEST_CASE("baselines: a survey is of what changed") {
  const Tensor frozen = layer("frozen", {40, 50}, 1);
  const Tensor base = layer("w", {40, 50}, 2);
  const Tensor tuned = moved(base, kStep, 3);
  const Pair pair({frozen, base, renamed(base, "excluded"), layer("bias", {50}, 4)},
                  {frozen, tuned, renamed(tuned, "excluded"), layer("bias", {50}, 5)});
  const auto spreads =
      io::survey_deltas(Model::open(pair.folder / "base"), Model::open(pair.folder / "tuned"),
                        [](std::string_view name) { return name != "excluded"; });
  REQUIRE(spreads.size() == 1);
  CHECK(spreads[0].elements == 2000);
  CHECK(spreads[0].deviation > 0);
}
