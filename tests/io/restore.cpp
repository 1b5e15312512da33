// Tensors restored one at a time, whole or in blocks, without reading more than necessary.
#include "pair.hpp"

#include <cstdio>

#include <fcntl.h>
#include <unistd.h>

using namespace io_test;
using io::Block;
using io::Restorer;

namespace {

/// Tensors of every mode, rank and dtype.
Pair every_mode() {
  std::vector<Tensor> base;
  std::vector<Tensor> tuned;
  const auto add = [&](Tensor from, Tensor to) {
    base.push_back(std::move(from));
    tuned.push_back(std::move(to));
  };
  for (const DType dtype : kElements) {
    const std::string name(dtype_name(dtype));
    const auto seed = static_cast<unsigned>(10 * base.size());
    const auto make = [&](const char* kind, Shape shape) {
      return noise(name + " " + kind, dtype, std::move(shape), seed);
    };
    const Tensor same = make("same", {19, 30});
    add(same, same);
    const Tensor delta = make("delta", {33, 21});
    add(delta, moved(delta, kStep, seed + 1));
    const Tensor grown = make("grown", {21, 20});
    add(grown, with_rows(moved(grown, kStep, seed + 2), 38, seed + 3));
    const Tensor shrunk = make("shrunk", {38, 20});
    add(shrunk, with_rows(moved(shrunk, kStep, seed + 4), 21, 0));
    const Tensor experts = make("experts", {3, 65, 64});
    add(experts, moved(experts, kStep, seed + 5));
    const Tensor more = make("more experts", {2, 64, 65});
    add(more, with_rows(moved(more, kStep, seed + 6), 4, seed + 7));
    const Tensor fewer = make("fewer experts", {3, 64, 65});
    add(fewer, with_rows(moved(fewer, kStep, seed + 8), 2, 0));
    const Tensor conv = make("conv", {7, 3, 3, 4});
    add(conv, moved(conv, kStep, seed + 9));
    const Tensor shape = make("lossless", {20, 30});
    add(shape, make("lossless", {31, 20}));
    tuned.push_back(noise(name + " added", dtype, {20, 30}, seed + 10));
    const Tensor twin = moved(noise(name + " twin", dtype, {64, 66}, seed), kStep, seed + 11);
    add(renamed(noise("", dtype, {64, 66}, seed), name + " twin"), twin);
    tuned.push_back(renamed(twin, name + " tied"));
  }
  add(noise("scalar", DType::f32, {}, 1), noise("scalar", DType::f32, {}, 2));
  add(noise("vector", DType::i16, {77}, 3), noise("vector", DType::i16, {70}, 4));
  add(noise("cube", DType::u8, {5, 70, 64}, 5), noise("cube", DType::u8, {5, 70, 64}, 6));
  base.push_back(noise("removed", DType::f32, {4}, 7));
  return {std::move(base), std::move(tuned)};
}

/// A block of a tensor, cut from the whole.
Bytes cut(std::span<const std::byte> whole, const io::MatrixStack& stack, const Block& block,
          std::size_t element) {
  Bytes result;
  for (std::size_t i = 0; i < block.rows; ++i) {
    const std::size_t row = block.matrix * stack.rows + block.row + i;
    const auto run = whole.subspan((row * stack.cols + block.col) * element, block.cols * element);
    result.insert(result.end(), run.begin(), run.end());
  }
  return result;
}

/// Bytes that this process has read, apart from these calls; nothing if the system does not say.
std::optional<std::uint64_t> bytes_read() {
  static std::uint64_t own = 0;
  const int file = ::open("/proc/self/io", O_RDONLY | O_CLOEXEC);
  if (file == -1) return std::nullopt;
  char text[512] = {};
  const auto length = ::read(file, text, sizeof text - 1);
  ::close(file);
  unsigned long long count = 0;
  if (length <= 0 || std::sscanf(text, "rchar: %llu", &count) != 1) return std::nullopt;
  const std::uint64_t result = count - own;
  own += static_cast<std::uint64_t>(length);
  return result;
}

/// Bytes that fn reads; nothing, with a message, if the system does not say.
template <class Fn>
std::optional<std::uint64_t> read_by(Fn fn) {
  const auto before = bytes_read();
  fn();
  const auto after = bytes_read();
  if (before && after) return *after - *before;
  MESSAGE("skipped: no /proc/self/io");
  return std::nullopt;
}

/// Base, archive and restorer of a pair.
struct Opened {
  Opened(const Pair& pair, Access access)
      : base(Model::open(pair.folder / "base", reading(access))),
        archive(DeltaArchive::open(pair.folder / "delta", reading(access))) {}

