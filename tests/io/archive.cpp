// The delta archive: what is written is read back, and anything else is refused with a reason.
#include <deltadct/io/archive.hpp>

#include "../support/largest_request.hpp"
#include "altered.hpp"

#include <cmath>
#include <optional>
#include <thread>
#include <type_traits>

using namespace io_test;
using io::Block;
using io::MatrixStack;
using io::Model;

namespace {

constexpr DType kEveryDType[] = {DType::f64,     DType::f32,     DType::f16,    DType::bf16,
                                 DType::f8_e4m3, DType::f8_e5m2, DType::i64,    DType::i32,
                                 DType::i16,     DType::i8,      DType::u64,    DType::u32,
                                 DType::u16,     DType::u8,      DType::boolean};

}  // namespace

TEST_SUITE("round trip") {
  static_assert(!std::is_copy_constructible_v<StoredDelta>);
  static_assert(std::is_nothrow_move_constructible_v<StoredDelta>);

  TEST_CASE("deltas of every element dtype, patch size and mix decode to the same values") {
    const Folder folder;
    for (const RatioAllocator& mix : {kPaper, kOne, kZero, kThree, kFour, kFive, kSeven}) {
      CAPTURE(mix.widths().size());
      std::vector<Tensor> tensors;
      std::vector<std::string> names;
      unsigned seed = 0;
      for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
        for (const Shape& shape : {Shape{16, 16}, Shape{19, 37}, Shape{1, 4}, Shape{3, 5, 7},
                                   Shape{0, 8}, Shape{8, 0}, Shape{7}, Shape{}}) {
          names.push_back(std::string(deltadct::dtype_name(dtype)) + "." + std::to_string(seed));
          tensors.push_back(noise(names.back(), dtype, shape, ++seed));
        }
      }
      Builder builder(folder / "a", names);
      for (const Tensor& tensor : tensors) {
        builder.delta(tensor, tensor.dtype != DType::f64 && tensor.bytes.size() % 3 == 0 ? 16 : 4,
                      mix);
      }
      const std::uint64_t bytes = builder.finish();
      CHECK(bytes == fs::file_size(folder / "a"));
      CHECK(read_all(folder / "a", Access::map) == builder.expected);
      CHECK(read_all(folder / "a", Access::read) == builder.expected);
    }
  }

  TEST_CASE("tensors that grew or shrank, and stacks of matrices") {
    const Folder folder;
    for (const RatioAllocator& mix : {kPaper, kZero, kFive}) {
      Builder builder(folder / "a", {"g", "h", "k", "z", "stack", "more", "fewer"});
      builder.grown(noise("g", DType::bf16, {9, 10}, 1), {7, 10}, 4, mix);
      builder.grown(noise("h", DType::f64, {3, 2, 5}, 2), {2, 2, 5}, 4, mix);
      builder.shrunk(noise("k", DType::f16, {5, 21}, 3), {90, 21}, 16, mix);
      builder.grown(noise("z", DType::f32, {4, 4}, 4), {0, 4}, 4, mix);
      builder.delta(noise("stack", DType::f32, {3, 64, 65}, 5), 16, mix);
      builder.grown(noise("more", DType::bf16, {3, 64, 64}, 6), {2, 64, 64}, 16, mix);
      builder.shrunk(noise("fewer", DType::bf16, {2, 64, 64}, 7), {3, 64, 64}, 4, mix);
      builder.finish();
      CHECK(read_all(folder / "a", Access::map) == builder.expected);
      CHECK(read_all(folder / "a", Access::read) == builder.expected);
      const auto archive = DeltaArchive::open(folder / "a");
      CHECK(archive.delta(*archive.find("stack")).size() == 3);
      CHECK(archive.delta(*archive.find("more")).size() == 2);
      CHECK(archive.delta(*archive.find("h")).size() == 1);
    }
  }

  TEST_CASE("headers, places, bounds and codes come back as they were") {
    const Folder folder;
    const Tensor tensor = noise("w", DType::f32, {33, 41}, 5);
    for (const RatioAllocator& mix : {kPaper, kOne, kFour, kSeven}) {
      Builder builder(folder / "a", {"w"});
      builder.delta(tensor, 4, mix);
      builder.finish();
      const CompressedTensor& before = builder.matrices.at(0);
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
        CHECK(view.header->classes[k].bound_count == before.header.classes[k].bound_count);
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

  TEST_CASE("tensors of every dtype and rank without loss, and same ones") {
    const Folder folder;
    std::vector<Tensor> tensors;
    std::vector<std::string> names;
    unsigned seed = 0;
    for (const DType dtype : kEveryDType) {
      for (const Shape& shape : {Shape{}, Shape{0}, Shape{5}, Shape{2, 0, 3}, Shape{1, 2, 3, 2}}) {
        names.push_back(std::string(deltadct::dtype_name(dtype)) + "." + std::to_string(seed));
        tensors.push_back(noise(names.back(), dtype, shape, ++seed));
      }
    }
    Builder builder(folder / "a", names);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      switch (i % 6) {
        case 0:
          builder.same(tensors[i]);
          break;
        case 1:
          builder.added(tensors[i]);
          break;
        case 2:
          builder.lossless(tensors[i], DType::i8, {3, 1});  // a base of a different kind
          break;
        case 3:
          builder.removed(tensors[i]);
          break;
        default:
          builder.lossless(tensors[i]);
      }
    }
    builder.finish();
    CHECK(read_all(folder / "a", Access::map) == builder.expected);
    CHECK(read_all(folder / "a", Access::read) == builder.expected);
  }

  TEST_CASE("entries keep their order and are found by name") {
    const Folder folder;
    write_small(folder / "a");
    const auto archive = DeltaArchive::open(folder / "a");
    REQUIRE(archive.entries().size() == 8);
    CHECK(archive.entries()[0].name == "w");
    CHECK(archive.entries()[1].name == "r");
    CHECK(archive.entries()[7].name == "o");
    CHECK(archive.find("r") == &archive.entries()[1]);
    CHECK(archive.find("lossless:r") == nullptr);
    CHECK(archive.find("manifest:1") == nullptr);
    CHECK(archive.find("") == nullptr);
    CHECK(&archive.target(*archive.find("t")) == archive.find("w"));
    CHECK(&archive.target(*archive.find("r")) == archive.find("r"));
  }

  TEST_CASE("names of any kind are kept, those of sections among them") {
    const Folder folder;
    std::vector<std::string> names{"",
                                   " ",
                                   "manifest:1",
                                   "1",
                                   "delta:w",
                                   "lossless:",
                                   "w",
                                   "lossless:w",
                                   "a\"b\\c",
                                   "line\nbreak",
                                   "caf\u00e9 \u4e2d \U0001F600"};
    names.push_back(std::string(5000, '\x01'));
    Builder builder(folder / "a", names);
    for (std::size_t i = 0; i < names.size(); ++i) {
      const Tensor tensor = noise(names[i], DType::f32, {4, 4}, 1);
      i % 2 == 0 ? builder.delta(tensor, 4, kThree) : builder.added(tensor);
    }
    builder.finish();
    CHECK(read_all(folder / "a") == builder.expected);
  }

  TEST_CASE("no tensors at all") {
    const Folder folder;
    Builder builder(folder / "a", {});
    const std::uint64_t bytes = builder.finish();
    CHECK(bytes == fs::file_size(folder / "a"));
    CHECK(read_all(folder / "a").empty());
  }
}

