// How each tensor of a whole model is stored, why, and what is restored.
#include "pair.hpp"

#include <cmath>

using namespace io_test;
using io::NonFinite;
using io::WrongBase;

namespace {

constexpr DType kOthers[] = {DType::f8_e4m3, DType::f8_e5m2, DType::f8_e4m3fnuz, DType::f8_e5m2fnuz,
                             DType::f8_e8m0, DType::f6_e2m3, DType::f6_e3m2,     DType::f4,
                             DType::c64,     DType::i64,     DType::i32,         DType::i16,
                             DType::i8,      DType::u64,     DType::u32,         DType::u16,
                             DType::u8,      DType::boolean};
const RatioAllocator kFine{{4, 1.0}};

/// A fine-tune so far away that its delta takes fewer bytes than its exact bits, even in 2-byte
/// dtypes.
constexpr double kFar = 0.3;

/// A tensor whose bytes differ from the given one's.
Tensor flipped(Tensor tensor) {
  for (std::byte& byte : tensor.bytes) byte ^= std::byte{1};
  return tensor;
}

/// The same values in another floating-point dtype.
Tensor as(const Tensor& tensor, DType dtype) {
  Tensor result = noise(tensor.name, dtype, tensor.shape, 1);
  const auto from = values(tensor.dtype, tensor.bytes);
  for (std::size_t i = 0; i < from.size(); ++i) result.set(i, from[i]);
  return result;
}

/// Whether a tensor is as expected, up to the loss of 8 bits and the rounding of its dtype.
bool is_near(DType dtype, std::span<const std::byte> bytes, const std::vector<double>& expected,
             double step = kStep) {
  const double rounding = dtype == DType::bf16 ? 0x1p-8 : dtype == DType::f16 ? 0x1p-11 : 0;
  const auto found = values(dtype, bytes);
  if (found.size() != expected.size()) return false;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (!(std::abs(found[i] - expected[i]) <= 0.3 * step + rounding * std::abs(expected[i]))) {
      return false;
    }
  }
  return true;
}

/// Compresses, applies and verifies a pair of one tensor each, which must be kept without loss, and
/// restored bit for bit, for the given reason.
void check_lossless(const Pair& pair, const CompressOptions& options, const std::string& why) {
  const CheckpointReport report = pair.compress(options);
  CAPTURE(why);
  CHECK(report.count(Mode::lossless) == 1);
  const DeltaArchive archive = pair.archive();
  const ManifestEntry& entry = archive.entries().at(0);
  CHECK(entry.mode == Mode::lossless);
  CHECK(entry.reason == why);
  CHECK(entry.dtype == pair.tuned[0].dtype);
  CHECK(entry.shape == pair.tuned[0].shape);
  CHECK(entry.matrices.empty());
  pair.verify(true);
  pair.apply(Overwrite::yes);
  CHECK(data(pair.out(), entry.name) == pair.tuned[0].bytes);
}

Pair pair_of(const Tensor& base, const Tensor& tuned) {
  return {{base}, {tuned}};
}

}  // namespace

TEST_SUITE("same and delta") {
  TEST_CASE("identical tensors cost a few bytes") {
    std::vector<Tensor> tensors;
    for (int i = 0; i < 20; ++i) {
      const auto seed = static_cast<unsigned>(i);
      tensors.push_back(noise("w" + std::to_string(i), DType::f32, {64, 64}, seed));
    }
    const Pair pair(tensors, tensors);
    CHECK(pair.compress(options_of(16)).count(Mode::same) == 20);
    // Only entries of the manifest, and room in the header for sections that do not exist.
    CHECK(fs::file_size(pair.folder / "delta") < 20 * 400 + 1000);
    const DeltaArchive archive = pair.archive();
    for (const ManifestEntry& entry : archive.entries()) {
      CHECK(archive.stored_bytes(entry) == 0);
      CHECK(entry.reason.empty());
    }
    pair.apply();
    for (const Tensor& tensor : tensors) CHECK(data(pair.out(), tensor.name) == tensor.bytes);
  }

  TEST_CASE("bits count, not values: a zero that changed its sign is a change") {
    Tensor base = noise("w", DType::f32, {4}, 1);
    base.set(2, 0.0);
    Tensor tuned = base;
    tuned.set(2, -0.0);
    check_lossless(pair_of(base, tuned), options_of(4), "rank");
  }

  TEST_CASE("a tensor that changed is compressed, in every dtype the codec takes") {
    for (const DType dtype : kElements) {
      const Tensor base = noise("w", dtype, {33, 20}, 1);
      const Pair pair = pair_of(base, moved(base, kFar, 2));
      CHECK(pair.compress(options_of(8, kFine)).count(Mode::delta) == 1);
      CHECK(pair.reason("w").empty());
      pair.verify(true);
      pair.apply();
      CHECK(pair.out().find("w")->dtype == dtype);
      CHECK(is_near(dtype, data(pair.out(), "w"), values(dtype, pair.tuned[0].bytes), kFar));
    }
  }

  TEST_CASE("large matrices of rank 3 are compressed one by one, smaller ones as one") {
    const Pair experts = one_pair(DType::f32, {3, 64, 65});
    experts.compress(options_of(16));
    CHECK(experts.archive().find("w")->stack == io::MatrixStack{3, 64, 65});
    CHECK(experts.archive().find("w")->matrices.size() == 3);
    experts.verify(true);
    experts.apply();
    experts.compress(options_of(16, kFine));
    experts.apply(Overwrite::yes);
    CHECK(
        is_near(DType::f32, data(experts.out(), "w"), values(DType::f32, experts.tuned[0].bytes)));
    for (const Shape& shape : {Shape{3, 63, 65}, Shape{3, 65, 63}}) {
      const Pair narrow = one_pair(DType::f32, shape);
      narrow.compress(options_of(16));
      CHECK(narrow.archive().find("w")->stack == io::MatrixStack{1, 3, 63 * 65});
    }
  }

  TEST_CASE("each expert gives the archive that it gives alone") {
    const Pair experts = one_pair(DType::bf16, {3, 64, 64});
    experts.compress(options_of(16));
    const DeltaArchive stacked = experts.archive();
    const io::StoredDelta delta = stacked.delta(*stacked.find("w"));
    REQUIRE(delta.size() == 3);
    const std::ptrdiff_t bytes = 64 * 64 * 2;
    for (std::size_t k = 0; k < 3; ++k) {
      const auto part = [&](const Tensor& tensor) {
        const auto first = tensor.bytes.begin() + static_cast<std::ptrdiff_t>(k) * bytes;
        return Tensor{"w", DType::bf16, {64, 64}, Bytes(first, first + bytes)};
      };
      const Pair alone(std::vector{part(experts.base[0])}, std::vector{part(experts.tuned[0])});
      alone.compress(options_of(16));
      const DeltaArchive archive = alone.archive();
      const io::StoredDelta one = archive.delta(*archive.find("w"));
      CHECK(std::ranges::equal(one.view().codes, delta.view(k).codes));
      CHECK(std::ranges::equal(one.view().bounds, delta.view(k).bounds));
    }
  }

  TEST_CASE("a convolution is one matrix: outputs by all the rest") {
    const Pair pair = one_pair(DType::f32, {8, 6, 3, 3});
    pair.compress(options_of(4, kFine));
    CHECK(pair.archive().find("w")->stack == io::MatrixStack{1, 8, 54});
    pair.apply();
    CHECK(is_near(DType::f32, data(pair.out(), "w"), values(DType::f32, pair.tuned[0].bytes)));
  }
}

