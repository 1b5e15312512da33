// The writer of archives: one file or several, complete or none.
#include <deltadct/io/archive_writer.hpp>

#include "altered.hpp"

using namespace io_test;
using io::Model;

TEST_SUITE("round trip") {
  TEST_CASE("the same input gives the same bytes") {
    const Folder folder;
    write_small(folder / "a");
    write_small(folder / "b");
    CHECK(get(folder / "a") == get(folder / "b"));
    const auto a = DeltaArchive::open(folder / "a");
    CHECK(a.identity() == DeltaArchive::open(folder / "b").identity());
    write_small(folder / "b", kFive);
    CHECK(a.identity() != DeltaArchive::open(folder / "b").identity());
  }
}

TEST_SUITE("container") {
  TEST_CASE("an archive is a safetensors file with the sections the format names") {
    const Folder folder;
    write_small(folder / "a");
    for (const Access access : {Access::map, Access::read}) {
      const Model file = Model::open(folder / "a", {.access = access});
      std::vector<std::string> found;
      for (const io::TensorInfo& info : file.tensors()) {
        found.push_back(info.name);
        CHECK(info.dtype == DType::u8);
        CHECK(info.shape.size() == 1);
        if (info.name != "manifest:1") CHECK(info.bytes() % 8 == 0);
      }
      CHECK(found == std::vector<std::string>{"delta:w", "lossless:r", "lossless:n", "delta:g",
                                              "lossless:g", "delta:k", "manifest:1"});
      CHECK(file.metadata().at("format") == "deltadct");
      CHECK(file.metadata().at("version") == "1");
      CHECK(file.metadata().size() == 3);
      CHECK(file.find("delta:w")->bytes() == 64);
      CHECK(file.find("lossless:r")->bytes() == 24);
    }
  }

  TEST_CASE("an archive not finished leaves nothing, one that exists is not replaced") {
    const Folder folder;
    { Builder(folder / "a", {"w"}, {}).same(noise("w", DType::f32, {4, 4}, 1)); }
    CHECK(folder.entries() == 0);
    write_small(folder / "a");
    const Bytes before = get(folder / "a");
    CHECK(caught([&] { Builder(folder / "a", {}, {}); }).code() == Errc::output_exists);
    CHECK(get(folder / "a") == before);
  }

  TEST_CASE("a tensor with sections that is added twice is refused") {
    const Folder folder;
    Builder builder(folder / "a", {"w", "w"});
    builder.added(noise("w", DType::f32, {4, 4}, 1));
    CHECK(caught([&] {
            builder.added(noise("w", DType::f32, {4, 4}, 1));
          }).code() == Errc::bad_container);
  }

  TEST_CASE("an archive in parts holds the same, and parts of another are refused") {
    const Folder folder;
    const OutputOptions parts{.overwrite = Overwrite::yes, .max_shard_bytes = 1};
    const auto expected = write_small(folder / "a", kPaper, parts);
    CHECK(read_all(folder / "a") == expected);
    CHECK(read_all(folder / "a", Access::read) == expected);
    CHECK(fs::exists(folder / "a" / "delta-00008.safetensors"));
    CHECK(names(refusal(folder / "a" / "delta-00001.safetensors").error, "without index"));
    CHECK(refusal(folder / "a" / "delta-00002.safetensors").error.code() == Errc::corrupt_data);
    // Parts that fit the index, but come from an archive with another mix.
    write_small(folder / "b", kThree, parts);
    fs::copy_file(folder / "b" / "delta-00001.safetensors",
                  folder / "a" / "delta-00001.safetensors", fs::copy_options::overwrite_existing);
    const Error mixed = caught([&] { DeltaArchive::open(folder / "a"); });
    CHECK((mixed.code() == Errc::checksum_mismatch || mixed.code() == Errc::bad_index));
    fs::remove(folder / "a" / "delta-00003.safetensors");
    CHECK(caught([&] { DeltaArchive::open(folder / "a"); }).code() == Errc::io_failure);
  }
}