TEST_SUITE("container") {
  TEST_CASE("the bytes of tensors, the header and the manifest make up the file") {
    const Folder folder;
    write_small(folder / "a");
    const auto archive = DeltaArchive::open(folder / "a");
    CHECK(archive.file_bytes() == fs::file_size(folder / "a"));
    CHECK(archive.stored_bytes(*archive.find("w")) == 64);
    CHECK(archive.stored_bytes(*archive.find("r")) == 24);
    CHECK(archive.stored_bytes(*archive.find("s")) == 0);
    CHECK(archive.stored_bytes(*archive.find("o")) == 0);
    CHECK(DeltaArchive::lossless_bytes(*archive.find("r")) == 10);
    CHECK(DeltaArchive::lossless_bytes(*archive.find("g")) == 32);
    CHECK(DeltaArchive::lossless_bytes(*archive.find("w")) == 0);
  }
}

TEST_SUITE("damage") {
  TEST_CASE("a file cut off anywhere is refused") {
    const Folder folder;
    write_small(folder / "a");
    const Bytes whole = get(folder / "a");
    put(folder / "b", whole);
    for (std::size_t length = whole.size(); length-- > 0;) {
      CAPTURE(length);
      fs::resize_file(folder / "b", length);
      CHECK(caught([&] { read_all(folder / "b"); }).code() == Errc::bad_container);
    }
    Bytes longer = whole;
    longer.push_back(std::byte{0});
    put(folder / "b", longer);
    CHECK(refusal(folder / "b").error.code() == Errc::bad_container);
  }

  TEST_CASE("a changed byte is refused or changes nothing that is read") {
    const Folder folder;
    const std::vector<Content> expected = write_small(folder / "a", kFive);
    const Bytes whole = get(folder / "a");
    std::size_t refused = 0;
    for (std::size_t at = 0; at < whole.size(); ++at) {
      for (const unsigned change : {1u, 132u}) {
        put_byte(folder / "a", at, whole[at] ^ static_cast<std::byte>(change));
        try {
          if (read_all(folder / "a", Access::read) == expected) continue;
          CAPTURE(at);
          CAPTURE(change);
          CHECK(false);
        } catch (const Error&) {
          ++refused;
        }
      }
      put_byte(folder / "a", at, whole[at]);
    }
    CHECK(refused > whole.size());
    CHECK(read_all(folder / "a") == expected);
  }

  TEST_CASE("without checksums, a changed byte of the data is read or refused, nothing else") {
    const Folder folder;
    const std::vector<Content> expected = write_small(folder / "a", kSeven);
    const Model file = Model::open(folder / "a");
    const Bytes whole = get(folder / "a");
    const auto first = static_cast<std::size_t>(whole.size() - file.tensors().back().end);
    const auto last = static_cast<std::size_t>(whole.size() - file.tensors().back().bytes());
    for (std::size_t at = first; at < last; ++at) {
      for (unsigned bit = 1; bit < 256; bit *= 4) {
        put_byte(folder / "a", at, whole[at] ^ static_cast<std::byte>(bit));
        Step step{};
        try {
          const auto found = read_all(folder / "a", {.checksums = io::Checksums::ignore}, step);
          CHECK(found.size() == expected.size());
        } catch (const Error& error) {
          CHECK(error.code() == Errc::corrupt_data);
          CHECK(step != Step::open);
        }
      }
      put_byte(folder / "a", at, whole[at]);
    }
  }
}

