// Whole models: a pair is compressed, applied and verified. Failures leave nothing behind.
#include "pair.hpp"

#include <chrono>

using namespace io_test;
using io::NonFinite;
using nlohmann::json;

namespace {

/// Every kind of tensor: floats of ranks 0 to 4, integers, unchanged, small and empty ones.
Pair mixed_pair() {
  std::vector<Tensor> base;
  std::vector<Tensor> tuned;
  const auto add = [&](const std::string& name, DType dtype, Shape shape, bool changed = true) {
    const auto seed = static_cast<unsigned>(base.size());
    base.push_back(noise(name, dtype, std::move(shape), seed));
    tuned.push_back(base.back());
    if (!changed) return;
    if (deltadct::is_element(dtype)) tuned.back() = moved(base.back(), kStep, 100 + seed);
    for (std::byte& byte : tuned.back().bytes) {
      if (!deltadct::is_element(dtype)) byte ^= std::byte{1};
    }
  };
  add("f32", DType::f32, {33, 20});
  add("scalar", DType::f32, {});
  add("flags", DType::boolean, {3});
  add("f16", DType::f16, {12, 16});
  add("norm", DType::f32, {64});
  add("bf16", DType::bf16, {40, 7});
  add("unchanged", DType::f32, {16, 16}, false);
  add("f64", DType::f64, {9, 9});
  add("experts", DType::f32, {3, 6, 8});
  add("conv", DType::bf16, {4, 3, 3, 5});
  add("small", DType::f32, {3, 5});
  add("thin", DType::f32, {1, 40});
  add("empty", DType::f32, {0, 8});
  add("ids", DType::i64, {4, 8});
  add("f8", DType::f8_e4m3, {8, 8});
  add("unchanged.ids", DType::i32, {5}, false);
  return {std::move(base), std::move(tuned)};
}

/// Alters the manifest of an archive with one delta, and drops bytes from the front of the delta,
/// under matching checksums.
void alter(const Pair& pair, const std::function<void(json&)>& change, std::ptrdiff_t dropped) {
  std::vector<Tensor> sections;
  io::Metadata metadata;
  {
    const Model model = Model::open(pair.folder / "delta");
    for (const io::TensorInfo& info : model.tensors()) {
      sections.push_back({info.name, info.dtype, info.shape, data(model, info.name)});
    }
    metadata = model.metadata();
  }
  REQUIRE(sections.size() == 2);
  Bytes& delta = sections[0].bytes;
  delta.erase(delta.begin(), delta.begin() + dropped);
  sections[0].shape = {delta.size()};
  Bytes& text = sections[1].bytes;
  json manifest = json::parse(std::string(reinterpret_cast<const char*>(text.data()), text.size()));
  change(manifest);
  manifest["tensors"][0]["delta"] = io::fingerprint(delta);
  text = bytes_of(manifest.dump());
  sections[1].shape = {text.size()};
  metadata["manifest"] = io::fingerprint(text);
  write_model(pair.folder / "delta", sections, metadata);
}

/// Checks each report of progress against the previous one.
struct Steps {
  void operator()(const io::Progress& progress) {
    CHECK(progress.bytes_done >= done);
    CHECK(progress.bytes_done <= progress.bytes_total);
    CHECK((count == 0 || progress.bytes_total == total));
    CHECK(!progress.tensor.empty());
    done = progress.bytes_done;
    total = progress.bytes_total;
    ++count;
  }

  std::size_t count = 0;
  std::uint64_t done = 0;
  std::uint64_t total = 0;
};

}  // namespace

