#include <deltadct/io/plausibility.hpp>

#include "support.hpp"

#include <functional>

using namespace io_test;

namespace {

using Tensors = std::vector<Tensor>;
using Place = std::function<std::size_t(std::size_t row, std::size_t col)>;

struct Two {
  Folder folder;

  Two(const Tensors& base, const Tensors& tuned, const io::Metadata& tuned_metadata = {}) {
    write_model(folder / "base", base);
    write_model(folder / "tuned", tuned, tuned_metadata);
  }
  io::Plausibility judge(bool allow_unlike = false) const {
    return io::judge_pair(io::Model::open(folder / "base"), io::Model::open(folder / "tuned"),
                          allow_unlike);
  }
};

io::Plausibility judge(const Tensors& base, const Tensors& tuned) {
  return Two(base, tuned).judge();
}

/// The pair passes without a warning.
void check_passes(const Tensors& base, const Tensors& tuned) {
  const auto found = judge(base, tuned);
  CHECK(found.warnings.empty());
  if (!found.warnings.empty()) MESSAGE(found.warnings[0].what);
}

/// The pair is refused with these texts; with allow_unlike they become a warning.
void check_refused(const Two& two, const std::vector<std::string>& texts,
                   const char* where = "tuned") {
  const Error error = caught([&] { static_cast<void>(two.judge()); });
  CHECK(error.code() == Errc::unlike_models);
  CHECK(error.where() == (two.folder / where).string());
  INFO(error.detail());
  for (const std::string& text : texts) {
    INFO(text);
    CHECK(names(error, text));
  }
  CHECK(names(error, "--allow-unlike"));
  const auto allowed = two.judge(true);
  REQUIRE(!allowed.warnings.empty());
  CHECK(error.detail().starts_with(allowed.warnings[0].what));
}
void check_refused(const Tensors& base, const Tensors& tuned, const std::vector<std::string>& texts,
                   const char* where = "tuned") {
  check_refused(Two(base, tuned), texts, where);
}

/// A floating-point tensor with these values.
Tensor tensor_of(DType dtype, Shape shape, const std::vector<double>& elements) {
  Tensor tensor = noise("w", dtype, std::move(shape), 1);
  for (std::size_t i = 0; i < elements.size(); ++i) tensor.set(i, elements[i]);
  return tensor;
}

/// A matrix with the elements of another one in the places that `place` gives.
Tensor arranged(const Tensor& from, Shape shape, const Place& place) {
  const auto elements = values(from.dtype, from.bytes);
  std::vector<double> result(elements.size());
  const auto cols = static_cast<std::size_t>(shape.back());
  for (std::size_t i = 0; i < result.size(); ++i) result[i] = elements[place(i / cols, i % cols)];
  Tensor tensor = tensor_of(from.dtype, std::move(shape), result);
  tensor.name = from.name;
  return tensor;
}

Tensor scaled(const Tensor& from, double factor) {
  auto elements = values(from.dtype, from.bytes);
  for (double& x : elements) x *= factor;
  return tensor_of(from.dtype, from.shape, elements);
}

Tensor constant(double value) {
  return tensor_of(DType::f32, {64, 64}, std::vector<double>(64 * 64, value));
}

Tensors layers(const std::string& prefix, double step = 0) {
  Tensors tensors;
  for (unsigned k = 0; k < 4; ++k) {
    const std::string name = prefix + std::to_string(k) + ".weight";
    tensors.push_back(moved(noise(name, DType::f32, {64, 64}, k), step, k + 50));
  }
  return tensors;
}

Tensors with(Tensors tensors, const Tensor& more) {
  tensors.push_back(more);
  return tensors;
}

constexpr DType kElements[] = {DType::f64, DType::f32, DType::f16, DType::bf16};

}  // namespace