TEST_SUITE("lossless") {
  TEST_CASE("rank 0 and 1") {
    check_lossless(one_pair(DType::f32, {}), options_of(4), "rank");
    check_lossless(one_pair(DType::f32, {1000}), options_of(4), "rank");
    check_lossless(one_pair(DType::bf16, {1}), options_of(4), "rank");
  }

  TEST_CASE("fewer elements than a patch") {
    check_lossless(one_pair(DType::f32, {3, 5}), options_of(4), "small");
    check_lossless(one_pair(DType::f64, {15, 17}), options_of(16), "small");
    const Pair empty =
        pair_of(noise("w", DType::f32, {4, 8}, 1), noise("w", DType::f32, {0, 8}, 1));
    check_lossless(empty, options_of(4), "small");
    const Pair edge = one_pair(DType::f32, {16, 16});
    edge.compress(options_of(16));
    CHECK(edge.mode("w") == Mode::delta);
  }

  TEST_CASE("excluded by name") {
    CompressOptions options = options_of(4);
    options.selected = [](std::string_view name) { return name != "w"; };
    check_lossless(one_pair(DType::f32, {16, 16}), options, "excluded");
  }

  TEST_CASE("a tensor excluded by name is not tied to one that is compressed") {
    const Tensor base = noise("a", DType::f32, {64, 64}, 1);
    const Tensor tuned = moved(base, kStep, 2);
    const Pair pair({base, renamed(base, "b")}, {tuned, renamed(tuned, "b")});
    CompressOptions options = options_of(4);
    options.selected = [](std::string_view name) { return name == "a"; };
    pair.compress(options);
    CHECK(pair.mode("a") == Mode::delta);
    pair.apply();
    CHECK(data(pair.out(), "b") == tuned.bytes);
  }

  TEST_CASE("dtypes that the codec does not take") {
    for (const DType dtype : kOthers) {
      CAPTURE(dtype_name(dtype));
      const Tensor base = noise("w", dtype, {40, 30}, 1);
      check_lossless(pair_of(base, flipped(base)), options_of(4), "dtype");
    }
    const Tensor base = noise("w", DType::f32, {40, 30}, 1);
    const Tensor ids = noise("w", DType::i32, {40, 30}, 2);
    check_lossless(pair_of(base, ids), options_of(4), "dtype");
    check_lossless(pair_of(ids, base), options_of(4), "dtype");
  }

  TEST_CASE("NaN and infinities, where they are to be kept") {
    CompressOptions options = options_of(4);
    options.non_finite = NonFinite::keep;
    for (const double value : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
      for (const DType dtype : kElements) {
        Tensor base = noise("w", dtype, {16, 16}, 1);
        Tensor tuned = moved(base, kStep, 2);
        tuned.set(17, value);
        check_lossless(pair_of(base, tuned), options, "non_finite");
        base.set(17, value);
        tuned = moved(base, kStep, 2);
        tuned.set(17, 0.5);
        check_lossless(pair_of(base, tuned), options, "non_finite");
      }
    }
  }

  TEST_CASE("a number that only the base's dtype cannot hold is no finite one") {
    const Tensor base = noise("w", DType::f32, {16, 16}, 1);
    Tensor tuned = as(moved(base, kStep, 2), DType::f64);
    tuned.set(3, 1e300);
    const Pair pair = pair_of(base, tuned);
    CHECK(fails_leaving_nothing(pair.folder, [&] { pair.compress(options_of(4)); }).code() ==
          Errc::non_finite);
    CompressOptions options = options_of(4);
    options.non_finite = NonFinite::keep;
    check_lossless(pair, options, "non_finite");
  }

  TEST_CASE("the same for a dtype that is narrower than what it is computed in") {
    for (const DType dtype : {DType::f16, DType::bf16}) {
      const Tensor base = noise("w", dtype, {16, 16}, 1);
      Tensor tuned = as(moved(base, kStep, 2), dtype == DType::f16 ? DType::f32 : DType::f64);
      tuned.set(3, dtype == DType::f16 ? 1e6 : 3.4e38);  // infinite in the base's dtype
      CompressOptions options = options_of(4, kFine);
      options.non_finite = NonFinite::keep;
      check_lossless(pair_of(base, tuned), options, "non_finite");
    }
  }

  TEST_CASE("shapes that differ in more than the first extent") {
    CompressOptions options = options_of(4);
    options.allow_unlike = true;
    const auto check = [&](Shape from, Shape to) {
      check_lossless(pair_of(noise("w", DType::f32, std::move(from), 1),
                             noise("w", DType::f32, std::move(to), 2)),
                     options, "shape");
    };
    check({33, 20}, {20, 33});
    check({16, 16}, {16, 17});
    check({16, 16}, {16, 16, 1});
    check({16, 16}, {17, 15});
    check({2, 16, 16}, {3, 16, 15});
  }

  TEST_CASE("a preset that loses nothing") {
    CompressOptions options = options_of(4);
    options.lossless = true;
    check_lossless(one_pair(DType::f32, {64, 64}), options, "preset");
    check_lossless(one_pair(DType::f32, {}), options, "preset");
  }

  TEST_CASE("a delta that would be larger") {
    // A matrix of one row fills a quarter of its patches.
    check_lossless(one_pair(DType::bf16, {1, 256}), options_of(4, kFine), "larger");
    const Pair pair = one_pair(DType::bf16, {1, 256});
    pair.compress(options_of(4, {{1, 1.0}}));
    CHECK(pair.mode("w") == Mode::lossless);
  }

  TEST_CASE("a rank 1 tensor that grew or shrank, or of another dtype") {
    const Tensor base = noise("w", DType::f32, {1000}, 1);
    check_lossless(pair_of(base, with_rows(base, 1500, 2)), options_of(4), "rank");
    check_lossless(pair_of(base, with_rows(base, 500, 2)), options_of(4), "rank");
    check_lossless(pair_of(base, as(base, DType::bf16)), options_of(4), "rank");
  }

  TEST_CASE("little that changed costs little") {
    const Tensor base = noise("w", DType::f32, {40000}, 1);
    Tensor tuned = base;
    for (std::size_t i = 0; i < 40000; i += 1000) tuned.set(i, 0.25);
    const Pair pair = pair_of(base, tuned);
    pair.compress(options_of(4));
    CHECK(pair.archive().stored_bytes(pair.archive().entries()[0]) < 1000);
  }
}

