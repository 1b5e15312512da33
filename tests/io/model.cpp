// Models on disk: one file, or shards with an index. What does not fit together is refused.
#include "pair.hpp"

#include <sys/stat.h>

using namespace io_test;
using io::Links;
using nlohmann::json;

namespace {

const std::string kIndex = "model.safetensors.index.json";
const ReadOptions kStrict{.strictness = io::Strictness::strict};

std::string name_of(std::size_t i) {
  return "t" + std::to_string(i);
}

std::vector<Tensor> some_tensors(std::size_t count) {
  std::vector<Tensor> tensors;
  for (std::size_t i = 0; i < count; ++i) {
    tensors.push_back(noise(name_of(i), DType::f32, {8, 10}, static_cast<unsigned>(i)));
  }
  return tensors;
}

/// Divides tensors into shards of `count` each.
std::vector<std::vector<Tensor>> cut(const std::vector<Tensor>& tensors, std::size_t count) {
  std::vector<std::vector<Tensor>> shards;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (i % count == 0) shards.emplace_back();
    shards.back().push_back(tensors[i]);
  }
  return shards;
}

json weights(const std::vector<std::pair<std::string, std::string>>& map) {
  json result = json::object();
  for (const auto& [tensor, shard] : map) result[tensor] = shard;
  return {{"weight_map", result}};
}

/// A folder with the shards a.safetensors (tensors a and b) and c.safetensors (tensor c), and an
/// index that the test writes.
struct Sharded {
  Sharded() {
    write_model(folder / "a.safetensors", std::vector{a, b});
    write_model(folder / "c.safetensors", std::vector{c});
    index(sound());
  }

  static json sound() {
    return weights({{"a", "a.safetensors"}, {"b", "a.safetensors"}, {"c", "c.safetensors"}});
  }
  void index(const std::string& text) const { put(folder / kIndex, bytes_of(text)); }
  void index(const json& value) const { index(value.dump()); }

  Error refused(const ReadOptions& options = {}) const {
    const Error error = caught([&] { Model::open(folder.path, options); });
    INFO(std::string(error.what()));
    CHECK(names(error, folder.path.string()));
    return error;
  }
  Errc refuses(const json& value, const ReadOptions& options = {}) const {
    index(value);
    return refused(options).code();
  }
  Errc refuses_text(const std::string& text, const ReadOptions& options = {}) const {
    index(text);
    return refused(options).code();
  }

  Tensor a = noise("a", DType::f32, {3}, 1);
  Tensor b = noise("b", DType::i8, {5}, 2);
  Tensor c = noise("c", DType::bf16, {2, 2}, 3);
  Folder folder;
};

/// The number of files below a folder that this process has open or mapped.
std::size_t open_files(const fs::path& folder) {
  std::size_t count = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
    count += fs::read_symlink(entry.path(), error).string().starts_with(folder.string() + "/");
  }
  return count;
}

std::size_t maps(const fs::path& folder) {
  std::ifstream file("/proc/self/maps");
  std::size_t count = 0;
  for (std::string line; std::getline(file, line);) {
    count += line.find(folder.string() + "/") != line.npos;
  }
  return count;
}

/// Expects exactly these warnings, given by the end of their place and a part of their text.
void check_warns(const Model& model,
                 const std::vector<std::pair<std::string, std::string>>& expected) {
  const std::vector<io::Warning> warnings = model.warnings();
  REQUIRE(warnings.size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    INFO(warnings[i].where << ": " << warnings[i].what);
    CHECK(warnings[i].where.ends_with(expected[i].first));
    CHECK(warnings[i].what.find(expected[i].second) != std::string::npos);
    CHECK(warnings[i].what.size() <= 200);  // fits one line
  }
}

void check_holds(const Model& model, const std::vector<Tensor>& tensors) {
  REQUIRE(model.tensors().size() == tensors.size());
  for (const Tensor& tensor : tensors) {
    CAPTURE(tensor.name);
    const auto* const found = model.find(tensor.name);
    REQUIRE(found != nullptr);
    CHECK(found->dtype == tensor.dtype);
    CHECK(found->shape == tensor.shape);
    CHECK(data(model, tensor.name) == tensor.bytes);
  }
  CHECK(model.find("absent") == nullptr);
}

}  // namespace

