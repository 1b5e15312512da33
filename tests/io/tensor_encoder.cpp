// How tensors of a model are stored, seen through whole archives: without loss if that costs no
// more, with separate outliers, with exact scales of codes; and what is reported about the restored
// tensors.
#include "pair.hpp"

#include <deltadct/baseline/any_baseline.hpp>
#include <deltadct/io/checkpoint.hpp>

using namespace io_test;
using io::ManifestEntry;
using io::OutputDTypes;
using io::Rounding;

namespace {

CompressOptions unit_gain() {
  CompressOptions options = options_of(32);
  options.codec = deltadct::unit_gain_spec();
  return options;
}

/// A training step as BF16 stores it: few elements change, by one unit in the last place.
Tensor stepped(Tensor tensor, double share, unsigned seed) {
  Noise random(seed);
  for (std::size_t i = 0; i < tensor.bytes.size(); i += 2) {
    if (random() * 0.5 + 0.5 >= share) continue;
    std::uint16_t bits = 0;
    std::memcpy(&bits, tensor.bytes.data() + i, 2);
    bits = static_cast<std::uint16_t>(bits + (random() < 0 ? 1 : -1));
    std::memcpy(tensor.bytes.data() + i, &bits, 2);
  }
  return tensor;
}

/// The tensor in another dtype, each element moved by up to the share `step` of itself.
Tensor moved_in(const Tensor& base, DType dtype, double step, unsigned seed) {
  Tensor tensor = noise(base.name, dtype, base.shape, seed);
  const auto from = values(base.dtype, base.bytes);
  Noise random(seed + 1);
  for (std::size_t i = 0; i < from.size(); ++i) tensor.set(i, from[i] * (1 + step * random()));
  return tensor;
}

double gain(const Pair& pair, const std::string& name) {
  const auto find = [&](const std::vector<Tensor>& tensors) {
    return *std::ranges::find(tensors, name, &Tensor::name);
  };
  const Tensor base = find(pair.base);
  const Tensor tuned = find(pair.tuned);
  const Model out = pair.out();
  const auto b = values(base.dtype, base.bytes);
  const auto d = difference(values(tuned.dtype, tuned.bytes), b);
  const auto r = difference(values(out.find(name)->dtype, data(out, name)), b);
  return std::inner_product(d.begin(), d.end(), r.begin(), 0.0) /
         std::inner_product(d.begin(), d.end(), d.begin(), 0.0);
}

ApplyOptions overwriting() {
  ApplyOptions options;
  options.output.overwrite = Overwrite::yes;
  return options;
}

}  // namespace

TEST_CASE("tensor_encoder: what costs no more without loss is kept so, by every preset") {
  const Tensor a = noise("a", DType::bf16, {256, 512}, 1);
  const Tensor b = noise("b", DType::bf16, {256, 512}, 2);
  const Tensor wide = noise("wide", DType::bf16, {64, 64}, 3);
  for (const double share : {0.01, 0.05}) {
    const Pair pair({a, b, wide},
                    {stepped(a, share, 4), stepped(b, share, 5), moved(wide, 0.05, 6)});
    CompressOptions lossless = options_of(16);
    lossless.lossless = true;
    for (const CompressOptions& options : {options_of(16), unit_gain()}) {
      const CheckpointReport report = pair.compress(options);
      CHECK(pair.reason("a") == "exact");
      CHECK(pair.reason("b") == "exact");
      CHECK(pair.mode("wide") == Mode::delta);
      CHECK(report.warnings.empty());
      pair.apply(overwriting());
      CHECK(data(pair.out(), "a") == pair.tuned[0].bytes);
    }
  }
}

TEST_CASE("tensor_encoder: a step of training takes no more bytes than the lossless preset") {
  for (const double share : {0.01, 0.05}) {
    const Tensor a = noise("a", DType::bf16, {300, 700}, 1);
    const Pair pair({a}, {stepped(a, share, 4)});
    const auto by_default = pair.compress(options_of(16)).file_bytes;
    CompressOptions lossless = options_of(16);
    lossless.lossless = true;
    CHECK(by_default <= pair.compress(lossless).file_bytes);
  }
}