TEST_SUITE("round trip") {
  TEST_CASE("every tensor is stored by the mode it deserves") {
    const Pair pair = mixed_pair();
    const CheckpointReport report = pair.compress(options_of(4));
    for (const std::string name : {"f32", "f16", "bf16", "f64", "experts", "conv", "thin"}) {
      CAPTURE(name);
      CHECK(pair.mode(name) == Mode::delta);
    }
    for (const std::string name : {"scalar", "flags", "norm", "small", "ids", "f8"}) {
      CAPTURE(name);
      CHECK(pair.mode(name) == Mode::lossless);
    }
    for (const std::string name : {"unchanged", "unchanged.ids", "empty"}) {
      CAPTURE(name);
      CHECK(pair.mode(name) == Mode::same);
    }
    CHECK(report.count(Mode::delta) == 7);
    CHECK(report.count(Mode::lossless) == 6);
    CHECK(report.count(Mode::same) == 3);
  }

  TEST_CASE("apply gives back lossless tensors bit by bit and deltas nearly") {
    const Pair pair = mixed_pair();
    for (const Access access : {Access::map, Access::read}) {
      pair.compress(options_of(4, {{8, 1.0}}), access);
      pair.apply(Overwrite::yes, access);
      const Model out = pair.out();
      const auto archive = pair.archive();
      REQUIRE(out.tensors().size() == pair.base.size());
      for (std::size_t i = 0; i < pair.base.size(); ++i) {
        const Tensor& base = pair.base[i];
        const Tensor& tuned = pair.tuned[i];
        CAPTURE(base.name);
        const Bytes bytes = data(out, base.name);
        if (archive.find(base.name)->mode != Mode::delta) {
          CHECK(bytes == tuned.bytes);
          continue;
        }
        const auto b = values(base.dtype, base.bytes);
        const auto delta = difference(values(base.dtype, tuned.bytes), b);
        const auto rebuilt = difference(values(base.dtype, bytes), b);
        // 8 bits lose about 1 % of the delta. 2-byte results are rounded: 2^-9 of values up to 1.
        const double rounding = base.dtype == DType::bf16  ? 0.3
                                : base.dtype == DType::f16 ? 0.1
                                                           : 0;
        CHECK(norm(difference(rebuilt, delta)) < (0.02 + rounding) * norm(delta));
      }
    }
  }

  TEST_CASE("an input that is written to meanwhile is an error that names it") {
    const Pair pair = mixed_pair();
    pair.compress(options_of(4));
    const auto changes = [&](const std::string& name) {
      return [&, name](const io::Progress& progress) {
        if (progress.bytes_done != progress.bytes_total) return;
        const fs::path path = pair.folder / name;
        std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
        file.seekp(-1, std::ios::end);
        file.put('x');
        file.close();
        fs::last_write_time(path, fs::last_write_time(path) + std::chrono::seconds(1));
      };
    };
    for (const Access access : {Access::map, Access::read}) {
      for (const std::string name : {"base", "tuned", "delta"}) {
        CAPTURE(name);
        pair.write();
        pair.compress(options_of(4));
        const Bytes before = get(pair.folder / "delta");
        const Error error = fails_leaving_nothing(pair.folder, [&] {
          if (name == "tuned") {
            pair.compress(options_of(4), access, changes(name));
          } else {
            pair.apply(Overwrite::no, access, changes(name));
          }
        });
        CHECK(error.code() == Errc::io_failure);
        CHECK(error.where() == (pair.folder / name).string());
        CHECK(names(error, "changed while it was read"));
        if (name != "delta") CHECK(get(pair.folder / "delta") == before);
      }
    }
  }

  TEST_CASE("both access modes write the same archive and the same model") {
    const Pair pair = mixed_pair();
    pair.compress(options_of(4), Access::map);
    pair.apply(Overwrite::yes, Access::map);
    const Bytes delta = get(pair.folder / "delta");
    const Bytes out = get(pair.folder / "out");
    pair.compress(options_of(4), Access::read);
    pair.apply(Overwrite::yes, Access::read);
    CHECK(get(pair.folder / "delta") == delta);
    CHECK(get(pair.folder / "out") == out);
  }

  TEST_CASE("the output has the fine-tune's names, dtypes, shapes, order and metadata") {
    Pair pair = mixed_pair();
    std::ranges::reverse(pair.tuned);
    pair.write();
    pair.compress(options_of(16));
    pair.apply();
    const Model tuned = Model::open(pair.folder / "tuned");
    const Model out = pair.out();
    CHECK(out.metadata() == tuned.metadata());
    CHECK(out.metadata().at("made by") == "another");
    REQUIRE(out.tensors().size() == tuned.tensors().size());
    for (std::size_t i = 0; i < tuned.tensors().size(); ++i) {
      CHECK(out.tensors()[i].name == tuned.tensors()[i].name);
      CHECK(out.tensors()[i].dtype == tuned.tensors()[i].dtype);
      CHECK(out.tensors()[i].shape == tuned.tensors()[i].shape);
    }
  }

  TEST_CASE("the order of the base's tensors does not matter") {
    Pair pair = mixed_pair();
    pair.compress(options_of(4));
    const Bytes before = get(pair.folder / "delta");
    std::ranges::reverse(pair.base);
    pair.write();
    pair.compress(options_of(4));
    CHECK(get(pair.folder / "delta") == before);
  }

  TEST_CASE("a tensor of fewer elements than a patch is kept without loss") {
    const Pair pair = mixed_pair();
    pair.compress(options_of(16));
    CHECK(pair.mode("f32") == Mode::delta);         // 660 elements
    CHECK(pair.mode("bf16") == Mode::delta);        // 280
    CHECK(pair.mode("conv") == Mode::lossless);     // 180
    CHECK(pair.mode("experts") == Mode::lossless);  // 144
    CHECK(pair.mode("thin") == Mode::lossless);     // 40
    const Pair edge = one_pair(DType::f32, {16, 16});
    edge.compress(options_of(16));
    CHECK(edge.mode("w") == Mode::delta);
    const Pair below = one_pair(DType::f32, {15, 17});
    below.compress(options_of(16));
    CHECK(below.mode("w") == Mode::lossless);
  }

  TEST_CASE("tensors that are not selected are kept without loss") {
    const Pair pair = mixed_pair();
    CompressOptions options = options_of(4);
    options.selected = [](std::string_view name) { return name == "f32" || name == "unchanged"; };
    const CheckpointReport report = pair.compress(options);
    CHECK(report.count(Mode::delta) == 1);
    CHECK(report.count(Mode::same) == 3);
    CHECK(pair.mode("f32") == Mode::delta);
    CHECK(pair.mode("bf16") == Mode::lossless);
    pair.apply();
    CHECK(data(pair.out(), "bf16") == pair.tuned[5].bytes);
  }

  TEST_CASE("models without tensors") {
    const Pair pair({}, {});
    CHECK(pair.compress(options_of(4)).elements == 0);
    CHECK(pair.apply().bits_per_weight() == 0);
    pair.verify(true);
    CHECK(pair.out().tensors().empty());
  }

  TEST_CASE("a model against itself costs a manifest") {
    const Tensor base = noise("w", DType::f32, {64, 64}, 1);
    const Pair pair({base}, {base});
    CHECK(pair.compress(options_of(4)).count(Mode::same) == 1);
    CHECK(fs::file_size(pair.folder / "delta") < 1500);
    pair.apply();
    CHECK(data(pair.out(), "w") == base.bytes);
  }

  TEST_CASE("a header of odd length, which misaligns every tensor, changes nothing") {
    const Pair pair = mixed_pair();
    pair.compress(options_of(4));
    pair.apply();
    const Bytes delta = get(pair.folder / "delta");
    const Bytes out = get(pair.folder / "out");
    for (std::size_t spaces = 1; spaces < 8; ++spaces) {
      for (const std::string name : {"base", "tuned"}) {
        Bytes bytes = get(pair.folder / name);
        std::uint64_t length = 0;
        std::memcpy(&length, bytes.data(), sizeof length);
        bytes.insert(bytes.begin() + 8 + static_cast<std::ptrdiff_t>(length), 1, std::byte{' '});
        ++length;
        std::memcpy(bytes.data(), &length, sizeof length);
        put(pair.folder / name, bytes);
      }
      for (const Access access : {Access::map, Access::read}) {
        pair.compress(options_of(4), access);
        pair.apply(Overwrite::yes, access);
        CHECK(get(pair.folder / "delta") == delta);
        CHECK(get(pair.folder / "out") == out);
      }
    }
  }
}

