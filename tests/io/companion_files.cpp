// A folder with configuration and tokenizer goes into an archive, and is restored as a folder.
#include "pair.hpp"

#include <sys/xattr.h>

using namespace io_test;
using io::Companions;
using io::FileEntry;
using io::Links;
using io::Warning;

namespace {

using Files = std::map<std::string, Bytes>;

/// A base, and a fine-tune in a folder with whatever files a test adds.
struct FolderPair {
  FolderPair() {
    std::vector<Tensor> base;
    for (unsigned i = 0; i < 4; ++i) {
      base.push_back(noise("t" + std::to_string(i), DType::f32, {32, 32}, i));
      tuned.push_back(moved(base.back(), kStep, 10 + i));
    }
    write_model(folder / "base", base);
    fs::create_directory(folder / "tuned");
    write_model(folder / "tuned/model.safetensors", tuned, {{"format", "pt"}});
  }

  void put(const std::string& name, std::string_view text, const char* in = "tuned") const {
    const fs::path path = folder / in / name;
    fs::create_directories(path.parent_path());
    put_text(path, text);
  }

  /// The usual files, one in a subfolder, an empty one, and one of several chunks.
  Files put_files() const {
    put("config.json", "{\"model_type\": \"bert\"}");
    put("tokenizer.json", std::string(3'000'000, 't') + "end");
    put("merges.txt", "");
    put("1_Pooling/config.json", "{}");
    put("a/b/modeling_custom.py", "import this\n");
    Files files = companions("tuned");
    REQUIRE(files.size() == 5);
    return files;
  }

  /// All files below a folder except the model's own.
  Files companions(const std::string& name) const {
    Files files;
    for (const auto& entry : fs::recursive_directory_iterator(folder / name)) {
      const std::string path = entry.path().lexically_relative(folder / name).generic_string();
      if (entry.is_directory() || path.ends_with(".safetensors") ||
          path.ends_with(".safetensors.index.json")) {
        continue;
      }
      files.emplace(path, get(entry.path()));
    }
    return files;
  }

  CheckpointReport compress(CompressOptions options = lossless(), const ReadOptions& reading = {},
                            const char* from = "tuned", const io::ProgressFn& progress = {}) const {
    return io::compress_model(Model::open(folder / "base", reading),
                              Model::open(folder / from, reading), folder / "delta", options,
                              serial_codec, SerialExecutor{}, progress);
  }

  CheckpointReport apply(const char* to = "out", const OutputOptions& output = {},
                         const io::ProgressFn& progress = {}) const {
    ApplyOptions options;
    options.output = output;
    return io::apply_archive(Model::open(folder / "base"), archive(), folder / to, options,
                             serial_codec, SerialExecutor{}, progress);
  }

  DeltaArchive archive() const { return DeltaArchive::open(folder / "delta"); }

  static CompressOptions lossless() {
    CompressOptions options = options_of(16);
    options.lossless = true;
    return options;
  }

  void check_model(const char* name = "out") const {
    const Model out = Model::open(folder / name);
    REQUIRE(out.tensors().size() == tuned.size());
    for (const Tensor& tensor : tuned) CHECK(data(out, tensor.name) == tensor.bytes);
  }