TEST_CASE("tensor_encoder: what comes back is measured after rounding, as the output has it") {
  const Tensor base = noise("w", DType::bf16, {128, 96}, 1);
  for (const double step : {0.2, 0.01, 0.001}) {
    const Pair pair({base}, {moved_in(base, DType::f32, step, 7)});
    const CheckpointReport report = pair.compress(unit_gain());
    pair.apply(overwriting());
    const ManifestEntry entry = *pair.archive().find("w");
    REQUIRE(entry.recovery.has_value());
    CHECK(entry.recovery->gain() == doctest::Approx(gain(pair, "w")).epsilon(2e-3));
    CHECK(report.recovery.gain() == doctest::Approx(gain(pair, "w")).epsilon(2e-3));
    CHECK(entry.tuned_dtype == DType::f32);
  }
}

TEST_CASE("tensor_encoder: a delta that rounding swallows is told, with what helps") {
  const Tensor base = noise("w", DType::bf16, {128, 96}, 1);
  const Tensor sound = noise("sound", DType::bf16, {128, 96}, 2);
  const Pair pair({base, sound},
                  {moved_in(base, DType::f32, 1e-4, 3), moved_in(sound, DType::f32, 0.05, 4)});
  const CheckpointReport report = pair.compress(unit_gain());
  REQUIRE(report.warnings.size() == 1);
  CHECK(report.warnings[0].where == "w");
  CHECK(report.warnings[0].what.find("BF16") != std::string::npos);
  CHECK(report.warnings[0].what.find("--dtype tuned") != std::string::npos);
  pair.apply(overwriting());
  CHECK(std::abs(gain(pair, "w")) < 0.1);
}

TEST_CASE("tensor_encoder: the fine-tune's dtype holds what the base's rounds away") {
  const Tensor base = noise("w", DType::bf16, {128, 96}, 1);
  const Tensor rows = noise("rows", DType::bf16, {64, 64}, 2);
  const Tensor more = with_rows(moved_in(rows, DType::f32, 1e-4, 5), 70, 6);
  const Pair pair({base, rows}, {moved_in(base, DType::f32, 1e-4, 3), more});
  pair.compress(unit_gain());
  ApplyOptions options = overwriting();
  options.dtypes = OutputDTypes::tuned;
  pair.apply(options);
  CHECK(pair.out().find("w")->dtype == DType::f32);
  CHECK(gain(pair, "w") == doctest::Approx(1).epsilon(0.02));
  CHECK(pair.out().find("rows")->shape == Shape{70, 64});
  options = overwriting();
  options.rounding = Rounding::stochastic;
  pair.apply(options);
  CHECK(pair.out().find("w")->dtype == DType::bf16);
  CHECK(gain(pair, "w") == doctest::Approx(1).epsilon(0.2));
  const Bytes first = data(pair.out(), "w");
  pair.apply(options);
  CHECK(data(pair.out(), "w") == first);
}

