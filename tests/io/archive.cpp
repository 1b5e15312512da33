// The delta archive: what is written is read back, and what is not an archive is refused by name.
#include <deltadct/io/archive.hpp>

#include "support.hpp"

#include <new>
#include <type_traits>

using namespace io_test;
using deltadct::CodecSpec;
using deltadct::CompressedTensor;
using deltadct::RatioAllocator;
using deltadct::SerialExecutor;
using io::Access;
using io::ArchiveWriter;
using io::DeltaArchive;
using io::ManifestEntry;
using io::Mode;
using io::Overwrite;
using io::SafetensorsFile;
using nlohmann::json;

namespace {
std::size_t largest_request = 0;
}

// Every allocation of this program is seen, to show that none has a size that a file made up. Not
// inlined, where g++ would take new and free for a mismatched pair.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  largest_request = std::max(largest_request, bytes);
  if (void* p = std::malloc(std::max<std::size_t>(bytes, 1))) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  largest_request = std::max(largest_request, bytes);
  return std::malloc(std::max<std::size_t>(bytes, 1));
}
[[gnu::noinline]] void operator delete(void* p) noexcept {
  std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept {
  std::free(p);
}

namespace {

const RatioAllocator kPaper{};
const RatioAllocator kOne{{4, 1.0}};
const RatioAllocator kZero{{0, 1.0}};
const RatioAllocator kThree{{8, 0.2}, {2, 0.5}, {0, 0.3}};
const RatioAllocator kFour{{6, 0.1}, {3, 0.3}, {1, 0.4}, {0, 0.2}};
const RatioAllocator kFive{{8, 0.2}, {4, 0.2}, {2, 0.2}, {1, 0.2}, {0, 0.2}};
const RatioAllocator kSeven{{8, 0.1}, {6, 0.1}, {4, 0.1}, {3, 0.1}, {2, 0.2}, {1, 0.2}, {0, 0.2}};

/// What an archive says of a tensor: its own bytes, or the reconstructed delta.
struct Content {
  std::string name;
  Mode mode;
  DType dtype;
  Shape shape;
  std::string base;
  Bytes bytes;

  bool operator==(const Content&) const = default;
};

std::size_t elements(const ManifestEntry& entry) {
  return static_cast<std::size_t>(*io::tensor_bytes(DType::u8, entry.shape));
}

/// The delta as doubles' bytes.
Bytes decoded(const deltadct::CompressedView& delta, DType dtype, std::size_t count) {
  Bytes weights(count * deltadct::dtype_bytes(dtype));
  few_codecs({delta.header->patch, delta.header->transform, dtype == DType::f64, {}})
      ->decode_add(delta, dtype, weights.data(), 1, SerialExecutor{});
  return weights;
}

std::vector<Content> read_all(const DeltaArchive& archive) {
  std::vector<Content> contents;
  std::vector<std::byte> storage;
  for (const ManifestEntry& entry : archive.entries()) {
    Content content{entry.name, entry.mode, entry.dtype, entry.shape, entry.base, {}};
    if (entry.mode == Mode::delta) {
      const auto delta = archive.delta(entry);
      content.bytes = decoded(delta.view(), entry.dtype, elements(entry));
    } else if (entry.mode == Mode::raw) {
      const auto bytes = archive.raw(entry, storage);
      content.bytes.assign(bytes.begin(), bytes.end());
    }
    archive.release(entry);
    contents.push_back(std::move(content));
  }
  return contents;
}

std::vector<Content> read_all(const fs::path& path, Access access = Access::map) {
  return read_all(DeltaArchive::open(path, access));
}

CompressedTensor encode(const Tensor& delta, int patch, const RatioAllocator& mix) {
  CompressedTensor out;
  std::vector<std::byte> workspace;
  const Bytes zero(delta.bytes.size());
  const auto [rows, cols] = io::matrix_shape(delta.shape);
  few_codecs({patch, std::string(deltadct::Dct::name), delta.dtype == DType::f64, mix})
      ->encode_into(out, workspace, delta.dtype, zero.data(), delta.bytes.data(), rows, cols,
                    SerialExecutor{});
  return out;
}

/// Writes an archive and remembers what it should hold.
struct Archive {
  explicit Archive(std::vector<Tensor> all) : tensors(std::move(all)) {}

  void write(const fs::path& path, const std::function<void(Archive&)>& add) {
    std::vector<io::TensorInfo> infos;
    for (const Tensor& tensor : tensors) infos.push_back(tensor.info());
    ArchiveWriter archive(path, Overwrite::yes, infos);
    writer = &archive;
    add(*this);
    bytes = archive.finish();
  }

  void delta(const Tensor& tensor, int patch, const RatioAllocator& mix) {
    const CompressedTensor c = encode(tensor, patch, mix);
    writer->add_delta(tensor.info(), "base of " + tensor.name, c);
    expect(tensor, Mode::delta, decoded(c, tensor.dtype, c.header.rows * c.header.cols));
  }
  void raw(const Tensor& tensor) {
    writer->add_raw(tensor.info(), "base of " + tensor.name, tensor.bytes);
    expect(tensor, Mode::raw, tensor.bytes);
  }
  void same(const Tensor& tensor) {
    writer->add_same(tensor.info(), "base of " + tensor.name);
    expect(tensor, Mode::same, {});
  }
  void expect(const Tensor& tensor, Mode mode, Bytes content) {
    expected.push_back({tensor.name, mode, tensor.dtype, tensor.shape, "base of " + tensor.name,
                        std::move(content)});
  }

  std::vector<Tensor> tensors;
  std::vector<Content> expected;
  std::uint64_t bytes = 0;
  ArchiveWriter* writer = nullptr;
};

/// A small archive with one tensor of each mode: "w" is 8 x 12 with P = 4 and 2 + 0 bits.
std::vector<Content> write_small(const fs::path& path, const RatioAllocator& mix = kPaper) {
  Archive archive({noise("w", DType::f32, {8, 12}, 1), noise("r", DType::i16, {5}, 2),
                   noise("s", DType::bf16, {2, 2}, 3)});
  archive.write(path, [&](Archive& a) {
    a.delta(a.tensors[0], 4, mix);
    a.raw(a.tensors[1]);
    a.same(a.tensors[2]);
  });
  return archive.expected;
}

/// A sound archive taken apart, to be altered and put together with checksums that fit.
struct Draft {
  explicit Draft(const fs::path& path) {
    const auto file = SafetensorsFile::open(path);
    std::vector<std::byte> storage;
    for (const io::TensorInfo& info : file.tensors()) {
      const auto bytes = file.data(info, storage);
      if (info.name == "manifest") {
        const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        manifest = json::parse(text);
      } else {
        sections.push_back({info.name, info.dtype, info.shape, {bytes.begin(), bytes.end()}});
      }
    }
    metadata = file.metadata();
    metadata.erase("manifest");
  }

  json& entry(const std::string& name) {
    for (json& tensor : manifest["tensors"]) {
      if (tensor["name"] == name) return tensor;
    }
    FAIL("no entry");
    return manifest;
  }

  Tensor& section(const std::string& name) {
    const auto found = std::ranges::find(sections, name, &Tensor::name);
    REQUIRE(found != sections.end());
    return *found;
  }

  /// Gives a one-dimensional section a number of bytes.
  void resize(const std::string& name, std::size_t bytes) {
    Tensor& tensor = section(name);
    tensor.bytes.resize(bytes);
    tensor.shape = {bytes / deltadct::dtype_bytes(tensor.dtype)};
  }

  void drop(const std::string& name) {
    sections.erase(std::ranges::find(sections, name, &Tensor::name));
  }

  /// Computes an entry's checksum from the sections there are.
  void seal(const std::string& name) {
    io::Fingerprint payload;
    for (const char* prefix : {"bounds:", "widths:", "codes:", "raw:"}) {
      const auto found = std::ranges::find(sections, prefix + name, &Tensor::name);
      if (found != sections.end()) payload.add(found->bytes);
    }
    entry(name)["payload"] = payload.hex();
  }

  void write(const fs::path& path) const { write(path, manifest.dump()); }

  void write(const fs::path& path, const std::string& text) const {
    io::Metadata all = metadata;
    all.emplace("manifest", io::fingerprint(bytes_of(text)));
    std::vector<Tensor> tensors = sections;
    tensors.push_back({"manifest", DType::u8, {text.size()}, bytes_of(text)});
    write_model(path, tensors, all);
  }

  json manifest;
  std::vector<Tensor> sections;
  io::Metadata metadata;
};

/// What open() and then reading everything throws, whichever access.
Error refusal(const fs::path& path) {
  const Error read = caught([&] { read_all(path, Access::read); });
  const Error error = caught([&] { read_all(path); });
  CHECK(read.code() == error.code());
  CHECK(std::string(read.what()) == error.what());
  const bool by_codec =  // which does not know where its tensor is from
      error.code() == Errc::codec_mismatch || error.code() == Errc::unsupported_dtype;
  CHECK((by_codec || names(error, path.string())));
  return error;
}

/// The refusal of a small archive altered by fn.
template <class Fn>
Error altered(Fn fn, const RatioAllocator& mix = kPaper) {
  const Folder folder;
  write_small(folder / "a", mix);
  Draft draft(folder / "a");
  fn(draft);
  draft.write(folder / "b");
  return refusal(folder / "b");
}

/// The same, the entry of the delta altered.
template <class Fn>
Error altered_entry(Fn fn, const RatioAllocator& mix = kPaper) {
  return altered([&](Draft& draft) { fn(draft.entry("w")); }, mix);
}

/// The same for the bytes of a section, under a checksum that fits.
template <class Fn>
Error altered_section(const std::string& name, Fn fn, const RatioAllocator& mix = kPaper) {
  return altered(
      [&](Draft& draft) {
        fn(draft.section(name));
        draft.seal("w");
      },
      mix);
}

/// The error is of a code and names the tensor.
void check_refused(const Error& error, Errc code, const char* tensor = ": w") {
  INFO(std::string(error.what()));
  CHECK(error.code() == code);
  CHECK(names(error, tensor));
}

constexpr DType kEveryDType[] = {DType::f64,     DType::f32,     DType::f16,    DType::bf16,
                                 DType::f8_e4m3, DType::f8_e5m2, DType::i64,    DType::i32,
                                 DType::i16,     DType::i8,      DType::u64,    DType::u32,
                                 DType::u16,     DType::u8,      DType::boolean};

}  // namespace

TEST_SUITE("round trip") {
  static_assert(!std::is_copy_constructible_v<io::StoredDelta>);
  static_assert(std::is_nothrow_move_constructible_v<io::StoredDelta>);

  TEST_CASE("deltas of every element dtype, patch size and mix decode to the same values") {
    const Folder folder;
    for (const RatioAllocator& mix : {kPaper, kOne, kZero, kThree, kFour, kFive, kSeven}) {
      CAPTURE(mix.widths().size());
      Archive archive({});
      unsigned seed = 0;
      for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
        for (const Shape& shape :
             {Shape{16, 16}, Shape{19, 37}, Shape{1, 4}, Shape{3, 5, 7}, Shape{0, 8}}) {
          const std::string name =
              std::string(deltadct::dtype_name(dtype)) + "." + std::to_string(seed);
          archive.tensors.push_back(noise(name, dtype, shape, ++seed));
        }
      }
      archive.write(folder / "a", [&](Archive& a) {
        for (const Tensor& tensor : a.tensors) {
          a.delta(tensor, tensor.dtype != DType::f64 && tensor.bytes.size() % 3 == 0 ? 16 : 4, mix);
        }
      });
      CHECK(archive.bytes == fs::file_size(folder / "a"));
      CHECK(read_all(folder / "a", Access::map) == archive.expected);
      CHECK(read_all(folder / "a", Access::read) == archive.expected);
    }
  }

  TEST_CASE("headers, places, bounds and codes come back as they were") {
    const Folder folder;
    const Tensor tensor = noise("w", DType::f32, {33, 41}, 5);
    for (const RatioAllocator& mix : {kPaper, kOne, kFour, kSeven}) {
      const CompressedTensor before = encode(tensor, 4, mix);
      ArchiveWriter writer(folder / "a", Overwrite::yes, std::array{tensor.info()});
      writer.add_delta(tensor.info(), "base", before);
      writer.finish();
      const auto archive = DeltaArchive::open(folder / "a");
      auto delta = archive.delta(archive.entries().at(0));
      const auto after = std::move(delta);
      const deltadct::CompressedView view = after.view();
      CHECK(view.header->rows == 33);
      CHECK(view.header->cols == 41);
      CHECK(view.header->patch == 4);
      CHECK(view.header->transform == before.header.transform);
      CHECK(view.header->quantizer == before.header.quantizer);
      CHECK(view.header->bound == before.header.bound);
      CHECK(view.header->scale == before.header.scale);
      REQUIRE(view.header->classes.size() == before.header.classes.size());
      for (std::size_t k = 0; k < before.header.classes.size(); ++k) {
        CHECK(view.header->classes[k].bits == before.header.classes[k].bits);
        CHECK(view.header->classes[k].side_values == before.header.classes[k].side_values);
        CHECK(view.header->classes[k].patches == before.header.classes[k].patches);
        CHECK(view.header->classes[k].bounds_at == before.header.classes[k].bounds_at);
        CHECK(view.header->classes[k].codes_at == before.header.classes[k].codes_at);
      }
      CHECK(std::ranges::equal(view.places, before.places, {}, &deltadct::PatchPlace::packed,
                               &deltadct::PatchPlace::packed));
      CHECK(std::ranges::equal(view.bounds, before.bounds));
      CHECK(std::ranges::equal(view.codes, before.codes));
    }
  }

  TEST_CASE("raw tensors of every dtype and rank, and same ones") {
    const Folder folder;
    Archive archive({});
    unsigned seed = 0;
    for (const DType dtype : kEveryDType) {
      for (const Shape& shape : {Shape{}, Shape{0}, Shape{5}, Shape{2, 0, 3}, Shape{1, 2, 3, 2}}) {
        const std::string name =
            std::string(deltadct::dtype_name(dtype)) + "." + std::to_string(seed);
        archive.tensors.push_back(noise(name, dtype, shape, ++seed));
      }
    }
    archive.write(folder / "a", [&](Archive& a) {
      for (std::size_t i = 0; i < a.tensors.size(); ++i) {
        i % 7 == 3 ? a.same(a.tensors[i]) : a.raw(a.tensors[i]);
      }
    });
    CHECK(read_all(folder / "a", Access::map) == archive.expected);
    CHECK(read_all(folder / "a", Access::read) == archive.expected);
  }

  TEST_CASE("entries keep their order and are found by name") {
    const Folder folder;
    write_small(folder / "a");
    const auto archive = DeltaArchive::open(folder / "a");
    REQUIRE(archive.entries().size() == 3);
    CHECK(archive.entries()[0].name == "w");
    CHECK(archive.entries()[1].name == "r");
    CHECK(archive.entries()[2].name == "s");
    CHECK(archive.find("r") == &archive.entries()[1]);
    CHECK(archive.find("raw:r") == nullptr);
    CHECK(archive.find("manifest") == nullptr);
    CHECK(archive.find("") == nullptr);
  }

  TEST_CASE("names of any kind are kept, those of sections among them") {
    const Folder folder;
    Archive archive({});
    for (const std::string name :
         {"", " ", "manifest", "raw:w", "codes:w", "w", "bounds:", "a\"b\\c", "line\nbreak",
          "caf\u00e9 \u4e2d \U0001F600", "__metadata__"}) {
      archive.tensors.push_back(noise(name, DType::f32, {4, 4}, 1));
    }
    archive.tensors.push_back(noise(std::string(5000, '\x01'), DType::f32, {4, 4}, 1));
    archive.write(folder / "a", [&](Archive& a) {
      for (std::size_t i = 0; i < a.tensors.size(); ++i) {
        i % 2 == 0 ? a.delta(a.tensors[i], 4, kThree) : a.raw(a.tensors[i]);
      }
    });
    CHECK(read_all(folder / "a") == archive.expected);
    const auto opened = DeltaArchive::open(folder / "a");
    CHECK(opened.stored_bytes(*opened.find("raw:w")) == 64);
    CHECK(opened.stored_bytes(*opened.find("manifest")) < 64);
  }

  TEST_CASE("deltas behind sections of odd size decode the same") {
    const Folder folder;
    for (std::uint64_t odd = 1; odd < 8; ++odd) {
      Archive archive({noise("odd", DType::i8, {odd}, 1), noise("w", DType::f32, {16, 16}, 2),
                       noise("d", DType::f64, {8, 8}, 3), noise("i", DType::i64, {3}, 4)});
      archive.write(folder / "a", [&](Archive& a) {
        a.raw(a.tensors[0]);
        a.delta(a.tensors[1], 4, kSeven);
        a.delta(a.tensors[2], 4, kFour);
        a.raw(a.tensors[3]);
      });
      CHECK(read_all(folder / "a", Access::map) == archive.expected);
      CHECK(read_all(folder / "a", Access::read) == archive.expected);
    }
  }

  TEST_CASE("no tensors at all") {
    const Folder folder;
    Archive archive({});
    archive.write(folder / "a", [](Archive&) {});
    CHECK(read_all(folder / "a").empty());
    CHECK(archive.bytes == fs::file_size(folder / "a"));
  }

  TEST_CASE("the same input gives the same bytes") {
    const Folder folder;
    write_small(folder / "a");
    write_small(folder / "b");
    CHECK(get(folder / "a") == get(folder / "b"));
  }
}