TEST_SUITE("names") {
  TEST_CASE("a prefix that one model lacks is named, with the option that helps") {
    check_refused(layers("model.layers."), layers("layers.", 0.01),
                  {"no name in common", "4 tensors are in TUNED alone", "layers.0.weight",
                   "model.layers.0.weight", "--rename '^model[.]='"});
    check_refused(layers("layers."), layers("model.layers."), {"--rename '^=model.'"});
    check_refused(layers("model.layers."), layers("model.text.layers."),
                  {"--rename '^model[.]=model.text.'"});
  }
  TEST_CASE("names in common do not take the prefix") {
    const Tensor head = noise("lm_head.weight", DType::f32, {64, 64}, 9);
    check_refused(
        with(layers("layers."), head), with(layers("model.layers."), head),
        {"80 % of TUNED's weights", "80 % of BASE's", "--rename '^(?!(lm_head)([.]|$))=model.'"});
  }
  TEST_CASE("control characters in names reach no message") {
    const Error error = caught([&] { judge(layers("a\x1b[31m."), layers("b\x1b.")); });
    CHECK(!names(error, "\x1b"));
    CHECK(!names(error, "--rename"));
  }
  TEST_CASE("other names altogether") {
    const Error error = caught([&] {
      judge(layers("alpha."), {noise("b", DType::f32, {8, 8}, 1)});
    });
    CHECK(names(error, "no name in common"));
    CHECK(!names(error, "--rename"));
  }
  TEST_CASE("what is fused in one of them") {
    const Tensors fused{noise("model.experts.gate_up_proj", DType::f32, {4, 64, 64}, 1)};
    check_refused(layers("model.experts."), fused,
                  {"no name in common", "model.experts.gate_up_proj", "TUNED's experts are fused"});
    check_refused(fused, layers("model.experts."), {"TUNED's experts are separate"});
    const Tensors apart{noise("q_proj.weight", DType::f32, {64, 64}, 1),
                        noise("k_proj.weight", DType::f32, {64, 64}, 1)};
    check_refused(apart, {noise("qkv_proj.weight", DType::f32, {128, 64}, 1)}, {"qkv_proj"});
  }
  TEST_CASE("a model of another size") {
    check_refused({noise("w", DType::f32, {64, 64}, 1)}, {noise("w", DType::f32, {96, 96}, 1)},
                  {"100 % of TUNED's weights", "w (96x96 in TUNED, 64x64 in BASE)"});
  }
  TEST_CASE("a head that is added, buffers that are dropped, a part of a larger model") {
    const Tensors base = layers("layers.");
    check_passes(base, with(base, noise("score", DType::f32, {100, 64}, 9)));
    check_passes(with(base, noise("inv_freq", DType::f32, {32}, 9)), base);
    check_passes(with(base, noise("vision", DType::f32, {50, 64}, 9)), base);
    check_passes(base, with(base, noise("vision", DType::f32, {50, 64}, 9)));
  }
  TEST_CASE("most weights in only one of them are told") {
    const Tensors part = layers("layers.");
    const Tensors whole = with(part, noise("vision", DType::f32, {5000, 64}, 9));
    const auto check = [](const io::Plausibility& found, const std::string& text) {
      REQUIRE(found.warnings.size() == 1);
      INFO(found.warnings[0].what);
      CHECK(found.warnings[0].what.find(text) != std::string::npos);
      CHECK(found.warnings[0].loss == io::Loss::weights);
    };
    check(judge(part, whole), "of TUNED's weights have no counterpart in BASE, and are stored");
    check(judge(whole, part), "of BASE's weights have no counterpart in TUNED, and are removed");
    check(judge(whole, part), "is TUNED the whole model?");
    check(judge(whole, {}), "100 % of BASE's weights");
    check(judge({}, whole), "100 % of TUNED's weights");
    const Two two(whole, part);
    const fs::path shard = two.folder / "model-00001-of-00003.safetensors";
    fs::rename(two.folder / "tuned", shard);
    const auto base = io::Model::open(two.folder / "base");
    check(io::judge_pair(base, io::Model::open(shard)), "TUNED is named like one shard");
    fs::create_directory(two.folder / "alone");
    fs::rename(shard, two.folder / "alone" / shard.filename());
    check(io::judge_pair(base, io::Model::open(two.folder / "alone")), "like one shard");
  }
  TEST_CASE("a minority without a counterpart is told") {
    const Tensors base = layers("layers.");
    const auto found = judge(with(base, noise("a", DType::f32, {64, 64}, 9)),
                             with(base, noise("b", DType::f32, {64, 64}, 9)));
    REQUIRE(found.warnings.size() == 1);
    CHECK(found.warnings[0].what.find("20 % of TUNED's weights") != std::string::npos);
  }
}

