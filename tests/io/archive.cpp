// The delta archive: what is written is read back, and anything else is refused with a reason.
#include <deltadct/io/apply.hpp>

#include "../support/largest_request.hpp"
#include "draft.hpp"

#include <cmath>
#include <map>
#include <optional>
#include <thread>
#include <type_traits>

using namespace io_test;
using deltadct::CompressedTensor;
using deltadct::RatioAllocator;
using deltadct::SerialExecutor;
using io::Access;
using io::ArchiveWriter;
using io::BaseTensor;
using io::Block;
using io::DeltaArchive;
using io::ManifestEntry;
using io::MatrixStack;
using io::Mode;
using io::Model;
using io::OutputOptions;
using io::Overwrite;
using io::StoredDelta;
using nlohmann::json;

namespace {

const RatioAllocator kPaper{};
const RatioAllocator kOne{{4, 1.0}};
const RatioAllocator kZero{{0, 1.0}};
const RatioAllocator kThree{{8, 0.2}, {2, 0.5}, {0, 0.3}};
const RatioAllocator kFour{{6, 0.1}, {3, 0.3}, {1, 0.4}, {0, 0.2}};
const RatioAllocator kFive{{8, 0.2}, {4, 0.2}, {2, 0.2}, {1, 0.2}, {0, 0.2}};
const RatioAllocator kSeven{{8, 0.1}, {6, 0.1}, {4, 0.1}, {3, 0.1}, {2, 0.2}, {1, 0.2}, {0, 0.2}};

const io::Metadata kMetadata{{"made by", "tests"}};

constexpr DType kEveryDType[] = {DType::f64,     DType::f32,     DType::f16,    DType::bf16,
                                 DType::f8_e4m3, DType::f8_e5m2, DType::i64,    DType::i32,
                                 DType::i16,     DType::i8,      DType::u64,    DType::u32,
                                 DType::u16,     DType::u8,      DType::boolean};

/// What an archive says about a tensor, and its own bytes or the reconstructed delta.
struct Content {
  std::string name;
  Mode mode;
  DType dtype;
  Shape shape;
  std::optional<BaseTensor> base;
  std::string tuned;
  std::string reason;
  std::string target;
  Bytes bytes;

  bool operator==(const Content&) const = default;
};

/// How far reading got.
enum class Step { open, read, validate };

/// The bytes of a base's tensor; empty if a file made up its size.
Bytes base_bytes(DType dtype, const Shape& shape) {
  if (*io::tensor_bytes(dtype, shape) > 1 << 24) return {};
  return noise("", dtype, shape, 99).bytes;
}

BaseTensor base_of(DType dtype, const Shape& shape) {
  return {dtype, shape, io::fingerprint(base_bytes(dtype, shape))};
}

std::unique_ptr<deltadct::AnyCodec> codec_of(const ManifestEntry& entry) {
  const deltadct::TensorHeader& header = entry.matrices.at(0);
  return serial_codec({.patch = header.patch,
                       .transform = header.transform,
                       .quantizer = header.quantizer,
                       .double_precision = entry.dtype == DType::f64});
}

std::size_t matrix_bytes(const ManifestEntry& entry) {
  return entry.stack.rows * entry.stack.cols * deltadct::dtype_bytes(entry.dtype);
}

/// The deltas of all matrices, added to zeros.
Bytes decoded(const StoredDelta& delta, const ManifestEntry& entry) {
  const auto codec = codec_of(entry);
  for (std::size_t k = 0; k < delta.size(); ++k) codec->validate(delta.view(k), entry.dtype);
  const std::size_t matrix = matrix_bytes(entry);
  Bytes weights(delta.size() * matrix);
  for (std::size_t k = 0; k < delta.size(); ++k) {
    std::byte* out = weights.data() + k * matrix;
    codec->decode_add(delta.view(k), entry.dtype, out, out, 1, SerialExecutor{});
  }
  return weights;
}

Bytes restored(const DeltaArchive& archive, const ManifestEntry& entry) {
  Bytes base;
  if (entry.mode == Mode::lossless) base = base_bytes(entry.base->dtype, entry.base->shape);
  Bytes out(static_cast<std::size_t>(DeltaArchive::lossless_bytes(entry)));
  archive.lossless(entry, base, out, SerialExecutor{});
  return out;
}

std::vector<Content> read_all(const DeltaArchive& archive, Step& step) {
  std::vector<Content> contents;
  for (const ManifestEntry& entry : archive.entries()) {
    step = Step::read;
    Content content{entry.name,  entry.mode,   entry.dtype,  entry.shape, entry.base,
                    entry.tuned, entry.reason, entry.target, {}};
    if (io::has_delta(entry.mode)) {
      const StoredDelta delta = archive.delta(entry);
      step = Step::validate;
      try {
        content.bytes = decoded(delta, entry);
      } catch (const Error& error) {
        throw error.within(archive.place(entry));
      }
      delta.release();
    }
    if (io::has_lossless(entry.mode)) {
      step = Step::read;
      const Bytes bytes = restored(archive, entry);
      content.bytes.insert(content.bytes.end(), bytes.begin(), bytes.end());
    }
    contents.push_back(std::move(content));
  }
  CHECK(archive.metadata() == kMetadata);
  return contents;
}

std::vector<Content> read_all(const fs::path& path, const io::ReadOptions& options, Step& step) {
  step = Step::open;
  return read_all(DeltaArchive::open(path, options), step);
}

std::vector<Content> read_all(const fs::path& path, Access access = Access::map) {
  Step step;
  return read_all(path, {.access = access}, step);
}

/// Writes an archive and remembers what it should contain.
class Builder {
 public:
  Builder(const fs::path& path, const std::vector<std::string>& names,
          const OutputOptions& output = {.overwrite = Overwrite::yes})
      : writer_(path, output, names, kMetadata) {}