TEST_SUITE("added and removed") {
  TEST_CASE("a tensor that only the fine-tune has comes back bit for bit") {
    std::vector<Tensor> tuned;
    std::uint64_t seed = 0;
    for (const DType dtype : kElements) {
      tuned.push_back(
          noise(std::string(dtype_name(dtype)), dtype, {40, 30}, static_cast<unsigned>(++seed)));
    }
    for (const DType dtype : kOthers) {
      tuned.push_back(
          noise(std::string(dtype_name(dtype)), dtype, {40, 30}, static_cast<unsigned>(++seed)));
    }
    tuned[0].set(3, std::nan(""));
    tuned.push_back(noise("scalar", DType::f32, {}, 1));
    tuned.push_back(noise("empty", DType::f32, {0, 7}, 1));
    const Pair pair({}, tuned);
    CHECK(pair.compress(options_of(4)).count(Mode::added) == tuned.size());
    pair.verify(true);
    pair.apply();
    for (const Tensor& tensor : tuned) {
      CAPTURE(tensor.name);
      CHECK(pair.mode(tensor.name) == Mode::added);
      CHECK(data(pair.out(), tensor.name) == tensor.bytes);
    }
  }

  TEST_CASE("a tensor that only the base has is named, and not written") {
    const std::vector<Tensor> base = {noise("a", DType::f32, {16, 16}, 1),
                                      noise("b", DType::i8, {5}, 2)};
    const Pair pair(base, {moved(base[0], kStep, 3)});
    const CheckpointReport report = pair.compress(options_of(4));
    CHECK(report.count(Mode::removed) == 1);
    CHECK(report.elements == 16 * 16);
    CHECK(report.model_bytes == 16 * 16 * 4);
    CHECK(pair.mode("b") == Mode::removed);
    CHECK(pair.archive().stored_bytes(*pair.archive().find("b")) == 0);
    pair.verify(true);
    pair.apply();
    REQUIRE(pair.out().tensors().size() == 1);
    CHECK(pair.out().tensors()[0].name == "a");
  }

  TEST_CASE("a base whose removed tensor is another one is another base") {
    const Tensor kept = noise("a", DType::f32, {16, 16}, 1);
    Pair pair({kept, noise("b", DType::i8, {5}, 2)}, {moved(kept, kStep, 3)});
    pair.compress(options_of(4));
    pair.base[1].bytes[0] ^= std::byte{1};
    pair.write();
    const Error error = fails_leaving_nothing(pair.folder, [&] { pair.apply(); });
    CHECK(error.code() == Errc::wrong_base);
    CHECK(names(error, "b"));
  }

  TEST_CASE("models that have nothing in common") {
    const Pair pair({noise("a", DType::f32, {16, 16}, 1)}, {noise("b", DType::f32, {16, 16}, 2)});
    CompressOptions options = options_of(4);
    options.allow_unlike = true;
    const CheckpointReport report = pair.compress(options);
    CHECK(report.count(Mode::added) == 1);
    CHECK(report.count(Mode::removed) == 1);
    pair.apply();
    CHECK(get(pair.folder / "out") == get(pair.folder / "tuned"));
  }
}