TEST_SUITE("what is no model") {
  TEST_CASE("an adapter is named for what it is, on either side") {
    for (const char* name :
         {"base_model.model.q.lora_A.weight", "base_model.model.e.lora_embedding_B",
          "base_model.model.q.lora_magnitude_vector", "base_model.model.v.ia3_l",
          "lora_unet_q.lora_down.weight", "prompt_embeddings"}) {
      const Tensors adapter{noise(name, DType::f32, {8, 64}, 1)};
      check_refused(layers("layers."), adapter, {"TUNED is an adapter", name, "merge"});
      check_refused(adapter, layers("layers."), {"BASE is an adapter", name, "merge"}, "base");
    }
  }
  TEST_CASE("a configuration of an adapter beside a file of other names") {
    const Two two(layers("layers."), {noise("x", DType::f32, {8, 64}, 1)});
    put_text(two.folder / "adapter_config.json", "{}");
    check_refused(two, {"TUNED is an adapter", "adapter_config.json"});
    const Two model(layers("layers."), layers("layers.", 0.01));
    put_text(model.folder / "adapter_config.json", "{}");
    CHECK(model.judge().warnings.empty());
  }
  TEST_CASE("a fine-tune of an adapter is none of a model") {
    const Tensor adapter = noise("q.lora_A.weight", DType::f32, {8, 64}, 1);
    check_passes({adapter}, {moved(adapter, 0.01, 2)});
  }
  TEST_CASE("a delta archive") {
    const Two two(layers("layers."), layers("layers."), {{"format", "deltadct"}});
    check_refused(two, {"TUNED is a delta archive", "deltadct apply"});
    write_model(two.folder / "base", layers("layers."), {{"format", "deltadct"}});
    write_model(two.folder / "tuned", layers("layers."), {{"format", "pt"}});
    check_refused(two, {"BASE is a delta archive"}, "base");
  }
}

