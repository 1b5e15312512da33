// Applying and verifying an archive: another base, and what is damaged, are refused by name.
#include <deltadct/io/apply.hpp>

#include "altered.hpp"
#include "pair.hpp"

using namespace io_test;

namespace {

/// Alters the manifest of an archive with one delta, and drops bytes from the front of the delta,
/// under matching checksums.
void alter(const Pair& pair, const std::function<void(json&)>& change, std::ptrdiff_t dropped) {
  std::vector<Tensor> sections;
  io::Metadata metadata;
  {
    const Model model = Model::open(pair.folder / "delta");
    for (const io::TensorInfo& info : model.tensors()) {
      sections.push_back({info.name, info.dtype, info.shape, data(model, info.name)});
    }
    metadata = model.metadata();
  }
  REQUIRE(sections.size() == 2);
  Bytes& delta = sections[0].bytes;
  delta.erase(delta.begin(), delta.begin() + dropped);
  sections[0].shape = {delta.size()};
  Bytes& text = sections[1].bytes;
  json manifest = json::parse(std::string(reinterpret_cast<const char*>(text.data()), text.size()));
  change(manifest);
  manifest["tensors"][0]["delta"] = io::fingerprint(delta);
  text = bytes_of(manifest.dump());
  sections[1].shape = {text.size()};
  metadata["manifest"] = io::fingerprint(text);
  write_model(pair.folder / "delta", sections, metadata);
}

}  // namespace

TEST_SUITE("models that do not fit") {
  TEST_CASE("another base is refused, naming the first tensor that differs") {
    Pair pair = mixed_pair();
    pair.compress(options_of(4));
    for (const std::string name : {"f32", "norm", "unchanged", "ids"}) {
      CAPTURE(name);
      const auto changed = std::ranges::find(pair.base, name, &Tensor::name);
      changed->bytes.back() ^= std::byte{1};
      pair.write();
      const Error applied = fails_leaving_nothing(pair.folder, [&] { pair.apply(); });
      CHECK(applied.code() == Errc::wrong_base);
      CHECK(names(applied, (pair.folder / "base").string() + ": " + name));
      const Error verified = caught([&] { pair.verify(true); });
      CHECK(verified.code() == Errc::wrong_base);
      CHECK(names(verified, name));
      pair.verify(false);
      changed->bytes.back() ^= std::byte{1};
    }
  }

  TEST_CASE("a tensor that the archive or its base lacks") {
    Pair pair = mixed_pair();
    pair.compress(options_of(4));
    const std::vector<Tensor> all = pair.base;
    pair.base.push_back(noise("more", DType::f32, {4}, 1));
    pair.write();
    const Error more = fails_leaving_nothing(pair.folder, [&] { pair.apply(); });
    CHECK(more.code() == Errc::missing_tensor);
    CHECK(names(more, "more"));
    pair.base = all;
    pair.base.erase(std::ranges::find(pair.base, "norm", &Tensor::name));
    pair.write();
    const Error less = fails_leaving_nothing(pair.folder, [&] { pair.apply(); });
    CHECK(less.code() == Errc::missing_tensor);
    CHECK(names(less, "norm"));
    CHECK(caught([&] { pair.verify(true); }).code() == Errc::missing_tensor);
  }

  TEST_CASE("a base of other shapes or dtypes is refused, naming the tensor and both") {
    Pair pair = mixed_pair();
    pair.compress(options_of(4));
    pair.base[0].shape = {20, 33};
    pair.write();
    const Error shape = fails_leaving_nothing(pair.folder, [&] { pair.apply(); });
    CHECK(shape.code() == Errc::shape_mismatch);
    CHECK(names(shape, "f32"));
    CHECK(names(shape, "20x33"));
    CHECK(names(shape, "33x20"));
    pair.base[0].shape = {33, 20};
    pair.base[0].dtype = DType::u32;
    pair.write();
    const Error dtype = fails_leaving_nothing(pair.folder, [&] { pair.apply(); });
    CHECK(dtype.code() == Errc::dtype_mismatch);
    CHECK(names(dtype, "f32"));
    CHECK(names(dtype, "U32"));
    CHECK(names(dtype, "F32"));
  }

  TEST_CASE("a base cut off anywhere is refused before anything is written") {
    const Pair pair = one_pair(DType::f32, {8, 8});
    pair.compress(options_of(4));
    const Bytes whole = get(pair.folder / "base");
    for (std::size_t length = 0; length < whole.size(); length += 7) {
      put(pair.folder / "base", std::span(whole).first(length));
      CHECK(fails_leaving_nothing(pair.folder, [&] { pair.apply(); }).code() ==
            Errc::bad_container);
    }
  }

  TEST_CASE("a base cut off while it is open is refused, not read beyond") {
    const Pair pair = one_pair(DType::f32, {64, 64});
    pair.compress(options_of(4));
    const Model base = Model::open(pair.folder / "base", reading(Access::read));
    fs::resize_file(pair.folder / "base", 1000);
    const Error error = fails_leaving_nothing(pair.folder, [&] {
      io::apply_archive(base, pair.archive(), pair.folder / "out", ApplyOptions{}, serial_codec);
    });
    CHECK(error.code() == Errc::io_failure);
    CHECK(names(error, "w"));
  }
}