TEST_SUITE("what opens") {
  TEST_CASE("a file") {
    const Folder folder;
    const auto tensors = some_tensors(3);
    write_model(folder / "any name", tensors, {{"k", "v"}});
    for (const Access access : {Access::map, Access::read}) {
      const Model model = Model::open(folder / "any name", reading(access));
      check_holds(model, tensors);
      CHECK(model.shards() == 1);
      CHECK(model.metadata() == io::Metadata{{"k", "v"}});
      CHECK(model.metadata(1).empty());
      CHECK(model.index_metadata().empty());
      CHECK(model.file_bytes() == fs::file_size(folder / "any name"));
      CHECK(model.path() == folder / "any name");
      CHECK(model.shard_path(model.tensors()[0]) == folder / "any name");
      CHECK(model.identity().size() == 1);
    }
  }

  TEST_CASE("a folder with the usual index, whatever else it holds") {
    const Folder folder;
    const auto tensors = some_tensors(5);
    write_sharded(folder.path, cut(tensors, 2), {{"format", "pt"}});
    put(folder / "config.json", bytes_of("{}"));
    put(folder / "other.safetensors.index.json", bytes_of("no index"));
    put(folder / "other.safetensors", bytes_of("no model"));
    for (const Access access : {Access::map, Access::read}) {
      const Model model = Model::open(folder.path, reading(access));
      check_holds(model, tensors);
      CHECK(model.shards() == 3);
      for (std::size_t i = 0; i < 3; ++i) CHECK(model.metadata(i).at("format") == "pt");
      CHECK(model.tensors()[4].shard == 2);
      CHECK(model.shard_path(model.tensors()[4]) == folder / "part-00003.safetensors");
      std::uint64_t bytes = fs::file_size(folder / kIndex);
      for (const char* part : {"part-00001", "part-00002", "part-00003"}) {
        bytes += fs::file_size(folder / (std::string(part) + ".safetensors"));
      }
      CHECK(model.file_bytes() == bytes);
    }
  }

  TEST_CASE("a folder with another index, if it is the only one") {
    const Folder folder;
    const auto tensors = some_tensors(5);
    write_sharded(folder.path, cut(tensors, 2), {}, "diffusion.fp16.safetensors.index.json");
    check_holds(Model::open(folder.path), tensors);
    check_holds(Model::open(folder.path / ""), tensors);
  }

  TEST_CASE("a folder with one file of any name") {
    const Folder folder;
    const auto tensors = some_tensors(2);
    write_model(folder / "x.safetensors", tensors);
    put(folder / "tokenizer.json", bytes_of("{}"));
    check_holds(Model::open(folder.path), tensors);
  }

  TEST_CASE("an index, whose shards lie beside it") {
    const Folder folder;
    const auto tensors = some_tensors(5);
    write_sharded(folder / "model", cut(tensors, 1));
    check_holds(Model::open(folder / "model" / kIndex), tensors);
    // Another index in the same folder does no harm, and an index need not have the usual name.
    fs::rename(folder / "model" / kIndex, folder / "model" / "x.index.json");
    check_holds(Model::open(folder / "model" / "x.index.json"), tensors);
  }

  TEST_CASE("paths relative to the working folder") {
    const Folder folder;
    const auto tensors = some_tensors(3);
    write_sharded(folder / "model", cut(tensors, 1));
    const fs::path before = fs::current_path();
    fs::current_path(folder / "model");
    const Model by_index = Model::open(kIndex);
    const Model by_folder = Model::open(".");
    check_holds(by_index, tensors);
    check_holds(by_folder, tensors);
    fs::current_path(before);
  }

  TEST_CASE("an index that maps nothing") {
    const Folder folder;
    put(folder / kIndex, bytes_of(R"({"weight_map":{}})"));
    const Model model = Model::open(folder.path);
    CHECK(model.tensors().empty());
    CHECK(model.shards() == 0);
    CHECK(model.metadata().empty());
  }

  TEST_CASE("the index's strings are kept, other values and members ignored") {
    const Sharded sharded;
    json value = Sharded::sound();
    value["metadata"] = {{"total_size", 12 + 5 + 8}, {"k", "v"}, {"n", 3}, {"list", json::array()}};
    value["more"] = {1, 2, 3};
    sharded.index(value);
    const Model model = Model::open(sharded.folder.path);
    CHECK(model.index_metadata() == io::Metadata{{"k", "v"}});
    check_holds(model, {sharded.a, sharded.b, sharded.c});
  }

  TEST_CASE("a part of a tensor, and nothing beyond it") {
    const Sharded sharded;
    for (const Access access : {Access::map, Access::read}) {
      const Model model = Model::open(sharded.folder.path, reading(access));
      const auto& b = *model.find("b");
      io::TensorBytes bytes;
      for (std::uint64_t from = 0; from <= 5; ++from) {
        for (std::uint64_t length = 0; length <= 5 - from; ++length) {
          model.read(b, from, length, bytes);
          CHECK(
              std::ranges::equal(bytes.bytes(), std::span(sharded.b.bytes).subspan(from, length)));
        }
      }
      constexpr std::uint64_t kMost = ~std::uint64_t{0};
      const std::pair<std::uint64_t, std::uint64_t> outside[] = {
          {0, 6}, {5, 1}, {6, 0}, {kMost, 1}, {1, kMost}, {kMost, kMost}};
      for (const auto& [from, length] : outside) {
        const Error error = caught([&, at = from, n = length] { model.read(b, at, n, bytes); });
        CHECK(error.code() == Errc::bad_range);
        CHECK(names(error, (sharded.folder / "a.safetensors").string() + ": b"));
      }
    }
  }

  TEST_CASE("bytes brought to an aligned address are the same") {
    const Folder folder;
    std::vector<Tensor> tensors = {noise("odd", DType::u8, {3}, 1), noise("x", DType::f64, {4}, 2)};
    write_model(folder / "m", tensors);
    for (const Access access : {Access::map, Access::read}) {
      const Model model = Model::open(folder / "m", reading(access));
      io::TensorBytes bytes;
      for (int i = 0; i < 3; ++i) {
        model.read(*model.find("x"), bytes);
        bytes.align(8);
        CHECK(reinterpret_cast<std::uintptr_t>(bytes.bytes().data()) % 8 == 0);
        CHECK(std::ranges::equal(bytes.bytes(), tensors[1].bytes));
        bytes.release();
        CHECK(std::ranges::equal(bytes.bytes(), tensors[1].bytes));
      }
    }
  }
}