TEST_SUITE("grown and shrunk") {
  // Shapes whose first extent changes: a matrix, experts, a convolution.
  struct Change {
    Shape from;
    std::uint64_t rows;
  };
  const Change kGrown[] = {{{20, 24}, 33}, {{2, 64, 64}, 3}, {{1, 64, 64}, 3}, {{8, 6, 3, 3}, 13}};
  const Change kShrunk[] = {{{33, 24}, 20}, {{3, 64, 64}, 2}, {{3, 64, 64}, 1}, {{13, 6, 3, 3}, 8}};

  TEST_CASE("rows that the base has are near, those it lacks come back bit for bit") {
    for (const Change& change : kGrown) {
      for (const DType dtype : kElements) {
        const Tensor base = noise("w", dtype, change.from, 1);
        const Tensor tuned = with_rows(moved(base, kFar, 2), change.rows, 3);
        const Pair pair = pair_of(base, tuned);
        CHECK(pair.compress(options_of(8, kFine)).count(Mode::grown) == 1);
        const DeltaArchive archive = pair.archive();
        CHECK(archive.find("w")->shape == tuned.shape);
        CHECK(archive.find("w")->base->shape == base.shape);
        CHECK(archive.find("w")->stack == io::stack_of(base.shape));
        pair.verify(true);
        pair.apply();
        CHECK(pair.out().find("w")->shape == tuned.shape);
        const Bytes out = data(pair.out(), "w");
        const std::size_t common = base.bytes.size();
        CHECK(is_near(dtype, std::span(out).first(common),
                      values(dtype, std::span(tuned.bytes).first(common)), kFar));
        CHECK(std::ranges::equal(std::span(out).subspan(common),
                                 std::span(tuned.bytes).subspan(common)));
      }
    }
  }

  TEST_CASE("rows that are left are near") {
    for (const Change& change : kShrunk) {
      for (const DType dtype : kElements) {
        const Tensor base = noise("w", dtype, change.from, 1);
        const Tensor tuned = with_rows(moved(base, kFar, 2), change.rows, 3);
        const Pair pair = pair_of(base, tuned);
        CHECK(pair.compress(options_of(8, kFine)).count(Mode::shrunk) == 1);
        CHECK(pair.archive().find("w")->stack == io::stack_of(tuned.shape));
        pair.verify(true);
        pair.apply();
        CHECK(pair.out().find("w")->shape == tuned.shape);
        CHECK(is_near(dtype, data(pair.out(), "w"), values(dtype, tuned.bytes), kFar));
      }
    }
  }

  TEST_CASE("new rows may be NaN, new and lost ones of another dtype") {
    const Tensor base = noise("w", DType::f32, {20, 24}, 1);
    Tensor grown = with_rows(moved(base, kStep, 2), 30, 3);
    grown.set(25 * 24, HUGE_VAL);
    const Pair pair = pair_of(base, grown);
    pair.compress(options_of(4));
    CHECK(pair.mode("w") == Mode::grown);
    pair.apply();
    CHECK(std::isinf(values(DType::f32, data(pair.out(), "w"))[25 * 24]));

    // BF16 rows are exact in the dtype of an F32 base.
    const Tensor wide = noise("w", DType::f32, {32, 32}, 1);
    const Tensor half = as(with_rows(moved(wide, kStep, 2), 40, 3), DType::bf16);
    const Pair mixed = pair_of(wide, half);
    mixed.compress(options_of(16, kFine));
    CHECK(mixed.mode("w") == Mode::grown);
    mixed.apply();
    CHECK(mixed.out().find("w")->dtype == DType::f32);
    const auto out = values(DType::f32, data(mixed.out(), "w"));
    const auto expected = values(DType::bf16, half.bytes);
    CHECK(std::equal(out.begin() + 32 * 32, out.end(), expected.begin() + 32 * 32));
    CHECK(is_near(DType::f32, data(mixed.out(), "w"), expected));

    const Pair less = pair_of(base, as(with_rows(base, 10, 3), DType::f16));
    less.compress(options_of(4, kFine));
    CHECK(less.mode("w") == Mode::shrunk);
    less.apply();
    CHECK(less.out().find("w")->dtype == DType::f32);
  }

  TEST_CASE("new rows that the base's dtype cannot hold do not become infinite") {
    const Tensor base = noise("w", DType::f16, {20, 24}, 1);
    Tensor tuned = as(with_rows(moved(base, kStep, 2), 30, 3), DType::f32);
    tuned.set(25 * 24, 1e30);
    CompressOptions options = options_of(4, kFine);
    options.non_finite = NonFinite::keep;
    const Pair pair = pair_of(base, tuned);
    pair.compress(options);
    pair.apply();
    const Model out = pair.out();
    const auto found = values(out.find("w")->dtype, data(out, "w"));
    CHECK(std::isfinite(found[25 * 24]));
  }

  TEST_CASE("with nothing to lose, or nothing in common, they are lossless") {
    const Tensor base = noise("w", DType::f32, {20, 24}, 1);
    CompressOptions options = options_of(4);
    options.lossless = true;
    check_lossless(pair_of(base, with_rows(base, 30, 2)), options, "preset");
    check_lossless(pair_of(base, with_rows(base, 10, 2)), options, "preset");
    const Tensor none = noise("w", DType::f32, {0, 24}, 1);
    check_lossless(pair_of(none, base), options_of(4), "small");
  }
}