  void same(const Tensor& tensor) {
    ManifestEntry entry = entry_of(tensor, Mode::same, tensor.shape);
    entry.base->fingerprint = entry.tuned;
    add(entry, {});
  }
  void removed(const Tensor& tensor) {
    ManifestEntry entry = entry_of(tensor, Mode::removed, tensor.shape);
    entry.tuned.clear();
    add(entry, {});
  }
  void tied(const Tensor& tensor, const std::string& target) {
    ManifestEntry entry = entry_of(tensor, Mode::tied, tensor.shape);
    entry.base.reset();
    entry.target = target;
    add(entry, {});
  }
  void added(const Tensor& tensor) {
    ManifestEntry entry = entry_of(tensor, Mode::added, {});
    entry.base.reset();
    keep(entry, tensor.bytes, {});
    add(entry, tensor.bytes);
  }
  void lossless(const Tensor& tensor, DType base_dtype, const Shape& base_shape) {
    ManifestEntry entry = entry_of(tensor, Mode::lossless, {});
    entry.base = base_of(base_dtype, base_shape);
    entry.reason = "a test";
    keep(entry, tensor.bytes, base_bytes(base_dtype, base_shape));
    add(entry, tensor.bytes);
  }
  void lossless(const Tensor& tensor) { lossless(tensor, tensor.dtype, tensor.shape); }

  /// Adds a delta that consists of the tensor's elements.
  void delta(const Tensor& tensor, int patch, const RatioAllocator& mix) {
    compress(tensor, Mode::delta, tensor.shape, patch, mix);
  }
  void grown(const Tensor& tensor, const Shape& base, int patch, const RatioAllocator& mix) {
    compress(tensor, Mode::grown, base, patch, mix);
  }
  void shrunk(const Tensor& tensor, const Shape& base, int patch, const RatioAllocator& mix) {
    compress(tensor, Mode::shrunk, base, patch, mix);
  }

  std::uint64_t finish() { return writer_.finish(); }

  std::vector<Content> expected;
  std::vector<CompressedTensor> matrices;  // of the last delta added

 private:
  static ManifestEntry entry_of(const Tensor& tensor, Mode mode, const Shape& base) {
    ManifestEntry entry;
    entry.name = tensor.name;
    entry.mode = mode;
    entry.dtype = tensor.dtype;
    entry.shape = tensor.shape;
    entry.base = base_of(tensor.dtype, base);
    entry.tuned = io::fingerprint(tensor.bytes);
    return entry;
  }

  void compress(const Tensor& tensor, Mode mode, const Shape& base, int patch,
                const RatioAllocator& mix) {
    ManifestEntry entry = entry_of(tensor, mode, base);
    const Shape common = *io::common_rows(tensor.shape, base);
    entry.stack = io::stack_of(common);
    const auto codec = serial_codec(
        {.patch = patch, .double_precision = tensor.dtype == DType::f64, .allocator = mix});
    const std::size_t bytes = matrix_bytes(entry);
    const Bytes zero(bytes);
    Bytes content(entry.stack.count * bytes);
    std::vector<std::byte> workspace;
    matrices.clear();
    for (std::size_t k = 0; k < entry.stack.count; ++k) {
      CompressedTensor matrix;
      codec->encode_into(matrix, workspace, tensor.dtype, zero.data(),
                         tensor.bytes.data() + k * bytes, entry.stack.rows, entry.stack.cols,
                         SerialExecutor{});
      codec->decode_add(matrix, tensor.dtype, zero.data(), content.data() + k * bytes, 1,
                        SerialExecutor{});
      io::append_matrix(sections_.delta, matrix);
      entry.matrices.push_back(matrix.header);
      matrices.push_back(std::move(matrix));
    }
    if (mode == Mode::grown) {
      const auto tail = std::span(tensor.bytes).subspan(content.size());
      keep(entry, tail, {});
      content.insert(content.end(), tail.begin(), tail.end());
    }
    add(entry, std::move(content));
  }

  void keep(const ManifestEntry& entry, std::span<const std::byte> bytes,
            std::span<const std::byte> base) {
    sections_.lossless =
        io::encode_lossless(bytes, base, deltadct::dtype_bytes(entry.dtype), SerialExecutor{});
  }

  void add(const ManifestEntry& entry, Bytes content) {
    writer_.add(entry, sections_);
    sections_.clear();
    expected.push_back({entry.name, entry.mode, entry.dtype, entry.shape, entry.base, entry.tuned,
                        entry.reason, entry.target, std::move(content)});
  }

  ArchiveWriter writer_;
  io::Sections sections_;
};

/// A small archive with one tensor of each mode. The section of "w", 8 x 12 with P = 4 and widths
/// of 2 and 0 bits, has 36 bytes of bounds and 4 of padding, 8 of widths, 12 of codes and 4 of
/// padding. That of "r" has a table of 4 bytes and 4 of padding, and a plain chunk of 10 bytes and
/// 6 of padding.
std::vector<Content> write_small(const fs::path& path, const RatioAllocator& mix = kPaper,
                                 const OutputOptions& output = {.overwrite = Overwrite::yes}) {
  Builder builder(path, {"w", "r", "s", "n", "g", "k", "t", "o"}, output);
  const Tensor w = noise("w", DType::f32, {8, 12}, 1);
  builder.delta(w, 4, mix);
  builder.lossless(noise("r", DType::i16, {5}, 2));
  builder.same(noise("s", DType::bf16, {2, 2}, 3));
  builder.added(noise("n", DType::u8, {3}, 4));
  builder.grown(noise("g", DType::f32, {6, 4}, 5), {4, 4}, 4, mix);
  builder.shrunk(noise("k", DType::bf16, {4, 4}, 6), {5, 4}, 4, mix);
  Tensor t = w;
  t.name = "t";
  builder.tied(t, "w");
  builder.removed(noise("o", DType::i8, {2}, 8));
  builder.finish();
  return builder.expected;
}

constexpr std::size_t kBoundsEnd = 36;
constexpr std::size_t kWidths = 40;
constexpr std::size_t kCodes = 48;
constexpr std::size_t kCodesEnd = 60;

/// Overwrites one byte of a file, in place.
void put_byte(const fs::path& path, std::size_t at, std::byte value) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(static_cast<std::streamoff>(at));
  file.put(static_cast<char>(value));
}

struct Refusal {
  Error error;
  Step step;
};

/// The error of open() followed by reading everything, the same for both kinds of access, and how
/// far reading got.
Refusal refusal(const fs::path& path) {
  Step step{};
  const Error read = caught([&] { read_all(path, {.access = Access::read}, step); });
  const Error error = caught([&] { read_all(path, {}, step); });
  CHECK(read.code() == error.code());
  CHECK(std::string(read.what()) == error.what());
  CHECK(names(error, path.string()));
  if (step == Step::validate) {
    const auto archive = DeltaArchive::open(path);
    const Error verified = caught([&] { io::verify_archive(archive, nullptr, serial_codec); });
    CHECK(std::string(verified.what()) == error.what());
  }
  return {error, step};
}

