// Folders that appear complete or not at all, and runs that are resumed in them.
#include "pair.hpp"

#include <chrono>
#include <cmath>

using namespace io_test;
using io::AtomicFolder;
using namespace std::chrono_literals;

namespace {

using Files = std::map<std::string, Bytes>;

constexpr std::uint64_t kShardBytes = 40'000;

/// A pair with many tensors of every mode, some larger than a shard in these tests.
Pair many() {
  std::vector<Tensor> base;
  std::vector<Tensor> tuned;
  for (unsigned i = 0; i < 20; ++i) {
    const std::string name = "t" + std::to_string(i);
    const DType dtype = i % 3 == 0 ? DType::f32 : DType::bf16;
    const std::uint64_t side = i == 7 ? 200 : 64;
    const Shape shape = i % 4 == 3 ? Shape{side * side} : Shape{side, side};
    base.push_back(noise(name, dtype, shape, i));
    tuned.push_back(i % 5 == 4 ? base.back() : moved(base.back(), kStep, 100 + i));
  }
  for (const std::size_t i : {std::size_t{2}, std::size_t{3}}) {
    tuned.push_back(tuned[i]);
    tuned.back().name += " tied";
  }
  tuned.push_back(noise("added", DType::f16, {30, 30}, 200));
  base.push_back(noise("removed", DType::f16, {30, 30}, 201));
  return {std::move(base), std::move(tuned)};
}

CompressOptions sharded(Resume resume = Resume::no, Overwrite overwrite = Overwrite::no) {
  CompressOptions options = options_of(4, {{8, 0.5}, {2, 0.5}});
  options.output = {overwrite, kShardBytes / 2, resume};
  return options;
}

ApplyOptions sharded_apply(Resume resume = Resume::no, Overwrite overwrite = Overwrite::no) {
  ApplyOptions options;
  options.output = {overwrite, kShardBytes, resume};
  return options;
}

/// Progress that throws once a given tensor is done.
io::ProgressFn stop_after(const std::string& name) {
  return [name](const io::Progress& progress) {
    if (progress.tensor == name) throw Error(Errc::too_large, "stopped");
  };
}

void write_file(const AtomicFolder& folder, const std::string& name, std::string_view text) {
  write_own(folder.stage() / name, text);
}

std::map<std::string, ino_t> inodes(const fs::path& folder) {
  std::map<std::string, ino_t> result;
  for (const auto& entry : fs::directory_iterator(folder)) {
    struct stat status {};
    REQUIRE(::stat(entry.path().c_str(), &status) == 0);
    result.emplace(entry.path().filename().string(), status.st_ino);
  }
  return result;
}

std::uint64_t bytes_in(const Files& files) {
  std::uint64_t bytes = 0;
  for (const auto& [name, file] : files) bytes += file.size();
  return bytes;
}

}  // namespace