TEST_CASE("tensor_encoder: one outlier does not drown its patch") {
  for (const DType dtype : kElements) {
    const Tensor base = noise("w", dtype, {256, 256}, 1);
    for (const CompressOptions& options : {options_of(16), unit_gain()}) {
      Tensor tuned = moved(base, 0.02, 2);
      const Pair without({base}, {tuned});
      without.compress(options);
      without.apply(overwriting());
      tuned.set(300, 7);
      tuned.set(40'000, -9);
      const Pair pair({base}, {tuned});
      const CheckpointReport report = pair.compress(options);
      CHECK(report.file_bytes <= without.archive().file_bytes() + 256);
      pair.apply(overwriting());
      const auto out = values(dtype, data(pair.out(), "w"));
      CHECK(out[300] == 7);
      CHECK(out[40'000] == -9);
      const auto wanted = values(dtype, tuned.bytes);
      const double error = norm(difference(out, wanted));
      const double usual = norm(difference(values(dtype, data(without.out(), "w")),
                                           values(dtype, without.tuned[0].bytes)));
      CHECK(error < 1.1 * usual);
    }
  }
}

TEST_CASE("tensor_encoder: outliers in every matrix of a stack, in blocks and in parts") {
  const Tensor base = noise("experts", DType::f32, {3, 64, 80}, 1);
  Tensor tuned = moved(base, 0.01, 2);
  for (const std::size_t at : {5u, 5119u, 5120u, 12'000u, 15'359u}) tuned.set(at, 4);
  const Pair pair({base}, {tuned});
  pair.compress(options_of(16));
  const DeltaArchive archive = pair.archive();
  const ManifestEntry& entry = *archive.find("experts");
  CHECK_FALSE(entry.outliers_sum.empty());
  const auto delta = archive.delta(entry);
  CHECK(delta.view(0).outliers.size() == 2);
  CHECK(delta.view(1).outliers.size() == 1);
  CHECK(delta.view(2).outliers.size() == 2);
  const Model model = Model::open(pair.folder / "base");
  const SerialExecutor executor;
  io::Restorer restorer(model, archive, serial_codec, executor);
  const auto all = restorer.restore(entry);
  const Bytes whole(all.begin(), all.end());
  for (const io::Block block : {io::Block{0, 0, 0, 64, 80}, io::Block{2, 20, 3, 44, 77},
                                io::Block{1, 0, 0, 1, 1}, io::Block{2, 63, 79, 1, 1}}) {
    const auto part = restorer.restore_block(entry, block);
    for (std::size_t i = 0; i < block.rows; ++i) {
      const std::size_t at = ((block.matrix * 64 + block.row + i) * 80 + block.col) * 4;
      CHECK(std::ranges::equal(part.subspan(i * block.cols * 4, block.cols * 4),
                               std::span(whole).subspan(at, block.cols * 4)));
    }
  }
  pair.verify(true);
}

TEST_CASE("tensor_encoder: altered outliers are refused by name") {
  const Tensor base = noise("w", DType::f32, {64, 64}, 1);
  Tensor tuned = moved(base, 0.01, 2);
  tuned.set(77, 5);
  const Pair pair({base}, {tuned});
  pair.compress(options_of(16));
  Bytes bytes = get(pair.folder / "delta");
  const Model model = Model::open(pair.folder / "delta");
  const auto* section = model.find("outliers:w");
  REQUIRE(section != nullptr);
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  bytes[static_cast<std::size_t>(8 + header + section->begin) + 9] ^= std::byte{1};
  put(pair.folder / "delta", bytes);
  const Error error = caught([&] { pair.verify(false); });
  CHECK(error.code() == Errc::checksum_mismatch);
  CHECK(test::names(error, "w"));
}

TEST_CASE("tensor_encoder: scales beside codes come back exactly") {
  const Tensor codes = noise("layer.weight", DType::f8_e4m3, {256, 256}, 1);
  const Tensor scales = noise("layer.weight_scale_inv", DType::f32, {64, 64}, 2);
  const Tensor plain = noise("other.weight", DType::f32, {64, 64}, 3);
  const Tensor named = noise("third.w_scale", DType::bf16, {64, 64}, 4);
  const Pair pair({codes, scales, plain, named},
                  {renamed(noise("", DType::f8_e4m3, {256, 256}, 5), "layer.weight"),
                   moved(scales, kStep, 6), moved(plain, kStep, 7), moved(named, 0.1, 8)});
  for (const CompressOptions& options : {options_of(16), unit_gain()}) {
    pair.compress(options);
    CHECK(pair.reason("layer.weight_scale_inv") == "scale");
    CHECK(pair.reason("third.w_scale") == "scale");
    CHECK(pair.mode("other.weight") == Mode::delta);
    pair.apply(overwriting());
    CHECK(data(pair.out(), "layer.weight_scale_inv") == pair.tuned[1].bytes);
  }
}

TEST_CASE("tensor_encoder: a budget is what the whole archive takes of what changed, from below") {
  const auto at = [](const std::string& name, unsigned seed) {
    return noise(name, DType::f32, {384, 512}, seed);
  };
  const Tensor vector = noise("norm", DType::f32, {256}, 9);
  const Tensor small = noise("small", DType::f32, {33, 40}, 10);
  const Pair pair({at("a", 1), vector, small, at("frozen", 3), at("b", 2)},
                  {moved(at("a", 1), 0.01, 4), moved(vector, 0.01, 6), moved(small, 0.01, 7),
                   at("frozen", 3), moved(at("b", 2), 0.001, 5)});
  const double changed = 2 * 384 * 512 + 256 + 33 * 40;
  for (const double bits : {0.4, 0.5, 1.0, 2.0}) {
    CompressOptions options = unit_gain();
    options.codec.allocator = deltadct::BudgetAllocator(bits);
    const double asked = bits * changed / 8;
    const CheckpointReport report = pair.compress(options);
    CHECK(static_cast<double>(report.changed_elements) == changed);
    CHECK(static_cast<double>(report.file_bytes) <= asked);
    CHECK(static_cast<double>(report.file_bytes) > 0.98 * asked);
    options.codec.allocator = {{1, 1.0}};
    options.bytes = static_cast<std::uint64_t>(asked);
    CHECK(pair.compress(options).file_bytes == report.file_bytes);
  }
  CompressOptions options = unit_gain();
  options.bytes = 3000;
  const Error error = caught([&] { pair.compress(options); });
  CHECK(error.code() == Errc::bad_mix);
  CHECK(test::names(error, "least possible"));
}

TEST_CASE("tensor_encoder: the least that an error names can be had") {
  const Tensor a = noise("a", DType::f32, {192, 256}, 1);
  const Pair pair({a}, {moved(a, 0.01, 4)});
  CompressOptions options = unit_gain();
  options.bytes = 1;
  const std::string text = caught([&] { pair.compress(options); }).what();
  const std::size_t at = text.find("possible: ") + 10;
  options.bytes = std::strtoull(text.c_str() + at, nullptr, 10);
  CHECK_NOTHROW(pair.compress(options));
  CHECK(pair.archive().file_bytes() <= options.bytes);
}

TEST_CASE("tensor_encoder: a budget where no tensor can become a delta") {
  const Tensor codes = noise("w", DType::f8_e4m3, {64, 64}, 1);
  const Tensor vector = noise("norm", DType::f32, {300}, 2);
  const Pair pair({codes, vector},
                  {renamed(noise("", DType::f8_e4m3, {64, 64}, 3), "w"), moved(vector, 0.01, 4)});
  CompressOptions options = unit_gain();
  options.bytes = 1'000'000;
  CHECK(pair.compress(options).count(Mode::lossless) == 2);
  pair.apply(overwriting());
  CHECK(data(pair.out(), "w") == pair.tuned[0].bytes);
  options.bytes = 1000;
  const std::string text = caught([&] { pair.compress(options); }).what();
  const std::size_t at = text.find("least possible: ");
  REQUIRE(at != std::string::npos);
  options.bytes = std::strtoull(text.c_str() + at + 16, nullptr, 10);
  CHECK(pair.compress(options).file_bytes <= options.bytes);
}

TEST_CASE("tensor_encoder: bits per weight that changed, where none changed") {
  const Tensor w = noise("w", DType::f32, {64, 64}, 1);
  const Pair pair({w}, {w});
  CompressOptions options = unit_gain();
  options.codec.allocator = deltadct::BudgetAllocator(0.5);
  CHECK(pair.compress(options).count(Mode::same) == 1);
  options.bytes = 10;
  CHECK(caught([&] { pair.compress(options); }).code() == Errc::bad_mix);
}

TEST_CASE("tensor_encoder: a value that is not finite is named with its file, matrix and element") {
  const Tensor base = noise("w", DType::f32, {3, 64, 70}, 1);
  const std::size_t at = (2 * 64 + 5) * 70 + 6;
  for (const bool in_base : {true, false}) {
    Pair pair({base}, {moved(base, 0.01, 2)});
    (in_base ? pair.base : pair.tuned)[0].set(at, std::nan(""));
    pair.write();
    const Error error = caught([&] { pair.compress(options_of(16)); });
    CHECK(error.code() == Errc::non_finite);
    CHECK(test::names(error, in_base ? "base" : "tuned"));
    CHECK(test::names(error, "w: matrix 2: element (5, 6)"));
    CHECK(test::names(error, "--non-finite keep"));
  }
}

TEST_CASE("tensor_encoder: a value beyond the base's dtype is named by row and column") {
  const Tensor base = noise("w", DType::f16, {64, 70}, 1);
  Tensor tuned = moved_in(base, DType::f32, 0.01, 2);
  tuned.set(5 * 70 + 6, 1e6);
  const Pair pair({base}, {tuned});
  const Error error = caught([&] { pair.compress(options_of(16)); });
  CHECK(error.code() == Errc::non_finite);
  CHECK(test::names(error, "tuned"));
  CHECK(test::names(error, "w: element (5, 6)"));
  CHECK(test::names(error, "beyond the range of F16, the base's dtype"));
}

TEST_CASE("tensor_encoder: a lost delta is told, whatever one part of it hides") {
  const Tensor base = noise("w", DType::bf16, {8, 64, 64}, 1);
  const Tensor tuned = moved_in(base, DType::f32, 1e-4, 3);
  const auto from = values(DType::bf16, base.bytes);
  const auto with = [&](auto is_moved) {
    Tensor tensor = tuned;
    Noise random(9);
    for (std::size_t i = 0; i < from.size(); ++i) {
      if (is_moved(i)) tensor.set(i, from[i] + 0.3 + 0.1 * random());
    }
    return tensor;
  };
  Tensor element = tuned;
  element.set(5000, 100);
  const std::pair<Tensor, std::string> cases[] = {
      {element, "in all 512 rows"},
      {with([](std::size_t i) { return i / 64 == 70; }), "in 511 of 512 rows"},   // a row
      {with([](std::size_t i) { return i % 64 == 9; }), "in all 512 rows"},       // a column
      {with([](std::size_t i) { return i / 4096 == 2; }), "in 448 of 512 rows"},  // a matrix
      {with([](std::size_t i) { return i / 4096 != 2; }), "in 64 of 512 rows"},   // all others
  };
  for (const auto& [changed, rows] : cases) {
    for (const CompressOptions& options : {options_of(16), unit_gain()}) {
      const Pair pair({base}, {changed});
      const CheckpointReport report = pair.compress(options);
      REQUIRE(report.warnings.size() == 1);
      INFO(report.warnings[0].what);
      CHECK(report.warnings[0].what.find(rows) != std::string::npos);
      CHECK(report.warnings[0].what.find("apply --dtype tuned restores it in F32") !=
            std::string::npos);
      const DeltaArchive archive = pair.archive();
      REQUIRE(archive.find("w")->lost.has_value());
      CHECK(archive.find("w")->lost->changed == 512);
      CHECK(archive.find("w")->lost->tuned_keeps);
    }
  }
}

TEST_CASE("tensor_encoder: a delta that survives is not told as lost") {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const double step : {0.3, 0.03}) {
      for (const CompressOptions& options : {options_of(16), options_of(64), unit_gain()}) {
        const Tensor base = noise("w", dtype, {4, 64, 64}, 1);
        const Tensor narrow = noise("narrow", dtype, {128, 16}, 2);
        const Pair mixed({base, narrow}, {moved_in(base, DType::f32, step, 3),
                                          moved_in(narrow, DType::f32, step, 4)});
        CHECK(mixed.compress(options).warnings.empty());
        const Pair pair({base, narrow},
                        {moved_in(base, dtype, step, 5), moved_in(narrow, dtype, step, 6)});
        CHECK(pair.compress(options).warnings.empty());
      }
    }
  }
}

TEST_CASE("tensor_encoder: what no dtype of the output holds is kept without loss") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor base = noise("w", dtype, {64, 64}, 1);
    const Tensor zeros{"zeros", dtype, {64, 64}, Bytes(base.bytes.size())};
    Tensor tiny = noise("zeros", DType::f64, {64, 64}, 2);
    for (std::size_t i = 0; i < 64 * 64; ++i) tiny.set(i, 1e-200 * static_cast<double>(i + 1));
    const Pair pair({base, zeros}, {moved_in(base, DType::f64, 1e-10, 3), tiny});
    CHECK(pair.compress(unit_gain()).warnings.empty());
    pair.apply(overwriting());
    for (const std::size_t i : {0u, 1u}) {
      CHECK(pair.reason(pair.tuned[i].name) == "precision");
      CHECK(data(pair.out(), pair.tuned[i].name) == pair.tuned[i].bytes);
    }
    const Pair coarse({base}, {moved_in(base, DType::f64, 0.05, 3)});
    coarse.compress(unit_gain());
    CHECK(coarse.mode("w") == Mode::delta);
  }
}

