// Outputs that are, or contain, one of their inputs: refused under any name, even when overwriting
// is allowed.
#include "pair.hpp"

#include <sys/stat.h>

using namespace io_test;

namespace {

constexpr std::uint64_t kShardBytes = 3000;

/// Other paths to the same file or folder.
std::vector<fs::path> other_names(const Folder& folder, const fs::path& path) {
  const fs::path symbolic = folder / "symbolic";
  fs::create_symlink(path, symbolic);
  fs::create_symlink(symbolic, folder / "twice");
  fs::create_directory(folder / "sub");
  std::vector<fs::path> names = {symbolic, folder / "twice", folder.path / "." / path.filename(),
                                 folder.path / "sub" / ".." / path.filename(), fs::relative(path)};
  if (fs::is_regular_file(path)) {
    fs::create_hard_link(path, folder / "hard");
    names.push_back(folder / "hard");
  }
  return names;
}

/// Every file below a folder, with its contents.
std::map<std::string, Bytes> tree(const Folder& folder) {
  std::map<std::string, Bytes> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder.path)) {
    files.emplace(entry.path().string(), entry.is_regular_file() ? get(entry.path()) : Bytes{});
  }
  return files;
}

/// A pair with an archive, as files and as folders of shards.
struct Inputs {
  Inputs() : pair(make()) {
    const auto half = [](const std::vector<Tensor>& tensors) {
      return std::vector<std::vector<Tensor>>{{tensors[0]}, {tensors[1]}};
    };
    write_sharded(folder() / "bases", half(pair.base));
    write_sharded(folder() / "tuneds", half(pair.tuned));
    pair.compress(options_of(4));
    CompressOptions options = options_of(4);
    options.output.max_shard_bytes = kShardBytes / 4;
    io::compress_model(Model::open(folder() / "base"), Model::open(folder() / "tuned"),
                       folder() / "deltas", options, serial_codec);
  }

  static Pair make() {
    const Tensor a = noise("a", DType::f32, {32, 16}, 1);
    const Tensor b = noise("b", DType::f32, {16, 32}, 2);
    return {{a, b}, {moved(a, kStep, 3), moved(b, kStep, 4)}};
  }

  const Folder& folder() const { return pair.folder; }

  /// Compresses or applies these inputs, given the names of a base and of a fine-tune or an
  /// archive.
  void run(bool apply, const std::string& base, const std::string& other, const fs::path& output,
           std::uint64_t shard_bytes, bool in_place = false) const {
    const OutputOptions to{Overwrite::yes, shard_bytes, Resume::no};
    const Model from = Model::open(folder() / base);
    if (apply) {
      ApplyOptions options;
      options.output = to;
      options.in_place = in_place;
      io::apply_archive(from, DeltaArchive::open(folder() / other), output, options, serial_codec);
    } else {
      CompressOptions options = options_of(4);
      options.output = to;
      io::compress_model(from, Model::open(folder() / other), output, options, serial_codec);
    }
  }

  Error refused(bool apply, const std::string& base, const std::string& other,
                const fs::path& output, std::uint64_t shard_bytes, bool in_place = false) const {
    CAPTURE(output);
    const auto before = tree(folder());
    const Error error = caught([&] { run(apply, base, other, output, shard_bytes, in_place); });
    INFO(std::string(error.what()));
    CHECK(error.code() == Errc::output_is_input);
    CHECK(error.where() == output.string());
    CHECK(tree(folder()) == before);
    return error;
  }

  Pair pair;
};

}  // namespace