TEST_SUITE("report") {
  TEST_CASE("sizes are those of the files, elements those of the model") {
    const Pair pair = mixed_pair();
    std::uint64_t elements = 0;
    std::uint64_t bytes = 0;
    std::uint64_t delta_elements = 0;
    for (const Tensor& tensor : pair.base) {
      elements += tensor.info().elements();
      bytes += tensor.bytes.size();
    }
    const CheckpointReport made = pair.compress(options_of(4));
    const CheckpointReport applied = pair.apply();
    const DeltaArchive archive = pair.archive();
    for (const io::ManifestEntry& entry : archive.entries()) {
      if (entry.mode == Mode::delta) delta_elements += *io::tensor_bytes(DType::u8, entry.shape);
    }
    for (const CheckpointReport& report : {made, applied}) {
      CHECK(report.elements == elements);
      CHECK(report.model_bytes == bytes);
      CHECK(report.delta_elements == delta_elements);
      CHECK(report.count(Mode::delta) == 7);
      CHECK(report.count(Mode::lossless) == 6);
      CHECK(report.count(Mode::same) == 3);
    }
    CHECK(made.file_bytes == fs::file_size(pair.folder / "delta"));
    CHECK(archive.file_bytes() == made.file_bytes);
    CHECK(applied.file_bytes == fs::file_size(pair.folder / "out"));
    CHECK(made.bits_per_weight() ==
          8.0 * static_cast<double>(made.file_bytes) / static_cast<double>(elements));
  }

  TEST_CASE("the parts of a delta: codes alone, and with bounds and widths") {
    const Pair pair = one_pair(DType::f32, {64, 64});  // 16 patches of 256 elements
    const CheckpointReport report = pair.compress(options_of(16));
    CHECK(report.code_bytes == 8 * 256 * 2 / 8);
    CHECK(report.delta_bytes == report.code_bytes + (8 * 2 + 8 * 1) * 4 + 8);
    CHECK(report.file_bytes > report.delta_bytes);
  }

  TEST_CASE("progress only grows, once for every tensor, up to the whole") {
    const Pair pair = mixed_pair();
    Steps compress;
    const CheckpointReport report = pair.compress(options_of(4), Access::map, std::ref(compress));
    CHECK(compress.count == pair.base.size());
    CHECK(compress.done == compress.total);
    CHECK(compress.total == report.model_bytes);
    Steps apply;
    pair.apply(Overwrite::no, Access::map, std::ref(apply));
    CHECK(apply.count == pair.base.size());
    CHECK(apply.done == report.model_bytes);
    Steps verify;
    pair.verify(true, std::ref(verify));
    CHECK(verify.count == pair.base.size());
    CHECK(verify.total == report.file_bytes);
  }

  TEST_CASE("a progress function that throws ends the work and leaves nothing") {
    const Pair pair = mixed_pair();
    const auto stop = [](const io::Progress& progress) {
      if (progress.tensor == "f64") throw Error(Errc::io_failure, "stopped");
    };
    CHECK(fails_leaving_nothing(pair.folder, [&] {
            pair.compress(options_of(4), Access::map, stop);
          }).where() == "stopped");
    pair.compress(options_of(4));
    CHECK(fails_leaving_nothing(pair.folder, [&] {
            pair.apply(Overwrite::no, Access::map, stop);
          }).where() == "stopped");
  }
}