TEST_CASE("tensor_encoder: a sign of zero is a change") {
  for (const DType dtype : kElements) {
    Tensor base = noise("w", dtype, {64, 64}, 1);
    for (std::size_t i = 0; i < 4096; i += 3) base.set(i, 0.0);
    Tensor tuned = base;
    for (std::size_t i = 0; i < 4096; i += 6) tuned.set(i, -0.0);
    const Pair pair({base}, {tuned});
    pair.compress(unit_gain());
    CHECK(pair.reason("w") == "exact");
    pair.apply(overwriting());
    CHECK(data(pair.out(), "w") == tuned.bytes);
  }
}

TEST_CASE("tensor_encoder: new rows that the base's dtype cannot hold are not rounded") {
  const Tensor base = noise("w", DType::f16, {64, 64}, 1);
  Tensor tuned = with_rows(moved_in(base, DType::f32, 0.05, 2), 72, 3);
  for (const bool is_tiny : {false, true}) {
    for (std::size_t i = 64 * 64; is_tiny && i < 72 * 64; ++i) tuned.set(i, 1e-9);
    const Pair pair({base}, {tuned});
    pair.compress(unit_gain());
    CHECK(pair.reason("w") == "rows");
    pair.apply(overwriting());
    CHECK(data(pair.out(), "w") == tuned.bytes);
  }
  for (std::size_t i = 64 * 64; i < 72 * 64; ++i) tuned.set(i, 0.25);
  const Pair pair({base}, {tuned});
  pair.compress(unit_gain());
  CHECK(pair.mode("w") == Mode::grown);
  ApplyOptions options = overwriting();
  options.dtypes = OutputDTypes::tuned;
  pair.apply(options);
  const Bytes out = data(pair.out(), "w");
  CHECK(std::ranges::equal(std::span(out).subspan(64 * 64 * 4),
                           std::span(tuned.bytes).subspan(64 * 64 * 4)));
}