TEST_SUITE("an output that is an input") {
  TEST_CASE("a file, by any of its names") {
    const Inputs inputs;
    for (const std::string name : {"base", "tuned", "delta"}) {
      const fs::path path = inputs.folder() / name;
      std::vector<fs::path> outputs = other_names(inputs.folder(), path);
      outputs.push_back(path);
      for (const fs::path& output : outputs) {
        for (const std::uint64_t shard_bytes : {std::uint64_t{0}, kShardBytes}) {
          const bool apply = name == "delta";
          const std::string other = apply ? "delta" : "tuned";
          CHECK(names(inputs.refused(apply, "base", other, output, shard_bytes), path.string()));
          if (name != "base") continue;
          const Error error = inputs.refused(true, "base", "delta", output, shard_bytes);
          CHECK(names(error, "--in-place"));
        }
      }
      for (const char* made : {"symbolic", "twice", "hard", "sub"})
        fs::remove(inputs.folder() / made);
    }
  }

  TEST_CASE("a shard or an index of a folder") {
    const Inputs inputs;
    const std::pair<bool, std::string> models[] = {
        {false, "bases"}, {false, "tuneds"}, {true, "deltas"}, {true, "bases"}};
    for (const auto& [apply, name] : models) {
      for (const auto& entry : fs::directory_iterator(inputs.folder() / name)) {
        const std::string other = apply ? "deltas" : "tuneds";
        for (const bool in_place : {false, apply}) {
          inputs.refused(apply, "bases", other, entry.path(), 0, in_place);
        }
      }
    }
  }

  TEST_CASE("a folder of shards, by any of its names, or one around it") {
    const Inputs inputs;
    for (const std::string name : {"bases", "tuneds", "deltas"}) {
      const fs::path path = inputs.folder() / name;
      std::vector<fs::path> outputs = other_names(inputs.folder(), path);
      outputs.push_back(path);
      outputs.push_back(path / "");
      outputs.push_back(inputs.folder().path);
      outputs.push_back(fs::path(path) / "..");
      for (const fs::path& output : outputs) {
        const bool apply = name == "deltas";
        inputs.refused(apply, "bases", apply ? "deltas" : "tuneds", output, kShardBytes);
      }
      for (const char* made : {"symbolic", "twice", "sub"}) fs::remove(inputs.folder() / made);
    }
  }

  TEST_CASE("a folder around a file, or around what a link of an input leads to") {
    const Inputs inputs;
    fs::create_directory(inputs.folder() / "of files");
    fs::rename(inputs.folder() / "base", inputs.folder() / "of files" / "x.safetensors");
    inputs.refused(false, "of files/x.safetensors", "tuned", inputs.folder() / "of files",
                   kShardBytes);
    inputs.refused(true, "of files/x.safetensors", "delta", inputs.folder() / "of files",
                   kShardBytes);
    fs::create_directory(inputs.folder() / "links");
    fs::create_symlink(inputs.folder() / "of files" / "x.safetensors",
                       inputs.folder() / "links" / "y.safetensors");
    for (const char* folder : {"of files", "links"}) {
      inputs.refused(false, "links/y.safetensors", "tuned", inputs.folder() / folder, kShardBytes);
    }
  }

  TEST_CASE("a stage that is an input, or holds one") {
    const Inputs inputs;
    fs::rename(inputs.folder() / "bases", inputs.folder() / "new.partial");
    for (const std::string base : {"new.partial", "new.partial/part-00001.safetensors",
                                   "new.partial/model.safetensors.index.json"}) {
      for (const char* output : {"new", "new/"}) {
        const std::string tuned =
            base.ends_with("00001.safetensors") ? "tuneds/part-00001.safetensors" : "tuneds";
        CHECK(names(inputs.refused(false, base, tuned, inputs.folder() / output, kShardBytes),
                    "new.partial"));
      }
    }
    // A single file has no stage.
    inputs.run(false, "new.partial", "tuneds", inputs.folder() / "new", 0);
  }

  TEST_CASE("others are fine: new ones beside and among the inputs") {
    const Inputs inputs;
    inputs.run(false, "bases", "tuneds", inputs.folder() / "bases" / "new", 0);
    inputs.run(false, "bases", "tuneds", inputs.folder() / "bases" / "news", kShardBytes);
    inputs.run(true, "bases", "deltas", inputs.folder() / "tuned", 0);
    if (!has_attributes(inputs.folder())) return;
    inputs.run(true, "bases", "deltas", inputs.folder() / "out", kShardBytes);
    inputs.run(true, "bases", "deltas", inputs.folder() / "out", kShardBytes);
  }
}