  Model base;
  DeltaArchive archive;
  SerialExecutor executor;
  Restorer restorer{base, archive, serial_codec, executor};
};

}  // namespace

TEST_SUITE("blocks") {
  TEST_CASE("a block is that part of the whole, in every mode, dtype and access") {
    const Pair pair = every_mode();
    for (const int patch : {4, 16}) {
      const CheckpointReport report =
          pair.compress(options_of(patch, {{8, 0.3}, {2, 0.4}, {0, 0.3}}));
      for (const Mode mode : io::kModes) CHECK(report.count(mode) != 0);
      for (const Access access : {Access::map, Access::read}) {
        Opened opened(pair, access);
        std::mt19937 random(static_cast<unsigned>(patch));
        const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
        for (const ManifestEntry& entry : opened.archive.entries()) {
          if (entry.mode == Mode::removed) continue;
          CAPTURE(entry.name);
          const auto restored = opened.restorer.restore(entry);
          const Bytes whole(restored.begin(), restored.end());
          REQUIRE(whole.size() == entry.bytes());
          const ManifestEntry& owner = opened.archive.target(entry);
          const io::MatrixStack stack = opened.restorer.stack(owner);
          REQUIRE(stack == io::stack_of(entry.shape));
          const std::size_t element = deltadct::dtype_bytes(entry.dtype);
          bool sound = true;
          for (int i = 0; i < 40; ++i) {
            Block block{below(stack.count), below(stack.rows), below(stack.cols)};
            block.rows = below(stack.rows - block.row + 1);
            block.cols = below(stack.cols - block.col + 1);
            if (i % 4 == 0) block = {block.matrix, block.row, 0, block.rows, stack.cols};
            if (i % 10 == 0) block = {block.matrix, 0, 0, stack.rows, stack.cols};
            const auto found = opened.restorer.restore_block(entry, block);
            sound = sound && std::ranges::equal(found, cut(whole, stack, block, element));
          }
          CHECK(sound);
        }
      }
    }
  }

  TEST_CASE("elements of less than a byte, where they begin and end with one") {
    const StoredDType odd = StoredDType::named("X12", 12).value();
    const Tensor four = noise("four", DType::f4, {6, 10}, 1);
    const Tensor six = noise("six", DType::f6_e2m3, {8, 6}, 2);
    const Tensor twelve = noise("twelve", odd, {8, 3}, 3);
    const Tensor same = noise("same", DType::f4, {4, 6}, 4);
    Pair pair({four, six, twelve, same}, {noise("four", DType::f4, {6, 10}, 5),
                                          noise("six", DType::f6_e2m3, {8, 6}, 6), twelve, same});
    pair.tuned[2].bytes[5] = std::byte{77};
    pair.write();
    const ReadOptions any{.unknown_dtype = io::UnknownDType::keep};
    const Model base = Model::open(pair.folder / "base", any);
    io::compress_model(base, Model::open(pair.folder / "tuned", any), pair.folder / "delta",
                       options_of(4), serial_codec);
    const DeltaArchive archive = DeltaArchive::open(pair.folder / "delta", any);
    const SerialExecutor executor;
    Restorer restorer{base, archive, serial_codec, executor};
    const auto check = [&](const Tensor& tensor, const Block& block) {
      CAPTURE(tensor.name);
      const auto found = restorer.restore_block(*archive.find(tensor.name), block);
      const unsigned bits = tensor.dtype.bits();
      Bytes expected;
      for (std::size_t i = 0; i < block.rows; ++i) {
        const std::size_t first = (block.row + i) * tensor.shape[1] + block.col;
        // Only runs that are whole bytes by themselves, or one run of whole rows.
        const std::size_t count =
            block.cols == tensor.shape[1] ? block.rows * block.cols : block.cols;
        const auto run = std::span(tensor.bytes).subspan(first * bits / 8, count * bits / 8);
        expected.insert(expected.end(), run.begin(), run.end());
        if (count != block.cols) break;
      }
      CHECK(std::ranges::equal(found, expected));
    };
    const auto refuse = [&](const Tensor& tensor, const Block& block) {
      const Error error =
          caught([&] { restorer.restore_block(*archive.find(tensor.name), block); });
      CHECK(error.code() == Errc::bad_range);
      CHECK(names(error, tensor.name));
      CHECK(names(error, "within a byte"));
    };
    check(pair.tuned[0], {0, 0, 0, 6, 10});
    check(pair.tuned[0], {0, 2, 4, 3, 2});
    check(pair.tuned[0], {0, 1, 8, 5, 2});
    check(pair.tuned[0], {0, 1, 3, 0, 2});
    refuse(pair.tuned[0], {0, 0, 1, 2, 2});
    refuse(pair.tuned[0], {0, 0, 0, 2, 3});
    check(pair.tuned[1], {0, 2, 0, 4, 6});
    refuse(pair.tuned[1], {0, 1, 0, 2, 6});
    refuse(pair.tuned[1], {0, 0, 0, 2, 4});
    check(pair.tuned[2], {0, 0, 0, 8, 3});
    check(pair.tuned[2], {0, 2, 0, 4, 3});
    refuse(pair.tuned[2], {0, 1, 0, 2, 3});
    check(same, {0, 1, 2, 2, 4});
    refuse(same, {0, 1, 3, 2, 1});
  }

  TEST_CASE("each row and column, across what grew") {
    const Tensor base = noise("w", DType::bf16, {21, 20}, 1);
    const Pair pair({base}, {with_rows(moved(base, kStep, 2), 38, 3)});
    pair.compress(options_of(16));
    Opened opened(pair, Access::read);
    const ManifestEntry& entry = opened.archive.entries()[0];
    REQUIRE(entry.mode == Mode::grown);
    const auto restored = opened.restorer.restore(entry);
    const Bytes whole(restored.begin(), restored.end());
    const io::MatrixStack stack{1, 38, 20};
    for (std::size_t first = 0; first < 38; ++first) {
      for (std::size_t rows = 1; rows <= 38 - first; rows += 3) {
        const Block block{0, first, first % 19, rows, 1 + first % 2};
        const auto found = opened.restorer.restore_block(entry, block);
        CHECK(std::ranges::equal(found, cut(whole, stack, block, 2)));
      }
    }
  }

  TEST_CASE("an expert that is new beside a single one is a matrix of its own") {
    const Tensor base = noise("w", DType::f32, {1, 64, 65}, 1);
    const Pair pair({base}, {with_rows(moved(base, kStep, 2), 3, 3)});
    pair.compress(options_of(4));
    Opened opened(pair, Access::map);
    const ManifestEntry& entry = opened.archive.entries()[0];
    REQUIRE(entry.mode == Mode::grown);
    CHECK(opened.restorer.stack(entry) == io::MatrixStack{3, 64, 65});
    const auto restored = opened.restorer.restore(entry);
    const Bytes whole(restored.begin(), restored.end());
    const Block block{2, 3, 5, 7, 11};
    const auto found = opened.restorer.restore_block(entry, block);
    CHECK(std::ranges::equal(found, cut(whole, {3, 64, 65}, block, 4)));
  }

  TEST_CASE("blocks of a lossless tensor of several chunks") {
    const Tensor base = noise("w", DType::f32, {700, 999}, 1);
    const Pair pair({base}, {moved(base, kStep, 2), noise("x", DType::u8, {3, 1500, 1000}, 3)});
    CompressOptions options = options_of(4);
    options.lossless = true;
    pair.compress(options);
    for (const Access access : {Access::map, Access::read}) {
      Opened opened(pair, access);
      for (const ManifestEntry& entry : opened.archive.entries()) {
        const Bytes& whole = std::ranges::find(pair.tuned, entry.name, &Tensor::name)->bytes;
        const io::MatrixStack stack = io::stack_of(entry.shape);
        const std::size_t element = deltadct::dtype_bytes(entry.dtype);
        for (const Block& block :
             {Block{0, 250, 30, 30, 900}, Block{0, 0, 0, 1, 1}, Block{0, 699, 998, 1, 1},
              Block{0, 0, 0, 700, 999}, Block{stack.count - 1, 262, 7, 2, 3}}) {
          const auto found = opened.restorer.restore_block(entry, block);
          CHECK(std::ranges::equal(found, cut(whole, stack, block, element)));
        }
      }
    }
  }

  TEST_CASE("an empty block is nothing, wherever it is within the matrix") {
    const Pair pair = every_mode();
    pair.compress(options_of(4));
    Opened opened(pair, Access::read);
    for (const ManifestEntry& entry : opened.archive.entries()) {
      if (entry.mode == Mode::removed) continue;
      const io::MatrixStack stack = opened.restorer.stack(opened.archive.target(entry));
      for (const Block& block :
           {Block{}, Block{0, stack.rows, 0, 0, stack.cols}, Block{0, 0, stack.cols, stack.rows, 0},
            Block{stack.count - 1, stack.rows, stack.cols, 0, 0}}) {
        CHECK(opened.restorer.restore_block(entry, block).empty());
      }
    }
  }

  TEST_CASE("a block that leaves the matrix is refused, naming the tensor") {
    const Pair pair = every_mode();
    pair.compress(options_of(4));
    Opened opened(pair, Access::map);
    constexpr auto kMost = ~std::size_t{0};
    for (const ManifestEntry& entry : opened.archive.entries()) {
      if (entry.mode == Mode::removed) continue;
      const io::MatrixStack s = opened.restorer.stack(opened.archive.target(entry));
      for (const Block& block :
           {Block{s.count, 0, 0, 1, 1}, Block{kMost, 0, 0, 0, 0}, Block{0, s.rows, 0, 1, 1},
            Block{0, 0, s.cols, 1, 1}, Block{0, 0, 0, s.rows + 1, 1}, Block{0, 0, 0, 1, s.cols + 1},
            Block{0, s.rows + 1, 0, 0, 0}, Block{0, kMost, 0, 2, 1}, Block{0, 1, 0, kMost, 1},
            Block{0, 0, kMost, 1, 2}, Block{0, 0, 1, 1, kMost}}) {
        const Error error = caught([&] { opened.restorer.restore_block(entry, block); });
        CHECK(error.code() == Errc::bad_range);
        CHECK(names(error, opened.archive.target(entry).name));
      }
    }
  }

  TEST_CASE("tensors without elements have one matrix without any") {
    const Pair pair({noise("a", DType::f32, {0, 8}, 1)},
                    {noise("a", DType::f32, {0, 8}, 1), noise("b", DType::f32, {8, 0}, 1)});
    pair.compress(options_of(4));
    Opened opened(pair, Access::map);
    for (const ManifestEntry& entry : opened.archive.entries()) {
      CHECK(opened.restorer.restore(entry).empty());
      CHECK(opened.restorer.restore_block(entry, {}).empty());
    }
  }

  TEST_CASE("a base of another shape or without the tensor is refused for blocks too") {
    Pair pair = one_pair(DType::f32, {16, 16});
    pair.compress(options_of(4));
    pair.base[0].shape = {8, 32};
    pair.write();
    {
      Opened opened(pair, Access::map);
      CHECK(caught([&] {
              opened.restorer.restore_block(opened.archive.entries()[0], {0, 0, 0, 1, 1});
            }).code() == Errc::shape_mismatch);
    }
    pair.base[0].name = "v";
    pair.write();
    Opened opened(pair, Access::map);
    CHECK(caught([&] {
            opened.restorer.restore_block(opened.archive.entries()[0], {0, 0, 0, 1, 1});
          }).code() == Errc::missing_tensor);
  }
}