TEST_SUITE("models that do not fit") {
  TEST_CASE("another base is refused, naming the first tensor that differs") {
    Pair pair = mixed_pair();
    pair.compress(options_of(4));
    for (const std::string name : {"f32", "norm", "unchanged", "ids"}) {
      CAPTURE(name);
      const auto changed = std::ranges::find(pair.base, name, &Tensor::name);
      changed->bytes.back() ^= std::byte{1};
      pair.write();
      const Error applied = fails_leaving_nothing(pair.folder, [&] { pair.apply(); });
      CHECK(applied.code() == Errc::wrong_base);
      CHECK(names(applied, (pair.folder / "base").string() + ": " + name));
      const Error verified = caught([&] { pair.verify(true); });
      CHECK(verified.code() == Errc::wrong_base);
      CHECK(names(verified, name));
      pair.verify(false);
      changed->bytes.back() ^= std::byte{1};
    }
  }

  TEST_CASE("a tensor that the archive or its base lacks") {
    Pair pair = mixed_pair();
    pair.compress(options_of(4));
    const std::vector<Tensor> all = pair.base;
    pair.base.push_back(noise("more", DType::f32, {4}, 1));
    pair.write();
    const Error more = fails_leaving_nothing(pair.folder, [&] { pair.apply(); });
    CHECK(more.code() == Errc::missing_tensor);
    CHECK(names(more, "more"));
    pair.base = all;
    pair.base.erase(std::ranges::find(pair.base, "norm", &Tensor::name));
    pair.write();
    const Error less = fails_leaving_nothing(pair.folder, [&] { pair.apply(); });
    CHECK(less.code() == Errc::missing_tensor);
    CHECK(names(less, "norm"));
    CHECK(caught([&] { pair.verify(true); }).code() == Errc::missing_tensor);
  }

  TEST_CASE("a base of other shapes or dtypes is refused, naming the tensor and both") {
    Pair pair = mixed_pair();
    pair.compress(options_of(4));
    pair.base[0].shape = {20, 33};
    pair.write();
    const Error shape = fails_leaving_nothing(pair.folder, [&] { pair.apply(); });
    CHECK(shape.code() == Errc::shape_mismatch);
    CHECK(names(shape, "f32"));
    CHECK(names(shape, "20x33"));
    CHECK(names(shape, "33x20"));
    pair.base[0].shape = {33, 20};
    pair.base[0].dtype = DType::u32;
    pair.write();
    const Error dtype = fails_leaving_nothing(pair.folder, [&] { pair.apply(); });
    CHECK(dtype.code() == Errc::dtype_mismatch);
    CHECK(names(dtype, "f32"));
    CHECK(names(dtype, "U32"));
    CHECK(names(dtype, "F32"));
  }

  TEST_CASE("a base cut off anywhere is refused before anything is written") {
    const Pair pair = one_pair(DType::f32, {8, 8});
    pair.compress(options_of(4));
    const Bytes whole = get(pair.folder / "base");
    for (std::size_t length = 0; length < whole.size(); length += 7) {
      put(pair.folder / "base", std::span(whole).first(length));
      CHECK(fails_leaving_nothing(pair.folder, [&] { pair.apply(); }).code() ==
            Errc::bad_container);
    }
  }

  TEST_CASE("a base cut off while it is open is refused, not read beyond") {
    const Pair pair = one_pair(DType::f32, {64, 64});
    pair.compress(options_of(4));
    const Model base = Model::open(pair.folder / "base", reading(Access::read));
    fs::resize_file(pair.folder / "base", 1000);
    const Error error = fails_leaving_nothing(pair.folder, [&] {
      io::apply_archive(base, pair.archive(), pair.folder / "out", ApplyOptions{}, serial_codec);
    });
    CHECK(error.code() == Errc::io_failure);
    CHECK(names(error, "w"));
  }

  TEST_CASE("a codec that the factory does not have") {
    const Pair pair = one_pair(DType::f32, {64, 64});
    CHECK(fails_leaving_nothing(pair.folder, [&] { pair.compress(options_of(24)); }).code() ==
          Errc::codec_mismatch);
  }
}