TEST_SUITE("tied") {
  TEST_CASE("equal tensors are stored once, and restored equal") {
    const Tensor a = noise("a", DType::f32, {64, 64}, 1);
    const Tensor tuned = moved(a, kStep, 2);
    const Pair pair({a, noise("b", DType::f32, {64, 64}, 3)},
                    {tuned, renamed(tuned, "b"), renamed(tuned, "c")});
    const CheckpointReport report = pair.compress(options_of(4));
    CHECK(report.count(Mode::delta) == 1);
    CHECK(report.count(Mode::tied) == 2);
    const DeltaArchive archive = pair.archive();
    for (const std::string name : {"b", "c"}) {
      const ManifestEntry& entry = *archive.find(name);
      CHECK(entry.target == "a");
      CHECK(&archive.target(entry) == archive.find("a"));
      CHECK(archive.stored_bytes(entry) == 0);
      CHECK(entry.base.has_value() == (name == "b"));
    }
    pair.verify(true);
    pair.apply();
    CHECK(data(pair.out(), "b") == data(pair.out(), "a"));
    CHECK(data(pair.out(), "c") == data(pair.out(), "a"));
  }

  TEST_CASE("to a tensor of any name, even of none") {
    const Tensor base = noise("", DType::f32, {64, 64}, 1);
    const Tensor tuned = moved(base, kStep, 2);
    for (const bool lossless : {false, true}) {
      const Pair pair({base, renamed(base, "y")}, {tuned, renamed(tuned, "y")});
      CompressOptions options = options_of(4);
      options.lossless = lossless;
      CHECK(pair.compress(options).count(Mode::tied) == 1);
      CHECK(pair.archive().find("y")->target.empty());
      pair.verify(true);
      pair.apply();
      CHECK(data(pair.out(), "y") == data(pair.out(), ""));
    }
  }

  TEST_CASE("what is tied to a tensor kept without loss comes back bit for bit") {
    const Tensor base = noise("a", DType::i64, {512}, 1);
    const Tensor tuned = flipped(base);
    const Pair pair({base}, {tuned, renamed(tuned, "b")});
    CHECK(pair.compress(options_of(4)).count(Mode::tied) == 1);
    pair.apply();
    CHECK(data(pair.out(), "b") == tuned.bytes);
    const Pair same({base}, {base, renamed(base, "b")});
    CHECK(same.compress(options_of(4)).count(Mode::tied) == 1);
    same.apply();
    CHECK(data(same.out(), "b") == base.bytes);
    const Pair added({}, {base, renamed(base, "b")});
    CHECK(added.compress(options_of(4)).count(Mode::tied) == 1);
    added.apply();
    CHECK(data(added.out(), "b") == base.bytes);
  }

  TEST_CASE("less than 4096 bytes are not tied, nor other dtypes or shapes of the same bytes") {
    const Tensor small = noise("a", DType::u8, {4095}, 1);
    const Pair pair({}, {small, renamed(small, "b")});
    CHECK(pair.compress(options_of(4)).count(Mode::tied) == 0);
    const Tensor large = noise("a", DType::u8, {4096}, 1);
    Tensor dtype = renamed(large, "b");
    dtype.dtype = DType::i8;
    Tensor shape = renamed(large, "c");
    shape.shape = {64, 64};
    const Pair others({}, {large, dtype, shape});
    CHECK(others.compress(options_of(4)).count(Mode::tied) == 0);
    const Pair edge({}, {large, renamed(large, "b")});
    CHECK(edge.compress(options_of(4)).count(Mode::tied) == 1);
  }

  TEST_CASE("a tensor restored in another dtype than the fine-tune's is no twin of it") {
    const Tensor base = noise("a", DType::f32, {64, 64}, 1);
    const Tensor tuned = as(moved(base, kStep, 2), DType::bf16);
    const Pair pair({base}, {tuned, renamed(tuned, "b")});
    pair.compress(options_of(4));
    CHECK(pair.mode("b") == Mode::added);
    pair.apply();
    CHECK(data(pair.out(), "b") == tuned.bytes);
    CHECK(pair.out().find("a")->dtype == DType::f32);
  }

  TEST_CASE("a head that is tied to a large embedding is no bomb") {
    const Tensor base{"a", DType::u8, {70'000'000}, Bytes(70'000'000)};
    const Pair pair({base}, {base, renamed(base, "b")});
    CHECK(pair.compress(options_of(4)).count(Mode::tied) == 1);
    CHECK(fs::file_size(pair.folder / "delta") < 4096);
    pair.apply();
    CHECK(pair.out().find("b")->bytes() == 70'000'000);
  }

  TEST_CASE("the base of a tied tensor is compared as any other") {
    const Tensor a = noise("a", DType::f32, {64, 64}, 1);
    const Tensor tuned = moved(a, kStep, 2);
    Pair pair({a, noise("b", DType::f32, {64, 64}, 3)}, {tuned, renamed(tuned, "b")});
    pair.compress(options_of(4));
    pair.base[1].bytes[0] ^= std::byte{1};
    pair.write();
    const Error error = fails_leaving_nothing(pair.folder, [&] { pair.apply(); });
    CHECK(error.code() == Errc::wrong_base);
    CHECK(names(error, "b"));
    CHECK(caught([&] { pair.verify(true); }).code() == Errc::wrong_base);
  }
}