TEST_SUITE("weights") {
  TEST_CASE("another base is refused, whatever the dtype, the size and the scale") {
    for (const DType dtype : kElements) {
      for (const Shape& shape :
           {Shape{64, 64}, Shape{200, 33}, Shape{5, 64, 64}, Shape{1024, 600}}) {
        const Tensor tuned = noise("w", dtype, shape, 1);
        check_passes({moved(tuned, 0.02, 3)}, {tuned});
        check_refused({noise("w", dtype, shape, 2)}, {tuned},
                      {"|D|/|W| is 1.4", "100 % of the weights", "w: ", "another base"});
        check_refused({scaled(noise("w", dtype, shape, 2), 0.01)}, {tuned}, {"another base"});
        check_refused({scaled(noise("w", dtype, shape, 2), 100)}, {tuned}, {"another base"});
      }
    }
  }
  TEST_CASE("values at both ends of the range of a double") {
    const Tensor tuned = noise("w", DType::f64, {64, 64}, 1);
    for (const double scale : {1e-310, 1e-300, 1e-30, 1e30, 1e300, 1e308}) {
      check_passes({scaled(moved(tuned, 0.02, 3), scale)}, {scaled(tuned, scale)});
      check_refused({scaled(noise("w", DType::f64, {64, 64}, 2), scale)}, {scaled(tuned, scale)},
                    {"|D|/|W| is 1.4"});
    }
    CHECK(judge({scaled(tuned, 1e-300)}, {scaled(tuned, 1e300)}).weights_ratio == 1);
  }
  TEST_CASE("the ratio is that of the norms, over all tensors") {
    const Tensor a = noise("a", DType::f64, {64, 64}, 1);
    const Tensor b = noise("b", DType::f64, {700, 700}, 2);
    Tensor shifted = tensor_of(DType::f64, {64, 64}, values(a.dtype, a.bytes));
    shifted.name = "a";
    double delta = 0;
    double weights = 0;
    for (std::size_t i = 0; i < 64 * 64; ++i) {
      const double x = values(a.dtype, a.bytes)[i] * 0.5;
      shifted.set(i, x);
      delta += x * x;
      weights += x * x;
    }
    for (const double x : values(b.dtype, b.bytes)) weights += x * x;
    CHECK(judge({a, b}, {shifted, b}).weights_ratio ==
          doctest::Approx(std::sqrt(delta / weights)).epsilon(0.01));
    CHECK(judge({a, b}, {a, b}).weights_ratio == 0);
  }
  TEST_CASE("harsh fine-tunes pass") {
    const Tensor base = noise("w", DType::f32, {64, 64}, 1);
    // Measured on a pooler that had been fine-tuned: a ratio of 0.95 and a cosine of 0.35.
    const auto found = judge({base}, {moved(scaled(base, 0.37), 1, 2)});
    CHECK(found.weights_ratio > 0.9);
    REQUIRE(found.warnings.size() == 1);
    CHECK(found.warnings[0].where == "w");
    check_passes({base}, {moved(base, 1, 2)});
    check_passes({base}, {scaled(base, 4)});
  }
  TEST_CASE("a head that was drawn anew is named, however large") {
    for (const std::uint64_t rows : {10u, 1000u}) {
      for (const double scale : {1e-3, 1.0, 1e3}) {
        for (const double step : {0.0, 0.01}) {
          Tensor head = noise("w", DType::f32, {rows, 64}, 9);
          Tensor other = scaled(noise("w", DType::f32, {rows, 64}, 10), scale);
          head.name = other.name = "head";
          const auto found =
              judge(with(layers("layers."), head), with(layers("layers.", step), other));
          REQUIRE(found.warnings.size() == 1);
          CHECK(found.warnings[0].where == "head");
          CHECK(found.warnings[0].what.find("|D|/|W|") != std::string::npos);
          CHECK(found.warnings[0].what.find("--exclude") != std::string::npos);
        }
      }
    }
  }
  TEST_CASE("tensors that stayed do not excuse most of the others") {
    const Tensor frozen = noise("embed", DType::f32, {1000, 64}, 9);
    Tensors tuned = layers("layers.");
    for (unsigned k = 0; k < tuned.size(); ++k) {
      tuned[k] = noise(tuned[k].name, DType::f32, {64, 64}, k + 20);
    }
    check_refused(with(layers("layers."), frozen), with(tuned, frozen),
                  {"of the weights that changed"});
  }
  TEST_CASE("no more than some of many are named") {
    Tensors base;
    Tensors tuned;
    for (unsigned k = 0; k < 30; ++k) {
      const std::string name = "w" + std::to_string(k);
      base.push_back(noise(name, DType::f32, {16, 16}, k));
      tuned.push_back(k % 3 ? moved(base[k], 0.01, k) : noise(name, DType::f32, {16, 16}, k + 40));
    }
    const auto found = judge(base, tuned);
    REQUIRE(found.warnings.size() == 9);
    CHECK(found.warnings[8].what.find("2 more tensors") != std::string::npos);
  }
  TEST_CASE("constant tensors, and zeros, have no direction") {
    const Tensor w = noise("w", DType::f32, {64, 64}, 1);
    for (const double value : {0.0, 1.0, 0.1}) {
      check_passes({constant(value)}, {w});
      check_passes({w}, {constant(value)});
      check_passes({constant(value)}, {constant(3)});
    }
    // If the mean dominates, the rest may be random.
    check_passes({moved(constant(1), 1e-6, 1)}, {moved(constant(1), 1e-3, 2)});
    // But a common mean alone is no likeness.
    check_refused({moved(constant(0.5), 1, 1)}, {moved(constant(0.5), 1, 2)}, {"another base"});
  }
  TEST_CASE("a few huge elements do not hide what the others show") {
    for (const double huge : {1e3, 1e6, 1e30}) {
      const Tensor base = noise("w", DType::f64, {32, 64}, 1);
      Tensor tuned = moved(base, 0.01, 2);
      tuned.set(3, huge);
      CHECK(judge({base}, {tuned}).warnings.size() == 1);
      CHECK(judge({tuned}, {base}).weights_ratio > 10);
      const Tensor small = noise("w", DType::f64, {8, 8}, 1);
      tuned = moved(small, 0.01, 2);
      tuned.set(9, huge);
      CHECK(judge({small}, {tuned}).warnings.size() == 1);
    }
  }
  TEST_CASE("elements that are not finite count for nothing") {
    const Tensor base = noise("w", DType::f32, {64, 64}, 1);
    Tensor tuned = moved(base, 0.01, 2);
    tuned.set(5, std::numeric_limits<double>::quiet_NaN());
    tuned.set(7, std::numeric_limits<double>::infinity());
    check_passes({base}, {tuned});
    check_passes({tuned}, {base});
    check_refused({noise("w", DType::f32, {64, 64}, 4)}, {tuned}, {"another base"});
    check_passes({base}, {scaled(base, std::numeric_limits<double>::quiet_NaN())});
  }
  TEST_CASE("what is not judged: vectors, integers, the tiny, nothing") {
    for (const auto& [dtype, shape] : {std::pair{DType::f32, Shape{4096}},
                                       {DType::i32, Shape{64, 64}},
                                       {DType::f8_e4m3, Shape{64, 64}},
                                       {DType::f32, Shape{4, 8}},
                                       {DType::f32, Shape{0, 8}},
                                       {DType::f32, Shape{}}}) {
      check_passes({noise("w", dtype, shape, 1)}, {noise("w", dtype, shape, 2)});
    }
    check_passes({}, {});
  }
  TEST_CASE("the rows of a vocabulary that grew are compared") {
    const Tensor tuned = noise("w", DType::f32, {120, 64}, 1);
    Tensor base = noise("w", DType::f32, {100, 64}, 2);
    check_refused({base}, {tuned}, {"another base"});
    std::copy_n(tuned.bytes.begin(), base.bytes.size(), base.bytes.begin());
    check_passes({base}, {tuned});
    check_passes({tuned}, {base});
  }
  TEST_CASE("base and fine-tune of different dtypes") {
    const Tensor base = noise("w", DType::f32, {64, 64}, 1);
    const auto bf16 = tensor_of(DType::bf16, base.shape, values(base.dtype, base.bytes));
    check_passes({base}, {bf16});
    check_refused({noise("w", DType::f32, {64, 64}, 2)}, {bf16}, {"another base"});
  }
}