TEST_CASE("tensor_encoder: a sum beyond the range of either dtype is kept without loss") {
  const auto near = [](DType dtype, double size, unsigned seed) {
    Tensor tensor = noise("w", dtype, {64, 64}, seed);
    const auto signs = values(dtype, tensor.bytes);
    for (std::size_t i = 0; i < signs.size(); ++i) tensor.set(i, signs[i] < 0 ? -size : size);
    return tensor;
  };
  const auto tuned = [](const Tensor& base, DType dtype, double step, double most) {
    Tensor tensor = noise("w", dtype, base.shape, 7);
    const auto from = values(base.dtype, base.bytes);
    Noise random(8);
    for (std::size_t i = 0; i < from.size(); ++i) {
      tensor.set(i, std::clamp(from[i] + step * random(), -most, most));
    }
    return tensor;
  };
  const Tensor half = near(DType::f16, 65000, 1);
  const Tensor brain = near(DType::bf16, 65000, 1);
  const Tensor single = near(DType::f32, 65000, 1);
  const Tensor huge = near(DType::f32, 3.37e38, 1);
  const std::pair<Tensor, Tensor> cases[] = {
      {half, tuned(half, DType::f16, 500, 65504)},
      {brain, tuned(brain, DType::f16, 500, 65504)},
      {single, tuned(single, DType::f16, 500, 65504)},
      {huge, tuned(huge, DType::bf16, 2e36, 0x1.FEp127)},
  };
  for (const auto& [from, to] : cases) {
    const Pair pair({from}, {to});
    for (const std::uint64_t bytes : {0u, 100'000u}) {
      CompressOptions options = unit_gain();
      options.bytes = bytes;
      pair.compress(options);
      CHECK(pair.reason("w") == "range");
      pair.apply(overwriting());
      CHECK(data(pair.out(), "w") == to.bytes);
    }
  }
}

TEST_CASE("tensor_encoder: an outlier comes back exactly in the fine-tune's dtype, too") {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const Tensor base = noise("w", dtype, {64, 64}, 1);
    Tensor tuned = moved_in(base, DType::f32, 0.02, 2);
    tuned.set(777, 100.123);
    tuned.set(99, -50.0007);
    const Pair pair({base}, {tuned});
    for (const CompressOptions& options : {options_of(16), unit_gain()}) {
      pair.compress(options);
      REQUIRE_FALSE(pair.archive().find("w")->outliers_sum.empty());
      for (const OutputDTypes dtypes : {OutputDTypes::tuned, OutputDTypes::base}) {
        ApplyOptions how = overwriting();
        how.dtypes = dtypes;
        pair.apply(how);
        const bool is_tuned = dtypes == OutputDTypes::tuned;
        const auto out = values(is_tuned ? DType::f32 : dtype, data(pair.out(), "w"));
        Tensor wanted = noise("", is_tuned ? DType::f32 : dtype, {2}, 1);
        wanted.set(0, 100.123F);
        wanted.set(1, -50.0007F);
        const auto rounded = values(wanted.dtype, wanted.bytes);
        CHECK(out[777] == rounded[0]);
        CHECK(out[99] == rounded[1]);
      }
    }
  }
}