TEST_SUITE("a folder") {
  TEST_CASE("appears with all its files, and nothing beside it stays") {
    const Folder folder;
    {
      AtomicFolder output(folder / "out", Overwrite::no, Resume::no, "plan");
      CHECK(output.stage() == folder / "out.partial");
      write_file(output, "a.safetensors", "1");
      write_file(output, "x.safetensors.index.json", "2");
      CHECK(output.has("a.safetensors"));
      CHECK(!output.has("b.safetensors"));
      CHECK(!fs::exists(folder / "out"));
      output.publish();
    }
    CHECK(files_of(folder / "out") ==
          Files{{"a.safetensors", bytes_of("1")}, {"x.safetensors.index.json", bytes_of("2")}});
    CHECK(folder.entries() == 1);
  }

  TEST_CASE("without publish() it does not appear, and what is complete is kept") {
    const Folder folder;
    { AtomicFolder output(folder / "out", Overwrite::no, Resume::no, "plan"); }
    CHECK(folder.entries() == 0);
    {
      AtomicFolder output(folder / "out", Overwrite::no, Resume::no, "plan");
      put(output.stage() / ".deltadct-0123456789abcdef.tmp", bytes_of("half"));
    }
    CHECK(folder.entries() == 0);
    {
      AtomicFolder output(folder / "out", Overwrite::no, Resume::no, "plan");
      write_file(output, "a.safetensors", "1");
    }
    CHECK(folder.entries() == 1);
    CHECK(files_of(folder / "out.partial") ==
          Files{{"a.safetensors", bytes_of("1")}, {"deltadct.plan", bytes_of("plan")}});
  }

  TEST_CASE("that cannot be begun leaves no stage") {
    const Folder folder;
    const auto begin = [&] { AtomicFolder(folder / "out", Overwrite::no, Resume::no, "a plan"); };
    {
      const FileSizeLimit limit(0);  // the plan cannot be written
      CHECK(caught(begin).code() == Errc::io_failure);
    }
    CHECK(folder.entries() == 0);
    {
      const NoMoreDescriptors limit;  // nor created
      CHECK(caught(begin).code() == Errc::io_failure);
    }
    CHECK(folder.entries() == 0);
    begin();
    CHECK(folder.entries() == 0);
  }

  TEST_CASE("that cannot be begun leaves what an interrupted run has completed") {
    const Folder folder;
    const auto begin = [&](Resume resume, std::string_view plan) {
      AtomicFolder output(folder / "out", Overwrite::no, resume, plan);
      write_file(output, "a.safetensors", "1");
    };
    begin(Resume::no, "plan");
    {
      const NoMoreDescriptors limit;
      CHECK(caught([&] { begin(Resume::yes, "plan"); }).code() == Errc::io_failure);
    }
    CHECK(caught([&] { begin(Resume::yes, "another"); }).code() == Errc::cannot_resume);
    CHECK(AtomicFolder(folder / "out", Overwrite::no, Resume::yes, "plan").has("a.safetensors"));
  }

  TEST_CASE("a handler of signals removes a stage in which nothing is complete, and no other") {
    const Folder folder;
    const io::StageRemover remove(folder / "out");
    remove();
    fs::create_directory(folder / "out.partial");
    put(folder / "out.partial" / "deltadct.plan", bytes_of("of another process"));
    remove();
    CHECK(files_of(folder / "out.partial").size() == 1);
    fs::remove_all(folder / "out.partial");
    {
      AtomicFolder output(folder / "out", Overwrite::no, Resume::no, "plan");
      remove();
      CHECK(folder.entries() == 0);
    }
    {
      AtomicFolder output(folder / "out", Overwrite::no, Resume::no, "plan");
      write_file(output, "a.safetensors", "1");
      remove();
      CHECK(folder.entries() == 1);
    }
    AtomicFolder(folder / "out", Overwrite::no, Resume::yes, "plan").publish();
    CHECK(files_of(folder / "out") == Files{{"a.safetensors", bytes_of("1")}});
    CHECK(folder.entries() == 1);
  }

  TEST_CASE("a path may end in a slash, and be relative") {
    const Folder folder;
    const fs::path before = fs::current_path();
    fs::current_path(folder.path);
    {
      AtomicFolder output("out/", Overwrite::no, Resume::no, "plan");
      write_file(output, "a.safetensors", "1");
      output.publish();
    }
    fs::current_path(before);
    CHECK(files_of(folder / "out").size() == 1);
    CHECK(folder.entries() == 1);
    CHECK(caught([] { AtomicFolder("", Overwrite::no, Resume::no, ""); }).code() ==
          Errc::io_failure);
    CHECK(caught([&] {
            AtomicFolder(folder / "absent" / "out", Overwrite::no, Resume::no, "");
          }).code() == Errc::io_failure);
  }

  TEST_CASE("an output that exists is refused") {
    const Folder folder;
    for (const bool is_file : {true, false}) {
      if (is_file) {
        put(folder / "out", bytes_of("mine"));
      } else {
        fs::create_directory(folder / "out");
      }
      CHECK(caught([&] { AtomicFolder(folder / "out", Overwrite::no, Resume::no, ""); }).code() ==
            Errc::output_exists);
      CHECK(folder.entries() == 1);
      fs::remove(folder / "out");
    }
    fs::create_symlink("nowhere", folder / "out");
    CHECK(caught([&] { AtomicFolder(folder / "out", Overwrite::no, Resume::no, ""); }).code() ==
          Errc::output_exists);
  }

  TEST_CASE("an output that appears meanwhile is not replaced") {
    const Folder folder;
    AtomicFolder output(folder / "out", Overwrite::no, Resume::no, "plan");
    write_file(output, "a.safetensors", "1");
    fs::create_directory(folder / "out");
    put(folder / "out" / "mine", bytes_of("mine"));
    CHECK(caught([&] { output.publish(); }).code() == Errc::output_exists);
    CHECK(files_of(folder / "out") == Files{{"mine", bytes_of("mine")}});
  }

  TEST_CASE("an output is replaced where that is asked for") {
    const Folder folder;
    for (const std::string before : {"none", "file", "empty", "files"}) {
      CAPTURE(before);
      fs::remove_all(folder / "out");
      if (before == "file") put(folder / "out", bytes_of("mine"));
      if (before == "empty" || before == "files") fs::create_directory(folder / "out");
      if (before == "files") {
        if (!has_attributes(folder)) continue;
        for (const char* name :
             {"a.safetensors", "b.safetensors", "model.safetensors.index.json"}) {
          write_own(folder / "out" / name, "old");
        }
      }
      AtomicFolder output(folder / "out", Overwrite::yes, Resume::no, "plan");
      write_file(output, "a.safetensors", "new");
      output.publish();
      CHECK(files_of(folder / "out") == Files{{"a.safetensors", bytes_of("new")}});
      CHECK(folder.entries() == 1);
    }
  }

  TEST_CASE("an output that holds anything else is never replaced") {
    const Folder folder;
    fs::create_directory(folder / "out");
    const fs::path out = folder / "out";
    write_own(out / "a.safetensors", "old");
    put(folder / "elsewhere", bytes_of("mine"));
    const std::function<void()> others[] = {
        [&] { put(out / "config.json", bytes_of("{}")); },
        [&] {
          fs::create_directory(out / "x.safetensors");
          put(out / "x.safetensors" / "y.safetensors", bytes_of("mine"));
        },
        [&] { fs::create_symlink("../elsewhere", out / "x.safetensors"); },
        [&] { put(out / "x.safetensors", bytes_of("mine")); },
        [&] { put(out / "model.safetensors.index.json", bytes_of("mine")); },
        [&] { fs::copy_file(out / "a.safetensors", out / "x.safetensors"); },
        [&] {
          write_own(out / "x.safetensors", "edited later");
          fs::last_write_time(out / "x.safetensors", fs::file_time_type::clock::now() + 1s);
        },
    };
    for (const auto& make : others) {
      make();
      CHECK(caught([&] { AtomicFolder(out, Overwrite::yes, Resume::no, ""); }).code() ==
            Errc::io_failure);
      CHECK(folder.entries() == 2);
      CHECK(get(out / "a.safetensors") == bytes_of("old"));
      fs::remove(out / "config.json");
      fs::remove(out / "model.safetensors.index.json");
      fs::remove_all(out / "x.safetensors");
    }
    CHECK(get(folder / "elsewhere") == bytes_of("mine"));
    fs::remove_all(out);
    fs::create_directory(folder / "real");
    fs::create_directory_symlink("real", out);
    CHECK(caught([&] { AtomicFolder(out, Overwrite::yes, Resume::no, ""); }).code() ==
          Errc::io_failure);
  }
}