TEST_SUITE("shards of a pair") {
  TEST_CASE("cut differently in base and fine-tune, they give the same entries and tensors") {
    const Folder folder;
    const auto base = some_tensors(12);
    std::vector<Tensor> tuned;
    for (const Tensor& tensor : base) tuned.push_back(moved(tensor, kStep, 50));
    std::ranges::sort(tuned, {},
                      &Tensor::name);  // the order of the shards' names and of the single file
    const auto shards = cut(tuned, 4);
    write_model(folder / "base", base);
    write_model(folder / "tuned", tuned);
    write_sharded(folder / "base by 5", cut(base, 5));
    write_sharded(folder / "base by 1", cut(base, 1));
    write_sharded(folder / "tuned by 4", cut(tuned, 4));
    write_sharded(folder / "tuned by 7", cut(tuned, 7));
    std::vector<Bytes> archives;
    std::vector<Bytes> outputs;
    for (const std::string b : {"base", "base by 5", "base by 1"}) {
      for (const std::string t : {"tuned", "tuned by 4", "tuned by 7"}) {
        const Model from = Model::open(folder / b);
        io::compress_model(from, Model::open(folder / t), folder / "delta", options_of(4),
                           serial_codec);
        archives.push_back(get(folder / "delta"));
        ApplyOptions options;
        options.output.overwrite = Overwrite::yes;
        io::apply_archive(from, DeltaArchive::open(folder / "delta"), folder / "out", options,
                          serial_codec);
        // From a folder, the output is a folder.
        const bool is_folder = fs::is_directory(folder / "out");
        CHECK(is_folder == fs::is_directory(folder / t));
        outputs.push_back(get(is_folder ? folder / "out" / "model.safetensors" : folder / "out"));
        fs::remove_all(folder / "out");
      }
    }
    // An archive records whether the model was a file or a folder, but not how it was sharded.
    CHECK(archives[1] != archives[0]);
    for (std::size_t i = 0; i < archives.size(); ++i) {
      CHECK(archives[i] == archives[i % 3 == 0 ? 0 : 1]);
    }
    for (const Bytes& output : outputs) CHECK(output == outputs[0]);
  }

  TEST_CASE("errors name the shard") {
    const Folder folder;
    auto base = some_tensors(4);
    write_sharded(folder / "base", cut(base, 1));
    base[2].set(5, std::nan(""));
    write_sharded(folder / "tuned", cut(base, 1));
    io::compress_model(Model::open(folder / "base"), Model::open(folder / "base"), folder / "delta",
                       options_of(4), serial_codec);
    const Error error = caught([&] {
      io::apply_archive(Model::open(folder / "tuned"), DeltaArchive::open(folder / "delta"),
                        folder / "out", {}, serial_codec);
    });
    CHECK(error.code() == Errc::wrong_base);
    CHECK(names(error, (folder / "tuned" / "part-00003.safetensors").string() + ": t2"));
  }

  TEST_CASE("two thousand of them keep no more than a few open") {
    if (!fs::exists("/proc/self/maps")) {
      MESSAGE("skipped: no /proc/self/maps");
      return;
    }
    const Folder folder;
    fs::create_directory(folder / "base");
    fs::create_directory(folder / "tuned");
    // Written without the syncs that make a model writer slow.
    io::ShardIndex index;
    for (std::size_t i = 0; i < 2000; ++i) {
      const std::string shard = name_of(i) + ".safetensors";
      const std::string header =
          '"' + name_of(i) + R"(":{"dtype":"F32","shape":[4,4],"data_offsets":[0,64]})";
      const Tensor tensor = noise(name_of(i), DType::f32, {4, 4}, static_cast<unsigned>(i));
      for (const bool tuned : {false, true}) {
        Bytes bytes(8);
        bytes[0] = static_cast<std::byte>(header.size() + 2);
        for (const Bytes& part :
             {bytes_of("{" + header + "}"), tuned ? moved(tensor, kStep, 1).bytes : tensor.bytes}) {
          bytes.insert(bytes.end(), part.begin(), part.end());
        }
        put(folder / (tuned ? "tuned" : "base") / shard, bytes);
      }
      index.shards[shard].push_back(name_of(i));
    }
    put(folder / "base" / kIndex, bytes_of(io::shard_index_text(index)));
    put(folder / "tuned" / kIndex, bytes_of(io::shard_index_text(index)));
    for (const Access access : {Access::map, Access::read}) {
      const Model from = Model::open(folder / "base", reading(access));
      const Model to = Model::open(folder / "tuned", reading(access));
      CHECK(open_files(folder.path) == 0);
      CHECK(maps(folder.path) == 0);
      std::size_t steps = 0;
      std::size_t most = 0;
      const auto watch = [&](const io::Progress&) {
        if (++steps % 100 != 0) return;
        most = std::max(most, open_files(folder / "base") + open_files(folder / "tuned") +
                                  maps(folder / "base") + maps(folder / "tuned"));
      };
      io::compress_model(from, to, folder / "delta", options_of(4), serial_codec, SerialExecutor{},
                         watch);
      CHECK(steps == 2000);
      CHECK(most <= 4);
      ApplyOptions options;
      options.output.overwrite = Overwrite::yes;
      io::apply_archive(from, DeltaArchive::open(folder / "delta"), folder / "out", options,
                        serial_codec, SerialExecutor{}, watch);
      CHECK(most <= 4);
      CHECK(open_files(folder.path) == 0);
      CHECK(maps(folder.path) == 0);
    }
  }

  TEST_CASE("bytes keep their shard open, and are the same for all who hold it") {
    const Sharded sharded;
    const Model model = Model::open(sharded.folder.path);
    CHECK(maps(sharded.folder.path) == 0);
    {
      io::TensorBytes a;
      io::TensorBytes b;
      model.read(*model.find("a"), a);
      model.read(*model.find("b"), b);
      CHECK(maps(sharded.folder.path) == 1);
      fs::remove(sharded.folder / "a.safetensors");
      CHECK(std::ranges::equal(a.bytes(), sharded.a.bytes));
      model.read(*model.find("b"), b);  // still open
      CHECK(std::ranges::equal(b.bytes(), sharded.b.bytes));
    }
    CHECK(maps(sharded.folder.path) == 0);
    CHECK(caught([&] { data(model, "a"); }).code() == Errc::io_failure);
  }
}

TEST_SUITE("files that changed since they were opened") {
  TEST_CASE("another file under the same name") {
    for (const Access access : {Access::map, Access::read}) {
      const Sharded sharded;
      const Model model = Model::open(sharded.folder.path, reading(access));
      put(sharded.folder / "new", get(sharded.folder / "a.safetensors"));
      fs::last_write_time(sharded.folder / "new",
                          fs::last_write_time(sharded.folder / "a.safetensors"));
      fs::rename(sharded.folder / "new", sharded.folder / "a.safetensors");
      const Error error = caught([&] { data(model, "b"); });
      CHECK(error.code() == Errc::io_failure);
      CHECK(names(error, (sharded.folder / "a.safetensors").string() + ": b"));
      CHECK(data(model, "c") == sharded.c.bytes);
    }
  }

  TEST_CASE("the same file written again") {
    const Sharded sharded;
    const Model model = Model::open(sharded.folder.path);
    const fs::path path = sharded.folder / "a.safetensors";
    fs::last_write_time(path, fs::last_write_time(path) + std::chrono::nanoseconds(1000));
    CHECK(caught([&] { data(model, "a"); }).code() == Errc::io_failure);
  }

  TEST_CASE("a file that grew, shrank or went away") {
    for (const int bytes : {-1, 0, 1}) {
      const Sharded sharded;
      const fs::path path = sharded.folder / "a.safetensors";
      const auto size = fs::file_size(path);
      const auto time = fs::last_write_time(path);
      const Model model = Model::open(sharded.folder.path);
      if (bytes == 0) {
        fs::remove(path);
      } else {
        fs::resize_file(path, bytes < 0 ? size - 1 : size + 1);
        fs::last_write_time(path, time);
      }
      CHECK(caught([&] { data(model, "a"); }).code() == Errc::io_failure);
    }
  }

  TEST_CASE("a file that became a symbolic link or a pipe") {
    const Sharded sharded;
    const Model model = Model::open(sharded.folder.path);
    fs::rename(sharded.folder / "a.safetensors", sharded.folder / "b");
    fs::create_symlink(sharded.folder / "b", sharded.folder / "a.safetensors");
    CHECK(caught([&] { data(model, "a"); }).code() == Errc::io_failure);
    fs::remove(sharded.folder / "a.safetensors");
    REQUIRE(::mkfifo((sharded.folder / "a.safetensors").c_str(), 0600) == 0);
    CHECK(caught([&] { data(model, "a"); }).code() == Errc::io_failure);
  }
}