/// The refusal of a small archive altered by fn.
template <class Fn>
Refusal altered(Fn fn, const RatioAllocator& mix = kPaper) {
  static std::map<const RatioAllocator*, Draft> sound;
  const Folder folder;
  if (!sound.contains(&mix)) {
    write_small(folder / "a", mix);
    sound.emplace(&mix, folder / "a");
  }
  Draft draft = sound.at(&mix);
  fn(draft);
  draft.write(folder / "b");
  return refusal(folder / "b");
}

/// The same with an entry altered.
template <class Fn>
Refusal altered_entry(Fn fn, const std::string& name = "w", const RatioAllocator& mix = kPaper) {
  return altered([&](Draft& draft) { fn(draft.entry(name)); }, mix);
}

/// The same with the bytes of a section altered, under a matching checksum.
template <class Fn>
Refusal altered_section(const std::string& name, Fn fn, const RatioAllocator& mix = kPaper) {
  return altered(
      [&](Draft& draft) {
        fn(draft.section(name).bytes);
        draft.seal(name.substr(name.find(':') + 1));
      },
      mix);
}

/// Expects an error with this code that names the tensor and comes as early as possible.
void check_refused(const Refusal& refusal, Errc code, Step step, const char* tensor = ": w") {
  INFO(std::string(refusal.error.what()));
  CHECK(refusal.error.code() == code);
  CHECK(refusal.step == step);
  CHECK(names(refusal.error, tensor));
}

void set_float(Bytes& bytes, std::size_t index, float value) {
  std::memcpy(bytes.data() + 4 * index, &value, 4);
}

json& scale(json& entry) {
  return entry["matrices"][0][0];
}

json& classes(json& entry) {
  return entry["matrices"][0][1];
}