TEST_SUITE("dtypes") {
  TEST_CASE("compressed tensors come back in the base's dtype, others in the fine-tune's") {
    for (const DType from : kElements) {
      for (const DType to : kElements) {
        if (from == to) continue;
        CAPTURE(dtype_name(from));
        CAPTURE(dtype_name(to));
        const Tensor base = noise("w", from, {32, 32}, 1);
        const Tensor tuned = as(moved(base, kStep, 2), to);
        const Tensor vector = noise("v", from, {50}, 3);
        const Pair pair({base, vector}, {tuned, as(vector, to)});
        pair.compress(options_of(16, {{8, 1.0}}));
        CHECK(pair.mode("w") == Mode::delta);
        CHECK(pair.mode("v") == Mode::lossless);
        CHECK(pair.archive().find("w")->dtype == from);
        pair.verify(true);
        pair.apply();
        const Model out = pair.out();
        CHECK(out.find("w")->dtype == from);
        CHECK(is_near(from, data(out, "w"), values(to, tuned.bytes)));
        CHECK(out.find("v")->dtype == to);
        CHECK(data(out, "v") == pair.tuned[1].bytes);
      }
    }
  }

  TEST_CASE("every dtype is kept without loss where all are to be") {
    CompressOptions options = options_of(4);
    options.lossless = true;
    options.allow_unlike = true;
    for (const bool floats : {true, false}) {
      for (const DType dtype : floats ? std::span<const DType>(kElements) : kOthers) {
        CAPTURE(dtype_name(dtype));
        const Tensor base = noise("w", dtype, {33, 20}, 1);
        const Tensor tuned = floats ? moved(base, kStep, 2) : flipped(base);
        check_lossless(pair_of(base, tuned), options, "preset");
        check_lossless(pair_of(base, noise("w", dtype, {52, 8}, 5)), options, "preset");
        check_lossless(pair_of(noise("w", DType::f32, {33, 20}, 4), tuned), options, "preset");
      }
    }
  }

  TEST_CASE("dtypes that the library does not know travel without loss where asked") {
    const auto of = [](const char* name, std::uint64_t bits) {
      return StoredDType::named(name, bits).value();
    };
    const Tensor nibbles = noise("nibbles", of("U4", 4), {64, 6}, 1);
    const Tensor wide = noise("wide", of("C128", 128), {5, 3}, 2);
    const Tensor triple = noise("triple", of("X24", 24), {200, 3}, 3);
    const Tensor empty = noise("empty", of("U4", 8), {0, 4}, 4);
    const Tensor same = noise("same", of("U4", 4), {2}, 5);
    const Tensor was = noise("was unknown", of("U4", 4), {8, 4}, 6);
    const Tensor becomes = noise("becomes unknown", DType::f32, {30, 40}, 7);
    Pair pair({nibbles, wide, triple, empty, same, was, becomes, renamed(nibbles, "removed")},
              {flipped(nibbles), flipped(wide), flipped(triple), empty, same,
               noise("was unknown", DType::bf16, {8, 4}, 8),
               noise("becomes unknown", of("X24", 24), {30, 40}, 9), renamed(wide, "added"),
               renamed(flipped(triple), "like triple")});
    const ReadOptions any{.unknown_dtype = io::UnknownDType::keep};
    const Model base = Model::open(pair.folder / "base", any);
    const Model tuned = Model::open(pair.folder / "tuned", any);
    const fs::path delta = pair.folder / "delta";
    io::compress_model(base, tuned, delta, options_of(4), serial_codec);
    const Error error = caught([&] { DeltaArchive::open(delta); });
    CHECK(error.code() == Errc::unsupported_dtype);
    CHECK(names(error, "nibbles"));
    CHECK(names(error, "U4"));
    CHECK(names(error, "--unknown-dtype keep"));
    const DeltaArchive archive = DeltaArchive::open(delta, any);
    io::verify_archive(archive, &base, serial_codec);
    io::apply_archive(base, archive, pair.folder / "out", {}, serial_codec);
    CHECK(get(pair.folder / "out") == get(pair.folder / "tuned"));
    CHECK(archive.find("was unknown")->base->dtype == of("U4", 4));
    CHECK(archive.find("removed")->dtype == of("U4", 4));
    CHECK(caught([&] { Model::open(pair.folder / "out"); }).code() == Errc::unsupported_dtype);
  }

  TEST_CASE("without loss, the file that comes back is the fine-tune's byte for byte") {
    std::vector<Tensor> base;
    std::vector<Tensor> tuned;
    const auto add = [&](const std::string& name, DType dtype, Shape shape) {
      base.push_back(noise(name, dtype, std::move(shape), static_cast<unsigned>(base.size())));
      tuned.push_back(deltadct::is_element(dtype) ? moved(base.back(), kStep, 100)
                                                  : flipped(base.back()));
    };
    for (const DType dtype : kElements) add(std::string(dtype_name(dtype)), dtype, {30, 41});
    for (const DType dtype : kOthers) add(std::string(dtype_name(dtype)), dtype, {8, 9});
    add("scalar", DType::f32, {});
    add("empty", DType::f32, {0, 7});
    add("nan", DType::bf16, {16, 16});
    add("long", DType::f32, {600, 500});  // two chunks
    tuned[tuned.size() - 2].set(7, std::nan(""));
    tuned.push_back(renamed(tuned[0], "tied"));
    tuned.push_back(noise("added", DType::f16, {20, 20}, 7));
    base.push_back(noise("removed", DType::f16, {20, 20}, 8));
    std::ranges::reverse(tuned);
    const Pair pair(base, tuned);
    CompressOptions options = options_of(4);
    options.lossless = true;
    pair.compress(options);
    pair.verify(true);
    for (const Access access : {Access::map, Access::read}) {
      pair.apply(Overwrite::yes, access);
      CHECK(get(pair.folder / "out") == get(pair.folder / "tuned"));
    }
  }
}