TEST_SUITE("claims") {
  TEST_CASE("a block of a huge tensor that the base does not have is refused at once") {
    const Tensor base = noise("w", DType::u8, {100}, 1);
    const Pair pair({base}, {base});
    io::ManifestEntry entry;
    entry.name = "w";
    entry.dtype = DType::u8;
    entry.shape = {std::uint64_t{1} << 40};
    entry.tuned = io::fingerprint(base.bytes);
    entry.base = io::BaseTensor{entry.dtype, entry.shape, entry.tuned};
    const std::vector<std::string> names{"w"};
    io::ArchiveWriter writer(pair.folder / "delta", {}, names, {});
    writer.add(entry, {});
    writer.finish();
    Opened opened(pair, Access::map);
    const auto& huge = opened.archive.entries()[0];
    const io::MatrixStack stack = opened.restorer.stack(huge);
    CHECK(caught([&] {
            opened.restorer.restore_block(huge, {0, 0, 0, stack.rows, stack.cols});
          }).code() == Errc::shape_mismatch);
    CHECK(caught([&] { opened.restorer.restore(huge); }).code() == Errc::shape_mismatch);
  }
}

TEST_SUITE("whole tensors") {
  TEST_CASE("in any order, they are what apply writes") {
    const Pair pair = every_mode();
    pair.compress(options_of(4));
    pair.apply();
    const Model out = pair.out();
    Opened opened(pair, Access::read);
    const auto& entries = opened.archive.entries();
    for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
      if (entry->mode == Mode::removed) continue;
      CAPTURE(entry->name);
      CHECK(std::ranges::equal(opened.restorer.restore(*entry), data(out, entry->name)));
    }
    CHECK(opened.restorer.wrong_bases().empty());
  }

  TEST_CASE("a base that is another one is refused, or remembered") {
    Pair pair = one_pair(DType::f32, {16, 16});
    pair.compress(options_of(4));
    pair.base[0].bytes[0] ^= std::byte{1};
    pair.write();
    Opened opened(pair, Access::map);
    const ManifestEntry& entry = opened.archive.entries()[0];
    CHECK(caught([&] { opened.restorer.restore(entry); }).code() == Errc::wrong_base);
    CHECK(caught([&] { opened.restorer.check_base(entry); }).code() == Errc::wrong_base);
    Restorer lenient(opened.base, opened.archive, serial_codec, opened.executor,
                     {.wrong_base = io::WrongBase::accept});
    lenient.restore(entry);
    CHECK(lenient.wrong_bases() == std::set<std::string>{"w"});
  }
}

