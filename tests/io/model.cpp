// Models on disk: one file, or shards with an index. What does not fit together is refused.
#include <deltadct/io/model.hpp>

#include "sharded.hpp"

#include <sys/stat.h>

using namespace io_test;

namespace {

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
