// What an archive holds: manifests, sections, ties and sizes that do not fit together are refused
// when it is opened.
#include <deltadct/io/archive_contents.hpp>

#include "../support/largest_request.hpp"
#include "altered.hpp"

#include <array>

using namespace io_test;
using io::Model;

TEST_SUITE("damage") {
  TEST_CASE("what is no archive is refused as such") {
    const Folder folder;
    write_model(folder / "model", std::array{noise("w", DType::f32, {4, 4}, 1)});
    const Error model = refusal(folder / "model").error;
    CHECK(model.code() == Errc::corrupt_data);
    CHECK(names(model, "not a delta archive"));
    put(folder / "empty", {});
    CHECK(refusal(folder / "empty").error.code() == Errc::bad_container);
    CHECK(caught([&] { DeltaArchive::open(folder / "absent"); }).code() == Errc::io_failure);
    CHECK(caught([&] { DeltaArchive::open(folder.path); }).code() == Errc::no_model);
  }

  TEST_CASE("the manifest is missing, or no list of bytes") {
    const Folder folder;
    write_small(folder / "a");
    Draft draft(folder / "a");
    write_model(folder / "b", draft.sections, draft.metadata);
    const Error missing = refusal(folder / "b").error;
    CHECK(missing.code() == Errc::corrupt_data);
    CHECK(names(missing, "manifest:1"));
    const std::string text = draft.manifest.dump();
    draft.metadata.emplace("manifest", io::fingerprint(bytes_of(text)));
    for (const auto& [dtype, shape] :
         {std::pair{DType::i8, Shape{text.size()}}, {DType::u8, Shape{text.size(), 1}}}) {
      std::vector<Tensor> tensors = draft.sections;
      tensors.push_back({"manifest:1", dtype, shape, bytes_of(text)});
      write_model(folder / "b", tensors, draft.metadata);
      const Error error = refusal(folder / "b").error;
      CHECK(error.code() == Errc::corrupt_data);
    }
  }
}