TEST_CASE("tensor_encoder: a tie never takes a tensor farther from the fine-tune than its base") {
  const Tensor a = noise("a", DType::f32, {128, 64}, 1);
  const Tensor tuned = moved(a, 0.1, 2);
  const Tensor near = moved(renamed(tuned, "w"), 1e-5, 3);
  const Tensor far = noise("x", DType::f32, {128, 64}, 4);
  const Pair pair({a, renamed(a, "same"), near, far},
                  {tuned, renamed(tuned, "new"), renamed(tuned, "same"), renamed(tuned, "w"),
                   renamed(tuned, "x")});
  pair.compress(unit_gain());
  pair.apply(overwriting());
  for (const char* name : {"new", "same", "x"}) CHECK(pair.mode(name) == Mode::tied);
  CHECK(pair.mode("w") == Mode::delta);
  const auto wanted = values(DType::f32, tuned.bytes);
  CHECK(norm(difference(values(DType::f32, data(pair.out(), "w")), wanted)) <
        norm(difference(values(DType::f32, near.bytes), wanted)));
}

namespace {

/// A codec that can encode nothing.
class Unable final : public deltadct::AnyCodec {
 public:
  explicit Unable(std::unique_ptr<AnyCodec> codec) : codec_(std::move(codec)) {}
  std::string build() const override { return codec_->build(); }
  std::size_t max_compressed_bytes(std::size_t rows, std::size_t cols) const override {
    return codec_->max_compressed_bytes(rows, cols);
  }
  void encode_into(deltadct::CompressedTensor&, std::vector<std::byte>&, DType, const void*,
                   const void*, std::size_t, std::size_t,
                   const deltadct::ExecutorRef&) const override {
    throw Error(Errc::out_of_range, "delta");
  }
  void validate(const deltadct::CompressedView&, DType) const override {}
  void decode_add(const deltadct::CompressedView&, DType, const void*, void*, double,
                  const deltadct::ExecutorRef&) const override {}
  void decode_add_block(const deltadct::CompressedView&, DType, std::size_t, std::size_t, void*,
                        std::size_t, std::size_t, double,
                        const deltadct::ExecutorRef&) const override {}