TEST_SUITE("container") {
  TEST_CASE("an archive is a safetensors file with the sections the format names") {
    const Folder folder;
    write_small(folder / "a");
    for (const Access access : {Access::map, Access::read}) {
      const auto file = SafetensorsFile::open(folder / "a", access);
      std::vector<std::string> found;
      for (const io::TensorInfo& info : file.tensors()) found.push_back(info.name);
      CHECK(found ==
            std::vector<std::string>{"bounds:w", "widths:w", "codes:w", "raw:r", "manifest"});
      CHECK(file.metadata().at("format") == "deltadct");
      CHECK(file.metadata().at("version") == "1");
      // 6 patches, 3 of 2 bits (two bounds, 4 bytes of codes) and 3 of 0 bits (one value).
      CHECK(file.find("bounds:w")->dtype == DType::f32);
      CHECK(file.find("bounds:w")->shape == Shape{9});
      CHECK(file.find("widths:w")->dtype == DType::u8);
      CHECK(file.find("widths:w")->shape == Shape{8});
      CHECK(file.find("codes:w")->dtype == DType::u8);
      CHECK(file.find("codes:w")->shape == Shape{16});
      CHECK(file.find("raw:r")->dtype == DType::i16);
      CHECK(file.find("raw:r")->shape == Shape{5});
      CHECK(file.find("manifest")->dtype == DType::u8);
    }
  }

  TEST_CASE("one class needs no width map") {
    const Folder folder;
    for (const RatioAllocator& mix : {kOne, kZero}) {
      write_small(folder / "a", mix);
      CHECK(SafetensorsFile::open(folder / "a").find("widths:w")->shape == Shape{0});
    }
  }

  TEST_CASE("the width map takes 1, 2 or 4 bits a patch, padded to 8 bytes") {
    const Folder folder;
    const Tensor tensor = noise("w", DType::f32, {40, 40}, 1);  // 100 patches
    const auto map_bytes = [&](const RatioAllocator& mix) {
      ArchiveWriter writer(folder / "a", Overwrite::yes, std::array{tensor.info()});
      writer.add_delta(tensor.info(), "base", encode(tensor, 4, mix));
      writer.finish();
      return SafetensorsFile::open(folder / "a").find("widths:w")->bytes();
    };
    CHECK(map_bytes(kOne) == 0);
    CHECK(map_bytes(kPaper) == 16);
    CHECK(map_bytes(kThree) == 32);
    CHECK(map_bytes(kFour) == 32);
    CHECK(map_bytes(kFive) == 56);
    CHECK(map_bytes(kSeven) == 56);
  }

  TEST_CASE("the bytes of tensors, the header and the manifest make up the file") {
    const Folder folder;
    write_small(folder / "a");
    const auto archive = DeltaArchive::open(folder / "a");
    CHECK(archive.file_bytes() == fs::file_size(folder / "a"));
    CHECK(archive.stored_bytes(archive.entries()[0]) == 36 + 8 + 16);
    CHECK(archive.stored_bytes(archive.entries()[1]) == 10);
    CHECK(archive.stored_bytes(archive.entries()[2]) == 0);
  }

  TEST_CASE("an archive not finished leaves nothing, one that exists is not replaced") {
    const Folder folder;
    const Tensor tensor = noise("w", DType::f32, {4, 4}, 1);
    { ArchiveWriter(folder / "a", Overwrite::no, {}).add_same(tensor.info(), "base"); }
    CHECK(folder.entries() == 0);
    write_small(folder / "a");
    const Bytes before = get(folder / "a");
    CHECK(caught([&] { ArchiveWriter(folder / "a", Overwrite::no, {}); }).code() ==
          Errc::output_exists);
    CHECK(get(folder / "a") == before);
  }

  TEST_CASE("a tensor added twice is refused") {
    const Folder folder;
    const Tensor tensor = noise("w", DType::f32, {4, 4}, 1);
    ArchiveWriter writer(folder / "a", Overwrite::no, std::array{tensor.info(), tensor.info()});
    writer.add_raw(tensor.info(), "base", tensor.bytes);
    CHECK(caught([&] { writer.add_raw(tensor.info(), "base", tensor.bytes); }).code() ==
          Errc::bad_container);
  }
}