TEST_SUITE("manifest altered") {
  TEST_CASE("more matrices than tensors may be, or than the file has room for") {
    const auto with_matrices = [](Draft& draft, int count) {
      json& entry = draft.entry("w");
      entry["shape"] = {count, 1};
      entry["stack"] = {count, 1, 1};
      entry["matrices"] = json::array();
      draft.manifest["codecs"][0] = {{"method", "dare"}};
      for (int i = 0; i < count; ++i) entry["matrices"].push_back(1);
      for (const std::string other : {"g", "k", "t"}) {
        std::erase_if(draft.manifest["tensors"].get_ref<json::array_t&>(),
                      [&](const json& e) { return e["name"] == other; });
      }
      for (const char* section : {"delta:g", "delta:k", "lossless:g"}) draft.drop(section);
    };
    const Folder folder;
    write_small(folder / "a");
    const auto open = [&](int count, std::size_t room, std::size_t tensors) {
      Draft draft(folder / "a");
      with_matrices(draft, count);
      draft.resize("delta:w", room);
      draft.seal("w");
      draft.write(folder / "b");
      return DeltaArchive::open(folder / "b", {.limits = {.tensors = tensors}});
    };
    CHECK(open(100, 800, 100).find("w")->matrices.size() == 100);
    CHECK(caught([&] { open(101, 808, 100); }).code() == Errc::limit_exceeded);
    // Each matrix takes at least two bytes of the manifest and eight of the section.
    CHECK(open(10'000, 80'000, 1'000'000).find("w")->matrices.size() == 10'000);
    const Error crowded = caught([&] { open(10'000, 8, 1'000'000); });
    CHECK(crowded.code() == Errc::limit_exceeded);
    CHECK(names(crowded, ": w"));
    CHECK(names(crowded, "too many matrices"));
    largest_request = 0;
    CHECK(caught([&] { open(1'000'000, 8, 100'000); }).code() == Errc::limit_exceeded);
  }

  TEST_CASE("a name that no section has") {
    check_refused(altered_entry([](json& e) { e["name"] = "v"; }), Errc::corrupt_data, Step::open,
                  ": v");
  }
}

TEST_SUITE("malformed delta") {
  TEST_CASE("an unknown version, in the metadata or in the manifest") {
    const auto metadata = [](const char* key, const char* value) {
      return altered([&](Draft& draft) {
               if (value != nullptr)
                 draft.metadata[key] = value;
               else
                 draft.metadata.erase(key);
             })
          .error.code();
    };
    CHECK(metadata("format", "pt") == Errc::corrupt_data);
    CHECK(metadata("format", nullptr) == Errc::corrupt_data);
    CHECK(metadata("version", nullptr) == Errc::unsupported_version);
    for (const char* version : {"2", "0", "", "1 ", "01", "x", "99999999999999999999"}) {
      CHECK(metadata("version", version) == Errc::unsupported_version);
    }
    for (const int version : {0, 2, 1000}) {
      CHECK(altered([&](Draft& draft) { draft.manifest["version"] = version; }).error.code() ==
            Errc::unsupported_version);
    }
  }

  TEST_CASE("a decompression bomb: a tensor beyond all proportion to the archive") {
    for (const char* shape : {"[70000000]", "[1073741824,1024]", "[1,1099511627776]"}) {
      check_refused(altered_entry([&](json& e) { e["shape"] = json::parse(shape); }, "n"),
                    Errc::limit_exceeded, Step::open, ": n");
    }
    // The base is small, so the archive is what would make the tensor large.
    check_refused(altered_entry(
                      [](json& e) {
                        e["base_shape"] = {5};
                        e["shape"] = {std::int64_t{1} << 40};
                      },
                      "r"),
                  Errc::limit_exceeded, Step::open, ": r");
    check_refused(altered_entry(
                      [](json& e) {
                        e["base_shape"] = {4, 4};
                        e["shape"] = {std::int64_t{1} << 38, 4};
                      },
                      "g"),
                  Errc::limit_exceeded, Step::open, ": g");
  }

  TEST_CASE("what a base really has allows as much more") {
    const Folder folder;
    write_small(folder / "a");
    const auto archive = DeltaArchive::open(folder / "a", {.limits = {.expansion = 0}});
    CHECK(archive.require_proportion() == 64.0 * (1 << 20) - 3 - 32);
    archive.require_proportion(0);
    Draft draft(folder / "a");
    draft.entry("s")["shape"] = {1 << 20, 40};
    draft.write(folder / "b");
    const auto large = DeltaArchive::open(folder / "b", {.limits = {.expansion = 0}});
    const std::uint64_t total = (std::uint64_t{80} << 20) + 384 + 10 + 3 + 96 + 32 + 384;
    const std::uint64_t needed = (total - (std::uint64_t{64} << 20) + 1) / 2;
    large.require_proportion(needed);
    const Error error = caught([&] { large.require_proportion(needed - 1); });
    CHECK(error.code() == Errc::limit_exceeded);
    CHECK(names(error, ": t"));
    CHECK(names(error, "--limit expansion=NUMBER"));
  }

  TEST_CASE("many small claims add up") {
    check_refused(altered([](Draft& draft) {
                    draft.entry("n")["shape"] = {60'000'000};
                    json& tied = draft.entry("t");
                    tied["target"] = "n";
                    tied["dtype"] = "U8";
                    tied["shape"] = {60'000'000};
                    tied["tuned"] = draft.entry("n")["tuned"];
                  }),
                  Errc::limit_exceeded, Step::open, ": t");
  }

  TEST_CASE("the caller's limits on what is restored") {
    const Folder folder;
    write_small(folder / "a");
    const auto open = [&](const io::Limits& limits) {
      return DeltaArchive::open(folder / "a", {.limits = limits}).entries().size();
    };
    // w 384, r 10, s 8, n 3, g 96, k 32, t 384
    CHECK(open({.bytes = 917}) == 8);
    const Error error = caught([&] { open({.bytes = 916}); });
    CHECK(error.code() == Errc::limit_exceeded);
    CHECK(names(error, ": t"));
    CHECK(names(caught([&] { open({.bytes = 0}); }), ": w"));
    CHECK(open({.expansion = 0}) == 8);  // far less than what is always allowed
  }

  TEST_CASE("a tie to itself, in a circle, to another tie") {
    check_refused(altered_entry([](json& e) { e["target"] = "t"; }, "t"), Errc::corrupt_data,
                  Step::open, ": t");
    check_refused(altered([](Draft& draft) {
                    json other = draft.entry("t");
                    other["name"] = "u";
                    other["target"] = "t";
                    draft.entry("t")["target"] = "u";
                    draft.manifest["tensors"].push_back(other);
                  }),
                  Errc::corrupt_data, Step::open, ": t");
    check_refused(altered([](Draft& draft) {
                    json other = draft.entry("t");
                    other["name"] = "u";
                    other["target"] = "t";
                    draft.manifest["tensors"].push_back(other);
                  }),
                  Errc::corrupt_data, Step::open, ": u");
  }

  TEST_CASE("a tie to a tensor that is removed, or not there") {
    check_refused(altered([](Draft& draft) {
                    json& tied = draft.entry("t");
                    tied["target"] = "o";
                    tied["dtype"] = "I8";
                    tied["shape"] = {2};
                  }),
                  Errc::corrupt_data, Step::open, ": t");
    for (const char* target : {"", "v", "delta:w", "manifest:1"}) {
      check_refused(altered_entry([&](json& e) { e["target"] = target; }, "t"), Errc::corrupt_data,
                    Step::open, ": t");
    }
  }

  TEST_CASE("a tie to a tensor of another dtype, shape or fingerprint") {
    check_refused(altered_entry([](json& e) { e["tuned"] = "0123456789abcdef"; }, "t"),
                  Errc::corrupt_data, Step::open, ": t");
    for (const char* target : {"r", "s", "g"}) {
      check_refused(altered_entry([&](json& e) { e["target"] = target; }, "t"), Errc::corrupt_data,
                    Step::open, ": t");
    }
    check_refused(altered_entry([](json& e) { e["dtype"] = "I32"; }, "t"), Errc::corrupt_data,
                  Step::open, ": t");
    check_refused(altered_entry(
                      [](json& e) {
                        e["shape"] = {12, 8};
                      },
                      "t"),
                  Errc::corrupt_data, Step::open, ": t");
  }

  TEST_CASE("sections that no tensor owns") {
    for (const char* name :
         {"extra", "delta:s", "lossless:w", "delta:", "manifest:2", "manifest"}) {
      const Error error = altered([&](Draft& draft) {
                            draft.sections.push_back(noise(name, DType::u8, {8}, 1));
                          }).error;
      CHECK(error.code() == Errc::corrupt_data);
      CHECK(names(error, "no tensor owns"));
    }
  }

  TEST_CASE("a missing section") {
    for (const auto& [section, tensor] : {std::pair{"delta:w", ": w"},
                                          {"lossless:r", ": r"},
                                          {"delta:g", ": g"},
                                          {"lossless:g", ": g"}}) {
      check_refused(altered([name = section](Draft& draft) { draft.drop(name); }),
                    Errc::corrupt_data, Step::open, tensor);
    }
  }

  TEST_CASE("a section of another dtype or rank") {
    for (const auto& [section, tensor] : {std::pair{"delta:w", ": w"}, {"lossless:r", ": r"}}) {
      for (const DType dtype : {DType::i8, DType::boolean, DType::u64, DType::f32}) {
        check_refused(altered([&, name = section](Draft& draft) {
                        Tensor& t = draft.section(name);
                        t.dtype = dtype;
                        t.shape = {t.bytes.size() / deltadct::dtype_bytes(dtype)};
                      }),
                      Errc::corrupt_data, Step::open, tensor);
      }
      check_refused(altered([name = section](Draft& draft) {
                      Tensor& t = draft.section(name);
                      t.shape = {1, t.bytes.size()};
                    }),
                    Errc::corrupt_data, Step::open, tensor);
    }
  }

  TEST_CASE("one name for two tensors") {
    check_refused(altered([](Draft& d) { d.manifest["tensors"].push_back(d.entry("w")); }),
                  Errc::corrupt_data, Step::open);
    check_refused(altered([](Draft& d) { d.manifest["tensors"].push_back(d.entry("s")); }),
                  Errc::corrupt_data, Step::open, ": s");
    check_refused(altered([](Draft& d) { d.entry("r")["name"] = "w"; }), Errc::corrupt_data,
                  Step::open);
    check_refused(altered([](Draft& d) { d.entry("s")["name"] = "r"; }), Errc::corrupt_data,
                  Step::open, ": r");
  }
}

TEST_SUITE("limits") {
  TEST_CASE("the caller's limits hold for the container and the manifest") {
    const Folder folder;
    write_small(folder / "a");
    const auto open = [&](const io::Limits& limits) {
      return DeltaArchive::open(folder / "a", {.limits = limits}).entries().size();
    };
    const auto limited = [&](const io::Limits& limits) {
      return caught([&] { open(limits); }).code();
    };
    CHECK(limited({.header_bytes = 64}) == Errc::limit_exceeded);
    const Model file = Model::open(folder / "a");
    const std::uint64_t manifest = file.find("manifest:1")->bytes();
    const std::uint64_t header = file.file_bytes() - 8 - file.tensors().back().end;
    CHECK(open({.header_bytes = std::max(manifest, header)}) == 8);
    CHECK(limited({.header_bytes = std::max(manifest, header) - 1}) == Errc::limit_exceeded);
    CHECK(limited({.tensors = 7}) == Errc::limit_exceeded);
    CHECK(open({.tensors = 8}) == 8);
    CHECK(limited({.rank = 1}) == Errc::limit_exceeded);
    CHECK(open({.rank = 2}) == 8);
    CHECK(limited({.depth = 6}) == Errc::bad_container);
    CHECK(open({.depth = 7}) == 8);
  }

  TEST_CASE("more tensors in the manifests than allowed, of one part or of all") {
    const Folder folder;
    for (const std::uint64_t shard : {0u, 1u}) {
      const fs::path path = folder / std::to_string(shard);
      const std::vector<std::string> names{"a", "b", "c", "d", "e"};  // metadata has fewer entries
      Builder builder(path, names, {.max_shard_bytes = shard});
      for (const std::string& name : names) builder.same(noise(name, DType::u8, {1}, 1));
      builder.finish();
      CHECK(caught([&] { DeltaArchive::open(path, {.limits = {.tensors = 4}}); }).code() ==
            Errc::limit_exceeded);
      CHECK(DeltaArchive::open(path, {.limits = {.tensors = 5}}).entries().size() == 5);
    }
  }
}
