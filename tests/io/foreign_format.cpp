// Files of other formats, taken for a model: the error names the format.
#include <deltadct/io/foreign_format.hpp>

#include "sharded.hpp"

using namespace io_test;

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
    for (const std::string blank : {" ", "\t", "\r", "\n"}) {
      CHECK(io::detail::foreign_format(zip + blank) == nullptr);
      CHECK(io::detail::foreign_format(std::string("\x80\x02\0\0\0\0\0\0", 8) + blank) == nullptr);
      CHECK(io::detail::foreign_format("<html>\n " + blank) != nullptr);
    }
    CHECK(io::detail::foreign_format("") == nullptr);
    CHECK(io::detail::foreign_format("GGU") == nullptr);
  }
}