TEST_SUITE("malformed delta") {
  TEST_CASE("a checksum that differs: the manifest's, a delta's, that of what is without loss") {
    for (const char* sum : {"0123456789abcdef", ""}) {
      const Refusal manifest = altered([&](Draft& draft) { draft.metadata["manifest"] = sum; });
      CHECK(manifest.error.code() == Errc::checksum_mismatch);
      CHECK(manifest.step == Step::open);
      CHECK(names(manifest.error, "manifest:1"));
    }
    for (const auto& [section, tensor] : {std::pair{"delta:w", ": w"},
                                          {"lossless:r", ": r"},
                                          {"lossless:n", ": n"},
                                          {"delta:g", ": g"},
                                          {"lossless:g", ": g"},
                                          {"delta:k", ": k"}}) {
      check_refused(
          altered([name = section](Draft& d) { d.section(name).bytes.back() ^= std::byte{1}; }),
          Errc::checksum_mismatch, Step::read, tensor);
      const Folder folder;
      write_small(folder / "a");
      Draft draft(folder / "a");
      draft.section(section).bytes[8] ^= std::byte{1};
      draft.write(folder / "b");
      const auto archive = DeltaArchive::open(folder / "b");
      const Error verified = caught([&] { io::verify_archive(archive, nullptr, serial_codec); });
      CHECK(verified.code() == Errc::checksum_mismatch);
      CHECK(names(verified, tensor));
    }
    for (const char* name : {"r", "n"}) {  // the restored tensor is not the fine-tune's
      check_refused(altered_entry([](json& e) { e["tuned"] = "0123456789abcdef"; }, name),
                    Errc::checksum_mismatch, Step::read, name);
    }
  }

  TEST_CASE("another base is noticed where a tensor is without loss") {
    const Folder folder;
    Builder builder(folder / "a", {"r"});
    builder.lossless(moved(noise("r", DType::f32, {100}, 99), 1e-3, 5));
    builder.finish();
    const auto archive = DeltaArchive::open(folder / "a");
    const Bytes base = noise("r", DType::f32, {100}, 98).bytes;
    Bytes out(400);
    const auto restore = [&] {
      archive.lossless(archive.entries()[0], base, out, SerialExecutor{});
    };
    CHECK(caught(restore).code() == Errc::checksum_mismatch);
    out.resize(396);
    CHECK(caught(restore).code() == Errc::bad_range);
  }

  TEST_CASE("a chunk table that is shorter than its tensor needs is found without an allocation") {
    const Folder folder;
    write_small(folder / "a");
    Draft draft(folder / "a");
    draft.entry("n")["shape"] = {std::int64_t{1} << 40};
    draft.write(folder / "b");
    const auto archive = DeltaArchive::open(folder / "b", {.limits = {.expansion = 1e12}});
    largest_request = 0;
    Bytes out(16);
    const Error error = caught([&] {
      archive.lossless_range(*archive.find("n"), 1 << 30, out,
                             [](auto...) { return std::span<const std::byte>{}; });
    });
    CHECK(error.code() == Errc::corrupt_data);
    CHECK(names(error, ": n"));
    CHECK(largest_request < 1'000'000);
  }

  TEST_CASE("a chunk that decompresses to more or less than it should") {
    const Bytes zeros(1 << 20);
    for (const unsigned coding : {1u, 2u, 3u}) {
      for (const std::size_t bytes :
           {std::size_t{0}, std::size_t{2}, std::size_t{4}, std::size_t{1} << 20}) {
        check_refused(
            altered_chunks(section_of({{coding, zstd_frame(std::span(zeros).first(bytes))}})),
            Errc::corrupt_data, Step::read, ": n");
      }
    }
  }

  TEST_CASE("chunks beyond what may be decoded are frames of their size") {
    const Bytes data = noise("", DType::u8, {100}, 4).bytes;
    const auto check = [&](const Bytes& stored, double budget) {
      const Bytes section = section_of({{2, stored}});
      std::size_t seen = 0;
      const bool is_known = io::check_lossless(section, 100, 100, 1, budget,
                                               [&](auto bytes) { seen += bytes.size(); });
      CHECK(!is_known);
      CHECK(seen == 0);
    };
    Bytes frame(ZSTD_compressBound(100));
    frame.resize(ZSTD_compress(frame.data(), frame.size(), Bytes(100).data(), 100, 3));
    check(frame, 100);
    check(frame, 99);
    Bytes damaged = frame;
    damaged[damaged.size() - 2] ^= std::byte{0xFF};
    CHECK(caught([&] { check(zstd_frame(std::span(data).first(99)), 0); }).code() ==
          Errc::corrupt_data);
    frame.pop_back();
    CHECK(caught([&] { check(frame, 0); }).code() == Errc::corrupt_data);
    CHECK(caught([&] { check(data, 0); }).code() == Errc::corrupt_data);
  }

  TEST_CASE("chunks that are none") {
    const Bytes three(3);
    for (unsigned coding = 4; coding < 16; ++coding) {
      check_refused(altered_chunks(section_of({{coding, three}})), Errc::corrupt_data, Step::read,
                    ": n");
    }
    for (const Bytes& section :
         {Bytes{}, Bytes(8), Bytes(16), section_of({{0, Bytes(2)}}), section_of({{0, Bytes(4)}}),
          section_of({{0, three}, {0, three}, {0, three}}), section_of({{1, {}}}),
          section_of({{1, three}})}) {
      CAPTURE(section.size());
      check_refused(altered_chunks(section), Errc::corrupt_data, Step::read, ": n");
    }
    Bytes longer = section_of({{0, three}});
    longer.resize(longer.size() + 8);
    check_refused(altered_chunks(longer), Errc::corrupt_data, Step::read, ": n");
  }
}