TEST_SUITE("bytes read") {
  /// A large matrix that is quick to make: numbers from 1 to 2.
  Tensor large(const std::string& name, std::uint64_t side, std::uint32_t seed) {
    Tensor tensor{name, DType::bf16, {side, side}, Bytes(2 * side * side)};
    for (std::size_t i = 0; i < side * side; ++i) {
      seed = seed * 1664525 + 1013904223;
      const auto bits = static_cast<std::uint16_t>(0x3F80 | seed >> 25);
      std::memcpy(tensor.bytes.data() + 2 * i, &bits, 2);
    }
    return tensor;
  }

  TEST_CASE("a block of a large delta reads the widths, its patches and its part of the base") {
    constexpr std::size_t kSide = 4096;
    constexpr std::size_t kPatch = 16;
    const Pair pair({large("w", kSide, 1)}, {large("w", kSide, 2)});
    pair.compress(options_of(kPatch, {{4, 0.25}, {2, 0.25}, {0, 0.5}}));
    Opened opened(pair, Access::read);
    const ManifestEntry& entry = opened.archive.entries()[0];
    REQUIRE(entry.mode == Mode::delta);
    const io::StoredDelta whole = opened.archive.delta(entry);
    const deltadct::CompressedView view = whole.view();
    const std::size_t widths =
        io::detail::width_map_bytes(view.places.size(), view.header->classes.size());
    CHECK(widths == kSide / kPatch * (kSide / kPatch) / 4);
    for (const Block& block :
         {Block{0, 0, 0, 1, 1}, Block{0, 1000, 0, 256, kSide}, Block{0, 0, 1024, kSide, 64},
          Block{0, 4000, 4001, 96, 95}, Block{0, 15, 15, 2, 2}}) {
      std::uint64_t expected = widths + 2 * block.rows * block.cols;
      std::uint64_t touched = 0;
      for (std::size_t i = block.row / kPatch; i * kPatch < block.row + block.rows; ++i) {
        for (std::size_t j = block.col / kPatch; j * kPatch < block.col + block.cols; ++j) {
          const auto& k = view.width_class(view.places[i * (kSide / kPatch) + j]);
          expected += view.header->bounds_stride(k) + view.header->codes_stride(k);
          ++touched;
        }
      }
      CAPTURE(touched);
      const auto count = read_by([&] { opened.restorer.restore_block(entry, block); });
      if (!count) return;
      CHECK(*count == expected);
      CHECK(*count < entry.bytes() / 10);
    }
  }

  TEST_CASE("a block without loss reads the chunks it lies in, and those of the base") {
    const Tensor base = noise("w", DType::f32, {1024, 1024}, 1);  // four chunks of 256 rows
    const Pair pair({base}, {moved(base, kStep, 2)});
    CompressOptions options = options_of(4);
    options.lossless = true;
    pair.compress(options);
    Opened opened(pair, Access::read);
    const ManifestEntry& entry = opened.archive.entries()[0];
    const auto table = io::detail::chunk_table_bytes(entry.bytes());
    const Model file = Model::open(pair.folder / "delta");
    io::TensorBytes section;
    file.read(*file.find("lossless:w"), section);
    const auto chunks =
        io::detail::read_chunk_table(section.bytes().first(table), entry.bytes(), section.size());
    REQUIRE(chunks.size() == 4);
    const auto one = read_by([&] { opened.restorer.restore_block(entry, {0, 256, 0, 256, 9}); });
    const auto two = read_by([&] { opened.restorer.restore_block(entry, {0, 511, 0, 2, 1024}); });
    if (!one || !two) return;
    CHECK(*one == table + chunks[1].stored + io::kChunkBytes);
    CHECK(*two == table + chunks[1].stored + chunks[2].stored + 2 * io::kChunkBytes);
  }

  TEST_CASE("one tensor of many reads its own bytes and those of its base") {
    std::vector<Tensor> base;
    std::vector<Tensor> tuned;
    for (unsigned i = 0; i < 100; ++i) {
      const Shape shape = i % 3 == 2 ? Shape{5000} : Shape{80, 80};
      base.push_back(noise("w" + std::to_string(i), DType::bf16, shape, i));
      tuned.push_back(i % 3 == 0 ? base.back() : moved(base.back(), kStep, 100 + i));
    }
    const Pair pair(base, tuned);
    pair.compress(options_of(16));
    Opened opened(pair, Access::read);
    for (const ManifestEntry& entry : opened.archive.entries()) {
      const auto count = read_by([&] { opened.restorer.restore(entry); });
      if (!count) return;
      CHECK(*count == opened.archive.stored_bytes(entry) + entry.bytes());
    }
  }

  TEST_CASE("opening reads headers and manifests, not data") {
    const Pair pair({large("w", 512, 1)}, {large("w", 512, 2)});
    CompressOptions options = options_of(16);
    pair.compress(options);
    const auto base = read_by([&] { Model::open(pair.folder / "base", reading(Access::read)); });
    const auto archive =
        read_by([&] { DeltaArchive::open(pair.folder / "delta", reading(Access::read)); });
    if (!base || !archive) return;
    CHECK(*base < 1000);
    CHECK(*archive < 5000);
  }
}