TEST_SUITE("which file of a folder is the model") {
  Errc refuses(const Folder& folder, std::string_view text, const ReadOptions& options = {}) {
    const Error error = caught([&] { Model::open(folder.path, options); });
    INFO(std::string(error.what()));
    CHECK(error.where() == folder.path.string());
    CHECK(names(error, text));
    return error.code();
  }

  TEST_CASE("model.safetensors, whatever lies beside it, unless there is the usual index") {
    const Folder folder;
    const auto tensors = some_tensors(4);
    write_model(folder / "model.safetensors", tensors);
    write_model(folder / "consolidated.safetensors", some_tensors(2));
    write_model(folder / "adapter_model.safetensors", some_tensors(1));
    write_sharded(folder.path, cut(some_tensors(3), 2), {}, "other.safetensors.index.json");
    put(folder / "pytorch_model.bin", bytes_of("PK"));
    const Model model = Model::open(folder.path);
    check_holds(model, tensors);
    CHECK(model.shards() == 1);
    CHECK(model.warnings().empty());
    write_sharded(folder.path, cut(some_tensors(3), 2));
    const Model sharded = Model::open(folder.path);
    check_holds(sharded, some_tensors(3));
    check_warns(sharded, {{"model.safetensors", "transformers reads it"}});
    write_model(folder / "model.safetensors", some_tensors(1));
    put(folder / kIndex, bytes_of(weights({{"t0", "model.safetensors"}}).dump()));
    const Model named = Model::open(folder.path);
    check_holds(named, some_tensors(1));
    CHECK(named.warnings().empty());
  }

  TEST_CASE("the only one that is no delta archive and no adapter") {
    const Pair pair = one_pair(DType::f32, {32, 32});
    pair.compress(options_of(4));
    const Folder folder;
    const fs::path weights = folder / "weights.safetensors";
    fs::copy(pair.folder / "delta", folder / "delta.safetensors");
    CHECK(DeltaArchive::open(folder.path).entries().size() == 1);
    fs::copy(pair.folder / "tuned", weights);
    fs::copy(pair.folder / "delta", folder / "another.safetensors");
    fs::copy(pair.folder / "base", folder / "adapter_model.safetensors");
    check_holds(Model::open(folder.path), pair.tuned);
    fs::copy(pair.folder / "base", folder / "base.safetensors");
    CHECK(refuses(folder, "'base.safetensors', 'weights.safetensors': give the path of one") ==
          Errc::no_model);
    fs::remove(folder / "base.safetensors");
    fs::remove(weights);
    CHECK(refuses(folder,
                  "no model, but delta archives, or parts of one without its index: "
                  "'another.safetensors', "
                  "'delta.safetensors'") == Errc::no_model);
    fs::remove(folder / "another.safetensors");
    CHECK(DeltaArchive::open(folder.path).entries().size() == 1);
  }

  TEST_CASE("a sharded delta archive is passed over, with its parts") {
    const Pair pair = one_pair(DType::f32, {32, 32});
    CompressOptions options = options_of(4);
    options.output.max_shard_bytes = 1;
    pair.compress(options);
    const Folder folder;
    for (const auto& entry : fs::directory_iterator(pair.folder / "delta"))
      fs::copy(entry, folder.path);
    CHECK(DeltaArchive::open(folder.path).entries().size() == 1);
    write_sharded(folder.path, {pair.tuned}, {}, "weights.safetensors.index.json");
    check_holds(Model::open(folder.path), pair.tuned);
    fs::remove(folder / "weights.safetensors.index.json");
    check_holds(Model::open(folder.path), pair.tuned);
  }

  TEST_CASE("what cannot be read is not passed over") {
    const Folder folder;
    write_model(folder / "a.safetensors", some_tensors(1));
    put(folder / "b.safetensors", bytes_of("nothing"));
    CHECK(refuses(folder, "'a.safetensors', 'b.safetensors'") == Errc::no_model);
  }

  TEST_CASE("an adapter is named") {
    const Folder folder;
    put(folder / "adapter_config.json", bytes_of("{}"));
    CHECK(refuses(folder, "merge it into its base") == Errc::no_model);
    write_model(folder / "adapter_model.safetensors", some_tensors(1));
    CHECK(refuses(folder, "merge it into its base") == Errc::no_model);
    fs::remove(folder / "adapter_config.json");
    CHECK(refuses(folder, "adapter") == Errc::no_model);
    CHECK(Model::open(folder / "adapter_model.safetensors").tensors().size() == 1);
  }

  TEST_CASE("files of other formats are named") {
    const Folder folder;
    put(folder / "training_args.bin", bytes_of("PK"));
    put(folder / "x.gguf", bytes_of("GGUF"));
    CHECK(refuses(folder, "'x.gguf' is a GGUF file") == Errc::no_model);
    put(folder / "pytorch_model-00001-of-00002.bin", bytes_of("PK"));
    put(folder / "pytorch_model-00002-of-00002.bin", bytes_of("PK"));
    CHECK(refuses(folder,
                  "'pytorch_model-00001-of-00002.bin', 'pytorch_model-00002-of-00002.bin' "
                  "is a PyTorch file") == Errc::no_model);
    write_model(folder / "weights.safetensors", some_tensors(1));
    CHECK(Model::open(folder.path).tensors().size() == 1);
  }
}