TEST_SUITE("weights in another place") {
  void check_arranged(const Tensor& base, Shape shape, const Place& place, const char* text) {
    const Tensor tuned = moved(arranged(base, std::move(shape), place), 0.02, 7);
    check_refused({base}, {tuned}, {text, "w: ", "layout"});
  }

  TEST_CASE("transposed, square or not") {
    for (const DType dtype : kElements) {
      for (const auto& [rows, cols] : {std::pair{64, 64}, {256, 256}, {64, 200}, {300, 70}}) {
        const auto n = static_cast<std::uint64_t>(rows);
        const auto m = static_cast<std::uint64_t>(cols);
        check_arranged(
            noise("w", dtype, {n, m}, 1), {m, n},
            [=](std::size_t i, std::size_t j) { return j * m + i; }, "it is transposed");
      }
    }
  }
  TEST_CASE("rows in reverse, rotated or anyhow") {
    const Tensor base = noise("w", DType::bf16, {128, 96}, 1);
    check_arranged(
        base, base.shape, [](auto i, auto j) { return (127 - i) * 96 + j; },
        "its rows are permuted: row 1 is row 126");
    check_arranged(
        base, base.shape, [](auto i, auto j) { return (i + 5) % 128 * 96 + j; },
        "its rows are permuted");
    check_arranged(
        base, base.shape, [](auto i, auto j) { return i * 37 % 128 * 96 + j; },
        "its rows are permuted");
  }
  TEST_CASE("halves of heads that are interleaved") {
    const Tensor base = noise("w", DType::f32, {256, 128}, 1);
    check_arranged(
        base, base.shape,
        [](auto i, auto j) {
          const auto k = i % 64;
          return (i - k + k % 2 * 32 + k / 2) * 128 + j;
        },
        "its rows are permuted");
  }
  TEST_CASE("columns") {
    const Tensor base = noise("w", DType::f16, {96, 128}, 1);
    check_arranged(
        base, base.shape, [](auto i, auto j) { return i * 128 + 127 - j; },
        "its columns are permuted");
  }
  TEST_CASE("experts, and matrices of a stack that are transposed") {
    const Tensor base = noise("w", DType::f32, {6, 64, 80}, 1);
    check_arranged(
        base, base.shape, [](auto i, auto j) { return (i / 64 + 2) % 6 * 5120 + i % 64 * 80 + j; },
        "its entries are permuted");
    check_arranged(
        base, {6, 80, 64}, [](auto i, auto j) { return i / 80 * 5120 + j * 80 + i % 80; },
        "it is transposed");
  }
  TEST_CASE("a tensor among others is a warning, which says so") {
    const Tensor base = noise("w", DType::f32, {64, 64}, 30);
    const Tensor tuned =
        arranged(base, base.shape, [](auto i, auto j) { return (63 - i) * 64 + j; });
    auto found = judge(with(layers("layers."), base), with(layers("layers."), tuned));
    REQUIRE(found.warnings.size() == 1);
    CHECK(found.warnings[0].where == "w");
    CHECK(found.warnings[0].what.find("its rows are permuted") != std::string::npos);
    const Tensor wide = noise("w", DType::f32, {16, 100}, 30);
    found = judge(with(layers("layers."), wide),
                  with(layers("layers."),
                       arranged(wide, {100, 16}, [](auto i, auto j) { return j * 100 + i; })));
    REQUIRE(found.warnings.size() == 1);
    CHECK(found.warnings[0].where == "w");
    CHECK(found.warnings[0].what.find("it is transposed") != std::string::npos);
  }
  TEST_CASE("among few tensors, the largest of which was moved and not drawn anew") {
    const Tensor base = noise("w", DType::f32, {400, 64}, 30);
    const Tensor tuned =
        arranged(base, base.shape, [](auto i, auto j) { return (399 - i) * 64 + j; });
    check_refused(with(layers("layers."), base), with(layers("layers."), tuned),
                  {"w: its rows are permuted"});
  }
}