TEST_SUITE("verify") {
  TEST_CASE("sound archives pass, with and without a base") {
    const Pair pair = mixed_pair();
    pair.compress(options_of(4));
    pair.verify(false);
    pair.verify(true);
  }

  TEST_CASE("any altered byte of the data is found, and never applied") {
    const Pair pair = mixed_pair();
    pair.compress(options_of(4));
    const Bytes whole = get(pair.folder / "delta");
    std::uint64_t header = 0;
    std::memcpy(&header, whole.data(), sizeof header);
    for (std::size_t at = 8 + header; at < whole.size(); at += 5) {
      Bytes bytes = whole;
      bytes[at] ^= std::byte{16};
      put(pair.folder / "delta", bytes);
      CHECK(caught([&] { pair.verify(false); }).code() == Errc::checksum_mismatch);
      if (at % 3 == 0) {
        CHECK(fails_leaving_nothing(pair.folder, [&] { pair.apply(); }).code() ==
              Errc::checksum_mismatch);
      }
    }
  }

  TEST_CASE("what no codec can decode is found, and never applied, naming the tensor") {
    const auto refused = [&](const std::function<void(json&)>& change, std::ptrdiff_t dropped = 0) {
      const Pair pair = one_pair(DType::f32, {8, 16});  // 8 patches
      pair.compress(options_of(4));
      alter(pair, change, dropped);
      const Error applied = fails_leaving_nothing(pair.folder, [&] { pair.apply(); });
      INFO(std::string(applied.what()));
      CHECK(names(applied, "w: "));
      const Error verified = caught([&] { pair.verify(true); });
      CHECK(verified.code() == applied.code());
      CHECK(names(verified, "w: "));
      return applied.code();
    };
    CHECK(refused([](json& m) { m["codecs"][0]["transform"] = "wavelet"; }) ==
          Errc::codec_mismatch);
    CHECK(refused([](json& m) { m["codecs"][0]["quantizer"] = "magic"; }) == Errc::codec_mismatch);
    // Four patches, each with one bound less.
    CHECK(refused([](json& m) { m["tensors"][0]["matrices"][0][1][0][1] = 1; }, 4 * 4) ==
          Errc::codec_mismatch);
  }
}