 private:
  std::unique_ptr<AnyCodec> codec_;
};

}  // namespace

TEST_CASE("tensor_encoder: an archive larger than asked for is an error, and nothing is in place") {
  const Tensor w = noise("w", DType::f32, {128, 128}, 1);
  const Pair pair({w}, {moved(w, 0.01, 2)});
  const SerialExecutor executor;
  for (const std::uint64_t shard : {0u, 1'000'000u}) {
    CompressOptions options = unit_gain();
    options.bytes = 6000;
    options.output.max_shard_bytes = shard;
    const auto output = pair.folder / (shard == 0 ? "file" : "parts");
    const Error error = caught([&] {
      io::compress_model(
          Model::open(pair.folder / "base"), Model::open(pair.folder / "tuned"), output, options,
          [](const deltadct::CodecSpec& spec) {
            return std::make_unique<Unable>(serial_codec(spec));
          },
          executor);
    });
    CHECK(error.code() == Errc::bad_mix);
    CHECK(test::names(error, "6000 bytes were asked for, and the archive has "));
    CHECK(test::names(error, "least possible"));
    CHECK(test::names(error, "--exclude 'w'"));
    CHECK_FALSE(fs::exists(output));
  }
}

TEST_CASE("tensor_encoder: a budget foresees what cannot be a delta") {
  const Tensor a = noise("a", DType::f32, {256, 256}, 1);
  const Tensor b = noise("b", DType::f16, {64, 64}, 2);
  const Tensor zeros{"zeros", DType::f32, {64, 64}, Bytes(64 * 64 * 4)};
  Tensor huge = noise("zeros", DType::f32, {64, 64}, 3);
  for (std::size_t i = 0; i < 64 * 64; ++i) huge.set(i, i % 2 == 0 ? 3e38 : -3e38);
  Tensor wide = moved_in(b, DType::f32, 0.05, 4);
  wide.set(9, 1e6);
  const Pair pair({a, b, zeros}, {moved(a, 0.01, 5), wide, huge});
  for (const std::uint64_t bytes : {45'000u, 48'000u}) {
    CompressOptions options = unit_gain();
    options.bytes = bytes;
    options.non_finite = io::NonFinite::keep;
    options.allow_unlike = true;
    CHECK(pair.compress(options).file_bytes <= bytes);
    CHECK(pair.mode("a") == Mode::delta);
    CHECK(pair.reason("b") == "non_finite");
  }
}