TEST_SUITE("files of other formats") {
  TEST_CASE("are named, alone, as shard and as index") {
    const Sharded sharded;
    const std::string lfs =
        "version https://git-lfs.github.com/spec/v1\noid sha256:4cac19622fc3ada9c0fdeadb33f88f36\n"
        "size 4976698672\n";
    struct Foreign {
      std::string begin, text;
    };
    for (const Foreign& foreign :
         std::initializer_list<Foreign>{{lfs, "git lfs pull"},
                                        {"GGUF\x03", "GGUF"},
                                        {std::string("PK\x03\x04\0\0\x08\x08", 8), "PyTorch"},
                                        {std::string("PK\x03\x04\0\0\0\0", 8), "PyTorch"},
                                        {"\x80\x02\x8a\n", "pickle"},
                                        {"\x80\x04\x95", "pickle"},
                                        {"\x89HDF\r\n", "HDF5"},
                                        {"<!DOCTYPE html>", "web page"}}) {
      CAPTURE(foreign.text);
      for (const Access access : {Access::map, Access::read}) {
        for (const char* name : {"c.safetensors", "a.safetensors"}) {
          const Bytes before = get(sharded.folder / name);
          put(sharded.folder / name, bytes_of(foreign.begin + std::string(100, '\1')));
          for (const fs::path& path : {sharded.folder.path, sharded.folder / name}) {
            const Error error = caught([&] { Model::open(path, reading(access)); });
            CHECK(error.code() == Errc::bad_container);
            CHECK(names(error, (sharded.folder / name).string()));
            CHECK(names(error, foreign.text));
          }
          put(sharded.folder / name, before);
        }
        sharded.index(foreign.begin);
        CHECK(names(sharded.refused(reading(access)), foreign.text));
        sharded.index(Sharded::sound());
      }
    }
  }

  TEST_CASE("a safetensors file whose length begins as they do is none of them") {
    const std::string zip("PK\x03\x04\0\0\0\0", 8);
    CHECK(io::detail::foreign_format(zip + "\x08") != nullptr);
    CHECK(io::detail::foreign_format(zip + "{") == nullptr);
    CHECK(io::detail::foreign_format("") == nullptr);
    CHECK(io::detail::foreign_format("GGU") == nullptr);
  }
}

TEST_SUITE("malformed folders") {
  TEST_CASE("nothing in it") {
    const Folder folder;
    const Error error = caught([&] { Model::open(folder.path); });
    CHECK(error.code() == Errc::no_model);
    CHECK(names(error, folder.path.string()));
    put(folder / "config.json", bytes_of("{}"));
    CHECK(caught([&] { Model::open(folder.path); }).code() == Errc::no_model);
  }

  TEST_CASE("several files without an index") {
    const Sharded sharded;
    fs::remove(sharded.folder / kIndex);
    CHECK(sharded.refused().code() == Errc::no_model);
  }

  TEST_CASE("several indices, none of the usual name") {
    const Sharded sharded;
    fs::rename(sharded.folder / kIndex, sharded.folder / "x.safetensors.index.json");
    CHECK(Model::open(sharded.folder.path).tensors().size() == 3);
    fs::copy(sharded.folder / "x.safetensors.index.json",
             sharded.folder / "y.safetensors.index.json");
    CHECK(sharded.refused().code() == Errc::no_model);
  }

  TEST_CASE("a path that is not there") {
    const Folder folder;
    for (const std::string name : {"absent", "absent/model", "absent.index.json"}) {
      const Error error = caught([&] { Model::open(folder / name); });
      CHECK(error.code() == Errc::io_failure);
      CHECK(names(error, (folder / name).string()));
    }
  }
}

TEST_SUITE("malformed names of shards") {
  void check_name(const std::string& name) {
    CAPTURE(name);
    const Sharded sharded;
    fs::create_directory(sharded.folder / "sub");
    fs::copy(sharded.folder / "c.safetensors", sharded.folder / "sub");
    json value = Sharded::sound();
    value["weight_map"]["c"] = name;
    CHECK(sharded.refuses(value) == Errc::bad_index);
    ReadOptions follow;
    follow.links = Links::follow;
    CHECK(sharded.refuses(value, follow) == Errc::bad_index);
  }

  TEST_CASE("parent folders") {
    check_name("..");
    check_name(".");
    check_name("../c.safetensors");
    check_name("sub/../c.safetensors");
    check_name("./c.safetensors");
  }

  TEST_CASE("folders below") {
    check_name("sub/c.safetensors");
    check_name("sub/");
  }

  TEST_CASE("absolute paths") {
    check_name("/c.safetensors");
    check_name("//c.safetensors");
    check_name("/dev/zero");
    const Folder folder;
    check_name((folder / "c.safetensors").string());
  }

  TEST_CASE("backslashes") {
    check_name("..\\c.safetensors");
    check_name("\\c.safetensors");
    check_name("sub\\c.safetensors");
  }

  TEST_CASE("drives and streams") {
    check_name("C:c.safetensors");
    check_name("C:\\c.safetensors");
    check_name("c.safetensors:stream");
  }

  TEST_CASE("control characters, and more than a file system takes") {
    for (const char* name : {"c\n", "\x1b]0;title\x07", "\x7F", "\xC2\x9B", "\xC2\x85"}) {
      check_name(name);
    }
    check_name(std::string(256, 'c'));
  }

  TEST_CASE("the empty name") {
    check_name("");
  }

  TEST_CASE("NUL") {
    check_name(std::string("c.safetensors\0.txt", 18));
  }
}