TEST_SUITE("a stage") {
  TEST_CASE("of an interrupted run is resumed where the plan is the same") {
    const Folder folder;
    {
      AtomicFolder output(folder / "out", Overwrite::no, Resume::no, "plan");
      write_file(output, "a.safetensors", "1");
    }
    put(folder / "out.partial" / ".deltadct-0123456789abcdef.tmp", bytes_of("half"));
    AtomicFolder output(folder / "out", Overwrite::no, Resume::yes, "plan");
    CHECK(output.has("a.safetensors"));
    CHECK(files_of(folder / "out.partial").size() == 2);
    output.publish();
    CHECK(files_of(folder / "out") == Files{{"a.safetensors", bytes_of("1")}});
  }

  TEST_CASE("is not resumed, and stays, where the plan is another one") {
    const Folder folder;
    {
      AtomicFolder output(folder / "out", Overwrite::no, Resume::no, "plan");
      write_file(output, "a.safetensors", "1");
    }
    const Files before = files_of(folder / "out.partial");
    for (const std::string plan : {"", "plan2", "pla", "Plan"}) {
      const Error error =
          caught([&] { AtomicFolder(folder / "out", Overwrite::no, Resume::yes, plan); });
      CHECK(error.code() == Errc::cannot_resume);
      CHECK(names(error, (folder / "out.partial").string()));
    }
    CHECK(files_of(folder / "out.partial") == before);
  }

  TEST_CASE("is started over where that is asked for, or nothing in it is complete") {
    const Folder folder;
    {
      AtomicFolder output(folder / "out", Overwrite::no, Resume::no, "an old and longer plan");
      write_file(output, "a.safetensors", "1");
    }
    {
      AtomicFolder output(folder / "out", Overwrite::no, Resume::no, "plan");
      CHECK(files_of(folder / "out.partial") == Files{{"deltadct.plan", bytes_of("plan")}});
    }
    CHECK(folder.entries() == 0);
    fs::create_directory(folder / "out.partial");
    put(folder / "out.partial" / "deltadct.plan", bytes_of("another"));
    put(folder / "out.partial" / "model.safetensors.index.json", bytes_of("{}"));
    AtomicFolder output(folder / "out", Overwrite::no, Resume::yes, "plan");
    CHECK(files_of(folder / "out.partial") == Files{{"deltadct.plan", bytes_of("plan")}});
  }

  TEST_CASE("that is not of an interrupted run is refused and left as it is") {
    const Folder folder;
    const fs::path stage = folder / "out.partial";
    const std::function<void()> others[] = {
        [&] { put(stage, bytes_of("mine")); },
        [&] {
          fs::create_directory(stage);
          put(stage / "a.safetensors", bytes_of("mine"));  // without a plan
        },
        [&] {
          fs::create_directory(stage);
          put(stage / "deltadct.plan", bytes_of("plan"));
          put(stage / "mine.txt", bytes_of("mine"));
        },
        [&] {
          fs::create_directories(stage / "mine");
          put(stage / "mine" / "mine.txt", bytes_of("mine"));
          put(stage / "deltadct.plan", bytes_of("plan"));
        },
        [&] {
          fs::create_directory(stage);
          put(folder / "mine", bytes_of("plan"));
          fs::create_symlink("../mine", stage / "deltadct.plan");
        },
        [&] { fs::create_symlink("nowhere", stage); },
    };
    for (const auto& make : others) {
      make();
      for (const Resume resume : {Resume::no, Resume::yes}) {
        const std::size_t before = folder.entries();
        const bool is_folder = fs::is_directory(stage);
        const std::size_t held =
            is_folder ? static_cast<std::size_t>(std::distance(fs::directory_iterator(stage), {}))
                      : 0;
        CHECK(caught([&] {
                AtomicFolder(folder / "out", Overwrite::yes, resume, "plan");
              }).code() == Errc::io_failure);
        CHECK(folder.entries() == before);
        if (is_folder) {
          CHECK(static_cast<std::size_t>(std::distance(fs::directory_iterator(stage), {})) == held);
        }
      }
      fs::remove_all(stage);
      fs::remove(folder / "mine");
    }
  }

  TEST_CASE("that is an output a run has replaced, and not lived to remove, is removed") {
    for (const Resume resume : {Resume::no, Resume::yes}) {
      const Folder folder;
      fs::create_directory(folder / "out.partial");
      put(folder / "out.partial" / "old.safetensors", bytes_of("old"));
      put(folder / "out.partial" / "deltadct.replaced", {});
      {
        AtomicFolder output(folder / "out", Overwrite::yes, resume, "plan");
        CHECK(files_of(output.stage()) == Files{{"deltadct.plan", bytes_of("plan")}});
        put(output.stage() / "new.safetensors", bytes_of("new"));
        output.publish();
      }
      CHECK(files_of(folder / "out") == Files{{"new.safetensors", bytes_of("new")}});
      CHECK(folder.entries() == 1);
    }
  }

  TEST_CASE("that is a symbolic link to a folder is refused") {
    const Folder folder;
    fs::create_directory(folder / "real");
    fs::create_directory_symlink("real", folder / "out.partial");
    CHECK(caught([&] { AtomicFolder(folder / "out", Overwrite::no, Resume::no, "plan"); }).code() ==
          Errc::io_failure);
    CHECK(fs::is_empty(folder / "real"));
  }

  TEST_CASE("has one writer at a time") {
    const Folder folder;
    AtomicFolder first(folder / "out", Overwrite::no, Resume::no, "plan");
    write_file(first, "a.safetensors", "1");
    for (const Resume resume : {Resume::no, Resume::yes}) {
      const Error error =
          caught([&] { AtomicFolder(folder / "out", Overwrite::no, resume, "plan"); });
      CHECK(error.code() == Errc::io_failure);
      CHECK(names(error, "another process"));
    }
    first.publish();
    CHECK(files_of(folder / "out") == Files{{"a.safetensors", bytes_of("1")}});
  }
}

