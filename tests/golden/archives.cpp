// Archives of every format version, decoded for ever: v1/NAME with v1/base gives v1/NAME.out.
//
// To write those that are missing (what was released is never written again):
//     test_golden_archives --no-skip --test-case="write*"
#include "../io/support.hpp"

#include <deltadct/baseline/any_baseline.hpp>
#include <deltadct/io/checkpoint.hpp>

#include <cmath>

using namespace io_test;

namespace {

const fs::path kFolder = fs::path(DELTADCT_GOLDEN_ARCHIVES) / "v1";

struct Golden {
  const char* name;
  deltadct::CodecSpec codec;
  bool lossless = false;
  std::uint64_t max_shard_bytes = 0;
  deltadct::AnyBaseline baseline = {};  ///< the settings, of a codec without patches
};

Golden of_baseline(const char* name, const deltadct::AnyBaseline& baseline) {
  return {name, deltadct::baseline_spec(baseline), false, 0, baseline};
}

deltadct::CodecSpec unit_gain(int patch, deltadct::RatioAllocator mix) {
  deltadct::CodecSpec spec = deltadct::unit_gain_spec();
  spec.patch = patch;
  spec.allocator = std::move(mix);
  return spec;
}

const Golden kGolden[] = {
    {"paper", {}},
    {"widths",
     {.patch = 4,
      .allocator = {{8, 0.1}, {6, 0.1}, {4, 0.1}, {3, 0.2}, {2, 0.2}, {1, 0.1}, {0, 0.2}}}},
    {"three", {.patch = 12, .allocator = {{6, 0.3}, {1, 0.4}, {0, 0.3}}}},
    {"identity",
     {.patch = 8, .transform = std::string(deltadct::Identity::name), .allocator = {{4, 1.0}}}},
    {"lossless", {}, true},
    {"sharded", {}, false, 8000},
    {"gaussian", unit_gain(16, {{4, 0.2}, {3, 0.2}, {2, 0.3}, {1, 0.3}})},
    {"shared", unit_gain(16, {{1, 0.2}, {-2, 0.2}, {-3, 0.2}, {-4, 0.2}, {-5, 0.2}})},
    of_baseline("bit_delta", deltadct::BitDelta{deltadct::BitDelta::Axis::row}),
    of_baseline("delta_come", deltadct::DeltaCome{}),
    of_baseline("dare", deltadct::Dare{.drop = 0.75, .seed = 3}),
    of_baseline("ultra_delta",
                deltadct::UltraDelta{.groups = {{{0.01, 0.8}, {0.1, 0.7}, {}}}, .seed = 4}),
};

/// Every mode and kind of tensor, small.
void write_models() {
  std::vector<Tensor> base;
  std::vector<Tensor> tuned;
  const auto both = [&](const std::string& name, DType dtype, Shape shape) {
    const auto seed = static_cast<unsigned>(base.size());
    base.push_back(noise(name, dtype, std::move(shape), seed));
    tuned.push_back(deltadct::is_element(dtype) ? moved(base.back(), 0.01, 100 + seed)
                                                : base.back());
    if (!deltadct::is_element(dtype)) tuned.back().bytes[0] ^= std::byte{1};
  };
  const auto resize = [&](const std::string& name, DType dtype, Shape from, Shape to) {
    const auto seed = static_cast<unsigned>(base.size());
    base.push_back(noise(name, dtype, std::move(from), seed));
    Tensor tensor = noise(name, dtype, std::move(to), 50 + seed);
    const Tensor near = moved(base.back(), 0.01, 100 + seed);
    std::copy_n(near.bytes.begin(), std::min(near.bytes.size(), tensor.bytes.size()),
                tensor.bytes.begin());
    tuned.push_back(tensor);
  };
  both("bf16", DType::bf16, {64, 48});
  both("f16", DType::f16, {20, 33});
  both("f32", DType::f32, {33, 20});
  both("f64", DType::f64, {17, 16});
  both("experts", DType::bf16, {2, 64, 64});
  both("conv", DType::f32, {8, 4, 3, 3});
  both("norm", DType::bf16, {64});
  both("scalar", DType::f32, {});
  both("f8", DType::f8_e4m3, {5, 5});
  both("ids", DType::i64, {3, 4});
  base.push_back(noise("empty", DType::f32, {0, 8}, 1));
  tuned.push_back(base.back());
  base.push_back(noise("same", DType::i32, {9}, 2));
  tuned.push_back(base.back());
  resize("embed", DType::bf16, {40, 24}, {44, 24});
  resize("head", DType::f32, {24, 16}, {20, 16});
  base.push_back(noise("widened", DType::bf16, {16, 20}, 3));
  tuned.push_back(noise("widened", DType::f32, {16, 20}, 3));
  base.push_back(noise("gone", DType::f32, {3}, 4));
  tuned.push_back(noise("new", DType::f32, {40, 30}, 5));
  tuned.push_back(tuned.back());
  tuned.back().name = "twin";
  write_model(kFolder / "base", base, {{"format", "pt"}});
  write_model(kFolder / "tuned", tuned, {{"format", "pt"}, {"made by", "deltadct"}});
}

void apply(const Golden& golden, const fs::path& output) {
  const auto base = io::Model::open(kFolder / "base");
  const auto archive = io::DeltaArchive::open(kFolder / golden.name);
  io::ApplyOptions options;
  options.output.overwrite = io::Overwrite::yes;
  io::apply_archive(base, archive, output, options, deltadct::with_baselines(serial_codec));
}

/// The distance of two numbers of a dtype, in units of the last place. A number smaller than the
/// deltas is the difference of larger ones, and no more exact than they are.
double ulps(DType dtype, double a, double b) {
  const int digits = dtype == DType::bf16  ? 8
                     : dtype == DType::f16 ? 11
                     : dtype == DType::f32 ? 24
                                           : 53;
  const double scale = std::max({std::abs(a), std::abs(b), 0.1});
  return std::abs(a - b) / std::ldexp(1.0, std::ilogb(scale) + 1 - digits);
}

void check_equal(const fs::path& found_path, const fs::path& expected_path,
                 const io::DeltaArchive& archive) {
  const auto found = io::Model::open(found_path);
  const auto expected = io::Model::open(expected_path);
  REQUIRE(found.tensors().size() == expected.tensors().size());
  CHECK(found.metadata() == expected.metadata());
  io::TensorBytes a;
  io::TensorBytes b;
  for (std::size_t i = 0; i < found.tensors().size(); ++i) {
    const io::ModelTensor& tensor = found.tensors()[i];
    CAPTURE(tensor.name);
    REQUIRE(tensor.name == expected.tensors()[i].name);
    REQUIRE(tensor.dtype == expected.tensors()[i].dtype);
    REQUIRE(tensor.shape == expected.tensors()[i].shape);
    found.read(tensor, a);
    expected.read(expected.tensors()[i], b);
    if (!io::has_delta(archive.target(*archive.find(tensor.name)).mode)) {
      CHECK(std::ranges::equal(a.bytes(), b.bytes()));
      continue;
    }
    const auto x = values(tensor.dtype, a.bytes());
    const auto y = values(tensor.dtype, b.bytes());
    double most = 0;
    for (std::size_t k = 0; k < x.size(); ++k) {
      most = std::max(most, ulps(tensor.dtype, x[k], y[k]));
    }
    CHECK(most <= 4);
  }
}

}  // namespace

TEST_CASE("golden/archives: every archive restores what it did when it was written") {
  const Folder folder;
  for (const Golden& golden : kGolden) {
    CAPTURE(golden.name);
    apply(golden, folder / golden.name);
    check_equal(folder / golden.name, kFolder / (std::string(golden.name) + ".out"),
                io::DeltaArchive::open(kFolder / golden.name));
  }
}

TEST_CASE("write the golden archives" * doctest::skip()) {
  if (!fs::exists(kFolder / "base")) write_models();
  for (const Golden& golden : kGolden) {
    if (fs::exists(kFolder / golden.name)) continue;
    io::CompressOptions options;
    options.codec = golden.codec;
    options.lossless = golden.lossless;
    options.output = {io::Overwrite::yes, golden.max_shard_bytes, io::Resume::no};
    io::compress_model(io::Model::open(kFolder / "base"), io::Model::open(kFolder / "tuned"),
                       kFolder / golden.name, options,
                       deltadct::with_baselines(serial_codec, golden.baseline));
    apply(golden, kFolder / (std::string(golden.name) + ".out"));
  }
}