TEST_SUITE("malformed shards") {
  TEST_CASE("a symbolic link, which is followed only where that is asked for") {
    const Sharded sharded;
    fs::rename(sharded.folder / "c.safetensors", sharded.folder / "elsewhere");
    fs::create_symlink("elsewhere", sharded.folder / "c.safetensors");
    const Error error = sharded.refused();
    CHECK(error.code() == Errc::io_failure);
    CHECK(names(error, "symbolic link"));
    CHECK(names(error, "--follow-links"));
    ReadOptions follow;
    follow.links = Links::follow;
    check_holds(Model::open(sharded.folder.path, follow), {sharded.a, sharded.b, sharded.c});
    // A path given by the caller may be a link in any case.
    const Folder other;
    fs::create_directory_symlink(sharded.folder.path, other / "model");
    check_holds(Model::open(other / "model", follow), {sharded.a, sharded.b, sharded.c});
    fs::create_symlink(sharded.folder / "a.safetensors", other / "one");
    CHECK(Model::open(other / "one").tensors().size() == 2);
  }

  TEST_CASE("an index that is a symbolic link in a folder") {
    const Sharded sharded;
    fs::rename(sharded.folder / kIndex, sharded.folder / "elsewhere");
    fs::create_symlink("elsewhere", sharded.folder / kIndex);
    CHECK(sharded.refused().code() == Errc::io_failure);
    ReadOptions follow;
    follow.links = Links::follow;
    CHECK(Model::open(sharded.folder.path, follow).tensors().size() == 3);
    CHECK(Model::open(sharded.folder / kIndex).tensors().size() == 3);
    fs::remove(sharded.folder / "elsewhere");  // a dangling link still counts as an index
    CHECK(sharded.refused(follow).code() == Errc::io_failure);
  }

  TEST_CASE("a single file in a folder that is a symbolic link") {
    const Folder folder;
    write_model(folder / "elsewhere", some_tensors(1));
    fs::create_symlink("elsewhere", folder / "m.safetensors");
    CHECK(caught([&] { Model::open(folder.path); }).code() == Errc::io_failure);
    ReadOptions follow;
    follow.links = Links::follow;
    CHECK(Model::open(folder.path, follow).tensors().size() == 1);
  }

  TEST_CASE("a pipe, which is refused without waiting for its writer") {
    const Sharded sharded;
    fs::remove(sharded.folder / "c.safetensors");
    REQUIRE(::mkfifo((sharded.folder / "c.safetensors").c_str(), 0600) == 0);
    const Error error = sharded.refused();
    CHECK(error.code() == Errc::io_failure);
    CHECK(names(error, "c.safetensors"));
  }

  TEST_CASE("a folder") {
    const Sharded sharded;
    fs::remove(sharded.folder / "c.safetensors");
    fs::create_directory(sharded.folder / "c.safetensors");
    CHECK(sharded.refused().code() == Errc::io_failure);
  }

  TEST_CASE("one that is missing") {
    const Sharded sharded;
    fs::remove(sharded.folder / "c.safetensors");
    const Error error = sharded.refused();
    CHECK(error.code() == Errc::io_failure);
    CHECK(names(error, "c.safetensors"));
  }

  TEST_CASE("one that is no container, or cut off") {
    const Sharded sharded;
    const Bytes whole = get(sharded.folder / "c.safetensors");
    for (std::size_t length = 0; length < whole.size(); ++length) {
      put(sharded.folder / "c.safetensors", std::span(whole).first(length));
      CHECK(sharded.refused().code() == Errc::bad_container);
    }
  }

  TEST_CASE("a tensor in two of them: the one that the index names") {
    const Sharded sharded;
    const Tensor other = noise("b", DType::f32, {7}, 4);
    write_model(sharded.folder / "c.safetensors", std::vector{sharded.c, other});
    const Error error = sharded.refused(kStrict);
    CHECK(error.code() == Errc::bad_index);
    CHECK(names(error, kIndex + ": b"));
    for (const bool first : {true, false}) {
      json value = Sharded::sound();
      value["weight_map"]["b"] = first ? "a.safetensors" : "c.safetensors";
      sharded.index(value);
      const Model model = Model::open(sharded.folder.path);
      check_holds(model, {sharded.a, first ? sharded.b : other, sharded.c});
      CHECK(model.shard_path(*model.find("b")).filename() ==
            (first ? "a.safetensors" : "c.safetensors"));
      check_warns(model, {{kIndex + ": b", "in several shards; the one that the index names"}});
    }
  }

  TEST_CASE("a tensor in two of them, and not in the index: the last") {
    const Sharded sharded;
    const Tensor other = noise("b", DType::f32, {7}, 4);
    write_model(sharded.folder / "c.safetensors", std::vector{other, sharded.c});
    sharded.index(weights({{"a", "a.safetensors"}, {"c", "c.safetensors"}}));
    const Model model = Model::open(sharded.folder.path);
    check_holds(model, {sharded.a, other, sharded.c});
    check_warns(model, {{kIndex + ": b", "not in the index; the last is used"}});
    CHECK(sharded.refused(kStrict).code() == Errc::bad_index);
  }

  TEST_CASE("a tensor in the index that its shard lacks") {
    const Sharded sharded;
    json value = Sharded::sound();
    value["weight_map"]["d"] = "c.safetensors";
    CHECK(sharded.refuses(value) == Errc::bad_index);
    CHECK(names(sharded.refused(), ": d"));
    value = Sharded::sound();
    value["weight_map"]["b"] = "c.safetensors";
    CHECK(sharded.refuses(value) == Errc::bad_index);
    CHECK(names(sharded.refused(), ": b"));
  }

  TEST_CASE("a tensor in a shard that the index lacks") {
    const Sharded sharded;
    CHECK(sharded.refuses(weights({{"a", "a.safetensors"}, {"c", "c.safetensors"}}), kStrict) ==
          Errc::bad_index);
    CHECK(names(sharded.refused(kStrict), ": b"));
    const Model model = Model::open(sharded.folder.path);
    check_holds(model, {sharded.a, sharded.b, sharded.c});
    check_warns(model, {{kIndex + ": b", "used, as by transformers 5, vLLM and mlx-lm"}});
  }

  TEST_CASE("many tensors that the index lacks are one warning") {
    const Folder folder;
    const auto tensors = some_tensors(9);
    write_sharded(folder.path, cut(tensors, 3));
    json index = json::parse(text_of(get(folder / kIndex)));
    index["metadata"] = json::object();
    for (const std::size_t i : {4U, 1U, 8U, 7U}) index["weight_map"].erase(name_of(i));
    put(folder / kIndex, bytes_of(index.dump()));
    const Model model = Model::open(folder.path);
    check_holds(model, tensors);
    for (std::size_t i = 0; i < 9; ++i) CHECK(model.tensors()[i].name == name_of(i));
    check_warns(model, {{kIndex + ": t1", "(and 3 more)"}});
  }

  TEST_CASE("null for metadata in their headers") {
    const Sharded sharded;
    for (const char* name : {"a.safetensors", "c.safetensors"}) {
      const Bytes whole = get(sharded.folder / name);
      const std::string text = text_of(std::span(whole).subspan(8));
      const auto end = text.find("}}") + 2;
      json header = json::parse(text.substr(0, end));
      header["__metadata__"] = nullptr;
      std::string changed = header.dump();
      changed.resize((changed.size() + 7) / 8 * 8, ' ');
      std::string length(8, '\0');
      for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(changed.size() >> (8 * i));
      const std::size_t data = whole.size() - 5 - (name[0] == 'a' ? 12 : 3);
      put(sharded.folder / name,
          bytes_of(length + changed + text_of(std::span(whole).subspan(data))));
    }
    const Model model = Model::open(sharded.folder.path);
    check_holds(model, {sharded.a, sharded.b, sharded.c});
    CHECK(model.metadata().empty());
    check_warns(
        model, {{"a.safetensors: __metadata__", "null, and treated as absent, as by safetensors"}});
    CHECK(model.warnings()[0].what.ends_with("(and 1 more)"));
    CHECK(sharded.refused(kStrict).code() == Errc::bad_container);
  }
}