TEST_SUITE("damage") {
  TEST_CASE("a file cut off anywhere is refused") {
    const Folder folder;
    write_small(folder / "a");
    const Bytes whole = get(folder / "a");
    for (std::size_t length = 0; length < whole.size(); ++length) {
      CAPTURE(length);
      put(folder / "b", std::span(whole).first(length));
      CHECK(caught([&] { read_all(folder / "b"); }).code() == Errc::bad_container);
    }
    Bytes longer = whole;
    longer.push_back(std::byte{0});
    put(folder / "b", longer);
    CHECK(refusal(folder / "b").code() == Errc::bad_container);
  }

  TEST_CASE("a changed byte is refused or changes nothing that is read") {
    const Folder folder;
    for (const RatioAllocator& mix : {kPaper, kFive}) {
      const std::vector<Content> expected = write_small(folder / "a", mix);
      const Bytes whole = get(folder / "a");
      std::size_t refused = 0;
      std::size_t silent = 0;
      for (std::size_t at = 0; at < whole.size(); ++at) {
        for (const unsigned change : {1u, 2u, 4u, 8u, 16u, 32u, 64u, 128u, 255u}) {
          Bytes bytes = whole;
          bytes[at] ^= static_cast<std::byte>(change);
          put(folder / "b", bytes);
          try {
            const auto found = read_all(folder / "b", Access::read);
            if (found != expected) {
              ++silent;
              CAPTURE(at);
              CAPTURE(change);
              CHECK(found == expected);
            }
          } catch (const Error&) {
            ++refused;
          }
        }
      }
      CHECK(silent == 0);
      CHECK(refused > 8 * whole.size() / 2);
    }
  }

  TEST_CASE("a changed byte of the data is a checksum that differs, naming the tensor") {
    const Folder folder;
    write_small(folder / "a");
    for (const std::string name : {"bounds:w", "widths:w", "codes:w", "raw:r"}) {
      Draft draft(folder / "a");
      draft.section(name).bytes.back() ^= std::byte{1};  // of widths and codes, the padding
      draft.write(folder / "b");
      check_refused(refusal(folder / "b"), Errc::checksum_mismatch,
                    name == "raw:r" ? ": r" : ": w");
    }
  }

  TEST_CASE("what is no archive is refused as such") {
    const Folder folder;
    write_model(folder / "model", std::array{noise("w", DType::f32, {4, 4}, 1)});
    const Error model = refusal(folder / "model");
    CHECK(model.code() == Errc::corrupt_data);
    CHECK(names(model, "no delta archive"));
    put(folder / "empty", {});
    CHECK(refusal(folder / "empty").code() == Errc::bad_container);
    CHECK(caught([&] { DeltaArchive::open(folder / "absent"); }).code() == Errc::io_failure);
    CHECK(caught([&] { DeltaArchive::open(folder.path); }).code() == Errc::io_failure);
  }

  TEST_CASE("metadata: format, version and the manifest's checksum") {
    const auto metadata = [](const char* key, const char* value) {
      return altered([&](Draft& draft) {
        if (value != nullptr)
          draft.metadata[key] = value;
        else
          draft.metadata.erase(key);
      });
    };
    CHECK(metadata("format", "pt").code() == Errc::corrupt_data);
    CHECK(metadata("format", nullptr).code() == Errc::corrupt_data);
    CHECK(metadata("version", nullptr).code() == Errc::unsupported_version);
    for (const char* version : {"2", "0", "", "1 ", "01", "x", "99999999999999999999"}) {
      CHECK(metadata("version", version).code() == Errc::unsupported_version);
    }
    CHECK(metadata("manifest", "0123456789abcdef").code() == Errc::checksum_mismatch);
    CHECK(metadata("manifest", "").code() == Errc::checksum_mismatch);
  }

  TEST_CASE("the manifest is missing") {
    const Folder folder;
    write_small(folder / "a");
    const Draft draft(folder / "a");
    write_model(folder / "b", draft.sections, draft.metadata);
    CHECK(refusal(folder / "b").code() == Errc::corrupt_data);
  }

  TEST_CASE("the manifest is not JSON, or not the JSON it should be") {
    const Folder folder;
    write_small(folder / "a");
    const Draft draft(folder / "a");
    for (const std::string text :
         {"", "{", "[]", "null", "1", "\"\"", "{}", "\xff", "{\"version\":1}",
          "{\"version\":1,\"version\":1,\"codecs\":[],\"tensors\":[]}",
          "{\"version\":1,\"codecs\":{},\"tensors\":[]}",
          "{\"version\":1,\"codecs\":[],\"tensors\":{}}",
          "{\"version\":1,\"codecs\":[],\"tensors\":[1]}",
          "{\"version\":1,\"codecs\":[],\"tensors\":[{}]}",
          "{\"version\":1,\"codecs\":[],\"tensors\":[null]}",
          "{\"version\":1.0,\"codecs\":[],\"tensors\":[]}",
          "{\"version\":\"1\",\"codecs\":[],\"tensors\":[]}"}) {
      CAPTURE(text);
      draft.write(folder / "b", text);
      CHECK(refusal(folder / "b").code() == Errc::bad_container);
    }
    draft.write(folder / "b", std::string(100'000, '['));
    CHECK(refusal(folder / "b").code() == Errc::bad_container);
  }
}

TEST_SUITE("manifest altered") {
  TEST_CASE("an archive put together again reads as before") {
    const Folder folder;
    for (const RatioAllocator& mix : {kPaper, kOne, kSeven}) {
      const auto expected = write_small(folder / "a", mix);
      Draft draft(folder / "a");
      for (const std::string name : {"w", "r"}) draft.seal(name);
      draft.write(folder / "b");
      CHECK(read_all(folder / "b") == expected);
      std::ranges::reverse(draft.sections);
      draft.write(folder / "b");
      CHECK(read_all(folder / "b") == expected);
    }
  }

  TEST_CASE("another version") {
    for (const int version : {0, 2, 1000}) {
      CHECK(altered([&](Draft& draft) { draft.manifest["version"] = version; }).code() ==
            Errc::unsupported_version);
    }
  }

  TEST_CASE("an unknown mode") {
    for (const char* mode : {"", "Delta", "delta ", "sparse"}) {
      check_refused(altered_entry([&](json& e) { e["mode"] = mode; }), Errc::corrupt_data);
    }
    check_refused(altered_entry([](json& e) { e["mode"] = 1; }), Errc::bad_container);
  }

  TEST_CASE("a mode that the sections do not fit") {
    check_refused(altered_entry([](json& e) { e["mode"] = "raw"; }), Errc::corrupt_data);
    check_refused(altered([](Draft& d) { d.entry("r")["mode"] = "delta"; }), Errc::bad_container,
                  ": r");
  }

  TEST_CASE("an unknown dtype") {
    for (const char* dtype : {"", "F31", "f32", "F4"}) {
      check_refused(altered_entry([&](json& e) { e["dtype"] = dtype; }), Errc::unsupported_dtype);
      check_refused(altered([&](Draft& draft) { draft.manifest["codecs"][0]["bound"] = dtype; }),
                    Errc::unsupported_dtype);
    }
    check_refused(altered_entry([](json& e) { e["dtype"] = nullptr; }), Errc::bad_container);
  }

  TEST_CASE("bounds of a dtype that is no floating one") {
    check_refused(altered([](Draft& d) { d.manifest["codecs"][0]["bound"] = "I32"; }),
                  Errc::corrupt_data);
    // A floating one, but not that of the section.
    check_refused(altered([](Draft& d) { d.manifest["codecs"][0]["bound"] = "F64"; }),
                  Errc::corrupt_data);
  }

  TEST_CASE("a raw tensor of another dtype or size") {
    const auto raw = [](const char* key, const json& value) {
      return altered([&](Draft& draft) { draft.entry("r")[key] = value; });
    };
    check_refused(raw("dtype", "U16"), Errc::corrupt_data, ": r");
    check_refused(raw("dtype", "BF16"), Errc::corrupt_data, ": r");
    check_refused(raw("shape", {6}), Errc::corrupt_data, ": r");
    check_refused(raw("shape", {4}), Errc::corrupt_data, ": r");
    check_refused(raw("shape", json::array()), Errc::corrupt_data, ": r");
    check_refused(raw("shape", {std::uint64_t{1} << 60}), Errc::corrupt_data, ": r");
    check_refused(raw("shape", {std::uint64_t{1} << 62}), Errc::corrupt_data, ": r");
  }

  TEST_CASE("a codec that is not there") {
    for (const json& index : {json(1), json(2), json(std::int64_t{1} << 40)}) {
      check_refused(altered_entry([&](json& e) { e["codec"] = index; }), Errc::corrupt_data);
    }
    for (const json& index : {json(-1), json(0.0), json("0"), json(nullptr)}) {
      check_refused(altered_entry([&](json& e) { e["codec"] = index; }), Errc::bad_container);
    }
    check_refused(altered([](Draft& d) { d.manifest["codecs"] = json::array(); }),
                  Errc::corrupt_data);
    check_refused(altered([](Draft& d) { d.manifest["codecs"][0] = 3; }), Errc::bad_container);
  }

  TEST_CASE("a patch size that is none") {
    for (const json& patch : {json(0), json(65), json(std::int64_t{1} << 40)}) {
      check_refused(altered([&](Draft& d) { d.manifest["codecs"][0]["patch"] = patch; }),
                    Errc::corrupt_data);
    }
    for (const json& patch : {json(-4), json(4.0), json("4"), json(true)}) {
      check_refused(altered([&](Draft& d) { d.manifest["codecs"][0]["patch"] = patch; }),
                    Errc::bad_container);
    }
    for (const int patch : {1, 3, 7, 8, 64}) {  // other grids than the sections'
      check_refused(altered([&](Draft& d) { d.manifest["codecs"][0]["patch"] = patch; }),
                    Errc::corrupt_data);
    }
  }

  TEST_CASE("stages that no codec has are refused before decoding") {
    CHECK(altered([](Draft& d) { d.manifest["codecs"][0]["transform"] = "wavelet"; }).code() ==
          Errc::codec_mismatch);
    CHECK(altered([](Draft& d) { d.manifest["codecs"][0]["quantizer"] = "magic"; }).code() ==
          Errc::codec_mismatch);
  }

  TEST_CASE("a delta of a dtype that the codec does not take") {
    CHECK(altered_entry([](json& e) { e["dtype"] = "I32"; }).code() == Errc::unsupported_dtype);
  }

  TEST_CASE("a scale that is no finite number") {
    for (const json& scale : {json(nullptr), json("1"), json(json::array()), json(true)}) {
      check_refused(altered_entry([&](json& e) { e["scale"] = scale; }), Errc::corrupt_data);
    }
    check_refused(altered_entry([](json& e) { e.erase("scale"); }), Errc::bad_container);
    const Folder folder;
    write_small(folder / "a");
    Draft draft(folder / "a");
    draft.entry("w")["scale"] = 42424242;
    for (const char* scale : {"NaN", "nan", "Infinity", "-Infinity", "1e999", "-1e999"}) {
      std::string text = draft.manifest.dump();
      text.replace(text.find("42424242"), 8, scale);
      draft.write(folder / "b", text);
      CHECK(refusal(folder / "b").code() == Errc::bad_container);
    }
  }

  TEST_CASE("class counts that do not sum to the patches, or not as the map says") {
    const auto classes = [](const json& value) {
      return altered_entry([&](json& e) { e["classes"] = value; });
    };
    REQUIRE(altered_entry([](json& e) {
              REQUIRE(e["classes"] == json::parse("[[2,2,3],[0,1,3]]"));
              e["classes"] = nullptr;
            }).code() == Errc::bad_container);
    for (const std::string text :
         {"[]",
          "[[2,2,6]]",
          "[[2,2,3]]",
          "[[2,2,3],[0,1,2]]",
          "[[2,2,3],[0,1,4]]",
          "[[2,2,4],[0,1,2]]",
          "[[2,2,2],[0,1,4]]",
          "[[2,2,6],[0,1,0]]",
          "[[0,1,3],[2,2,3]]",
          "[[2,2,3],[2,2,3]]",
          "[[5,2,3],[0,1,3]]",
          "[[7,2,3],[0,1,3]]",
          "[[9,2,3],[0,1,3]]",
          "[[100,2,3],[0,1,3]]",
          "[[4,2,3],[0,1,3]]",
          "[[1,2,3],[0,1,3]]",
          "[[2,2,3],[1,2,0],[0,1,3]]",
          "[[2,2,9223372036854775807],[0,1,3]]",
          "[[2,2,9223372036854775807],[0,1,9223372036854775807]]",
          "[[2,2],[0,1,3]]",
          "[[2,2,3,0],[0,1,3]]",
          "[[],[]]",
          "[[8,2,1],[6,2,1],[4,2,1],[3,2,1],[2,2,1],[1,2,1],[0,1,0],[0,1,0]]"}) {
      CAPTURE(text);
      check_refused(classes(json::parse(text)), Errc::corrupt_data);
    }
    for (const std::string text :
         {"{}", "3", "[3]", "[{}]", "[[2,2,-1],[0,1,3]]", "[[2.0,2,3],[0,1,3]]",
          "[[\"2\",2,3],[0,1,3]]", "[[2,null,3],[0,1,3]]", "[[-2,2,3],[0,1,3]]"}) {
      CAPTURE(text);
      check_refused(classes(json::parse(text)), Errc::bad_container);
    }
  }

  TEST_CASE("a wrong number of bounds a patch never reaches the decoder") {
    // The section is made to fit, so that nothing but the number itself is wrong.
    const auto side_values = [](int two_bits, int zero_bits) {
      return altered([&](Draft& draft) {
        draft.entry("w")["classes"][0][1] = two_bits;
        draft.entry("w")["classes"][1][1] = zero_bits;
        draft.resize("bounds:w", static_cast<std::size_t>(3 * two_bits + 3 * zero_bits) * 4);
        draft.seal("w");
      });
    };
    CHECK(side_values(1, 1).code() == Errc::codec_mismatch);
    CHECK(side_values(3, 1).code() == Errc::codec_mismatch);
    CHECK(side_values(2, 2).code() == Errc::codec_mismatch);
    CHECK(side_values(8, 8).code() == Errc::codec_mismatch);
    check_refused(side_values(0, 1), Errc::corrupt_data);
    check_refused(side_values(2, 0), Errc::corrupt_data);
    check_refused(side_values(9, 1), Errc::corrupt_data);
    check_refused(side_values(99, 1), Errc::corrupt_data);
    check_refused(altered_entry([](json& e) { e["classes"][0][1] = 1; }), Errc::corrupt_data);
    check_refused(altered_entry([](json& e) { e["classes"][0][1] = std::int64_t{1} << 62; }),
                  Errc::corrupt_data);
  }

  TEST_CASE("shapes other than the sections'") {
    for (const std::string shape :
         {"[]", "[0]", "[8]", "[8,0]", "[8,16]", "[9,12]", "[16,12]", "[8,4]", "[4,12,2,2]",
          "[4294967296,12]", "[1048576,1048576]"}) {
      CAPTURE(shape);
      check_refused(altered_entry([&](json& e) { e["shape"] = json::parse(shape); }),
                    Errc::corrupt_data);
    }
    for (const std::string shape : {"null", "[8,-12]", "[8.0,12]", "[\"8\",12]", "8"}) {
      check_refused(altered_entry([&](json& e) { e["shape"] = json::parse(shape); }),
                    Errc::bad_container);
    }
    check_refused(altered_entry([](json& e) { e["shape"] = json(std::vector<int>(17, 1)); }),
                  Errc::limit_exceeded);
  }

  TEST_CASE("a huge shape is refused without an allocation of its size") {
    const auto huge = [](const char* shape, int patch, const char* classes) {
      const Folder folder;
      write_small(folder / "a");
      Draft draft(folder / "a");
      draft.manifest["codecs"][0]["patch"] = patch;
      draft.entry("w")["shape"] = json::parse(shape);
      draft.entry("w")["classes"] = json::parse(classes);
      draft.write(folder / "b");
      largest_request = 0;
      check_refused(refusal(folder / "b"), Errc::corrupt_data);
      CHECK(largest_request < 1'000'000);
    };
    huge("[1099511627776,1099511627776]", 4, "[[2,2,3],[0,1,3]]");
    huge("[1099511627776,1099511627776,0]", 4, "[[2,2,3],[0,1,3]]");
    huge("[0,1099511627776,1099511627776]", 4, "[]");
    huge("[1073741824,1073741824]", 64, "[[2,2,281474976710655],[0,1,1]]");
    huge("[4611686018427387904]", 4, "[[2,2,3],[0,1,3]]");
    huge("[1048576,1048576]", 64, "[[2,2,268435456]]");
    huge("[1048576,1048576]", 64, "[[0,1,268435456]]");
    huge("[1048576,1048576]", 64, "[[2,2,134217728],[0,1,134217728]]");
    huge("[1048576,1048576]", 64,
         "[[8,2,268435456],[6,2,0],[4,2,0],[3,2,0],[2,2,0],[1,2,0],[0,1,0]]");
  }

  TEST_CASE("an empty matrix has no patches") {
    // Both ways of having none are sound; a patch for one is not.
    for (const std::string shape : {"[0,12]", "[8,0]", "[0,0]", "[0,4611686018427387]"}) {
      check_refused(altered_entry([&](json& e) { e["shape"] = json::parse(shape); }),
                    Errc::corrupt_data);
    }
  }

  TEST_CASE("one name for two tensors") {
    check_refused(altered([](Draft& d) { d.manifest["tensors"].push_back(d.entry("w")); }),
                  Errc::corrupt_data);
    check_refused(altered([](Draft& d) { d.entry("r")["name"] = "w"; }), Errc::corrupt_data);
    check_refused(altered([](Draft& d) { d.entry("s")["name"] = "r"; }), Errc::corrupt_data, ": r");
  }

  TEST_CASE("a name that no section has") {
    check_refused(altered_entry([](json& e) { e["name"] = "v"; }), Errc::corrupt_data, ": v");
  }

  TEST_CASE("every field is needed, and is of its type") {
    for (const std::string key :
         {"name", "mode", "dtype", "shape", "base", "payload", "codec", "scale", "classes"}) {
      CAPTURE(key);
      CHECK(altered_entry([&](json& e) { e.erase(key); }).code() == Errc::bad_container);
      if (key == "scale") continue;
      CHECK(altered_entry([&](json& e) { e[key] = false; }).code() == Errc::bad_container);
    }
    for (const std::string key : {"patch", "transform", "quantizer", "bound"}) {
      CAPTURE(key);
      check_refused(altered([&](Draft& d) { d.manifest["codecs"][0].erase(key); }),
                    Errc::bad_container);
      check_refused(altered([&](Draft& d) { d.manifest["codecs"][0][key] = false; }),
                    Errc::bad_container);
    }
    check_refused(altered([](Draft& d) { d.entry("r").erase("payload"); }), Errc::bad_container,
                  ": r");
  }
}

TEST_SUITE("sections altered") {
  TEST_CASE("a missing section") {
    for (const std::string name : {"bounds:w", "widths:w", "codes:w"}) {
      check_refused(altered([&](Draft& draft) {
                      draft.drop(name);
                      draft.seal("w");
                    }),
                    Errc::corrupt_data);
    }
    check_refused(altered([](Draft& draft) { draft.drop("raw:r"); }), Errc::corrupt_data, ": r");
  }

  TEST_CASE("a section of wrong size") {
    for (const std::string name : {"bounds:w", "widths:w", "codes:w"}) {
      CAPTURE(name);
      for (const int change : {-8, -4, 4, 8, 800}) {
        check_refused(altered([&](Draft& draft) {
                        const auto bytes = static_cast<int>(draft.section(name).bytes.size());
                        draft.resize(name, static_cast<std::size_t>(bytes + change));
                        draft.seal("w");
                      }),
                      Errc::corrupt_data);
      }
      check_refused(altered([&](Draft& draft) {
                      draft.resize(name, 0);
                      draft.seal("w");
                    }),
                    Errc::corrupt_data);
    }
  }

  TEST_CASE("a width map where one class needs none") {
    check_refused(altered(
                      [](Draft& draft) {
                        draft.resize("widths:w", 8);
                        draft.seal("w");
                      },
                      kOne),
                  Errc::corrupt_data);
  }

  TEST_CASE("a section of another dtype") {
    for (const auto& [name, dtype] : {std::pair{"bounds:w", DType::u32},
                                      {"bounds:w", DType::i32},
                                      {"widths:w", DType::i8},
                                      {"codes:w", DType::boolean}}) {
      check_refused(altered_section(name, [&, to = dtype](Tensor& t) { t.dtype = to; }),
                    Errc::corrupt_data);
    }
  }

  TEST_CASE("a stored value that is not finite") {
    for (const double value : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
      for (const std::size_t index : {std::size_t{0}, std::size_t{5}, std::size_t{8}}) {
        check_refused(altered_section("bounds:w", [&](Tensor& t) { t.set(index, value); }),
                      Errc::corrupt_data);
      }
    }
  }

  TEST_CASE("a map with other counts, or with a class that is not there") {
    check_refused(altered_section("widths:w", [](Tensor& t) { t.bytes[0] ^= std::byte{1}; }),
                  Errc::corrupt_data);
    check_refused(altered_section("widths:w", [](Tensor& t) { t.bytes[0] = std::byte{0}; }),
                  Errc::corrupt_data);
    check_refused(altered_section(
                      "widths:w", [](Tensor& t) { t.bytes[0] |= std::byte{3}; }, kThree),
                  Errc::corrupt_data);
    for (const unsigned k : {5u, 7u, 8u, 15u}) {
      check_refused(altered_section(
                        "widths:w",
                        [&](Tensor& t) {
                          t.bytes[0] = (t.bytes[0] & std::byte{0xF0}) | static_cast<std::byte>(k);
                        },
                        kFive),
                    Errc::corrupt_data);
    }
  }

  TEST_CASE("codes may be anything: every one has a value") {
    const Folder folder;
    for (const RatioAllocator& mix : {kPaper, kThree, kFour, kSeven}) {
      write_small(folder / "a", mix);
      for (const unsigned fill : {0u, 0x55u, 0xFFu}) {
        Draft draft(folder / "a");
        std::ranges::fill(draft.section("codes:w").bytes, static_cast<std::byte>(fill));
        draft.seal("w");
        draft.write(folder / "b");
        const std::vector<Content> contents = read_all(folder / "b");
        for (const double x : values(DType::f32, contents.at(0).bytes)) CHECK(std::isfinite(x));
      }
    }
  }

  TEST_CASE("sections that no tensor owns are ignored") {
    const Folder folder;
    const auto expected = write_small(folder / "a");
    Draft draft(folder / "a");
    draft.sections.push_back(noise("extra", DType::i32, {3}, 1));
    draft.sections.push_back(noise("raw:s", DType::i32, {3}, 1));
    draft.write(folder / "b");
    CHECK(read_all(folder / "b") == expected);
  }
}

TEST_SUITE("limits") {
  TEST_CASE("the caller's limits hold for the container and the manifest") {
    const Folder folder;
    write_small(folder / "a");
    const auto open = [&](const io::Limits& limits) {
      return DeltaArchive::open(folder / "a", Access::map, limits);
    };
    CHECK(caught([&] { open({.header_bytes = 64}); }).code() == Errc::limit_exceeded);
    CHECK(caught([&] { open({.tensors = 4}); }).code() == Errc::limit_exceeded);
    CHECK(open({.tensors = 5}).entries().size() == 3);
    CHECK(caught([&] { open({.rank = 1}); }).code() == Errc::limit_exceeded);
    CHECK(open({.rank = 2}).entries().size() == 3);
    CHECK(caught([&] { open({.depth = 4}); }).code() == Errc::bad_container);
    CHECK(open({.depth = 5}).entries().size() == 3);
  }

  TEST_CASE("more tensors in the manifest than allowed") {
    const Folder folder;
    Archive archive({noise("a", DType::u8, {1}, 1), noise("b", DType::u8, {1}, 1),
                     noise("c", DType::u8, {1}, 1)});
    archive.write(folder / "a", [](Archive& a) {
      for (const Tensor& tensor : a.tensors) a.same(tensor);
    });
    CHECK(caught([&] { DeltaArchive::open(folder / "a", Access::map, {.tensors = 2}); }).code() ==
          Errc::limit_exceeded);
  }
}