TEST_SUITE("odd models") {
  TEST_CASE("NaN in the base of a tensor kept without loss") {
    Tensor base = noise("w", DType::f32, {100}, 1);
    const Tensor tuned = moved(base, kStep, 2);
    base.set(5, std::nan(""));
    base.set(6, HUGE_VAL);
    check_lossless(pair_of(base, tuned), options_of(4), "rank");
  }

  TEST_CASE("a header in another order than the data") {
    const Folder folder;
    const auto write = [&](const std::string& name, bool reversed, const Tensor& a,
                           const Tensor& b) {
      const auto entry = [](const Tensor& tensor, std::size_t begin) {
        return '"' + tensor.name + R"(":{"dtype":"F32","shape":[16,16],"data_offsets":[)" +
               std::to_string(begin) + "," + std::to_string(begin + 1024) + "]}";
      };
      const std::string first = entry(a, 0);
      const std::string second = entry(b, 1024);
      const std::string header =
          reversed ? "{" + second + "," + first + "}" : "{" + first + "," + second + "}";
      Bytes bytes(8);
      const std::uint64_t length = header.size();
      std::memcpy(bytes.data(), &length, sizeof length);
      for (const Bytes& part : {bytes_of(header), a.bytes, b.bytes}) {
        bytes.insert(bytes.end(), part.begin(), part.end());
      }
      put(folder / name, bytes);
    };
    const Tensor a = noise("a", DType::f32, {16, 16}, 1);
    const Tensor b = noise("b", DType::f32, {16, 16}, 2);
    std::vector<Bytes> archives;
    for (const bool reversed : {false, true}) {
      write("base", reversed, b, a);
      write("tuned", reversed, moved(a, kStep, 3), moved(b, kStep, 4));
      io::compress_model(Model::open(folder / "base"), Model::open(folder / "tuned"),
                         folder / "delta", options_of(4), serial_codec);
      archives.push_back(get(folder / "delta"));
    }
    CHECK(archives[0] == archives[1]);
    const DeltaArchive archive = DeltaArchive::open(folder / "delta");
    CHECK(archive.entries()[0].name == "a");
    CHECK(archive.entries()[0].mode == Mode::delta);
  }

  TEST_CASE("tensors of rank 0, and empty ones of any rank and dtype") {
    const std::vector<Tensor> base = {
        noise("scalar", DType::f32, {}, 1), noise("flag", DType::boolean, {}, 2),
        noise("none", DType::f32, {0}, 3), noise("rows", DType::f32, {0, 8}, 4),
        noise("cols", DType::bf16, {8, 0}, 5)};
    std::vector<Tensor> tuned = {
        noise("scalar", DType::f32, {}, 6), flipped(base[1]), noise("none", DType::f32, {3}, 7),
        noise("rows", DType::f32, {40, 8}, 8), noise("cols", DType::bf16, {80, 0}, 9)};
    const Pair pair(base, tuned);
    pair.compress(options_of(4));
    pair.verify(true);
    pair.apply();
    CHECK(get(pair.folder / "out") == get(pair.folder / "tuned"));
    const Pair back(tuned, base);
    back.compress(options_of(4));
    back.verify(true);
    back.apply();
    CHECK(get(back.folder / "out") == get(back.folder / "tuned"));
  }

  TEST_CASE("no tensors on either side, or on both") {
    const Tensor some = noise("w", DType::f32, {16, 16}, 1);
    for (const bool in_base : {true, false}) {
      for (const bool in_tuned : {true, false}) {
        std::vector<Tensor> base;
        std::vector<Tensor> tuned;
        if (in_base) base.push_back(some);
        if (in_tuned) tuned.push_back(some);
        const Pair pair(base, tuned);
        pair.compress(options_of(4));
        pair.verify(true);
        pair.apply();
        CHECK(get(pair.folder / "out") == get(pair.folder / "tuned"));
      }
    }
  }

  TEST_CASE("names that need care") {
    std::vector<Tensor> base;
    for (const std::string name :
         {"a b", "quote\"", "back\\slash", "..", "/", "delta:w", "manifest:1", "lossless:x", "",
          "\xC3\xA4", "\xF0\x9F\x98\x80", "new\nline"}) {
      base.push_back(noise(name, DType::f32, {16, 16}, static_cast<unsigned>(base.size())));
    }
    std::vector<Tensor> tuned;
    for (const Tensor& tensor : base) tuned.push_back(moved(tensor, kStep, 50));
    const Pair pair(base, tuned);
    CompressOptions options = options_of(4);
    options.lossless = true;
    pair.compress(options);
    pair.verify(true);
    pair.apply();
    CHECK(get(pair.folder / "out") == get(pair.folder / "tuned"));
    pair.compress(options_of(4));
    pair.verify(true);
  }
}

TEST_SUITE("another base, accepted") {
  const auto kAccept = [] {
    ApplyOptions options;
    options.wrong_base = WrongBase::accept;
    options.output.overwrite = Overwrite::yes;
    return options;
  }();

  /// Tensors of every mode but lossless. The tests flip bytes of their base.
  Pair every_mode() {
    const Tensor delta = noise("delta", DType::f32, {16, 16}, 1);
    const Tensor same = noise("same", DType::f32, {16, 16}, 2);
    const Tensor grown = noise("grown", DType::f32, {16, 16}, 3);
    const Tensor shrunk = noise("shrunk", DType::f32, {32, 16}, 4);
    const Tensor large = noise("large", DType::f32, {64, 64}, 5);
    const Tensor large_tuned = moved(large, kStep, 6);
    return {
        {delta, same, grown, shrunk, large, noise("tied", DType::f32, {64, 64}, 7),
         noise("gone", DType::f32, {3}, 8)},
        {moved(delta, kStep, 9), same, with_rows(moved(grown, kStep, 10), 20, 11),
         with_rows(moved(shrunk, kStep, 12), 16, 13), large_tuned, renamed(large_tuned, "tied")}};
  }

  TEST_CASE("the report names the tensors whose base was another one") {
    Pair pair = every_mode();
    pair.compress(options_of(4, kFine));
    CHECK(pair.apply(kAccept).wrong_bases.empty());
    for (const std::string name : {"delta", "same", "grown", "shrunk", "large", "tied", "gone"}) {
      CAPTURE(name);
      const auto tensor = std::ranges::find(pair.base, name, &Tensor::name);
      const Tensor before = *tensor;
      *tensor = moved(before, 0.1, 20);
      pair.write();
      CHECK(fails_leaving_nothing(pair.folder, [&] { pair.apply(Overwrite::yes); }).code() ==
            Errc::wrong_base);
      CHECK(pair.apply(kAccept).wrong_bases == std::vector{name});
      *tensor = before;
    }
    for (Tensor& tensor : pair.base) tensor = moved(tensor, 0.1, 20);
    pair.write();
    CHECK(pair.apply(kAccept).wrong_bases ==
          std::vector<std::string>{"delta", "gone", "grown", "large", "same", "shrunk", "tied"});
  }

  TEST_CASE("the delta is added to the base that is there") {
    Pair pair = one_pair(DType::f32, {16, 16});
    pair.compress(options_of(4, kFine));
    const Tensor other = noise("w", DType::f32, {16, 16}, 9);
    const auto delta =
        difference(values(DType::f32, pair.tuned[0].bytes), values(DType::f32, pair.base[0].bytes));
    pair.base[0] = other;
    pair.write();
    pair.apply(kAccept);
    auto expected = values(DType::f32, other.bytes);
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += delta[i];
    CHECK(is_near(DType::f32, data(pair.out(), "w"), expected));
  }

  TEST_CASE("what is kept relative to another base is refused, naming the tensor") {
    Pair pair = one_pair(DType::f32, {2000});
    pair.compress(options_of(4));
    pair.base[0].bytes[17] ^= std::byte{1};
    pair.write();
    const Error error = fails_leaving_nothing(pair.folder, [&] { pair.apply(kAccept); });
    CHECK(error.code() == Errc::wrong_base);
    CHECK(names(error, "w"));
  }

  TEST_CASE("the same where checksums are ignored: nothing else tells that it came back") {
    Pair pair = one_pair(DType::f32, {2000});
    pair.compress(options_of(4));
    pair.base[0].bytes[17] ^= std::byte{1};
    pair.write();
    ReadOptions unchecked;
    unchecked.checksums = io::Checksums::ignore;
    const Error error = fails_leaving_nothing(pair.folder, [&] {
      io::apply_archive(Model::open(pair.folder / "base"),
                        DeltaArchive::open(pair.folder / "delta", unchecked), pair.folder / "out",
                        kAccept, serial_codec);
    });
    CHECK(error.code() == Errc::wrong_base);
  }

  TEST_CASE("what is kept without loss, yet not relative to the base, comes back from any") {
    const Tensor base = noise("w", DType::u8, {1000}, 1);
    Tensor tuned = base;
    std::ranges::fill(tuned.bytes, std::byte{7});  // smallest without the base
    Pair pair = pair_of(base, tuned);
    pair.compress(options_of(4));
    pair.base[0] = noise("w", DType::u8, {1000}, 2);
    pair.write();
    CHECK(pair.apply(kAccept).wrong_bases == std::vector<std::string>{"w"});
    CHECK(data(pair.out(), "w") == tuned.bytes);
  }

  TEST_CASE("other shapes, other dtypes and missing tensors are refused still") {
    Pair pair = one_pair(DType::f32, {16, 16});
    pair.compress(options_of(4));
    pair.base[0].shape = {8, 32};
    pair.write();
    CHECK(caught([&] { pair.apply(kAccept); }).code() == Errc::shape_mismatch);
    pair.base[0].shape = {16, 16};
    pair.base[0].dtype = DType::i32;
    pair.write();
    CHECK(caught([&] { pair.apply(kAccept); }).code() == Errc::dtype_mismatch);
    pair.base[0].name = "v";
    pair.write();
    CHECK(caught([&] { pair.apply(kAccept); }).code() == Errc::missing_tensor);
  }
}