TEST_SUITE("malformed indices") {
  json with_total(json total) {
    json value = Sharded::sound();
    value["metadata"] = {{"total_size", std::move(total)}};
    return value;
  }

  TEST_CASE("total_size is that of the tensors, or absent") {
    const Sharded sharded;
    sharded.index(with_total(12 + 5 + 8));
    CHECK(Model::open(sharded.folder.path).tensors().size() == 3);
    json value = Sharded::sound();
    value["metadata"] = json::object();
    sharded.index(value);
    CHECK(Model::open(sharded.folder.path).tensors().size() == 3);
  }

  TEST_CASE("total_size that lies") {
    const Sharded sharded;
    for (const std::int64_t total :
         {std::int64_t{24}, std::int64_t{26}, std::int64_t{0}, std::int64_t{0x7FFFFFFFFFFFFFFF}}) {
      CHECK(sharded.refuses(with_total(total), kStrict) == Errc::bad_index);
      const Model model = Model::open(sharded.folder.path);
      check_holds(model, {sharded.a, sharded.b, sharded.c});
      check_warns(model,
                  {{kIndex, "total_size is " + std::to_string(total) +
                                ", the tensors have 25 bytes; transformers, vLLM and mlx-lm"}});
    }
  }

  TEST_CASE("total_size that is no plain number") {
    const Sharded sharded;
    for (const json& total : {json(-25), json(25.0), json(25.5), json("25"), json(nullptr),
                              json(true), json::array({25}), json(~std::uint64_t{0})}) {
      CAPTURE(total.dump());
      CHECK(sharded.refuses(with_total(total), kStrict) == Errc::bad_container);
      const Model model = Model::open(sharded.folder.path);
      check_holds(model, {sharded.a, sharded.b, sharded.c});
      check_warns(model, {{kIndex, "total_size is not an integer"}});
    }
  }

  TEST_CASE("what is not JSON") {
    const Sharded sharded;
    for (const std::string text : {"", "{", "weight_map", R"({"weight_map":{}}})",
                                   R"({"weight_map":{},})", "{'weight_map':{}}"}) {
      CAPTURE(text);
      CHECK(sharded.refuses_text(text) == Errc::bad_container);
    }
    CHECK(sharded.refuses_text(Sharded::sound().dump() + std::string(1, '\0')) ==
          Errc::bad_container);
    CHECK(sharded.refuses_text("\xEF\xBB\xBF" + Sharded::sound().dump()) == Errc::bad_container);
    const std::string whole = Sharded::sound().dump();
    for (std::size_t length = 0; length < whole.size(); ++length) {
      CHECK(sharded.refuses_text(whole.substr(0, length)) == Errc::bad_container);
    }
  }

  TEST_CASE("what is no object") {
    const Sharded sharded;
    for (const std::string text : {"[]", "3", "\"weight_map\"", "null"}) {
      CHECK(sharded.refuses_text(text) == Errc::bad_container);
    }
  }

  TEST_CASE("no weight_map") {
    const Sharded sharded;
    CHECK(sharded.refuses(json::object()) == Errc::bad_index);
    CHECK(sharded.refuses(json{{"metadata", json::object()}}) == Errc::bad_index);
  }

  TEST_CASE("a weight_map that is no object, and metadata, which matter to nobody") {
    const Sharded sharded;
    for (const json& value : {json::array(), json("a"), json(3), json(nullptr)}) {
      CHECK(sharded.refuses(json{{"weight_map", value}}) == Errc::bad_index);
      json other = Sharded::sound();
      other["metadata"] = value;
      CHECK(sharded.refuses(other, kStrict) == Errc::bad_index);
      const Model model = Model::open(sharded.folder.path);
      check_holds(model, {sharded.a, sharded.b, sharded.c});
      check_warns(model, {{kIndex, "metadata is not an object"}});
    }
  }

  TEST_CASE("a tensor that is mapped to no string") {
    const Sharded sharded;
    for (const json& value :
         {json::array({"c.safetensors"}), json(3), json(nullptr), json::object()}) {
      json index = Sharded::sound();
      index["weight_map"]["c"] = value;
      CHECK(sharded.refuses(index) == Errc::bad_container);
    }
  }

  TEST_CASE("a key twice, at any level, however it is escaped") {
    const Sharded sharded;
    const std::string map = Sharded::sound()["weight_map"].dump();
    CHECK(sharded.refuses_text(R"({"weight_map":)" + map + R"(,"weight_map":)" + map + "}") ==
          Errc::bad_container);
    CHECK(sharded.refuses_text(R"({"weight_map":{"a":"a.safetensors","b":"a.safetensors",)"
                               R"("c":"c.safetensors","\u0061":"a.safetensors"}})") ==
          Errc::bad_container);
  }

  TEST_CASE("nested too deep") {
    const Sharded sharded;
    ReadOptions options;
    options.limits.depth = 3;  // as deep as a shard's header
    const auto nested = [](std::size_t depth) {
      return R"({"x":)" + std::string(depth, '[') + std::string(depth, ']') +
             R"(,"weight_map":{"a":"a.safetensors","b":"a.safetensors","c":"c.safetensors"}})";
    };
    sharded.index(nested(2));
    CHECK(Model::open(sharded.folder.path, options).tensors().size() == 3);
    CHECK(sharded.refuses_text(nested(3), options) == Errc::bad_container);
    CHECK(sharded.refuses_text(nested(100000)) == Errc::bad_container);
  }

  TEST_CASE("more tensors, shards or bytes than are accepted") {
    const Sharded sharded;
    ReadOptions options;
    options.limits.tensors = 3;
    CHECK(Model::open(sharded.folder.path, options).tensors().size() == 3);
    options.limits.tensors = 2;
    CHECK(sharded.refused(options).code() == Errc::limit_exceeded);
    options = {};
    options.limits.shards = 2;
    CHECK(Model::open(sharded.folder.path, options).shards() == 2);
    options.limits.shards = 1;
    CHECK(sharded.refused(options).code() == Errc::limit_exceeded);
    options = {};
    options.limits.header_bytes = 300;
    CHECK(Model::open(sharded.folder.path, options).shards() == 2);
    CHECK(sharded.refuses_text(Sharded::sound().dump() + std::string(300, ' '), options) ==
          Errc::limit_exceeded);
  }

  TEST_CASE("more tensors in the shards than are accepted in all, though in none alone") {
    const Folder folder;
    write_sharded(folder.path, cut(some_tensors(6), 2));
    ReadOptions options;
    options.limits.tensors = 6;
    CHECK(Model::open(folder.path, options).tensors().size() == 6);
    options.limits.tensors = 5;
    CHECK(caught([&] { Model::open(folder.path, options); }).code() == Errc::limit_exceeded);
  }

  TEST_CASE("an index is parsed without files") {
    const auto index = io::parse_shard_index(
        R"({"metadata":{"total_size":7},"weight_map":{"x":"b","y":"a","z":"b"}})", "where");
    CHECK(index.total_size == 7);
    REQUIRE(index.shards.size() == 2);
    CHECK(index.shards.at("a") == std::vector<std::string>{"y"});
    CHECK(index.shards.at("b") == std::vector<std::string>{"x", "z"});
    const auto again = io::parse_shard_index(io::shard_index_text(index), "where");
    CHECK(again.shards == index.shards);
    CHECK(again.total_size == index.total_size);
    const Error error = caught([] { io::parse_shard_index("{}", "the place"); });
    CHECK(error.where() == "the place");
  }
}