TEST_SUITE("sharded outputs") {
  TEST_CASE("restore the same as single ones, in every combination") {
    const Pair pair = many();
    const CheckpointReport single = pair.compress(options_of(4, {{8, 0.5}, {2, 0.5}}));
    pair.apply();
    const Bytes expected = get(pair.folder / "out");
    fs::remove(pair.folder / "out");
    pair.apply(sharded_apply());
    const Files shards = files_of(pair.folder / "out");
    CHECK(shards.size() > 4);
    fs::remove(pair.folder / "delta");

    const CheckpointReport parts = pair.compress(sharded());
    CHECK(parts.tensors == single.tensors);
    CHECK(parts.delta_bytes == single.delta_bytes);
    CHECK(parts.file_bytes == bytes_in(files_of(pair.folder / "delta")));
    CHECK(pair.archive().file_bytes() == parts.file_bytes);
    pair.verify(true);
    for (const Access access : {Access::map, Access::read}) {
      fs::remove_all(pair.folder / "out");
      const CheckpointReport report = pair.apply(Overwrite::no, access);
      CHECK(report.file_bytes == expected.size());
      CHECK(get(pair.folder / "out") == expected);
      fs::remove(pair.folder / "out");
      CHECK(pair.apply(sharded_apply(), access).file_bytes == bytes_in(shards));
      CHECK(files_of(pair.folder / "out") == shards);
    }
    const Model out = pair.out();
    fs::rename(pair.folder / "out", pair.folder / "sharded");
    pair.apply();
    const Model file = pair.out();
    const Model folder = Model::open(pair.folder / "sharded");
    REQUIRE(folder.tensors().size() == file.tensors().size());
    for (std::size_t i = 0; i < file.tensors().size(); ++i) {
      const auto& tensor = file.tensors()[i];
      CHECK(folder.tensors()[i].name == tensor.name);
      CHECK(folder.tensors()[i].dtype == tensor.dtype);
      CHECK(folder.tensors()[i].shape == tensor.shape);
      CHECK(data(folder, tensor.name) == data(file, tensor.name));
    }
    for (std::size_t i = 0; i < folder.shards(); ++i) CHECK(folder.metadata(i) == file.metadata());
  }

  TEST_CASE("hold no more than they may, unless a tensor alone is larger") {
    const Pair pair = many();
    pair.compress(sharded());
    pair.apply(sharded_apply());
    for (const std::string name : {"delta", "out"}) {
      CAPTURE(name);
      const Model model = Model::open(pair.folder / name);
      const std::uint64_t most = name == "out" ? kShardBytes : kShardBytes / 2;
      std::vector<std::uint64_t> bytes(model.shards());
      std::vector<std::set<std::string>> owners(model.shards());
      for (const auto& tensor : model.tensors()) {
        if (tensor.name.starts_with("manifest:")) continue;
        bytes[tensor.shard] += tensor.bytes();
        owners[tensor.shard].insert(tensor.name.substr(tensor.name.find(':') + 1));
      }
      bool one_larger = false;
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        CHECK((bytes[i] <= most || owners[i].size() == 1));
        one_larger = one_larger || bytes[i] > most;
        // Two neighbours would not fit into one shard: shards are no smaller than necessary.
        if (name == "out" && i > 0) CHECK(bytes[i - 1] + bytes[i] > most);
      }
      CHECK(one_larger);
    }
    // With a header and a manifest, the parts of an archive still have about that size.
    const Model parts = Model::open(pair.folder / "delta");
    std::map<std::string, std::uint64_t> large;
    for (const auto& tensor : parts.tensors()) {
      if (tensor.bytes() > kShardBytes / 4) large[parts.shard_path(tensor).filename().string()]++;
    }
    for (const auto& file : files_of(pair.folder / "delta")) {
      const std::string& name = file.first;
      CAPTURE(name);
      if (!large.contains(name)) CHECK(file.second.size() < kShardBytes / 2 * 5 / 4);
    }
  }

  TEST_CASE("are numbered, with an index that says what is where") {
    const Pair pair = many();
    pair.compress(sharded());
    pair.apply(sharded_apply());
    const Files out = files_of(pair.folder / "out");
    const std::size_t shards = out.size() - 1;
    CHECK(out.contains("model.safetensors.index.json"));
    for (std::size_t i = 1; i <= shards; ++i) {
      CHECK(out.contains(io::numbered("model", i) + io::numbered("-of", shards) + ".safetensors"));
    }
    const Files delta = files_of(pair.folder / "delta");
    CHECK(delta.contains("delta.safetensors.index.json"));
    for (std::size_t i = 1; i < delta.size(); ++i) {
      CHECK(delta.contains(io::numbered("delta", i) + ".safetensors"));
    }
  }

  TEST_CASE("of models without tensors") {
    const Pair pair({}, {});
    pair.compress(sharded());
    pair.verify(true);
    pair.apply(sharded_apply());
    CHECK(pair.out().tensors().empty());
    CHECK(pair.folder.entries() == 4);
  }

  TEST_CASE("replace old ones, but not folders of another kind") {
    const Pair pair = many();
    pair.compress(sharded());
    pair.apply(sharded_apply());
    const Files delta = files_of(pair.folder / "delta");
    const Files out = files_of(pair.folder / "out");
    CHECK(fails_leaving_nothing(pair.folder, [&] { pair.compress(sharded()); }).code() ==
          Errc::output_exists);
    CHECK(fails_leaving_nothing(pair.folder, [&] { pair.apply(sharded_apply()); }).code() ==
          Errc::output_exists);
    if (!has_attributes(pair.folder)) return;
    write_own(pair.folder / "delta" / "delta-99999.safetensors", "old");
    write_own(pair.folder / "out" / "model-99999-of-99999.safetensors", "old");
    pair.compress(sharded(Resume::no, Overwrite::yes));
    pair.apply(sharded_apply(Resume::no, Overwrite::yes));
    CHECK(files_of(pair.folder / "delta") == delta);
    CHECK(files_of(pair.folder / "out") == out);
    put(pair.folder / "out" / "config.json", bytes_of("{}"));
    CHECK(fails_leaving_nothing(pair.folder, [&] {
            pair.apply(sharded_apply(Resume::no, Overwrite::yes));
          }).code() == Errc::io_failure);
    CHECK(get(pair.folder / "out" / "config.json") == bytes_of("{}"));
  }

  TEST_CASE("a model of somebody else's is not replaced, nor an output that was edited") {
    const Pair pair = many();
    pair.compress(sharded());
    fs::create_directory(pair.folder / "out");
    write_sharded(pair.folder / "model", {{pair.tuned[0]}});
    fs::copy(pair.folder / "model", pair.folder / "out");
    const auto refused = [&](const std::string& first) {
      const Files before = files_of(pair.folder / "out");
      const Error error = fails_leaving_nothing(
          pair.folder, [&] { pair.apply(sharded_apply(Resume::no, Overwrite::yes)); });
      CHECK(error.code() == Errc::io_failure);
      CHECK(names(error, "holds '" + first + "'"));
      CHECK(files_of(pair.folder / "out") == before);
    };
    refused("model.safetensors.index.json");
    fs::remove_all(pair.folder / "out");
    pair.apply(sharded_apply());
    const fs::path shard = pair.folder / "out" / "model-00002-of-00009.safetensors";
    REQUIRE(fs::exists(shard));
    const Bytes whole = get(shard);
    put(shard, whole);  // the same bytes, written later
    refused(shard.filename().string());
  }

  TEST_CASE("a failure leaves the old one") {
    Pair pair = many();
    if (!has_attributes(pair.folder)) return;
    pair.compress(sharded());
    pair.apply(sharded_apply());
    const Files delta = files_of(pair.folder / "delta");
    const Files out = files_of(pair.folder / "out");
    pair.base[0].set(0, std::nan(""));
    pair.write();
    CHECK(fails_leaving_nothing(pair.folder, [&] {
            pair.compress(sharded(Resume::no, Overwrite::yes));
          }).code() == Errc::non_finite);
    CHECK(fails_leaving_nothing(pair.folder, [&] {
            pair.apply(sharded_apply(Resume::no, Overwrite::yes));
          }).code() == Errc::wrong_base);
    CHECK(files_of(pair.folder / "delta") == delta);
    CHECK(files_of(pair.folder / "out") == out);
  }

  TEST_CASE("a failure after some shards leaves the old one, and a stage beside it") {
    if (!has_attributes(Folder())) return;
    const Pair pair = many();
    pair.compress(sharded());
    pair.apply(sharded_apply());
    const Files delta = files_of(pair.folder / "delta");
    const Files out = files_of(pair.folder / "out");
    CHECK(caught([&] {
            pair.compress(sharded(Resume::no, Overwrite::yes), Access::map, stop_after("t15"));
          }).where() == "stopped");
    CHECK(files_of(pair.folder / "delta") == delta);
    CHECK(fs::exists(pair.folder / "delta.partial"));
    CHECK(caught([&] {
            pair.apply(sharded_apply(Resume::no, Overwrite::yes), Access::map, stop_after("t15"));
          }).where() == "stopped");
    CHECK(files_of(pair.folder / "out") == out);
    CHECK(fs::exists(pair.folder / "out.partial"));
    for (const auto& [name, file] : files_of(pair.folder / "out.partial")) {
      CHECK((name == "deltadct.plan" || out.at(name) == file));
    }
  }

  TEST_CASE("a failure at the last tensor of a single file leaves no file") {
    const Pair pair = many();
    pair.compress(options_of(4));
    CHECK(fails_leaving_nothing(pair.folder, [&] {
            pair.apply(Overwrite::no, Access::map, stop_after("added"));
          }).where() == "stopped");
  }

  TEST_CASE("another writer at the same time is refused") {
    const Pair pair = many();
    pair.compress(sharded());
    const auto while_writing = [&](const io::Progress& progress) {
      if (progress.tensor != "t10") return;
      for (const Resume resume : {Resume::no, Resume::yes}) {
        CHECK(caught([&] { pair.apply(sharded_apply(resume)); }).code() == Errc::io_failure);
      }
    };
    pair.apply(sharded_apply(), Access::map, while_writing);
    const Files out = files_of(pair.folder / "out");
    fs::remove_all(pair.folder / "out");
    pair.apply(sharded_apply());
    CHECK(files_of(pair.folder / "out") == out);
  }
}