/// The refusal of "n", an added tensor of 3 bytes, with this section.
Refusal altered_chunks(const Bytes& section) {
  return altered([&](Draft& draft) {
    draft.replace("lossless:n", section);
    draft.seal("n");
  });
}

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

  TEST_CASE("the width map takes no, 1, 2 or 4 bits a patch, padded to 8 bytes") {
    const Folder folder;
    const Tensor tensor = noise("w", DType::f32, {40, 40}, 1);  // 100 patches
    const auto map_bytes = [&](const RatioAllocator& mix) {
      Builder builder(folder / "a", {"w"});
      builder.delta(tensor, 4, mix);
      builder.finish();
      const CompressedTensor& matrix = builder.matrices.at(0);
      return Model::open(folder / "a").find("delta:w")->bytes() -
             io::detail::padded(matrix.bounds.size()) - io::detail::padded(matrix.codes.size());
    };
    CHECK(map_bytes(kOne) == 0);
    CHECK(map_bytes(kZero) == 0);
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
    CHECK(archive.stored_bytes(*archive.find("w")) == 64);
    CHECK(archive.stored_bytes(*archive.find("r")) == 24);
    CHECK(archive.stored_bytes(*archive.find("s")) == 0);
    CHECK(archive.stored_bytes(*archive.find("o")) == 0);
    CHECK(DeltaArchive::lossless_bytes(*archive.find("r")) == 10);
    CHECK(DeltaArchive::lossless_bytes(*archive.find("g")) == 32);
    CHECK(DeltaArchive::lossless_bytes(*archive.find("w")) == 0);
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

  TEST_CASE("the manifest is not JSON, or not the JSON it should be") {
    const Folder folder;
    write_small(folder / "a");
    const Draft draft(folder / "a");
    for (const std::string text :
         {"", "{", "[]", "null", "1", "\"\"", "{}", "\xff", "{\"version\":1}",
          "{\"version\":1,\"version\":1,\"metadata\":{},\"codecs\":[],\"tensors\":[]}",
          "{\"version\":1,\"metadata\":[],\"codecs\":[],\"tensors\":[]}",
          "{\"version\":1,\"codecs\":[],\"tensors\":[]}",
          "{\"version\":1,\"metadata\":{},\"codecs\":{},\"tensors\":[]}",
          "{\"version\":1,\"metadata\":{},\"codecs\":[],\"tensors\":{}}",
          "{\"version\":1,\"metadata\":{},\"codecs\":[],\"tensors\":[1]}",
          "{\"version\":1,\"metadata\":{},\"codecs\":[],\"tensors\":[{}]}",
          "{\"version\":1,\"metadata\":{},\"codecs\":[],\"tensors\":[null]}",
          "{\"version\":1.0,\"metadata\":{},\"codecs\":[],\"tensors\":[]}",
          "{\"version\":\"1\",\"metadata\":{},\"codecs\":[],\"tensors\":[]}"}) {
      CAPTURE(text);
      draft.write(folder / "b", text);
      CHECK(refusal(folder / "b").error.code() == Errc::bad_container);
    }
    draft.write(folder / "b", std::string(100'000, '['));
    CHECK(refusal(folder / "b").error.code() == Errc::bad_container);
  }
}

TEST_SUITE("manifest altered") {
  TEST_CASE("an archive put together again reads as before") {
    const Folder folder;
    for (const RatioAllocator& mix : {kPaper, kOne, kSeven}) {
      const auto expected = write_small(folder / "a", mix);
      Draft draft(folder / "a");
      for (const std::string name : {"w", "r", "n", "g", "k"}) draft.seal(name);
      draft.write(folder / "b");
      CHECK(read_all(folder / "b") == expected);
      std::ranges::reverse(draft.sections);
      draft.write(folder / "b");
      CHECK(read_all(folder / "b") == expected);
    }
  }

  TEST_CASE("an unknown mode") {
    for (const char* mode : {"", "Delta", "delta ", "sparse", "raw"}) {
      check_refused(altered_entry([&](json& e) { e["mode"] = mode; }), Errc::corrupt_data,
                    Step::open);
    }
    check_refused(altered_entry([](json& e) { e["mode"] = 1; }), Errc::bad_container, Step::open);
  }

  TEST_CASE("an unknown dtype") {
    for (const char* dtype : {"", "F31", "f32", "F5"}) {
      check_refused(altered_entry([&](json& e) { e["dtype"] = dtype; }), Errc::unsupported_dtype,
                    Step::open);
      check_refused(altered_entry([&](json& e) { e["base_dtype"] = dtype; }),
                    Errc::unsupported_dtype, Step::open);
      check_refused(altered([&](Draft& draft) { draft.manifest["codecs"][0]["bound"] = dtype; }),
                    Errc::unsupported_dtype, Step::open);
    }
    check_refused(altered_entry([](json& e) { e["dtype"] = nullptr; }), Errc::bad_container,
                  Step::open);
  }

  TEST_CASE("bounds of a dtype that is no floating one, or another one") {
    check_refused(altered([](Draft& d) { d.manifest["codecs"][0]["bound"] = "I32"; }),
                  Errc::corrupt_data, Step::open);
    check_refused(altered([](Draft& d) { d.manifest["codecs"][0]["bound"] = "F8_E4M3"; }),
                  Errc::corrupt_data, Step::open);
    check_refused(altered([](Draft& d) { d.manifest["codecs"][0]["bound"] = "F64"; }),
                  Errc::corrupt_data, Step::read);
    // A section of the right size: 6 bounds and 3 constants of 8 bytes each.
    check_refused(altered([](Draft& d) {
                    d.manifest["codecs"][0]["bound"] = "F64";
                    Bytes bytes = d.section("delta:w").bytes;
                    bytes.erase(bytes.begin(), bytes.begin() + kWidths);
                    bytes.insert(bytes.begin(), 72, std::byte{0});
                    d.replace("delta:w", bytes);
                    d.seal("w");
                  }),
                  Errc::codec_mismatch, Step::validate);
  }

  TEST_CASE("a codec that is not there") {
    for (const json& index : {json(1), json(2), json(std::int64_t{1} << 40)}) {
      check_refused(altered_entry([&](json& e) { e["codec"] = index; }), Errc::corrupt_data,
                    Step::open);
    }
    for (const json& index : {json(-1), json(0.0), json("0"), json(nullptr)}) {
      check_refused(altered_entry([&](json& e) { e["codec"] = index; }), Errc::bad_container,
                    Step::open);
    }
    check_refused(altered([](Draft& d) { d.manifest["codecs"] = json::array(); }),
                  Errc::corrupt_data, Step::open);
    check_refused(altered([](Draft& d) { d.manifest["codecs"][0] = 3; }), Errc::bad_container,
                  Step::open);
  }

  TEST_CASE("names of stages that are too long or would reach a terminal") {
    for (const char* name : {"a name of sixteen", "\x1b[2J", "\n", "\xC2\x9B", "\x7F"}) {
      check_refused(altered([&](Draft& draft) { draft.manifest["codecs"][0]["transform"] = name; }),
                    Errc::corrupt_data, Step::open);
    }
  }

  TEST_CASE("stages that no codec has are refused before decoding") {
    check_refused(altered([](Draft& d) { d.manifest["codecs"][0]["transform"] = "wavelet"; }),
                  Errc::codec_mismatch, Step::validate);
    check_refused(altered([](Draft& d) { d.manifest["codecs"][0]["quantizer"] = "magic"; }),
                  Errc::codec_mismatch, Step::validate);
    check_refused(
        altered([](Draft& d) { d.manifest["codecs"][0]["transform"] = std::string(65, 'x'); }),
        Errc::corrupt_data, Step::open);
  }

  TEST_CASE("a delta of a dtype that the codec does not take") {
    for (const char* dtype : {"I32", "F8_E5M2", "BOOL"}) {
      check_refused(altered([&](Draft& draft) {
                      draft.entry("w")["dtype"] = dtype;
                      draft.entry("t")["dtype"] = dtype;
                    }),
                    Errc::unsupported_dtype, Step::validate);
    }
  }

  TEST_CASE("every field is needed, and is of its type") {
    for (const std::string key :
         {"name", "mode", "dtype", "shape", "tuned", "delta", "codec", "stack", "matrices"}) {
      CAPTURE(key);
      CHECK(altered_entry([&](json& e) { e.erase(key); }).error.code() == Errc::bad_container);
      CHECK(altered_entry([&](json& e) { e[key] = false; }).error.code() == Errc::bad_container);
    }
    for (const std::string key : {"base", "base_dtype", "base_shape", "reason"}) {
      CAPTURE(key);
      check_refused(altered_entry([&](json& e) { e[key] = false; }), Errc::bad_container,
                    Step::open);
    }
    for (const std::string key : {"patch", "transform", "quantizer", "bound"}) {
      CAPTURE(key);
      check_refused(altered([&](Draft& d) { d.manifest["codecs"][0].erase(key); }),
                    Errc::bad_container, Step::open);
      check_refused(altered([&](Draft& d) { d.manifest["codecs"][0][key] = false; }),
                    Errc::bad_container, Step::open);
    }
    for (const std::string name : {"r", "n", "g"}) {
      check_refused(altered_entry([](json& e) { e.erase("lossless"); }, name), Errc::bad_container,
                    Step::open, (": " + name).c_str());
    }
    check_refused(altered_entry([](json& e) { e.erase("target"); }, "t"), Errc::bad_container,
                  Step::open, ": t");
  }

  TEST_CASE("a name that no model can have") {
    for (const std::string name : {"s", "t", "o"}) {
      for (const std::string& bad : {std::string("__metadata__"), std::string("a\0b", 3)}) {
        check_refused(altered_entry([&](json& e) { e["name"] = bad; }, name), Errc::corrupt_data,
                      Step::open, "not a name for a tensor");
      }
    }
  }

  TEST_CASE("a fingerprint that no tensor can have") {
    for (const std::string key : {"base", "tuned"}) {
      for (const char* sum :
           {"", "x", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF"}) {
        check_refused(altered_entry([&](json& e) { e[key] = sum; }), Errc::corrupt_data,
                      Step::open);
      }
    }
  }

  TEST_CASE("several matrices without elements") {
    for (const std::string name : {"w", "k"}) {
      check_refused(altered_entry(
                        [](json& e) {
                          e["shape"] = {3, 0, 4};
                          e["base_shape"] = {e["mode"] == "delta" ? 3 : 4, 0, 4};
                          e["stack"] = {3, 0, 4};
                          e["matrices"] = json::array(
                              {{1, json::array()}, {1, json::array()}, {1, json::array()}});
                        },
                        name),
                    Errc::corrupt_data, Step::open, (": " + name).c_str());
    }
  }

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
  TEST_CASE("a shape unlike the base's") {
    for (const std::string name : {"w", "s", "o"}) {
      for (const char* shape : {"[8,16]", "[]", "[96]", "[9,12]", "[3,2]", "[2,2,1]", "[3]"}) {
        CAPTURE(shape);
        check_refused(altered_entry([&](json& e) { e["base_shape"] = json::parse(shape); }, name),
                      Errc::corrupt_data, Step::open, (": " + name).c_str());
      }
    }
  }

  TEST_CASE("a dtype unlike the base's") {
    for (const std::string name : {"w", "s", "o", "g", "k"}) {
      for (const char* dtype : {"F16", "F64", "U8"}) {
        check_refused(altered_entry([&](json& e) { e["base_dtype"] = dtype; }, name),
                      Errc::corrupt_data, Step::open, (": " + name).c_str());
      }
    }
  }

  TEST_CASE("a shape other than the section's") {
    for (const std::string shape :
         {"[]", "[0]", "[8]", "[8,0]", "[8,16]", "[9,12]", "[16,12]", "[8,4]", "[4,12,2,2]",
          "[4294967296,12]", "[1048576,1048576]", "[0,12]", "[0,4611686018427387]",
          "[9223372036854775807,9223372036854775807]"}) {
      CAPTURE(shape);
      check_refused(altered_entry([&](json& e) { e["shape"] = json::parse(shape); }),
                    Errc::corrupt_data, Step::open);
    }
    for (const std::string shape :
         {"null", "[8,-12]", "[8.0,12]", "[\"8\",12]", "8", "[9223372036854775808]"}) {
      check_refused(altered_entry([&](json& e) { e["shape"] = json::parse(shape); }),
                    Errc::bad_container, Step::open);
    }
    check_refused(altered_entry([](json& e) { e["shape"] = json(std::vector<int>(17, 1)); }),
                  Errc::limit_exceeded, Step::open);
    for (const char* name : {"r", "n"}) {
      for (const char* shape : {"[4]", "[6]", "[]", "[0]", "[2,3]", "[100]"}) {
        check_refused(altered_entry([&](json& e) { e["shape"] = json::parse(shape); }, name),
                      Errc::corrupt_data, Step::read, name);
      }
    }
  }

  TEST_CASE("a patch size of 0, or one that overflows") {
    for (const json& patch : {json(0), json(65), json(std::int64_t{1} << 40),
                              json((std::int64_t{1} << 32) + 4), json(INT64_MAX)}) {
      check_refused(altered([&](Draft& d) { d.manifest["codecs"][0]["patch"] = patch; }),
                    Errc::corrupt_data, Step::open);
    }
    for (const json& patch :
         {json(-4), json(4.0), json("4"), json(true), json(std::uint64_t{1} << 63)}) {
      check_refused(altered([&](Draft& d) { d.manifest["codecs"][0]["patch"] = patch; }),
                    Errc::bad_container, Step::open);
    }
  }

  TEST_CASE("a patch size that no codec has") {
    // The grid has the same number of patches, so only the size of the codes differs.
    check_refused(altered([](Draft& d) { d.manifest["codecs"][0]["patch"] = 5; }),
                  Errc::corrupt_data, Step::read, ": w");
    check_refused(altered([](Draft& d) {
                    json codec = d.manifest["codecs"][0];
                    codec["patch"] = 5;
                    d.manifest["codecs"].push_back(codec);
                    d.entry("w")["codec"] = 1;
                    d.resize("delta:w", kCodes + 24);  // 3 patches of 25 codes of 2 bits
                    std::fill_n(d.section("delta:w").bytes.begin() + kCodes, 24, std::byte{0});
                    d.seal("w");
                  }),
                  Errc::codec_mismatch, Step::validate);
    for (const int patch : {1, 3, 7, 8, 64}) {  // grids other than the section's
      check_refused(altered([&](Draft& d) { d.manifest["codecs"][0]["patch"] = patch; }),
                    Errc::corrupt_data, Step::open);
    }
  }

  TEST_CASE("a patch count unlike the shape, or classes that are none") {
    const auto with = [](const json& value) {
      return altered_entry([&](json& e) { classes(e) = value; });
    };
    REQUIRE(altered_entry([](json& e) {
              REQUIRE(classes(e) == json::parse("[[2,2,3],[0,1,3]]"));
              classes(e) = nullptr;
            }).error.code() == Errc::bad_container);
    for (const std::string text :
         {"[]", "[[2,2,3]]", "[[2,2,3],[0,1,2]]", "[[2,2,3],[0,1,4]]", "[[0,1,3],[2,2,3]]",
          "[[2,2,3],[2,2,3]]", "[[2,2,9223372036854775807],[0,1,3]]",
          "[[2,2,9223372036854775807],[0,1,9223372036854775807]]",
          "[[2,2,18446744073709551],[0,1,3]]", "[[2,2],[0,1,3]]", "[[2,2,3,0],[0,1,3]]", "[[],[]]",
          "[[-2,1,3],[0,1,3]]", "[[2,2,3],[-1,1,3]]", "[[2,2,3],[-5,1,3]]",
          "[[2,2,3],[-4294967298,1,3]]",
          "[[8,2,1],[6,2,1],[4,2,1],[3,2,1],[2,2,1],[1,2,1],[0,1,0],[0,1,0]]"}) {
      CAPTURE(text);
      check_refused(with(json::parse(text)), Errc::corrupt_data, Step::open);
    }
    // The right number of patches, but not those of the width map, or not with these bytes.
    for (const std::string text : {"[[2,2,6]]", "[[2,2,6],[0,1,0]]", "[[2,2,4],[0,1,2]]",
                                   "[[2,2,2],[0,1,4]]", "[[2,2,3],[1,2,0],[0,1,3]]"}) {
      CAPTURE(text);
      check_refused(with(json::parse(text)), Errc::corrupt_data, Step::read);
    }
    for (const std::string text :
         {"{}", "3", "[3]", "[{}]", "[[2,2,-1],[0,1,3]]", "[[2.0,2,3],[0,1,3]]",
          "[[\"2\",2,3],[0,1,3]]", "[[2,null,3],[0,1,3]]", "[[-2.0,2,3],[0,1,3]]",
          "[[2,2,9223372036854775808],[0,1,3]]"}) {
      CAPTURE(text);
      check_refused(with(json::parse(text)), Errc::bad_container, Step::open);
    }
    for (const std::string text : {"[]", "[1]", "[1,[[2,2,3],[0,1,3]],1]"}) {
      check_refused(altered_entry([&](json& e) { e["matrices"][0] = json::parse(text); }),
                    Errc::corrupt_data, Step::open);
    }
  }

  TEST_CASE("a width outside the set") {
    for (const std::int64_t bits :
         {std::int64_t{5}, std::int64_t{7}, std::int64_t{9}, std::int64_t{16}, std::int64_t{99},
          std::int64_t{100}, (std::int64_t{1} << 32) + 2, INT64_MAX}) {
      check_refused(altered_entry([&](json& e) { classes(e)[0][0] = bits; }), Errc::corrupt_data,
                    Step::open);
    }
  }

  TEST_CASE("code bytes unlike the widths") {
    for (const int bits : {8, 6, 4, 1}) {
      check_refused(altered_entry([&](json& e) { classes(e)[0][0] = bits; }), Errc::corrupt_data,
                    Step::read);
    }
    for (const int change : {-64, -16, -8, -1, 1, 8, 800}) {
      CAPTURE(change);
      check_refused(altered([&](Draft& draft) {
                      draft.resize("delta:w", static_cast<std::size_t>(64 + change));
                      draft.seal("w");
                    }),
                    Errc::corrupt_data, Step::read);
    }
  }

  TEST_CASE("codes of a tensor without bits") {
    check_refused(altered(
                      [](Draft& draft) {
                        const std::size_t bytes = draft.section("delta:w").bytes.size();
                        draft.resize("delta:w", bytes + 8);
                        draft.seal("w");
                      },
                      kZero),
                  Errc::corrupt_data, Step::read);
  }

  TEST_CASE("codes of a patch without bits: such a patch has no place for them") {
    // The class of 0 bits claims the codes of another class.
    check_refused(altered([](Draft& draft) {
                    draft.resize("delta:w", kCodes + 24);
                    draft.seal("w");
                  }),
                  Errc::corrupt_data, Step::read);
  }

  TEST_CASE("a wrong number of bounds a patch never reaches the decoder") {
    // The section is made to fit, so that only the number itself is wrong.
    const auto bound_count = [](int two_bits, int zero_bits) {
      return altered([&](Draft& draft) {
        classes(draft.entry("w"))[0][1] = two_bits;
        classes(draft.entry("w"))[1][1] = zero_bits;
        Bytes bytes = draft.section("delta:w").bytes;
        bytes.erase(bytes.begin(), bytes.begin() + kWidths);
        const int floats = 3 * two_bits + 3 * zero_bits;
        bytes.insert(bytes.begin(), io::detail::padded(static_cast<std::size_t>(4 * floats)),
                     std::byte{0});
        draft.replace("delta:w", bytes);
        draft.seal("w");
      });
    };
    check_refused(bound_count(1, 1), Errc::codec_mismatch, Step::validate);
    check_refused(bound_count(3, 1), Errc::codec_mismatch, Step::validate);
    check_refused(bound_count(2, 2), Errc::codec_mismatch, Step::validate);
    check_refused(bound_count(8, 8), Errc::codec_mismatch, Step::validate);
    check_refused(bound_count(0, 1), Errc::corrupt_data, Step::open);
    check_refused(bound_count(2, 0), Errc::corrupt_data, Step::open);
    check_refused(bound_count(9, 1), Errc::corrupt_data, Step::open);
    check_refused(bound_count(99, 1), Errc::corrupt_data, Step::open);
    check_refused(altered_entry([](json& e) { classes(e)[0][1] = std::int64_t{1} << 62; }),
                  Errc::corrupt_data, Step::open);
  }

  TEST_CASE("bounds that are NaN or infinite") {
    for (const float value : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
      for (const std::size_t index : {std::size_t{0}, std::size_t{5}, std::size_t{8}}) {
        check_refused(altered_section("delta:w", [&](Bytes& b) { set_float(b, index, value); }),
                      Errc::corrupt_data, Step::read);
      }
    }
  }

  TEST_CASE("inverted bounds") {
    for (const std::size_t patch : {std::size_t{0}, std::size_t{2}}) {
      check_refused(altered_section("delta:w",
                                    [&](Bytes& b) {
                                      set_float(b, 2 * patch, 0.5F);
                                      set_float(b, 2 * patch + 1, 0.25F);
                                    }),
                    Errc::corrupt_data, Step::validate);
    }
  }

  TEST_CASE("bounds whose difference overflows") {
    check_refused(altered_section("delta:w",
                                  [](Bytes& b) {
                                    set_float(b, 2, -3e38F);
                                    set_float(b, 3, 3e38F);
                                  }),
                  Errc::corrupt_data, Step::validate);
  }

  TEST_CASE("equal bounds with codes that are not zero") {
    const auto equal_bounds = [](Draft& draft, unsigned code) {
      Bytes& bytes = draft.section("delta:w").bytes;
      set_float(bytes, 4, 0.5F);
      set_float(bytes, 5, 0.5F);
      std::fill_n(bytes.begin() + kCodes + 8, 4, std::byte{0});
      bytes[kCodes + 11] = static_cast<std::byte>(code);
      draft.seal("w");
    };
    check_refused(altered([&](Draft& draft) { equal_bounds(draft, 0x80); }), Errc::corrupt_data,
                  Step::validate);
    const Folder folder;
    write_small(folder / "a");
    Draft draft(folder / "a");
    equal_bounds(draft, 0);
    draft.write(folder / "b");
    CHECK(read_all(folder / "b").size() == 8);
  }

  TEST_CASE("a scale that is no finite number") {
    for (const json& value :
         {json(nullptr), json("1"), json("NaN"), json(json::array()), json(true)}) {
      check_refused(altered_entry([&](json& e) { scale(e) = value; }), Errc::corrupt_data,
                    Step::open);
    }
    const Folder folder;
    write_small(folder / "a");
    Draft draft(folder / "a");
    scale(draft.entry("w")) = 42424242;
    for (const char* value : {"NaN", "nan", "Infinity", "-Infinity", "1e999", "-1e999"}) {
      std::string text = draft.manifest.dump();
      text.replace(text.find("42424242"), 8, value);
      draft.write(folder / "b", text);
      CHECK(refusal(folder / "b").error.code() == Errc::bad_container);
    }
  }

  TEST_CASE("a huge scale, beyond what the codec computes in") {
    for (const double value : {1e300, -1e39, 3.5e38}) {
      check_refused(altered_entry([&](json& e) { scale(e) = value; }), Errc::corrupt_data,
                    Step::validate);
    }
  }

  TEST_CASE("a scale and bounds with which the delta is not finite") {
    // Every number by itself is finite.
    const auto with = [](double factor, float bound) {
      return altered([&](Draft& draft) {
        scale(draft.entry("w")) = factor;
        Bytes& bytes = draft.section("delta:w").bytes;
        for (std::size_t k = 0; k < 9; ++k) {
          set_float(bytes, k, k < 6 && k % 2 == 0 ? -bound : bound);
        }
        draft.seal("w");
      });
    };
    check_refused(with(1e38, 1e30F), Errc::corrupt_data, Step::validate);
    check_refused(with(4, 1.6e38F), Errc::corrupt_data, Step::validate);
  }

  TEST_CASE("padding that is not zero") {
    for (const std::size_t at :
         {kBoundsEnd, kWidths - 1, kWidths + 1, kCodes - 1, kCodesEnd, std::size_t{63}}) {
      CAPTURE(at);
      check_refused(altered_section("delta:w", [&](Bytes& b) { b[at] = std::byte{1}; }),
                    Errc::corrupt_data, Step::read);
    }
    for (const unsigned bit : {0x40u, 0x80u}) {  // 6 patches of one bit each
      check_refused(
          altered_section("delta:w", [&](Bytes& b) { b[kWidths] |= static_cast<std::byte>(bit); }),
          Errc::corrupt_data, Step::read);
    }
    for (const std::size_t at : {4u, 7u, 18u, 23u}) {
      CAPTURE(at);
      check_refused(altered_section("lossless:r", [&](Bytes& b) { b[at] = std::byte{1}; }),
                    Errc::corrupt_data, Step::read, ": r");
    }
  }

  TEST_CASE("a map with other counts, or with a class that is not there") {
    check_refused(altered_section("delta:w", [](Bytes& b) { b[kWidths] ^= std::byte{1}; }),
                  Errc::corrupt_data, Step::read);
    check_refused(altered_section("delta:w", [](Bytes& b) { b[kWidths] = std::byte{0}; }),
                  Errc::corrupt_data, Step::read);
    // Three classes: 1 patch with two bounds, 3 with two, 2 with one. Five: 4 with two, 2 with one.
    const auto widths_of = [](const Draft& draft, std::size_t classes) {
      const std::size_t map = io::detail::width_map_bytes(6, classes);
      CHECK(map == 8);
      const io::Manifest manifest = io::parse_manifest(draft.manifest.dump(), "draft");
      deltadct::TensorHeader header = manifest.entries.at(0).matrices.at(0);
      REQUIRE(header.classes.size() == classes);
      return io::detail::padded(header.lay_out().first);
    };
    check_refused(altered(
                      [&](Draft& draft) {
                        draft.section("delta:w").bytes[widths_of(draft, 3)] |= std::byte{3};
                        draft.seal("w");
                      },
                      kThree),
                  Errc::corrupt_data, Step::read);
    for (const unsigned k : {5u, 7u, 8u, 15u}) {
      check_refused(altered(
                        [&](Draft& draft) {
                          std::byte& b = draft.section("delta:w").bytes[widths_of(draft, 5)];
                          b = (b & std::byte{0xF0}) | static_cast<std::byte>(k);
                          draft.seal("w");
                        },
                        kFive),
                    Errc::corrupt_data, Step::read);
    }
  }

  TEST_CASE("codes may be anything: every one has a value") {
    const Folder folder;
    for (const RatioAllocator& mix : {kPaper, kThree, kFour, kSeven}) {
      const auto expected = write_small(folder / "a", mix);
      for (const unsigned fill : {0u, 0x55u, 0xFFu}) {
        Draft draft(folder / "a");
        const io::Manifest manifest = io::parse_manifest(draft.manifest.dump(), "draft");
        deltadct::TensorHeader header = manifest.entries.at(0).matrices.at(0);
        const auto [bounds, codes] = header.lay_out();
        const std::size_t end = draft.section("delta:w").bytes.size();
        std::fill_n(draft.section("delta:w").bytes.end() -
                        static_cast<std::ptrdiff_t>(io::detail::padded(codes)),
                    codes, static_cast<std::byte>(fill));
        CHECK(end >= bounds + codes);
        draft.seal("w");
        draft.write(folder / "b");
        const std::vector<Content> contents = read_all(folder / "b");
        CHECK(contents.at(0).bytes != expected.at(0).bytes);
        for (const double x : values(DType::f32, contents.at(0).bytes)) CHECK(std::isfinite(x));
      }
    }
  }

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

  TEST_CASE("a feature that is required and unknown") {
    const Error error = altered([](Draft& draft) { draft.manifest["requires"] = {"x"}; }).error;
    CHECK(error.code() == Errc::unsupported_version);
    CHECK(names(error, "it requires 'x'"));
    for (const json& value : {json("x"), json({1}), json({{"x", 1}}), json(nullptr)}) {
      CHECK(altered([&](Draft& draft) { draft.manifest["requires"] = value; }).error.code() ==
            Errc::bad_container);
    }
    const Folder folder;
    const auto expected = write_small(folder / "a");
    Draft draft(folder / "a");
    draft.manifest["requires"] = json::array();
    draft.write(folder / "b");
    CHECK(read_all(folder / "b") == expected);
  }

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

  TEST_CASE("a stack that does not fit the shape") {
    for (const char* stack : {"[]", "[1]", "[8,12]", "[1,8,12,1]", "[1,8,11]", "[1,9,12]",
                              "[0,8,12]", "[0,0,0]", "[1,0,12]", "[2,4,12]", "[96,1,1]"}) {
      CAPTURE(stack);
      check_refused(altered_entry([&](json& e) { e["stack"] = json::parse(stack); }),
                    Errc::corrupt_data, Step::open);
    }
    for (const char* stack :
         {"null", "{}", "[1,8,-12]", "[1,8.0,12]", "[1,\"8\",12]", "[1,8,9223372036854775808]"}) {
      CAPTURE(stack);
      check_refused(altered_entry([&](json& e) { e["stack"] = json::parse(stack); }),
                    Errc::bad_container, Step::open);
    }
  }

  TEST_CASE("a stack of as many elements, in rows that are not the shape's") {
    // The number of patches is the same: only the stack distinguishes 8 x 12 from 12 x 8.
    check_refused(altered_entry([](json& e) {
                    e["stack"] = {1, 12, 8};
                  }),
                  Errc::corrupt_data, Step::open);
    // The rows that the base lacks would be out of reach: 6 x 4 elements do not make rows of 16.
    check_refused(altered_entry(
                      [](json& e) {
                        e["stack"] = {1, 2, 8};
                        classes(e) = json::parse("[[2,2,2],[0,1,2]]");
                      },
                      "g"),
                  Errc::corrupt_data, Step::open, ": g");
  }

  TEST_CASE("a stack that overflows") {
    for (const char* stack :
         {"[4294967296,4294967296,4294967296]", "[1,4611686018427387904,4]",
          "[1,6148914691236517206,3]", "[1,9223372036854775807,9223372036854775807]",
          "[1,1537228672809129302,12]", "[9223372036854775807,2,48]"}) {
      CAPTURE(stack);
      check_refused(altered_entry([&](json& e) { e["stack"] = json::parse(stack); }),
                    Errc::corrupt_data, Step::open);
    }
  }

  TEST_CASE("an empty tensor with a stack of endless rows or columns is refused") {
    for (const char* stack : {"[1,4611686018427387904,0]", "[1,0,4611686018427387904]"}) {
      CAPTURE(stack);
      const Folder folder;
      write_small(folder / "a");
      Draft draft(folder / "a");
      json& e = draft.entry("w");
      e["shape"] = {0, 12};
      e["stack"] = json::parse(stack);
      classes(e) = json::array();
      draft.replace("delta:w", {});
      draft.seal("w");
      draft.entry("t")["shape"] = {0, 12};
      draft.write(folder / "b");
      largest_request = 0;
      CHECK(refusal(folder / "b").error.code() == Errc::corrupt_data);
      CHECK(largest_request < 1'000'000);
    }
  }

  TEST_CASE("matrices that the stack does not have") {
    check_refused(altered_entry([](json& e) { e["matrices"] = json::array(); }), Errc::corrupt_data,
                  Step::open);
    check_refused(altered_entry([](json& e) { e["matrices"].push_back(e["matrices"][0]); }),
                  Errc::corrupt_data, Step::open);
    // As many matrices as the stack says, but each with the patches of the whole.
    check_refused(altered_entry([](json& e) {
                    e["stack"] = {2, 4, 12};
                    e["matrices"].push_back(e["matrices"][0]);
                  }),
                  Errc::corrupt_data, Step::open);
  }

  TEST_CASE("a tensor that grew or shrank, of a base it cannot come from") {
    for (const char* shape : {"[6,4]", "[7,4]", "[4,5]", "[4]", "[]", "[4,4,1]", "[24]"}) {
      CAPTURE(shape);
      check_refused(altered_entry([&](json& e) { e["base_shape"] = json::parse(shape); }, "g"),
                    Errc::corrupt_data, Step::open, ": g");
    }
    for (const char* shape : {"[4,4]", "[3,4]", "[5,5]", "[5]", "[]", "[5,4,1]"}) {
      CAPTURE(shape);
      check_refused(altered_entry([&](json& e) { e["base_shape"] = json::parse(shape); }, "k"),
                    Errc::corrupt_data, Step::open, ": k");
    }
    // The base fits, but not the stored data: one row too few, or too many, of both kinds.
    check_refused(altered_entry(
                      [](json& e) {
                        e["base_shape"] = {3, 4};
                      },
                      "g"),
                  Errc::corrupt_data, Step::open, ": g");
    check_refused(altered_entry(
                      [](json& e) {
                        e["base_shape"] = {5, 4};
                      },
                      "g"),
                  Errc::corrupt_data, Step::open, ": g");
    check_refused(altered_entry(
                      [](json& e) {
                        e["shape"] = {7, 4};
                      },
                      "g"),
                  Errc::corrupt_data, Step::read, ": g");
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

  TEST_CASE("modes that need a base without one, and one that has none with one") {
    for (const std::string name : {"w", "r", "s", "g", "k", "o"}) {
      check_refused(altered_entry(
                        [](json& e) {
                          e.erase("base");
                          e.erase("base_shape");
                        },
                        name),
                    Errc::corrupt_data, Step::open, (": " + name).c_str());
    }
    check_refused(altered_entry([](json& e) { e["base"] = "0123456789abcdef"; }, "n"),
                  Errc::corrupt_data, Step::open, ": n");
  }

  TEST_CASE("a mode that what is stored does not fit") {
    const auto mode = [](const char* name, const char* value) {
      return altered_entry([&](json& e) { e["mode"] = value; }, name);
    };
    check_refused(mode("w", "same"), Errc::corrupt_data, Step::open);
    check_refused(mode("w", "removed"), Errc::corrupt_data, Step::open, ": t");
    check_refused(mode("w", "lossless"), Errc::bad_container, Step::open);
    check_refused(mode("w", "grown"), Errc::corrupt_data, Step::open);
    check_refused(mode("w", "shrunk"), Errc::corrupt_data, Step::open);
    check_refused(mode("w", "added"), Errc::corrupt_data, Step::open);
    check_refused(mode("w", "tied"), Errc::bad_container, Step::open);
    check_refused(mode("r", "delta"), Errc::bad_container, Step::open, ": r");
    check_refused(mode("r", "added"), Errc::corrupt_data, Step::open, ": r");
    check_refused(mode("n", "lossless"), Errc::corrupt_data, Step::open, ": n");
    check_refused(mode("g", "delta"), Errc::corrupt_data, Step::open, ": g");
    check_refused(mode("g", "shrunk"), Errc::corrupt_data, Step::open, ": g");
    check_refused(mode("k", "grown"), Errc::corrupt_data, Step::open, ": k");
    check_refused(mode("s", "lossless"), Errc::bad_container, Step::open, ": s");
  }

  TEST_CASE("a tensor that is said to be the base's, under another fingerprint") {
    check_refused(altered_entry([](json& e) { e["tuned"] = "0123456789abcdef"; }, "s"),
                  Errc::corrupt_data, Step::open, ": s");
  }

  TEST_CASE("a huge shape is refused without an allocation of its size") {
    const auto huge = [](const char* shape, int patch, const char* widths) {
      const Folder folder;
      write_small(folder / "a");
      Draft draft(folder / "a");
      json& e = draft.entry("w");
      draft.manifest["codecs"].push_back(draft.manifest["codecs"][0]);
      draft.manifest["codecs"][1]["patch"] = patch;
      e["codec"] = 1;
      e["shape"] = json::parse(shape);
      json other = draft.entry("s");  // replaces the tensor tied to "w"
      other["name"] = "t";
      draft.entry("t") = other;
      if (e["shape"].size() == 2) e["stack"] = {1, e["shape"][0], e["shape"][1]};
      classes(e) = json::parse(widths);
      draft.write(folder / "b");
      largest_request = 0;
      const Refusal found = refusal(folder / "b");
      INFO(std::string(found.error.what()));
      CHECK(found.error.code() == Errc::corrupt_data);
      CHECK(names(found.error, ": w"));
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