TEST_SUITE("renaming") {
  const auto without_prefix = [](std::string_view name) {
    return std::string(name.starts_with("model.") ? name.substr(6) : name);
  };

  TEST_CASE("tensors are found under their new names alone, and read as before") {
    const Folder folder;
    std::vector<Tensor> tensors = some_tensors(5);
    for (const std::size_t i : {0U, 3U, 4U}) tensors[i].name = "model." + tensors[i].name;
    write_sharded(folder.path, cut(tensors, 2));
    const Model model = Model::open(folder.path).renamed(without_prefix);
    CHECK(model.find("model.t0") == nullptr);
    check_holds(model, some_tensors(5));
    CHECK(names(caught([&] {
                  io::TensorBytes bytes;
                  model.read(*model.find("t3"), 1000, 1, bytes);
                }),
                "t3"));
  }

  TEST_CASE("two names that become one") {
    const Folder folder;
    const Tensor tensor = noise("w", DType::f32, {4}, 1);
    write_model(folder / "m",
                std::vector{renamed(tensor, "model.w"), renamed(tensor, "x"), tensor});
    const Error error = caught([&] { Model::open(folder / "m").renamed(without_prefix); });
    CHECK(error.code() == Errc::name_clash);
    CHECK(error.where() == (folder / "m").string() + ": w");
    CHECK(names(error, "'model.w'"));
    CHECK(names(error, "'w'"));
    CHECK(!names(error, "'x'"));
  }

  TEST_CASE("names that cannot be stored") {
    const Folder folder;
    write_model(folder / "m", std::vector{noise("w", DType::f32, {4}, 1)});
    for (const std::string& name :
         {std::string("__metadata__"), std::string("\xC3"), std::string("a\0b", 3)}) {
      const Error error = caught(
          [&] { Model::open(folder / "m").renamed([&](std::string_view) { return name; }); });
      CHECK(error.code() == Errc::bad_container);
    }
  }

  TEST_CASE("an archive has the names of the fine-tune, and needs the base under them") {
    const Tensor base = noise("model.w", DType::f32, {40, 30}, 1);
    const Tensor only = noise("model.only", DType::f32, {4}, 2);
    const Tensor tuned = moved(renamed(base, "w"), kStep, 3);
    const Pair pair({base, only}, {tuned});
    const Model renamed = Model::open(pair.folder / "base").renamed(without_prefix);
    io::compress_model(renamed, Model::open(pair.folder / "tuned"), pair.folder / "delta",
                       options_of(4, {{8, 1.0}}), serial_codec);
    CHECK(pair.mode("w") == Mode::delta);
    CHECK(pair.mode("only") == Mode::removed);
    const Error error = caught([&] { pair.apply(); });
    CHECK(error.code() == Errc::missing_tensor);
    CHECK(names(error, "--rename"));
    io::verify_archive(pair.archive(), &renamed, serial_codec);
    io::apply_archive(renamed, pair.archive(), pair.folder / "out", {}, serial_codec);
    CHECK(pair.out().tensors().size() == 1);
    const auto lost =
        difference(values(DType::f32, data(pair.out(), "w")), values(DType::f32, tuned.bytes));
    CHECK(norm(lost) < 0.1 * kStep * norm(values(DType::f32, tuned.bytes)));
  }

  TEST_CASE("what was interrupted under other names is not gone on with") {
    const Pair pair = one_pair(DType::f32, {8, 8});
    const auto plan = [&](const std::string& name) {
      return io::detail::identity_json(
          Model::open(pair.folder / "base").renamed([&](std::string_view) { return name; }));
    };
    CHECK(plan("w") == io::detail::identity_json(Model::open(pair.folder / "base")));
    CHECK(plan("v") != plan("w"));
  }
}

TEST_SUITE("archives") {
  TEST_CASE("what a model would be warned of is refused in an archive") {
    const Pair pair = one_pair(DType::f32, {64, 64});
    CompressOptions options = options_of(4);
    options.output.max_shard_bytes = 1000;
    pair.compress(options);
    const fs::path path = pair.folder / "delta" / "delta.safetensors.index.json";
    const json sound = json::parse(text_of(get(path)));
    const auto refused = [&](const json& index) {
      put(path, bytes_of(index.dump()));
      return caught([&] { pair.archive(); }).code();
    };
    json index = sound;
    index["metadata"]["total_size"] = 1;
    CHECK(refused(index) == Errc::bad_index);
    index["metadata"]["total_size"] = "1";
    CHECK(refused(index) == Errc::bad_container);
    index["metadata"] = nullptr;
    CHECK(refused(index) == Errc::bad_index);
    index = sound;
    index["weight_map"].erase("delta:w");
    CHECK(refused(index) == Errc::bad_index);
    put(path, bytes_of(sound.dump()));
    CHECK(pair.archive().entries().size() == 1);
  }
}
