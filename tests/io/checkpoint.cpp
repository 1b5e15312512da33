// Whole models: a pair is compressed, applied and verified. Failures leave nothing behind.
#include <deltadct/io/checkpoint.hpp>

#include "pair.hpp"

#include <chrono>

using namespace io_test;

namespace {

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