TEST_SUITE("resuming") {
  TEST_CASE("an interrupted compression gives the files and the report of an uninterrupted one") {
    const Pair pair = many();
    const CheckpointReport whole = pair.compress(sharded());
    const Files expected = files_of(pair.folder / "delta");
    for (std::size_t i = 0; i < pair.tuned.size(); ++i) {
      CAPTURE(i);
      fs::remove_all(pair.folder / "delta");
      CHECK(caught([&] {
              pair.compress(sharded(), Access::map, stop_after(pair.tuned[i].name));
            }).where() == "stopped");
      CHECK(!fs::exists(pair.folder / "delta"));
      const CheckpointReport report = pair.compress(sharded(Resume::yes));
      CHECK(files_of(pair.folder / "delta") == expected);
      CHECK(!fs::exists(pair.folder / "delta.partial"));
      CHECK(report.tensors == whole.tensors);
      CHECK(report.elements == whole.elements);
      CHECK(report.delta_elements == whole.delta_elements);
      CHECK(report.delta_bytes == whole.delta_bytes);
      CHECK(report.code_bytes == whole.code_bytes);
      CHECK(report.model_bytes == whole.model_bytes);
      CHECK(report.file_bytes == whole.file_bytes);
    }
  }

  TEST_CASE("an interrupted application gives the files and the report of an uninterrupted one") {
    const Pair pair = many();
    pair.compress(sharded());
    const CheckpointReport whole = pair.apply(sharded_apply());
    const Files expected = files_of(pair.folder / "out");
    for (std::size_t i = 0; i < pair.tuned.size(); ++i) {
      CAPTURE(i);
      fs::remove_all(pair.folder / "out");
      CHECK(caught([&] {
              pair.apply(sharded_apply(), Access::map, stop_after(pair.tuned[i].name));
            }).where() == "stopped");
      CHECK(!fs::exists(pair.folder / "out"));
      const CheckpointReport report = pair.apply(sharded_apply(Resume::yes));
      CHECK(files_of(pair.folder / "out") == expected);
      CHECK(!fs::exists(pair.folder / "out.partial"));
      CHECK(report.tensors == whole.tensors);
      CHECK(report.file_bytes == whole.file_bytes);
    }
  }

  TEST_CASE("what is complete is not written again, however often a run is interrupted") {
    const Pair pair = many();
    pair.compress(sharded());
    const Files delta = files_of(pair.folder / "delta");
    pair.apply(sharded_apply());
    const Files out = files_of(pair.folder / "out");
    fs::remove_all(pair.folder / "delta");
    std::map<std::string, ino_t> complete;
    const auto check_kept = [&](const std::string& name) {
      const auto now = inodes(pair.folder / name);
      for (const auto& [file, inode] : complete) {
        if (file != "deltadct.plan") CHECK(now.at(file) == inode);
      }
      complete = now;
    };
    for (const std::string stop : {"t6", "t12", "t17"}) {
      caught([&] { pair.compress(sharded(Resume::yes), Access::map, stop_after(stop)); });
      check_kept("delta.partial");
    }
    CHECK(complete.size() > 3);
    pair.compress(sharded(Resume::yes));
    check_kept("delta");
    CHECK(files_of(pair.folder / "delta") == delta);
    fs::remove_all(pair.folder / "out");
    complete.clear();
    for (const std::string stop : {"t6", "t12", "t17"}) {
      caught([&] { pair.apply(sharded_apply(Resume::yes), Access::map, stop_after(stop)); });
      check_kept("out.partial");
    }
    CHECK(complete.size() > 3);
    pair.apply(sharded_apply(Resume::yes));
    check_kept("out");
    CHECK(files_of(pair.folder / "out") == out);
  }

  TEST_CASE("nothing to resume is a fresh start") {
    const Pair pair = many();
    pair.compress(sharded(Resume::yes));
    pair.apply(sharded_apply(Resume::yes));
    CHECK(pair.out().tensors().size() == pair.tuned.size());
  }

  TEST_CASE("a compression of other options or of other models is not resumed") {
    const Pair pair = many();
    caught([&] { pair.compress(sharded(), Access::map, stop_after("t15")); });
    const Files stage = files_of(pair.folder / "delta.partial");
    REQUIRE(stage.size() > 2);
    const auto refused = [&](const CompressOptions& options) {
      CHECK(fails_leaving_nothing(pair.folder, [&] { pair.compress(options); }).code() ==
            Errc::cannot_resume);
      CHECK(files_of(pair.folder / "delta.partial") == stage);
    };
    CompressOptions options = sharded(Resume::yes);
    options.codec.patch = 16;
    refused(options);
    options = sharded(Resume::yes);
    options.codec.allocator = RatioAllocator{{8, 0.5}, {1, 0.5}};
    refused(options);
    options = sharded(Resume::yes);
    options.codec.allocator = RatioAllocator{{8, 0.5000001}, {2, 0.4999999}};
    refused(options);
    options = sharded(Resume::yes);
    options.lossless = true;
    refused(options);
    options = sharded(Resume::yes);
    options.selected = [](std::string_view name) { return name != "t18"; };
    refused(options);
    options = sharded(Resume::yes);
    options.non_finite = io::NonFinite::keep;
    refused(options);
    options = sharded(Resume::yes);
    options.output.max_shard_bytes += 1;
    refused(options);

    // The same selection by a different function counts as the same.
    options = sharded(Resume::yes);
    options.selected = [](std::string_view) { return true; };
    for (const std::string name : {"base", "tuned"}) {
      const auto time = fs::last_write_time(pair.folder / name);
      fs::last_write_time(pair.folder / name, time + std::chrono::seconds(1));
      refused(options);
      fs::last_write_time(pair.folder / name, time);
    }
    pair.compress(options);
    pair.verify(true);
  }

  TEST_CASE(
      "an application of another archive, to another base or of other options is not either") {
    const Pair pair = many();
    pair.compress(sharded());
    caught([&] { pair.apply(sharded_apply(), Access::map, stop_after("t15")); });
    const Files stage = files_of(pair.folder / "out.partial");
    REQUIRE(stage.size() > 2);
    const auto refused = [&](const ApplyOptions& options) {
      CHECK(fails_leaving_nothing(pair.folder, [&] { pair.apply(options); }).code() ==
            Errc::cannot_resume);
      CHECK(files_of(pair.folder / "out.partial") == stage);
    };
    ApplyOptions options = sharded_apply(Resume::yes);
    options.wrong_base = io::WrongBase::accept;
    refused(options);
    options = sharded_apply(Resume::yes);
    options.output.max_shard_bytes *= 2;
    refused(options);
    const auto time = fs::last_write_time(pair.folder / "base");
    fs::last_write_time(pair.folder / "base", time + std::chrono::seconds(1));
    refused(sharded_apply(Resume::yes));
    fs::last_write_time(pair.folder / "base", time);
    fs::rename(pair.folder / "delta", pair.folder / "first");
    pair.compress(options_of(16));
    refused(sharded_apply(Resume::yes));
    fs::remove(pair.folder / "delta");
    fs::rename(pair.folder / "first", pair.folder / "delta");
    pair.apply(sharded_apply(Resume::yes));
    CHECK(pair.out().tensors().size() == pair.tuned.size());
  }

  TEST_CASE("a compression is not resumed in the stage of an application") {
    const Pair pair = many();
    pair.compress(sharded());
    caught([&] { pair.apply(sharded_apply(), Access::map, stop_after("t15")); });
    fs::rename(pair.folder / "delta", pair.folder / "first");
    fs::rename(pair.folder / "out.partial", pair.folder / "delta.partial");
    CHECK(fails_leaving_nothing(pair.folder, [&] { pair.compress(sharded(Resume::yes)); }).code() ==
          Errc::cannot_resume);
  }

  TEST_CASE("without asking for it, a run starts over") {
    const Pair pair = many();
    pair.compress(sharded());
    pair.apply(sharded_apply());
    const Files out = files_of(pair.folder / "out");
    fs::remove_all(pair.folder / "out");
    caught([&] { pair.apply(sharded_apply(), Access::map, stop_after("t15")); });
    ApplyOptions options = sharded_apply();
    options.output.max_shard_bytes = 100'000;
    pair.apply(options);
    CHECK(files_of(pair.folder / "out").size() < out.size());
    CHECK(!fs::exists(pair.folder / "out.partial"));
  }

  TEST_CASE("the tensors of another base are reported, resumed or not") {
    Pair pair = many();
    pair.compress(options_of(4));
    for (Tensor& tensor : pair.base) {
      const bool compressed = pair.mode(tensor.name) == Mode::delta;
      if (compressed) tensor = moved(tensor, 0.1, 300);
    }
    pair.write();
    ApplyOptions options = sharded_apply();
    options.wrong_base = io::WrongBase::accept;
    const auto expected = pair.apply(options).wrong_bases;
    CHECK(expected.size() > 5);
    fs::remove_all(pair.folder / "out");
    caught([&] { pair.apply(options, Access::map, stop_after("t15")); });
    options.output.resume = Resume::yes;
    CHECK(pair.apply(options).wrong_bases == expected);
  }
}