TEST_SUITE("values that are not finite") {
  TEST_CASE("they are refused, naming tensor and element") {
    for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
      for (const double value : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
        Pair pair = one_pair(dtype, {10, 20});
        pair.tuned[0].set(7 * 20 + 13, value);
        pair.write();
        const Error error =
            fails_leaving_nothing(pair.folder, [&] { pair.compress(options_of(4)); });
        CHECK(error.code() == Errc::non_finite);
        CHECK(names(error, "w: element (7, 13)"));
      }
    }
  }

  TEST_CASE("keep stores such a tensor without loss, and only it") {
    for (const bool in_base : {true, false}) {
      Pair pair = mixed_pair();
      for (const std::size_t i : {std::size_t{0}, std::size_t{5}}) {
        (in_base ? pair.base : pair.tuned)[i].set(3, std::nan(""));
        (in_base ? pair.base : pair.tuned)[i].set(5, -HUGE_VAL);
      }
      pair.write();
      CompressOptions options = options_of(4);
      options.non_finite = NonFinite::keep;
      const CheckpointReport report = pair.compress(options);
      CHECK(report.count(Mode::delta) == 5);
      CHECK(report.count(Mode::lossless) == 8);
      pair.apply();
      const Model out = pair.out();
      CHECK(data(out, "f32") == pair.tuned[0].bytes);
      CHECK(data(out, "bf16") == pair.tuned[5].bytes);
    }
  }

  TEST_CASE("where nothing is compressed they do no harm") {
    Pair pair = mixed_pair();
    pair.base[6].set(0, std::nan(""));  // unchanged
    pair.tuned[6].set(0, std::nan(""));
    pair.tuned[4].set(0, std::nan(""));   // rank 1
    pair.tuned[10].set(0, std::nan(""));  // small
    pair.tuned[1].set(0, HUGE_VAL);       // scalar
    pair.write();
    pair.compress(options_of(4));
    pair.apply();
    const Model out = pair.out();
    for (const std::size_t i : {std::size_t{6}, std::size_t{4}, std::size_t{10}, std::size_t{1}}) {
      CHECK(data(out, pair.tuned[i].name) == pair.tuned[i].bytes);
    }
  }

  TEST_CASE("a difference beyond the type's range counts as one") {
    Pair pair = one_pair(DType::f32, {8, 8});
    pair.base[0].set(9, -3e38);
    pair.tuned[0].set(9, 3e38);
    pair.write();
    const Error error = fails_leaving_nothing(pair.folder, [&] { pair.compress(options_of(4)); });
    CHECK(error.code() == Errc::non_finite);
    CHECK(names(error, "w: element (1, 1)"));
    CompressOptions options = options_of(4);
    options.non_finite = NonFinite::keep;
    CHECK(pair.compress(options).count(Mode::lossless) == 1);
  }
}