TEST_SUITE("malformed delta") {
  TEST_CASE("a base that is only claimed is none: what needs no base is not restored") {
    const Folder folder;
    write_small(folder / "a");
    // 70 chunks of 1 MiB of zeros in few bytes, and bases of all kinds that would justify them.
    const Bytes zeros(1 << 20);
    const Bytes section =
        section_of(std::vector<std::pair<unsigned, Bytes>>(70, {1, zstd_frame(zeros)}));
    const auto bomb = [&](const std::string& name) {
      Draft draft(folder / "a");
      draft.replace("lossless:" + name, section);
      draft.seal(name);
      draft.entry("n")["shape"] = {3};
      draft.entry("o")["shape"] = {std::int64_t{1} << 40};
      draft.entry("s")["shape"] = {std::int64_t{1} << 40, 1};
      return draft;
    };
    const auto verify = [&](Draft draft, double expansion) {
      draft.write(folder / "b");
      const auto archive = DeltaArchive::open(folder / "b", {.limits = {.expansion = expansion}});
      io::verify_archive(archive, nullptr, serial_codec);
    };
    Draft added = bomb("n");
    added.entry("n")["shape"] = {70 << 20};
    added.entry("n")["tuned"] = io::fingerprint(Bytes(70 << 20));
    Draft grown = bomb("g");
    grown.entry("g")["shape"] = {4 + (70 << 16), 4};
    for (const auto& [draft, name] : {std::pair{&added, ": n"}, {&grown, ": g"}}) {
      const Error error = caught([&, from = draft] { verify(*from, 0); });
      CHECK(error.code() == Errc::limit_exceeded);
      CHECK(names(error, name));
      CHECK(names(error, "--base FILE or --limit expansion=NUMBER"));
      verify(*draft, 1e6);
    }
    // A tensor that needs its base is not restored, but everything else about it is checked.
    Draft relative = bomb("r");
    relative.entry("r")["dtype"] = "I8";
    relative.entry("r")["base_dtype"] = "I16";
    relative.entry("r")["shape"] = {70 << 20};
    relative.entry("r")["base_shape"] = {70 << 20};
    Bytes& bytes = relative.section("lossless:r").bytes;
    for (std::size_t k = 0; k < 70; ++k) bytes[4 * k] |= std::byte{3};
    relative.seal("r");
    verify(relative, 0);
    bytes[bytes.size() - 20] ^= std::byte{1};
    relative.seal("r");
    CHECK(caught([&] { verify(relative, 1e6); }).code() == Errc::corrupt_data);
  }

  TEST_CASE("verify decodes what is stored without a base, and compares it") {
    const auto verify = [](const auto& change) {
      const Folder folder;
      write_small(folder / "a");
      Draft draft(folder / "a");
      change(draft);
      draft.write(folder / "b");
      const auto archive = DeltaArchive::open(folder / "b");
      return caught([&] { io::verify_archive(archive, nullptr, serial_codec); });
    };
    const auto chunk = [](const char* name, std::size_t bytes) {
      return [=](Draft& draft) {
        draft.replace("lossless:" + std::string(name), section_of({{0, Bytes(bytes)}}));
        draft.seal(name);
      };
    };
    const Error other = verify(chunk("n", 3));  // three bytes, but not the added ones
    CHECK(other.code() == Errc::checksum_mismatch);
    CHECK(names(other, ": n"));
    CHECK(verify(chunk("n", 4)).code() == Errc::corrupt_data);
    const Error grown = verify(chunk("g", 31));  // two rows of four floats
    CHECK(grown.code() == Errc::corrupt_data);
    CHECK(names(grown, ": g"));
  }

  TEST_CASE("verify looks at what needs a base as far as it goes without") {
    const Folder folder;
    write_small(folder / "a");
    const auto verify = [&](unsigned coding, const Bytes& stored, const json& tuned = nullptr) {
      Draft draft(folder / "a");
      draft.replace("lossless:r", section_of({{coding, stored}}));
      draft.seal("r");
      if (!tuned.is_null()) draft.entry("r")["tuned"] = tuned;
      draft.write(folder / "b");
      const auto archive = DeltaArchive::open(folder / "b");
      try {
        io::verify_archive(archive, nullptr, serial_codec);
        return std::string();
      } catch (const Error& error) {
        CHECK(names(error, ": r"));
        return std::string(deltadct::describe(error.code()));
      }
    };
    const std::string sound;
    const std::string corrupt(deltadct::describe(Errc::corrupt_data));
    const std::string differs(deltadct::describe(Errc::checksum_mismatch));
    const Bytes ten = noise("", DType::u8, {10}, 4).bytes;
    const std::string sum = io::fingerprint(ten);
    for (const unsigned coding : {1u, 2u, 3u}) {
      CAPTURE(coding);
      CHECK(verify(coding, Bytes(10)) == corrupt);
      for (const std::size_t bytes : {9u, 11u}) {
        CHECK(verify(coding, zstd_frame(Bytes(bytes))) == corrupt);
      }
      Bytes damaged = zstd_frame(ten);
      damaged[0] ^= std::byte{1};
      CHECK(verify(coding, damaged) == corrupt);
      Bytes two = zstd_frame(ten);
      const Bytes frame = zstd_frame(ten);
      two.insert(two.end(), frame.begin(), frame.end());
      CHECK(verify(coding, two) == corrupt);
      // A coding without the base is compared. With the base, the result is not known.
      CHECK(verify(coding, zstd_frame(ten), sum) == sound);
      CHECK(verify(coding, zstd_frame(ten)) == (coding == 1 ? differs : sound));
    }
    CHECK(verify(0, ten, sum) == sound);
    CHECK(verify(0, ten) == differs);
    CHECK(verify(0, Bytes(9)) == corrupt);
    CHECK(verify(4, ten) == corrupt);
  }
}
