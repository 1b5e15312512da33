// Which files an archive may carry: names that are safe to restore, within the limits.
#include <deltadct/io/file_entry.hpp>

#include "support.hpp"

using namespace io_test;
using io::FileEntry;
using io::detail::check_files;
using io::detail::file_name_fault;

namespace {

Error refused(const std::vector<FileEntry>& files, const io::Limits& limits = {}) {
  return caught([&] { check_files(files, "archive", limits); });
}

std::string nested(std::size_t folders) {
  std::string name;
  for (std::size_t i = 0; i < folders; ++i) name += "f/";
  return name + "x";
}

}  // namespace

TEST_CASE("names of files that are fit") {
  for (const std::string name :
       {"config.json", "1_Pooling/config.json", "merges.txt", "LICENSE", "a b", "y.", "c..d",
        "caf\u00e9/\u4e2d", "safetensors", "x.safetensors.md", "deltadct", "CON"}) {
    CAPTURE(name);
    CHECK(file_name_fault(name) == nullptr);
  }
  CHECK(file_name_fault(std::string(255, 'x')) == nullptr);
  CHECK(file_name_fault(nested(15)) == nullptr);
}

TEST_CASE("names that lead out of the folder, or clash with what it holds") {
  for (const std::string name : {"",
                                 "/",
                                 "/etc/passwd",
                                 "..",
                                 "../x",
                                 "a/../x",
                                 "a/..",
                                 ".",
                                 "./x",
                                 "a/./x",
                                 "a//x",
                                 "a/",
                                 "\\x",
                                 "a\\x",
                                 "..\\x",
                                 "C:x",
                                 "C:/x",
                                 "x:stream",
                                 "x\n",
                                 "x\x7f",
                                 "a\x1b[2J",
                                 "\u0085x",
                                 ".git/hooks/post-checkout",
                                 "a/.hidden",
                                 ".deltadct-0123456789abcdef.tmp",
                                 "model.safetensors",
                                 "MODEL.SafeTensors",
                                 "model-00001-of-00002.safetensors",
                                 "model.safetensors.index.json",
                                 "model.safetensors/x",
                                 "x/Y.SAFETENSORS.index.json",
                                 "deltadct.plan",
                                 "DeltaDCT.replaced",
                                 "x.partial/deltadct.plan"}) {
    CAPTURE(name);
    CHECK(file_name_fault(name) != nullptr);
    const Error error = refused({{name, 1, "", ""}});
    CHECK(error.code() == Errc::corrupt_data);
    CHECK(std::string_view(error.what()).find_first_of("\n\x1b\x7f") == std::string_view::npos);
  }
  CHECK(file_name_fault(std::string("a\0b", 3)) != nullptr);
  CHECK(file_name_fault(std::string(256, 'x')) != nullptr);
  CHECK(file_name_fault(nested(600)) != nullptr);
  CHECK(file_name_fault(nested(16)) != nullptr);
}

TEST_CASE("two names for one file") {
  for (const auto& pair :
       {std::pair("x", "x"), std::pair("x", "X"), std::pair("a/B", "A/b"), std::pair("x", "x/y"),
        std::pair("X/y", "x"), std::pair("a/b/c", "A/B"), std::pair("a/b", "a/b/c/d")}) {
    CAPTURE(pair.first);
    CHECK(refused({{pair.first, 1, "", ""}, {pair.second, 1, "", ""}}).code() ==
          Errc::corrupt_data);
  }
  check_files(std::vector<FileEntry>{{"a/x", 1, "", ""}, {"A/y", 1, "", ""}, {"b/x", 1, "", ""}},
              "archive", {});
}

TEST_CASE("sizes and numbers beyond the limits") {
  io::Limits limits;
  limits.file_bytes = 10;
  limits.files_bytes = 15;
  check_files(std::vector<FileEntry>{{"a", 10, "", ""}, {"b", 5, "", ""}}, "archive", limits);
  const Error one = refused({{"a", 11, "", ""}}, limits);
  CHECK(one.code() == Errc::limit_exceeded);
  CHECK(names(one, "archive: a"));
  CHECK(names(one, "--limit file="));
  const Error all = refused({{"a", 10, "", ""}, {"b", 6, "", ""}}, limits);
  CHECK(all.code() == Errc::limit_exceeded);
  CHECK(names(all, "archive: b"));
  CHECK(names(all, "--limit files="));
  limits.files_bytes = 1 << 20;
  limits.file_bytes = ~std::uint64_t{0};
  CHECK(refused({{"a", 1, "", ""}, {"b", (std::uint64_t{1} << 63) - 1, "", ""}}, limits).code() ==
        Errc::limit_exceeded);
  std::vector<FileEntry> many(io::kMaxFiles + 1);
  CHECK(refused(many).code() == Errc::limit_exceeded);
}
