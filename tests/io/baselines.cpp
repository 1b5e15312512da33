// Whole models compressed by the methods of baseline/: what these leave alone, and how they treat
// all layers together.
#include "draft.hpp"
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

/// A codec that counts how often it decodes.
class CountingCodec final : public deltadct::AnyCodec {
 public:
  CountingCodec(std::unique_ptr<deltadct::AnyCodec> codec, std::size_t& decodes)
      : codec_(std::move(codec)), decodes_(decodes) {}

  std::string build() const override { return codec_->build(); }
  std::size_t max_compressed_bytes(std::size_t rows, std::size_t cols) const override {
    return codec_->max_compressed_bytes(rows, cols);
  }
  void encode_into(deltadct::CompressedTensor& out, std::vector<std::byte>& workspace, DType dtype,
                   const void* base, const void* tuned, std::size_t rows, std::size_t cols,
                   const deltadct::ExecutorRef& executor) const override {
    codec_->encode_into(out, workspace, dtype, base, tuned, rows, cols, executor);
  }
  void validate(const deltadct::CompressedView& compressed, DType dtype) const override {
    codec_->validate(compressed, dtype);
  }
  void decode_add(const deltadct::CompressedView& compressed, DType dtype, const void* base,
                  void* out, double alpha, const deltadct::ExecutorRef& executor) const override {
    ++decodes_;
    codec_->decode_add(compressed, dtype, base, out, alpha, executor);
  }
  void decode_add_block(const deltadct::CompressedView& compressed, DType dtype, std::size_t row,
                        std::size_t col, void* block, std::size_t rows, std::size_t cols,
                        double alpha, const deltadct::ExecutorRef& executor) const override {
    codec_->decode_add_block(compressed, dtype, row, col, block, rows, cols, alpha, executor);
  }

 private:
  std::unique_ptr<deltadct::AnyCodec> codec_;
  std::size_t& decodes_;
};

}  // namespace

TEST_CASE("baselines: what tensors are tied to is decoded once, before or after them") {
  const Tensor base = layer("m", {64, 64}, 1);
  const Tensor tuned = moved(base, kStep, 2);
  const Tensor other = layer("x", {70, 64}, 3);
  // In safetensors, the order is that of the data: "a" is tied to "m", like "b" and "z".
  const Pair pair({base, other}, {renamed(tuned, "m"), renamed(tuned, "a"), moved(other, kStep, 4),
                                  renamed(tuned, "b"), renamed(tuned, "z")});
  for (const AnyBaseline& method : {AnyBaseline(DeltaCome{}), AnyBaseline(deltadct::Dare{})}) {
    compress(pair, method);
    REQUIRE(pair.mode("a") == Mode::tied);
    REQUIRE(pair.mode("z") == Mode::tied);
    for (const bool is_first : {true, false}) {
      Draft draft(pair.folder / "delta");
      nlohmann::json& tensors = draft.manifest["tensors"];
      if (!is_first) std::reverse(tensors.begin(), tensors.end());
      draft.write(pair.folder / "turned");
      const Model model = Model::open(pair.folder / "base");
      const auto archive = DeltaArchive::open(pair.folder / "turned");
      std::size_t decodes = 0;
      const auto made = deltadct::with_baselines(make_codec<Serial>, method);
      const deltadct::CodecFactory counted = [&](const deltadct::CodecSpec& spec) {
        return std::make_unique<CountingCodec>(made(spec), decodes);
      };
      ApplyOptions options;
      options.output.overwrite = Overwrite::yes;
      io::apply_archive(model, archive, pair.folder / "out", options, counted);
      CHECK(decodes == 2);
      for (const char* name : {"a", "b", "z"})
        CHECK(data(pair.out(), name) == data(pair.out(), "m"));
      CHECK(data(pair.out(), "m") != base.bytes);
      // In any order, and any number of times.
      decodes = 0;
      io::Restorer restorer(model, archive, counted, SerialExecutor{});
      for (int round = 0; round < 3; ++round) {
        for (const char* name : {"z", "m", "a", "x", "b", "m"}) {
          CHECK(std::ranges::equal(restorer.restore(*archive.find(name)), data(pair.out(), name)));
        }
      }
      CHECK(decodes >= 2);
    }
  }
}

TEST_CASE("baselines: a tensor that is too small for the method is kept, whatever the budget") {
  const Tensor small = layer("small", {3, 5}, 1);
  const Tensor medium = layer("medium", {16, 17}, 2);
  const Tensor w = layer("w", {128, 128}, 3);
  const Pair pair({small, medium, w},
                  {moved(small, kStep, 4), moved(medium, kStep, 5), moved(w, kStep, 6)});
  for (const double budget : {0.0, 0.3}) {
    compress(pair, DeltaCome{.bits_per_weight = budget});
    CHECK(pair.reason("small") == "small");
    CHECK(pair.mode("medium") == Mode::delta);
    CHECK(pair.mode("w") == Mode::delta);
  }
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