  Folder folder;
  std::vector<Tensor> tuned;
};

std::vector<std::string> names_of(const std::vector<FileEntry>& files) {
  std::vector<std::string> result;
  for (const FileEntry& file : files) result.push_back(file.name);
  return result;
}

/// Whether one of the warnings is about this place and contains this text.
bool warned(const std::vector<Warning>& warnings, const fs::path& where, std::string_view text) {
  return std::ranges::any_of(warnings, [&](const Warning& warning) {
    return warning.where == where.string() && warning.what.find(text) != std::string::npos;
  });
}

nlohmann::json manifest_of(const fs::path& path) {
  const Model model = Model::open(path);
  const Bytes text = data(model, "manifest:1");
  return nlohmann::json::parse(text_of(text));
}

io::ProgressFn stop_after(const std::string& name) {
  return [name](const io::Progress& progress) {
    if (progress.tensor == name) throw Error(Errc::too_large, "stopped");
  };
}

constexpr OutputOptions kForce{.overwrite = Overwrite::yes};
constexpr OutputOptions kShards{.max_shard_bytes = 10'000};

}  // namespace

TEST_SUITE("a folder") {
  TEST_CASE("is no place for its own archive's output, nor are its files") {
    const FolderPair pair;
    pair.put_files();
    for (const char* output : {"tuned/config.json", "tuned/1_Pooling", "tuned"}) {
      CompressOptions options = FolderPair::lossless();
      if (fs::is_directory(pair.folder / output)) options.output.max_shard_bytes = 10'000;
      const Error error = caught([&] {
        io::compress_model(Model::open(pair.folder / "base"), Model::open(pair.folder / "tuned"),
                           pair.folder / output, options, serial_codec);
      });
      CHECK(error.code() == Errc::output_is_input);
    }
  }

  TEST_CASE("goes in, and comes out with all its files") {
    const FolderPair pair;
    const Files files = pair.put_files();
    const CheckpointReport report = pair.compress();
    CHECK(report.files == 5);
    CHECK(report.warnings.empty());
    CHECK(pair.archive().of_folder());
    CHECK(names_of(pair.archive().companions()) ==
          std::vector<std::string>{"1_Pooling/config.json", "a/b/modeling_custom.py", "config.json",
                                   "merges.txt", "tokenizer.json"});
    const CheckpointReport applied = pair.apply();
    CHECK(applied.files == 5);
    CHECK(applied.warnings.empty());
    CHECK(pair.companions("out") == files);
    CHECK(get(pair.folder / "out/model.safetensors") ==
          get(pair.folder / "tuned/model.safetensors"));
    CHECK(!fs::exists(pair.folder / "out/model.safetensors.index.json"));
    CHECK(!fs::exists(pair.folder / "out.partial"));
    std::uint64_t bytes = fs::file_size(pair.folder / "out/model.safetensors");
    for (const auto& [name, file] : files) bytes += file.size();
    CHECK(applied.file_bytes == bytes);
    io::verify_archive(pair.archive(), nullptr, serial_codec);
  }

  TEST_CASE("comes out in shards where that is asked for") {
    const FolderPair pair;
    const Files files = pair.put_files();
    pair.compress();
    pair.apply("out", kShards);
    CHECK(pair.companions("out") == files);
    CHECK(fs::exists(pair.folder / "out/model.safetensors.index.json"));
    CHECK(fs::exists(pair.folder / "out/model-00002-of-00002.safetensors"));
    pair.check_model();
  }

  TEST_CASE("of shards, by its own name or by its index") {
    const FolderPair pair;
    if (!has_attributes(pair.folder)) return;
    write_sharded(pair.folder / "shards",
                  {{pair.tuned[0], pair.tuned[1]}, {pair.tuned[2], pair.tuned[3]}});
    pair.put("config.json", "{}", "shards");
    for (const char* path : {"shards", "shards/model.safetensors.index.json"}) {
      CHECK(pair.compress(FolderPair::lossless(), {}, path).warnings.empty());
      pair.apply("out", kForce);
      CHECK(pair.companions("out") == Files{{"config.json", bytes_of("{}")}});
      pair.check_model();
    }
  }

  TEST_CASE("comes out with the metadata of all shards and of the index") {
    const FolderPair pair;
    const fs::path shards = pair.folder / "shards";
    fs::create_directory(shards);
    const std::span<const Tensor> tensors(pair.tuned);
    write_model(shards / "a.safetensors", tensors.first(2), {{"format", "pt"}, {"of", "a"}});
    write_model(shards / "b.safetensors", tensors.subspan(2), {{"of", "b"}, {"only", "here"}});
    const nlohmann::json index = {
        {"metadata", {{"total_size", 4 * 32 * 32 * 4}, {"note", "x"}, {"n", {1, nullptr}}}},
        {"more", 1},
        {"weight_map",
         {{"t0", "a.safetensors"},
          {"t1", "a.safetensors"},
          {"t2", "b.safetensors"},
          {"t3", "b.safetensors"}}}};
    pair.put("model.safetensors.index.json", index.dump(), "shards");
    const CheckpointReport report = pair.compress(FolderPair::lossless(), {}, "shards");
    REQUIRE(report.warnings.size() == 2);
    CHECK(warned(report.warnings, shards / "b.safetensors: of", "left out"));
    CHECK(warned(report.warnings, shards / "model.safetensors.index.json: more", "left out"));

    const io::Metadata merged{{"format", "pt"}, {"of", "a"}, {"only", "here"}};
    CHECK(pair.apply("out", kShards).warnings.empty());
    const Model out = Model::open(pair.folder / "out");
    for (std::size_t i = 0; i < out.shards(); ++i) CHECK(out.metadata(i) == merged);
    CHECK(nlohmann::json::parse(text_of(get(pair.folder / "out/model.safetensors.index.json")))
              .at("metadata") == index["metadata"]);

    const CheckpointReport whole = pair.apply("whole");
    CHECK(Model::open(pair.folder / "whole").metadata() == merged);
    REQUIRE(whole.warnings.size() == 1);
    CHECK(warned(whole.warnings, pair.folder / "whole: n", "left out"));
    CHECK(warned(whole.warnings, pair.folder / "whole: n", "and 1 more"));
  }

  TEST_CASE("counted parameters in an index are no loss where there is none") {
    const FolderPair pair;
    write_sharded(pair.folder / "shards", {pair.tuned});
    const fs::path path = pair.folder / "shards/model.safetensors.index.json";
    nlohmann::json index = nlohmann::json::parse(text_of(get(path)));
    index["metadata"]["total_parameters"] = 4096;
    put_text(path, index.dump());
    CHECK(pair.compress(FolderPair::lossless(), {}, "shards").warnings.empty());
    CHECK(pair.apply().warnings.empty());
  }

  TEST_CASE("metadata of an index that are no object are refused in an archive") {
    const nlohmann::json manifest = {{"version", 1},
                                     {"metadata", nlohmann::json::object()},
                                     {"codecs", nlohmann::json::array()},
                                     {"tensors", nlohmann::json::array()},
                                     {"index_metadata", {1, 2}}};
    CHECK(caught([&] { io::parse_manifest(manifest.dump(), "x"); }).code() == Errc::bad_container);
  }

  TEST_CASE("keeps what can be run so") {
    const FolderPair pair;
    pair.put("run.sh", "#!/bin/sh");
    pair.put("config.json", "{}");
    fs::permissions(pair.folder / "tuned/run.sh", fs::perms::owner_exec, fs::perm_options::add);
    pair.compress();
    const nlohmann::json manifest = manifest_of(pair.folder / "delta");
    CHECK(!manifest["files"][0].contains("executable"));
    CHECK(manifest["files"][1]["executable"] == true);
    pair.apply();
    const auto mode = [&](const char* name) {
      return fs::status(pair.folder / name).permissions();
    };
    CHECK((mode("out/run.sh") & fs::perms::owner_exec) != fs::perms::none);
    CHECK((mode("out/config.json") & fs::perms::owner_exec) == fs::perms::none);
  }

  TEST_CASE("comes out as a file where the output's name asks for one, and that is told") {
    const FolderPair pair;
    pair.put_files();
    pair.compress();
    const CheckpointReport report = pair.apply("out.safetensors");
    CHECK(fs::is_regular_file(pair.folder / "out.safetensors"));
    CHECK(report.files == 0);
    CHECK(warned(report.warnings, pair.folder / "out.safetensors", "5 files"));
  }

  TEST_CASE("without its files, where they are not wanted, is a folder all the same") {
    const FolderPair pair;
    pair.put_files();
    CompressOptions options = FolderPair::lossless();
    options.companions = Companions::leave;
    CHECK(pair.compress(options).files == 0);
    const nlohmann::json manifest = manifest_of(pair.folder / "delta");
    CHECK(manifest["folder"] == true);
    CHECK(!manifest.contains("requires"));
    CHECK(!manifest.contains("files"));
    pair.apply();
    CHECK(files_of(pair.folder / "out").size() == 1);
    pair.check_model();
    CHECK(pair.apply("out.safetensors").warnings.empty());
  }

  TEST_CASE("and its base as a file, or the reverse") {
    const FolderPair pair;
    pair.put_files();
    fs::create_directory(pair.folder / "bases");
    fs::rename(pair.folder / "base", pair.folder / "bases/model.safetensors");
    pair.put("config.json", "the base's", "bases");
    fs::create_directory_symlink("bases", pair.folder / "base");
    pair.compress();
    pair.apply();
    CHECK(pair.companions("out") == pair.companions("tuned"));
    pair.compress(FolderPair::lossless(), {}, "tuned/model.safetensors");
    const nlohmann::json manifest = manifest_of(pair.folder / "delta");
    for (const char* key : {"folder", "files", "requires"}) CHECK(!manifest.contains(key));
    CHECK(!pair.archive().of_folder());
    pair.apply("file");
    CHECK(fs::is_regular_file(pair.folder / "file"));
  }

  TEST_CASE("without tensors") {
    const FolderPair pair;
    write_model(pair.folder / "tuned/model.safetensors", {});
    write_model(pair.folder / "base", {});
    pair.put("config.json", "{}");
    pair.compress();
    pair.apply();
    CHECK(Model::open(pair.folder / "out").tensors().empty());
    CHECK(pair.companions("out").size() == 1);
  }

  TEST_CASE("that carries files is refused by a reader that does not know them") {
    const FolderPair pair;
    pair.put("config.json", "{}");
    pair.compress();
    CHECK(manifest_of(pair.folder / "delta")["requires"] == nlohmann::json::array({"files"}));
  }
}

TEST_SUITE("left out") {
  TEST_CASE("in silence: what is hidden, the model itself, and traces of interrupted runs") {
    const FolderPair pair;
    pair.put("deltadct.plan", "x");
    pair.put("x.partial/deltadct.replaced", "x");
    pair.put(".gitattributes", "x");
    write_sharded(pair.folder / "tuned/.other", {pair.tuned});
    pair.put(".git/HEAD", "x");
    pair.put("a/.cache/x", "x");
    const CheckpointReport report = pair.compress();
    CHECK(report.files == 0);
    CHECK(report.warnings.empty());
  }

  TEST_CASE("weights of other kinds, archives among them, and that is told") {
    const FolderPair pair;
    for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json", "a.PT", "b.pth",
                             "c.ckpt", "onnx/d.onnx", "e.gguf", "f.h5", "g.msgpack"}) {
      pair.put(name, "weights");
    }
    write_model(pair.folder / "tuned/archive", pair.tuned);
    const CheckpointReport report = pair.compress();
    CHECK(report.files == 0);
    REQUIRE(report.warnings.size() == 1);
    CHECK(warned(report.warnings, pair.folder / "tuned", "a.PT, archive, b.pth"));
    CHECK(warned(report.warnings, pair.folder / "tuned", "and 5 more"));
  }

  TEST_CASE("indices of other models, and empty folders, and that is told") {
    const FolderPair pair;
    pair.put("other.safetensors.index.json", "{}");
    pair.put("onnx/model.safetensors.index.json", "{}");
    fs::create_directories(pair.folder / "tuned/a/empty");
    const CheckpointReport report = pair.compress();
    REQUIRE(report.warnings.size() == 2);
    CHECK(warned(report.warnings, pair.folder / "tuned",
                 "onnx/model.safetensors.index.json, other.safetensors.index.json: "));
    CHECK(warned(report.warnings, pair.folder / "tuned/a/empty", "an empty folder"));
    for (const Warning& warning : report.warnings) CHECK(warning.loss == io::Loss::beside);
  }

  TEST_CASE("what is not a regular file, and links that are not followed") {
    const FolderPair pair;
    pair.put("config.json", "{}", "elsewhere");
    REQUIRE(::mkfifo((pair.folder / "tuned/pipe").c_str(), 0600) == 0);
    fs::create_symlink("../elsewhere/config.json", pair.folder / "tuned/config.json");
    fs::create_directory_symlink("../elsewhere", pair.folder / "tuned/linked");
    fs::create_symlink("nowhere", pair.folder / "tuned/broken");
    fs::create_directory_symlink("..", pair.folder / "tuned/linked_up");
    CheckpointReport report = pair.compress();
    CHECK(report.files == 0);
    CHECK(report.warnings.size() == 5);
    CHECK(warned(report.warnings, pair.folder / "tuned/pipe", "not a regular file"));
    CHECK(warned(report.warnings, pair.folder / "tuned/config.json", "--follow-links"));
    CHECK(warned(report.warnings, pair.folder / "tuned/linked", "--follow-links"));
    fs::remove(pair.folder / "tuned/linked_up");
    fs::create_directory_symlink("../tuned", pair.folder / "tuned/linked_up");

    report = pair.compress(FolderPair::lossless(), {.links = Links::follow});
    CHECK(names_of(pair.archive().companions()) ==
          std::vector<std::string>{"config.json", "linked/config.json"});
    CHECK(report.warnings.size() == 3);
    CHECK(warned(report.warnings, pair.folder / "tuned/broken", "nowhere"));
    CHECK(warned(report.warnings, pair.folder / "tuned/linked_up", "holds it"));
    pair.apply();
    CHECK(get(pair.folder / "out/linked/config.json") == bytes_of("{}"));
    CHECK(fs::symlink_status(pair.folder / "out/config.json").type() == fs::file_type::regular);
  }

  TEST_CASE("files beyond the limits, the largest first, each named with its size") {
    const FolderPair pair;
    pair.put("a.json", std::string(900, 'a'));
    pair.put("b.json", std::string(500, 'b'));
    pair.put("config.json", std::string(400, 'c'));
    pair.put("huge.json", std::string(1001, 'h'));
    ReadOptions reading;
    reading.limits.file_bytes = 1000;
    reading.limits.files_bytes = 1000;
    const CheckpointReport report = pair.compress(FolderPair::lossless(), reading);
    CHECK(names_of(pair.archive().companions()) ==
          std::vector<std::string>{"b.json", "config.json"});
    CHECK(report.warnings.size() == 2);
    CHECK(warned(report.warnings, pair.folder / "tuned/huge.json", "1001 bytes"));
    CHECK(warned(report.warnings, pair.folder / "tuned/huge.json", "--limit file="));
    CHECK(warned(report.warnings, pair.folder / "tuned/a.json", "900 bytes"));
    CHECK(warned(report.warnings, pair.folder / "tuned/a.json", "--limit files="));
    reading.limits.files_bytes = 899;
    CHECK(caught([&] { DeltaArchive::open(pair.folder / "delta", reading); }).code() ==
          Errc::limit_exceeded);
  }

  TEST_CASE("names that no archive carries, and those that clash where case does not count") {
    const FolderPair pair;
    for (const char* name : {"a:b", "c\\d", "e\nf", "g\xff", "deltadct.md", "Config.json",
                             "config.json", "x/deltadct.md"}) {
      pair.put(name, "x");
    }
    const CheckpointReport report = pair.compress();
    CHECK(names_of(pair.archive().companions()) == std::vector<std::string>{"Config.json"});
    CHECK(report.warnings.size() == 7);
    CHECK(warned(report.warnings, pair.folder / "tuned/config.json", "upper and lower case"));
    CHECK(warned(report.warnings, pair.folder / "tuned/g\xff", "UTF-8"));
  }

  TEST_CASE("more files than an archive carries are an error, which names what helps") {
    const FolderPair pair;
    for (std::size_t i = 0; i <= io::kMaxFiles; ++i) pair.put("f" + std::to_string(i), "");
    const Error error = caught([&] { pair.compress(); });
    CHECK(error.code() == Errc::limit_exceeded);
    CHECK(names(error, "--no-files"));
  }
}