TEST_SUITE("sharded archives") {
  TEST_CASE("a part that is missing") {
    const Pair pair = many();
    pair.compress(sharded());
    const std::size_t parts = files_of(pair.folder / "delta").size() - 1;
    REQUIRE(parts > 3);
    for (std::size_t i = 1; i <= parts; ++i) {
      const std::string name = io::numbered("delta", i) + ".safetensors";
      fs::rename(pair.folder / "delta" / name, pair.folder / name);
      const Error error = caught([&] { pair.archive(); });
      CHECK(error.code() == Errc::io_failure);
      CHECK(names(error, name));
      fs::rename(pair.folder / name, pair.folder / "delta" / name);
    }
    fs::remove(pair.folder / "delta" / "delta.safetensors.index.json");
    const Error error = caught([&] { pair.archive(); });
    CHECK(error.code() == Errc::no_model);
    CHECK(names(error, "parts of one without its index: 'delta-00001.safetensors'"));
  }

  TEST_CASE("parts of two archives in one folder") {
    const Pair pair = many();
    pair.compress(sharded());
    fs::rename(pair.folder / "delta", pair.folder / "first");
    // The changes are as large as before, so that the parts hold the same tensors.
    Pair other = many();
    const std::string name = "delta-00001.safetensors";
    const std::size_t size = get(pair.folder / "first" / name).size();
    const std::vector<Tensor> as_before = other.tuned;
    unsigned seed = 400;  // numbers of the manifest may differ in length
    do {
      fs::remove_all(other.folder / "delta");
      other.tuned = as_before;
      for (Tensor& tensor : other.tuned) {
        if (tensor.name == "t1") tensor = moved(tensor, kStep / 10, seed++);
      }
      other.write();
      other.compress(sharded());
    } while (get(other.folder / "delta" / name).size() != size);
    REQUIRE(get(pair.folder / "first" / name) != get(other.folder / "delta" / name));
    fs::copy(pair.folder / "first", pair.folder / "delta");
    put(pair.folder / "delta" / name, get(other.folder / "delta" / name));
    const Error error = caught([&] { pair.archive(); });
    CHECK(error.code() == Errc::checksum_mismatch);
    CHECK(names(error, (pair.folder / "delta").string()));
    put(pair.folder / "delta" / name, get(pair.folder / "first" / name));
    CHECK(pair.archive().identity() == DeltaArchive::open(pair.folder / "first").identity());
    put(pair.folder / "delta" / "delta.safetensors.index.json",
        get(other.folder / "delta" / "delta.safetensors.index.json"));
    CHECK(caught([&] { pair.archive(); }).code() == Errc::checksum_mismatch);
  }

  TEST_CASE("parts of archives that were divided differently") {
    const Pair pair = many();
    pair.compress(sharded());
    fs::rename(pair.folder / "delta", pair.folder / "first");
    CompressOptions options = sharded();
    options.output.max_shard_bytes *= 2;
    pair.compress(options);
    put(pair.folder / "delta" / "delta-00002.safetensors",
        get(pair.folder / "first" / "delta-00002.safetensors"));
    CHECK(caught([&] { pair.archive(); }).code() == Errc::bad_index);
  }

  TEST_CASE("parts under one another's names") {
    const Pair pair = many();
    pair.compress(sharded());
    const fs::path one = pair.folder / "delta" / "delta-00001.safetensors";
    const fs::path two = pair.folder / "delta" / "delta-00002.safetensors";
    fs::rename(one, pair.folder / "x");
    fs::rename(two, one);
    fs::rename(pair.folder / "x", two);
    CHECK(caught([&] { pair.archive(); }).code() == Errc::bad_index);
  }

  TEST_CASE("an index of another version") {
    const Pair pair = many();
    pair.compress(sharded());
    const fs::path path = pair.folder / "delta" / "delta.safetensors.index.json";
    const Bytes text = get(path);
    nlohmann::json index =
        nlohmann::json::parse(reinterpret_cast<const char*>(text.data()),
                              reinterpret_cast<const char*>(text.data() + text.size()));
    index["metadata"]["version"] = "2";
    put(path, bytes_of(index.dump()));
    CHECK(caught([&] { pair.archive(); }).code() == Errc::unsupported_version);
  }

  TEST_CASE("a single part") {
    const Pair pair = many();
    pair.compress(sharded());
    for (const auto& [name, file] : files_of(pair.folder / "delta")) {
      if (name.ends_with(".json")) continue;
      const Error error =
          caught([&, part = name] { DeltaArchive::open(pair.folder / "delta" / part); });
      CHECK(error.code() == Errc::corrupt_data);
      CHECK(names(error, name));
      fs::remove_all(pair.folder / "alone");
      fs::create_directory(pair.folder / "alone");
      put(pair.folder / "alone" / name, file);
      CHECK(caught([&] { DeltaArchive::open(pair.folder / "alone"); }).code() ==
            Errc::corrupt_data);
    }
  }

  TEST_CASE("an archive of one part is opened by its index as well") {
    const Pair pair = one_pair(DType::f32, {16, 16});
    pair.compress(sharded());
    CHECK(files_of(pair.folder / "delta").size() == 2);
    CHECK(pair.archive().entries().size() == 1);
    CHECK(DeltaArchive::open(pair.folder / "delta" / "delta.safetensors.index.json")
              .entries()
              .size() == 1);
    CHECK(caught([&] {
            DeltaArchive::open(pair.folder / "delta" / "delta-00001.safetensors");
          }).code() == Errc::corrupt_data);
  }

  TEST_CASE("an altered byte of any part is found") {
    const Pair pair = many();
    pair.compress(sharded());
    for (const auto& [name, file] : files_of(pair.folder / "delta")) {
      if (name.ends_with(".json")) continue;
      Bytes altered = file;
      altered[altered.size() * 3 / 4] ^= std::byte{1};  // behind the header
      put(pair.folder / "delta" / name, altered);
      CHECK(caught([&] { pair.verify(false); }).code() == Errc::checksum_mismatch);
      put(pair.folder / "delta" / name, file);
    }
    pair.verify(false);
  }
}