TEST_SUITE("in place") {
  TEST_CASE("a file is replaced by what is applied to it") {
    const Inputs inputs;
    inputs.run(true, "base", "delta", inputs.folder() / "out", 0);
    const Bytes expected = get(inputs.folder() / "out");
    inputs.run(true, "base", "delta", inputs.folder() / "base", 0, true);
    CHECK(get(inputs.folder() / "base") == expected);
    // The archive belongs to the old base.
    CHECK(caught([&] { inputs.run(true, "base", "delta", inputs.folder() / "out", 0); }).code() ==
          Errc::wrong_base);
  }

  TEST_CASE("the base need not be said to be replaced, others do") {
    const Inputs inputs;
    ApplyOptions options;
    options.in_place = true;
    const auto apply = [&](const std::string& output) {
      io::apply_archive(Model::open(inputs.folder() / "base"), inputs.pair.archive(),
                        inputs.folder() / output, options, serial_codec);
    };
    CHECK(caught([&] { apply("tuned"); }).code() == Errc::output_exists);
    apply("base");
  }

  TEST_CASE("a folder is replaced whole, by its name or that of its index") {
    for (const std::string base : {"bases", "bases/model.safetensors.index.json"}) {
      const Inputs inputs;
      inputs.run(true, "bases", "deltas", inputs.folder() / "out", kShardBytes);
      inputs.run(true, base, "deltas", inputs.folder() / "bases", kShardBytes, true);
      CHECK(files_of(inputs.folder() / "bases") == files_of(inputs.folder() / "out"));
      CHECK(!fs::exists(inputs.folder() / "bases.partial"));
    }
  }

  TEST_CASE("a failure leaves the base") {
    const Inputs inputs;
    Bytes delta = get(inputs.folder() / "delta");
    delta.back() ^= std::byte{1};
    put(inputs.folder() / "delta", delta);
    const auto before = tree(inputs.folder());
    CHECK(caught([&] {
            inputs.run(true, "base", "delta", inputs.folder() / "base", 0, true);
          }).code() == Errc::checksum_mismatch);
    CHECK(caught([&] {
            inputs.run(true, "bases", "delta", inputs.folder() / "bases", kShardBytes, true);
          }).code() == Errc::checksum_mismatch);
    fs::remove_all(inputs.folder() / "bases.partial");  // with the complete shards
    CHECK(tree(inputs.folder()) == before);
  }

  TEST_CASE("a folder with more in it than the base is refused, and the archive always") {
    for (const char* more : {"other.safetensors", "config.json"}) {
      const Inputs inputs;
      put(inputs.folder() / "bases" / more, bytes_of("of others"));
      const Error error =
          inputs.refused(true, "bases", "deltas", inputs.folder() / "bases", kShardBytes, true);
      CHECK(names(error, "nothing else in it"));
    }
    const Inputs inputs;
    inputs.refused(true, "base", "delta", inputs.folder() / "delta", 0, true);
    inputs.refused(true, "bases", "deltas", inputs.folder() / "deltas", kShardBytes, true);
    fs::rename(inputs.folder() / "delta", inputs.folder() / "bases" / "delta.safetensors");
    inputs.refused(true, "bases", "bases/delta.safetensors", inputs.folder() / "bases", kShardBytes,
                   true);
    // A model that is a file is not the folder that contains it.
    fs::create_directory(inputs.folder() / "alone");
    fs::rename(inputs.folder() / "base", inputs.folder() / "alone" / "x.safetensors");
    inputs.refused(true, "alone/x.safetensors", "deltas", inputs.folder() / "alone", kShardBytes,
                   true);
    inputs.run(true, "alone", "deltas", inputs.folder() / "alone", kShardBytes, true);
  }
}
