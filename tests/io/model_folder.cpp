// Which file of a folder is the model, and what is said of a folder that has none.
#include <deltadct/io/model_folder.hpp>

#include "sharded.hpp"

using namespace io_test;

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

  TEST_CASE("an index whose shards do not exist, beside a whole model") {
    const Folder folder;
    write_model(folder / "model.safetensors", some_tensors(3));
    put(folder / kIndex, bytes_of(weights({{"t0", "model-00001-of-00002.safetensors"}}).dump()));
    const Model model = Model::open(folder.path);
    check_holds(model, some_tensors(3));
    check_warns(model, {{kIndex, "'model-00001-of-00002.safetensors' does not exist"}});
    CHECK(caught([&] { Model::open(folder.path, kStrict); }).code() == Errc::io_failure);
  }

  TEST_CASE("shards without an index are one model if none is missing") {
    const Folder folder;
    const auto tensors = some_tensors(3);
    for (std::size_t k = 0; k < 3; ++k) {
      const std::string name = "model-0000" + std::to_string(k + 1) + "-of-00003.safetensors";
      write_model(folder / name, std::vector{tensors[k]});
    }
    const Model model = Model::open(folder.path);
    check_holds(model, tensors);
    check_warns(model, {{folder.path.string(), "no index; its 3 shards are read, as by vLLM"}});
    CHECK(caught([&] { Model::open(folder.path, kStrict); }).code() == Errc::no_model);
    write_model(folder / "model-00002-of-00003.safetensors", std::vector{tensors[0]});
    CHECK(caught([&] { Model::open(folder.path); }).code() == Errc::bad_index);
    fs::remove(folder / "model-00002-of-00003.safetensors");
    CHECK(refuses(folder, "give the path of one") == Errc::no_model);
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