TEST_SUITE("files of an archive") {
  TEST_CASE("in parts, and an interrupted run goes on with those that are left") {
    const FolderPair pair;
    Files files;
    for (unsigned i = 0; i < 6; ++i) {
      const Tensor tensor = noise("", DType::u8, {3000}, i);
      pair.put("f" + std::to_string(i), text_of(tensor.bytes));
    }
    files = pair.companions("tuned");
    CompressOptions options = FolderPair::lossless();
    options.output = kShards;
    pair.compress(options);
    const Files whole = files_of(pair.folder / "delta");
    CHECK(whole.size() > 4);
    pair.apply();
    CHECK(pair.companions("out") == files);
    for (const auto& [name, file] : whole) CHECK(file.size() < 11'000);
    fs::rename(pair.folder / "delta", pair.folder / "before");

    for (const char* last : {"t0", "t2"}) {
      caught([&] { pair.compress(options, {}, "tuned", stop_after(last)); });
      CHECK(fs::exists(pair.folder / "delta.partial/delta-00001.safetensors"));
      options.output.resume = Resume::yes;
      pair.compress(options);
      CHECK(files_of(pair.folder / "delta") == whole);
      fs::remove_all(pair.folder / "delta");
      options.output.resume = Resume::no;
    }

    caught([&] { pair.compress(options, {}, "tuned", stop_after("t2")); });
    pair.put("f0", "changed");
    options.output.resume = Resume::yes;
    CHECK(caught([&] { pair.compress(options); }).code() == Errc::cannot_resume);
  }

  TEST_CASE("with names that lead out of the folder are refused when it is opened") {
    const Folder folder;
    for (const std::string name :
         {"../x", "/x", "a//x", ".x", "x\n", "model.safetensors", "deltadct.plan", "C:x"}) {
      CAPTURE(name);
      io::ArchiveWriter writer(folder / "delta", kForce, std::vector{name}, {}, {}, true);
      writer.add(FileEntry{name, 1, "", ""},
                 io::encode_lossless(bytes_of("x"), {}, 1, SerialExecutor{}));
      writer.finish();
      const Error error = caught([&] { DeltaArchive::open(folder / "delta"); });
      CHECK(error.code() == Errc::corrupt_data);
      CHECK(names(error, (folder / "delta").string()));
    }
  }

  TEST_CASE("that are not what was stored are found, and nothing appears") {
    const FolderPair pair;
    const Bytes content = bytes_of("content");
    const Bytes section = io::encode_lossless(content, {}, 1, SerialExecutor{});
    const auto write = [&](const FileEntry& file, std::span<const std::byte> stored) {
      fs::remove_all(pair.folder / "delta");
      io::ArchiveWriter writer(pair.folder / "delta", {}, std::vector{file.name}, {}, {}, true);
      writer.add(file, stored);
      writer.finish();
      write_model(pair.folder / "base", {});
    };
    const auto check = [&](Errc code) {
      for (const Error& error :
           {caught([&] { io::verify_archive(pair.archive(), nullptr, serial_codec); }),
            caught([&] { pair.apply(); })}) {
        CHECK(error.code() == code);
        CHECK(names(error, "delta: file:a/config.json"));
      }
      CHECK(!fs::exists(pair.folder / "out"));
      CHECK(!fs::exists(pair.folder / "out.partial"));
    };
    const std::string sum = io::fingerprint(content);
    write({"a/config.json", 7, sum, ""}, section);
    pair.apply("sound");
    write({"a/config.json", 7, io::fingerprint(section), ""}, section);
    check(Errc::checksum_mismatch);
    for (const std::uint64_t bytes :
         {std::uint64_t{0}, std::uint64_t{6}, std::uint64_t{8}, std::uint64_t{1} << 25}) {
      write({"a/config.json", bytes, sum, ""}, section);
      check(Errc::corrupt_data);
    }
    write({"a/config.json", 7, sum, ""}, std::span(section).first(8));
    check(Errc::corrupt_data);
    write({"a/config.json", 7, sum, ""}, section);
    Bytes file = get(pair.folder / "delta");
    const auto found = std::search(file.begin(), file.end(), section.begin(), section.end());
    REQUIRE(found != file.end());
    *(found + 8) ^= std::byte{1};
    io_test::put(pair.folder / "delta", file);
    check(Errc::checksum_mismatch);
  }

  TEST_CASE("whose section is missing, or which no file has") {
    const FolderPair pair;
    pair.put("config.json", "{}");
    pair.compress();
    Bytes file = get(pair.folder / "delta");
    std::string text = text_of(file);
    const std::size_t at = text.find("\"file:config.json\"");
    REQUIRE(at != std::string::npos);
    text[at + 6] = 'C';
    put_text(pair.folder / "delta", text);
    CHECK(caught([&] { pair.archive(); }).code() == Errc::corrupt_data);
  }
}

TEST_SUITE("an output with files") {
  TEST_CASE("is replaced by the next one, whatever files either has") {
    const FolderPair pair;
    const Files first = pair.put_files();
    pair.compress();
    pair.apply();
    CHECK(caught([&] { pair.apply(); }).code() == Errc::output_exists);
    if (!has_attributes(pair.folder)) {
      CHECK(caught([&] { pair.apply("out", kForce); }).code() == Errc::io_failure);
      return;
    }
    pair.apply("out", kForce);
    CHECK(pair.companions("out") == first);
    fs::remove_all(pair.folder / "tuned/a");
    pair.put("config.json", "{\"model_type\": \"gpt\"}");
    pair.put("new.json", "new");
    pair.compress();
    pair.apply("out", kForce);
    CHECK(pair.companions("out") == pair.companions("tuned"));
    CHECK(!fs::exists(pair.folder / "out/a"));
    CHECK(!fs::exists(pair.folder / "out.partial"));
  }

  TEST_CASE("is never replaced where it holds what was changed, or put there by others") {
    const FolderPair pair;
    pair.put_files();
    pair.compress();
    const fs::path out = pair.folder / "out";
    const std::function<void()> changes[] = {
        [&] { pair.put("config.json", "edited", "out"); },
        [&] {
          pair.put("config", "renamed over it", "out");
          fs::rename(out / "config", out / "config.json");
        },
        [&] { pair.put("notes.txt", "mine", "out"); },
        [&] { pair.put("a/b/notes.txt", "mine", "out"); },
        [&] { pair.put("a/adapter.safetensors", "mine", "out"); },
        [&] { fs::create_symlink("config.json", out / "a/link"); },
    };
    for (const auto& change : changes) {
      pair.apply();
      change();
      const Files before = pair.companions("out");
      const Error error = caught([&] { pair.apply("out", kForce); });
      CHECK(error.code() == Errc::io_failure);
      CHECK(names(error, out.string()));
      CHECK(pair.companions("out") == before);
      CHECK(!fs::exists(pair.folder / "out.partial"));
      fs::remove_all(out);
    }
  }

  TEST_CASE("a model of somebody else's is not replaced, not even the fine-tune itself") {
    const FolderPair pair;
    const Files before = pair.put_files();
    pair.compress();
    CHECK(caught([&] { pair.apply("tuned", kForce); }).code() == Errc::io_failure);
    CHECK(pair.companions("tuned") == before);
    pair.check_model("tuned");
  }

  TEST_CASE("what is put into the old one meanwhile stays") {
    const FolderPair pair;
    pair.put_files();
    pair.compress();
    if (!has_attributes(pair.folder)) return;
    pair.apply();
    pair.apply("out", kForce, [&](const io::Progress& progress) {
      if (progress.tensor == "t3") pair.put("1_Pooling/mine", "mine", "out");
    });
    CHECK(pair.companions("out") == pair.companions("tuned"));
    CHECK(get(pair.folder / "out.partial/1_Pooling/mine") == bytes_of("mine"));
  }

  TEST_CASE("does not appear where the run fails, and is started over or resumed") {
    const FolderPair pair;
    const Files files = pair.put_files();
    pair.compress();
    caught([&] { pair.apply("out", {}, stop_after("t1")); });
    CHECK(!fs::exists(pair.folder / "out"));
    CHECK(!fs::exists(pair.folder / "out.partial"));
    OutputOptions output{.max_shard_bytes = 5000};
    for (const Resume resume : {Resume::no, Resume::yes}) {
      caught([&] { pair.apply("out", output, stop_after("t1")); });
      CHECK(fs::exists(pair.folder / "out.partial"));
      output.resume = resume;
      pair.apply("out", output);
      CHECK(pair.companions("out") == files);
      pair.check_model();
      fs::remove_all(pair.folder / "out");
    }
  }
}

TEST_SUITE("a stage with files") {
  /// A run that was interrupted after it had written a shard and all files.
  struct Interrupted {
    Interrupted() {
      io::AtomicFolder output(path, Overwrite::no, Resume::no, "plan", sums);
      put_text(output.stage() / "a.safetensors", "");
      add(output);
    }

    void add(const io::AtomicFolder& output) const {
      for (const auto& [name, sum] : sums) {
        output.add(name, [&](io::AtomicFile& file) {
          file.write(text);
          return io::fingerprint(text);
        });
      }
    }

    void finish(Resume resume) const {
      io::AtomicFolder output(path, Overwrite::no, resume, "plan", sums);
      put_text(output.stage() / "a.safetensors", "");
      add(output);
      output.publish();
    }

    ino_t inode(const char* in) const {
      struct stat status {};
      REQUIRE(::stat((folder / in / "b/c/config.json").c_str(), &status) == 0);
      return status.st_ino;
    }

    void lose_attributes() const {
      for (const auto& [name, sum] : sums) {
        ::removexattr((folder / "out.partial" / name).c_str(), io::detail::kSumAttribute);
      }
    }

    Folder folder;
    fs::path path = folder / "out";
    Bytes text = bytes_of("{}");
    io::FileSums sums{{"config.json", io::fingerprint(text)},
                      {"b/c/config.json", io::fingerprint(text)}};
  };

  TEST_CASE("is resumed with those that are there, or started over") {
    for (const bool has_lost : {false, true}) {
      for (const Resume resume : {Resume::yes, Resume::no}) {
        const Interrupted run;
        const ino_t before = run.inode("out.partial");
        if (has_lost) run.lose_attributes();
        run.finish(resume);
        CHECK(get(run.path / "b/c/config.json") == run.text);
        if (resume == Resume::yes) CHECK(run.inode("out") == before);
        CHECK(run.folder.entries() == 1);
      }
    }
  }

  TEST_CASE("of another run is started over where its files are known to be ours") {
    const Interrupted run;
    const auto begin = [&] { io::AtomicFolder(run.path, Overwrite::no, Resume::no, "other"); };
    if (has_attributes(run.folder)) {
      begin();
      CHECK(run.folder.entries() == 0);
    }
    const Interrupted other;
    other.lose_attributes();
    CHECK(caught([&] {
            io::AtomicFolder(other.path, Overwrite::no, Resume::no, "other");
          }).code() == Errc::io_failure);
    CHECK(get(other.folder / "out.partial/config.json") == other.text);
  }

  TEST_CASE("in which somebody has changed or added a file is left as it is") {
    const Interrupted run;
    const fs::path stage = run.folder / "out.partial";
    put_text(stage / "b/mine", "mine");
    for (const Resume resume : {Resume::yes, Resume::no}) {
      CHECK(caught([&] { run.finish(resume); }).code() == Errc::io_failure);
      CHECK(get(stage / "b/mine") == bytes_of("mine"));
    }
    fs::remove(stage / "b/mine");
    put_text(stage / "config.json", "edited");
    CHECK(caught([&] { run.finish(Resume::yes); }).code() == Errc::io_failure);
    CHECK(get(stage / "config.json") == bytes_of("edited"));
  }

  TEST_CASE("does not stay where no shard is complete") {
    const Interrupted sums;
    const Folder folder;
    {
      io::AtomicFolder output(folder / "out", Overwrite::no, Resume::no, "plan", sums.sums);
      sums.add(output);
    }
    CHECK(folder.entries() == 0);
  }
}