TEST_SUITE("random access") {
  /// The block, decoded from only its patches.
  Bytes block_of(const DeltaArchive& archive, const ManifestEntry& entry, const Block& block) {
    const StoredDelta delta = archive.delta_block(entry, block);
    REQUIRE(delta.size() == 1);
    const auto side = static_cast<std::size_t>(entry.matrices[0].patch);
    const auto codec = codec_of(entry);
    codec->validate(delta.view(), entry.dtype);
    Bytes out(block.rows * block.cols * deltadct::dtype_bytes(entry.dtype));
    codec->decode_add_block(delta.view(), entry.dtype, block.row % side, block.col % side,
                            out.data(), block.rows, block.cols, 1, SerialExecutor{});
    return out;
  }

  /// The same block, cut from the whole.
  Bytes cut(const Bytes& whole, const ManifestEntry& entry, const Block& block) {
    const std::size_t element = deltadct::dtype_bytes(entry.dtype);
    Bytes out;
    for (std::size_t i = 0; i < block.rows; ++i) {
      const std::size_t row = block.matrix * entry.stack.rows + block.row + i;
      const auto at = whole.begin() +
                      static_cast<std::ptrdiff_t>((row * entry.stack.cols + block.col) * element);
      out.insert(out.end(), at, at + static_cast<std::ptrdiff_t>(block.cols * element));
    }
    return out;
  }

  /// Blocks of a matrix: the whole, single elements at the corners, whole edges, and random ones.
  std::vector<Block> blocks_of(const MatrixStack& stack, std::size_t count) {
    std::vector<Block> blocks;
    std::mt19937 random(5);
    for (std::size_t k = 0; k < stack.count; ++k) {
      const std::size_t rows = stack.rows;
      const std::size_t cols = stack.cols;
      blocks.insert(blocks.end(), {{k, 0, 0, rows, cols},
                                   {k, 0, 0, 1, 1},
                                   {k, rows - 1, cols - 1, 1, 1},
                                   {k, 0, cols - 1, rows, 1},
                                   {k, rows - 1, 0, 1, cols}});
      for (std::size_t n = 0; n < count; ++n) {
        Block block{k, random() % rows, random() % cols, 0, 0};
        block.rows = 1 + random() % (rows - block.row);
        block.cols = 1 + random() % (cols - block.col);
        blocks.push_back(block);
      }
    }
    return blocks;
  }

  TEST_CASE("a block of a delta is that of the whole") {
    const Folder folder;
    for (const RatioAllocator& mix : {kPaper, kOne, kZero, kThree, kFour, kFive, kSeven}) {
      Builder builder(folder / "a", {"p4", "p16", "double", "stack"});
      builder.delta(noise("p4", DType::f32, {37, 29}, 1), 4, mix);
      builder.delta(noise("p16", DType::bf16, {70, 50}, 2), 16, mix);
      builder.delta(noise("double", DType::f64, {16, 12}, 3), 4, mix);
      builder.delta(noise("stack", DType::f32, {3, 64, 66}, 4), 16, mix);
      builder.finish();
      for (const Access access : {Access::map, Access::read}) {
        const auto archive = DeltaArchive::open(folder / "a", {.access = access});
        for (std::size_t i = 0; i < archive.entries().size(); ++i) {
          const ManifestEntry& entry = archive.entries()[i];
          for (const Block& block : blocks_of(entry.stack, 12)) {
            CAPTURE(entry.name);
            CAPTURE(block.row);
            CAPTURE(block.col);
            CHECK(block_of(archive, entry, block) == cut(builder.expected[i].bytes, entry, block));
          }
        }
      }
    }
  }

  TEST_CASE("an empty block anywhere has nothing to decode") {
    const Folder folder;
    Builder builder(folder / "a", {"w", "empty"});
    builder.delta(noise("w", DType::f32, {37, 29}, 1), 4, kPaper);
    builder.delta(noise("empty", DType::f32, {0, 8}, 1), 4, kPaper);
    builder.finish();
    const auto archive = DeltaArchive::open(folder / "a");
    for (const Block& block : {Block{0, 0, 0, 0, 0},
                               {0, 8, 4, 0, 0},
                               {0, 36, 28, 0, 0},
                               {0, 37, 29, 0, 0},
                               {0, 3, 2, 0, 1},
                               {0, 3, 2, 1, 0},
                               {0, 37, 0, 0, 29},
                               {0, 0, 29, 37, 0}}) {
      CAPTURE(block.row);
      CAPTURE(block.col);
      CHECK(block_of(archive, archive.entries()[0], block).empty());
    }
    CHECK(block_of(archive, archive.entries()[1], {0, 0, 0, 0, 8}).empty());
    CHECK(block_of(archive, archive.entries()[1], {0, 0, 8, 0, 0}).empty());
  }

  TEST_CASE("a block outside the matrix is refused") {
    const Folder folder;
    write_small(folder / "a");
    const auto archive = DeltaArchive::open(folder / "a");
    const std::size_t most = SIZE_MAX;
    for (const Block& block : {Block{1, 0, 0, 1, 1},
                               {most, 0, 0, 1, 1},
                               {0, 0, 0, 9, 1},
                               {0, 0, 0, 1, 13},
                               {0, 8, 0, 1, 1},
                               {0, 9, 0, 0, 0},
                               {0, 0, 13, 0, 0},
                               {0, 1, 0, most, 1},
                               {0, 0, 1, 1, most},
                               {0, most, 0, 1, 1},
                               {0, 0, most, 1, 1},
                               {0, most, most, 2, 2}}) {
      const Error error = caught([&] { archive.delta_block(*archive.find("w"), block); });
      CHECK(error.code() == Errc::bad_range);
      CHECK(names(error, (folder / "a").string() + ": w"));
    }
    // In a tensor that grew, the rows that the base lacks belong to no delta.
    CHECK(caught([&] {
            archive.delta_block(*archive.find("g"), {0, 3, 0, 2, 4});
          }).code() == Errc::bad_range);
    // A tensor without a delta has no block of one.
    CHECK(caught([&] { archive.delta_block(*archive.find("r"), {}); }).code() == Errc::bad_range);
  }

  TEST_CASE("a block of a malformed section is refused, never read beyond it") {
    const Folder folder;
    for (const RatioAllocator& mix : {kPaper, kSeven}) {
      write_small(folder / "a", mix);
      const std::size_t bytes = Draft(folder / "a").section("delta:w").bytes.size();
      for (std::size_t length = 0; length < bytes; length += 4) {
        Draft draft(folder / "a");
        draft.resize("delta:w", length);
        draft.write(folder / "b");
        const auto archive = DeltaArchive::open(folder / "b");
        const Error error = caught([&] {
          archive.delta_block(*archive.find("w"), {0, 0, 0, 1, 1});
        });
        CHECK(error.code() == Errc::corrupt_data);
        CHECK(names(error, ": w"));
      }
      const Bytes whole = get(folder / "a");
      const Model file = Model::open(folder / "a");
      const auto data = static_cast<std::size_t>(whole.size() - file.tensors().back().end);
      const auto archive = DeltaArchive::open(folder / "a", {.access = Access::read});
      const ManifestEntry& entry = *archive.find("w");
      const StoredDelta opened = archive.delta(entry);  // keeps the file open while it changes
      for (std::size_t at = data; at < data + bytes; ++at) {
        put_byte(folder / "a", at, ~whole[at]);
        for (const Block& block : {Block{0, 0, 0, 8, 12}, {0, 5, 7, 2, 3}}) {
          try {
            const Bytes out = block_of(archive, entry, block);
            CHECK(out.size() == 4 * block.rows * block.cols);
          } catch (const Error& error) {
            CHECK(error.code() == Errc::corrupt_data);
          }
        }
        put_byte(folder / "a", at, whole[at]);
      }
    }
  }

  TEST_CASE("a range of what is kept without loss is that of the whole") {
    const Folder folder;
    constexpr std::uint64_t kChunk = io::kChunkBytes;
    // Slightly more than three chunks: of noise, of zeros, and near the base, which is shorter.
    Tensor tensor = noise("r", DType::f32, {3 * kChunk / 4 + 5}, 1);
    std::fill_n(tensor.bytes.begin() + kChunk, kChunk, std::byte{0});
    const Bytes base = base_bytes(DType::f32, {3 * kChunk / 4 - 9});
    std::copy_n(base.begin() + 2 * kChunk, kChunk - 100, tensor.bytes.begin() + 2 * kChunk);
    tensor.bytes[2 * kChunk + 1000] ^= std::byte{1};
    Tensor added = tensor;
    added.name = "n";
    Builder builder(folder / "a", {"r", "n", "g"});
    builder.lossless(tensor, DType::f32, {3 * kChunk / 4 - 9});
    builder.added(added);
    builder.grown(noise("g", DType::bf16, {300'000, 4}, 2), {4, 4}, 4, kPaper);
    builder.finish();
    std::mt19937 random(3);
    for (const Access access : {Access::map, Access::read}) {
      const auto archive = DeltaArchive::open(folder / "a", {.access = access});
      for (std::size_t i = 0; i < 3; ++i) {
        const ManifestEntry& entry = archive.entries()[i];
        const std::uint64_t all = DeltaArchive::lossless_bytes(entry);
        const std::span<const std::byte> whole = std::span(builder.expected[i].bytes).last(all);
        const auto base_range = [&](std::uint64_t from, std::size_t bytes) {
          CHECK(from % kChunk == 0);
          CHECK(bytes <= kChunk);
          if (entry.mode != Mode::lossless) return std::span<const std::byte>{};
          return io::detail::clipped(base, static_cast<std::size_t>(from), bytes);
        };
        std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges{
            {0, all},        {0, 0},     {all, 0}, {0, 1}, {all - 1, 1}, {kChunk, all - kChunk},
            {kChunk - 1, 2}, {kChunk, 0}};
        for (int n = 0; n < 6; ++n) {
          const std::uint64_t offset = random() % all;
          ranges.emplace_back(offset, random() % (all - offset + 1));
        }
        for (const auto& range : ranges) {
          const std::uint64_t offset = range.first;
          const std::uint64_t bytes = range.second;
          CAPTURE(offset);
          CAPTURE(bytes);
          Bytes out(static_cast<std::size_t>(bytes));
          archive.lossless_range(entry, offset, out, base_range);
          CHECK(std::ranges::equal(out, whole.subspan(offset, bytes)));
        }
        for (const auto& [offset, bytes] : {std::pair<std::uint64_t, std::size_t>{all, 1},
                                            {all + 1, 0},
                                            {all - 1, 2},
                                            {UINT64_MAX, 1},
                                            {UINT64_MAX, 0}}) {
          Bytes out(bytes);
          const Error error =
              caught([&, at = offset] { archive.lossless_range(entry, at, out, base_range); });
          CHECK(error.code() == Errc::bad_range);
          CHECK(names(error, (": " + entry.name).c_str()));
        }
      }
    }
  }

  TEST_CASE("a range reads no chunk but its own") {
    const Folder folder;
    Builder builder(folder / "a", {"n"});
    builder.added(noise("n", DType::u8, {2 * io::kChunkBytes + 77}, 1));
    builder.finish();
    Draft draft(folder / "a");
    Bytes& section = draft.section("lossless:n").bytes;
    std::fill(section.end() - 60, section.end() - 8, std::byte{0xEE});  // of the last chunk
    draft.seal("n");
    draft.write(folder / "b");
    const auto archive = DeltaArchive::open(folder / "b");
    const auto none = [](auto...) { return std::span<const std::byte>{}; };
    Bytes out(100);
    archive.lossless_range(archive.entries()[0], io::kChunkBytes - 50, out, none);
    CHECK(std::ranges::equal(
        out, std::span(builder.expected[0].bytes).subspan(io::kChunkBytes - 50, 100)));
    CHECK(refusal(folder / "b").error.code() != Errc::io_failure);
  }

  TEST_CASE("a delta outlives its archive and the name of its file, mapped or read") {
    const Folder folder;
    for (const Access access : {Access::map, Access::read}) {
      const auto expected = write_small(folder / "a", kSeven);
      std::optional<DeltaArchive> archive(DeltaArchive::open(folder / "a", {.access = access}));
      const ManifestEntry entry = *archive->find("w");
      const StoredDelta whole = archive->delta(entry);
      const StoredDelta block = archive->delta_block(entry, {0, 0, 0, 8, 12});
      archive.reset();
      fs::remove(folder / "a");
      whole.release();
      CHECK(decoded(whole, entry) == expected[0].bytes);
      CHECK(decoded(block, entry) == expected[0].bytes);
    }
  }

  TEST_CASE("a file that was replaced since is refused") {
    const Folder folder;
    write_small(folder / "a");
    const auto archive = DeltaArchive::open(folder / "a");
    write_small(folder / "a", kFive);
    const Error error = caught([&] { archive.delta(*archive.find("w")); });
    CHECK(error.code() == Errc::io_failure);
    CHECK(names(error, (folder / "a").string()));
  }

  TEST_CASE("several threads read at once") {
    const Folder folder;
    const auto expected = write_small(folder / "a", kSeven);
    const auto archive = DeltaArchive::open(folder / "a");
    std::vector<int> sound(4);
    std::vector<std::thread> threads;
    for (int& ok : sound) {
      threads.emplace_back([&] {
        for (int round = 0; round < 50; ++round) {
          const ManifestEntry& entry = archive.entries()[0];
          ok += decoded(archive.delta(entry), entry) == expected[0].bytes;
          ok += restored(archive, archive.entries()[1]) == expected[1].bytes;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const int ok : sound) CHECK(ok == 100);
  }
}