TEST_CASE("tensor_encoder: outliers leave a budget what patches need") {
  const Tensor w = noise("w", DType::f32, {256, 256}, 1);
  Tensor tuned = moved(w, 0.01, 2);
  for (std::size_t i = 0; i < 60; ++i) tuned.set(1000 * i + 7, 5);
  const Pair pair({w}, {tuned});
  CompressOptions options = unit_gain();
  options.bytes = 1;
  const std::string text = caught([&] { pair.compress(options); }).what();
  const auto least = std::strtoull(text.c_str() + text.find("possible: ") + 10, nullptr, 10);
  for (const std::uint64_t more : {0u, 100u, 300u, 400u, 600u, 800u, 1500u}) {
    options.bytes = least + more;
    CHECK(pair.compress(options).file_bytes <= options.bytes);
  }
}

TEST_CASE("tensor_encoder: a budget holds for an archive in many parts") {
  std::vector<Tensor> base;
  std::vector<Tensor> tuned;
  for (unsigned k = 0; k < 12; ++k) {
    base.push_back(noise("layer." + std::to_string(k), DType::f32, {96, 128}, k + 1));
    tuned.push_back(moved(base.back(), 0.01, k + 50));
  }
  const Pair pair(base, tuned);
  for (const std::uint64_t shard : {12'000u, 20'000u, 1'000'000u}) {
    CompressOptions options = unit_gain();
    options.output.max_shard_bytes = shard;
    options.bytes = 1;
    const std::string text = caught([&] { pair.compress(options); }).what();
    const auto least = std::strtoull(text.c_str() + text.find("possible: ") + 10, nullptr, 10);
    for (const std::uint64_t more : {1000u, 5000u}) {
      options.bytes = least + more;
      CHECK(pair.compress(options).file_bytes <= options.bytes);
    }
  }
}

TEST_CASE("tensor_encoder: rows that a method drops on purpose are not told as lost") {
  const Tensor narrow = noise("narrow", DType::bf16, {128, 16}, 2);
  const Pair pair({narrow}, {moved(narrow, 0.05, 3)});
  const deltadct::AnyBaseline method = deltadct::Dare{};
  CompressOptions options;
  options.codec = deltadct::baseline_spec(method);
  const CheckpointReport report = io::compress_model(
      Model::open(pair.folder / "base"), Model::open(pair.folder / "tuned"), pair.folder / "delta",
      options, deltadct::with_baselines(serial_codec, method), SerialExecutor{});
  CHECK(pair.mode("narrow") == Mode::delta);
  CHECK(report.warnings.empty());
}