TEST_SUITE("plausibility") {
  TEST_CASE("an unlike pair is refused before anything is written, and told where it is allowed") {
    const Pair pair({noise("w", DType::f32, {64, 64}, 1)}, {noise("w", DType::f32, {64, 64}, 2)});
    CompressOptions options = options_of(16);
    const Error error = fails_leaving_nothing(pair.folder, [&] { pair.compress(options); });
    CHECK(error.code() == Errc::unlike_models);
    options.allow_unlike = true;
    const CheckpointReport report = pair.compress(options);
    CHECK(report.count(Mode::delta) == 1);
    REQUIRE(!report.warnings.empty());
    CHECK(error.detail().starts_with(report.warnings[0].what));
    CHECK(report.weights_ratio == doctest::Approx(std::sqrt(2)).epsilon(0.05));
  }

  TEST_CASE("the report has the norm of the delta over that of the weights") {
    const Pair pair = one_pair(DType::f32, {64, 64});
    const auto from = values(DType::f32, pair.base[0].bytes);
    const auto to = values(DType::f32, pair.tuned[0].bytes);
    CHECK(pair.compress(options_of(16)).weights_ratio ==
          doctest::Approx(norm(difference(to, from)) / norm(to)));
  }
}

TEST_SUITE("outputs") {
  TEST_CASE("one that exists is refused before any work, and replaced where asked") {
    const Pair pair = mixed_pair();
    put(pair.folder / "delta", bytes_of("mine"));
    CompressOptions options = options_of(4);
    options.output.overwrite = Overwrite::no;
    CHECK(fails_leaving_nothing(pair.folder, [&] { pair.compress(options); }).code() ==
          Errc::output_exists);
    CHECK(get(pair.folder / "delta") == bytes_of("mine"));
    options.output.overwrite = Overwrite::yes;
    pair.compress(options);
    put(pair.folder / "out", bytes_of("mine"));
    CHECK(fails_leaving_nothing(pair.folder, [&] { pair.apply(); }).code() == Errc::output_exists);
    CHECK(get(pair.folder / "out") == bytes_of("mine"));
    pair.apply(Overwrite::yes);
    CHECK(pair.out().tensors().size() == pair.base.size());
  }

  TEST_CASE("a failure leaves the one that was there, even if it was to be replaced") {
    Pair pair = one_pair(DType::f32, {16, 16});
    pair.compress(options_of(4));
    put(pair.folder / "out", bytes_of("mine"));
    const Bytes delta = get(pair.folder / "delta");
    pair.tuned[0].set(0, std::nan(""));
    pair.base[0].set(1, 7);
    pair.write();
    const CompressOptions options = options_of(4);
    CHECK(fails_leaving_nothing(pair.folder, [&] { pair.compress(options); }).code() ==
          Errc::non_finite);
    CHECK(fails_leaving_nothing(pair.folder, [&] { pair.apply(Overwrite::yes); }).code() ==
          Errc::wrong_base);
    CHECK(get(pair.folder / "delta") == delta);
    CHECK(get(pair.folder / "out") == bytes_of("mine"));
  }

  TEST_CASE("a folder that cannot be written to") {
    const Pair pair = one_pair(DType::f32, {16, 16});
    pair.compress(options_of(4));
    const Model base = Model::open(pair.folder / "base");
    const Model tuned = Model::open(pair.folder / "tuned");
    for (const fs::path& path : {pair.folder / "base" / "x", pair.folder / "absent" / "x"}) {
      const Error compressed = fails_leaving_nothing(
          pair.folder, [&] { io::compress_model(base, tuned, path, options_of(4), serial_codec); });
      CHECK(compressed.code() == Errc::io_failure);
      CHECK(names(compressed, path.string()));
      CHECK(fails_leaving_nothing(pair.folder, [&] {
              io::apply_archive(base, pair.archive(), path, ApplyOptions{}, serial_codec);
            }).code() == Errc::io_failure);
    }
  }

  TEST_CASE("a disk that fills up leaves neither output nor temporary file") {
    Pair pair = one_pair(DType::f32, {64, 64});
    pair.compress(options_of(4));
    put(pair.folder / "out", bytes_of("mine"));
    const Bytes delta = get(pair.folder / "delta");
    const CompressOptions options = options_of(4);
    for (const rlim_t room : {rlim_t{0}, rlim_t{100}, rlim_t{1000}, rlim_t{1900}}) {
      Error compressed(Errc::too_large, "");
      Error applied(Errc::too_large, "");
      {
        const FileSizeLimit limit(room);
        compressed = fails_leaving_nothing(pair.folder, [&] { pair.compress(options); });
        applied = fails_leaving_nothing(pair.folder, [&] { pair.apply(Overwrite::yes); });
      }
      CHECK(compressed.code() == Errc::io_failure);
      CHECK(names(compressed, (pair.folder / "delta").string()));
      CHECK(applied.code() == Errc::io_failure);
      CHECK(get(pair.folder / "delta") == delta);
      CHECK(get(pair.folder / "out") == bytes_of("mine"));
    }
  }
}

TEST_SUITE("verify") {
  TEST_CASE("sound archives pass, with and without a base") {
    const Pair pair = mixed_pair();
    pair.compress(options_of(4));
    pair.verify(false);
    pair.verify(true);
  }

  TEST_CASE("any altered byte of the data is found, and never applied") {
    const Pair pair = mixed_pair();
    pair.compress(options_of(4));
    const Bytes whole = get(pair.folder / "delta");
    std::uint64_t header = 0;
    std::memcpy(&header, whole.data(), sizeof header);
    for (std::size_t at = 8 + header; at < whole.size(); at += 5) {
      Bytes bytes = whole;
      bytes[at] ^= std::byte{16};
      put(pair.folder / "delta", bytes);
      CHECK(caught([&] { pair.verify(false); }).code() == Errc::checksum_mismatch);
      if (at % 3 == 0) {
        CHECK(fails_leaving_nothing(pair.folder, [&] { pair.apply(); }).code() ==
              Errc::checksum_mismatch);
      }
    }
  }

  TEST_CASE("what no codec can decode is found, and never applied, naming the tensor") {
    const auto refused = [&](const std::function<void(json&)>& change, std::ptrdiff_t dropped = 0) {
      const Pair pair = one_pair(DType::f32, {8, 16});  // 8 patches
      pair.compress(options_of(4));
      alter(pair, change, dropped);
      const Error applied = fails_leaving_nothing(pair.folder, [&] { pair.apply(); });
      INFO(std::string(applied.what()));
      CHECK(names(applied, "w: "));
      const Error verified = caught([&] { pair.verify(true); });
      CHECK(verified.code() == applied.code());
      CHECK(names(verified, "w: "));
      return applied.code();
    };
    CHECK(refused([](json& m) { m["codecs"][0]["transform"] = "wavelet"; }) ==
          Errc::codec_mismatch);
    CHECK(refused([](json& m) { m["codecs"][0]["quantizer"] = "magic"; }) == Errc::codec_mismatch);
    // Four patches, each with one bound less.
    CHECK(refused([](json& m) { m["tensors"][0]["matrices"][0][1][0][1] = 1; }, 4 * 4) ==
          Errc::codec_mismatch);
  }
}
