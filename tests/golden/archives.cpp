// Archives of every format version must be decodable for ever: v1/NAME with v1/base gives
// v1/NAME.out.
//
// To write those that are missing (released ones are never written again):
//     test_golden_archives --no-skip --test-case="write*"
#include "../io/draft.hpp"

#include <deltadct/baseline/any_baseline.hpp>
#include <deltadct/io/checkpoint.hpp>

#include <cmath>
#include <cstdlib>
#include <random>

using namespace io_test;

namespace {

const fs::path kFolder = fs::path(DELTADCT_GOLDEN_ARCHIVES) / "v1";

struct Golden {
  const char* name;
  deltadct::CodecSpec codec;
  bool lossless = false;
  std::uint64_t max_shard_bytes = 0;
  deltadct::AnyBaseline baseline = {};  ///< the settings of a codec without patches
  const char* tuned = "tuned";
  bool folder = false;  ///< whether the fine-tune has files beside it
};

Golden of_baseline(const char* name, const deltadct::AnyBaseline& baseline) {
  return {name, deltadct::baseline_spec(baseline), false, 0, baseline};
}

deltadct::CodecSpec unit_gain(int patch, deltadct::RatioAllocator mix) {
  deltadct::CodecSpec spec = deltadct::unit_gain_spec();
  spec.patch = patch;
  spec.allocator = std::move(mix);
  return spec;
}

const Golden kGolden[] = {
    {"paper", {}},
    {"widths",
     {.patch = 4,
      .allocator = {{8, 0.1}, {6, 0.1}, {4, 0.1}, {3, 0.2}, {2, 0.2}, {1, 0.1}, {0, 0.2}}}},
    {"three", {.patch = 12, .allocator = {{6, 0.3}, {1, 0.4}, {0, 0.3}}}},
    {"identity",
     {.patch = 8, .transform = std::string(deltadct::Identity::name), .allocator = {{4, 1.0}}}},
    {"lossless", {}, true},
    {"sharded", {}, false, 8000},
    {"gaussian", unit_gain(16, {{4, 0.2}, {3, 0.2}, {2, 0.3}, {1, 0.3}})},
    {"shared", unit_gain(16, {{1, 0.2}, {-2, 0.2}, {-3, 0.2}, {-4, 0.2}, {-5, 0.2}})},
    of_baseline("bit_delta", deltadct::BitDelta{deltadct::BitDelta::Axis::row}),
    of_baseline("delta_come", deltadct::DeltaCome{}),
    of_baseline("dare", deltadct::Dare{.drop = 0.75, .seed = 3}),
    of_baseline("ultra_delta",
                deltadct::UltraDelta{.groups = {{{0.01, 0.8}, {0.1, 0.7}, {}}}, .seed = 4}),
    {.name = "outliers", .codec = {}, .tuned = "tuned_outliers"},
    {.name = "files", .codec = {}, .folder = true},
};

/// Writes the fine-tune as a folder with files of every kind.
void write_folder(const fs::path& folder) {
  fs::create_directories(folder / "1_Pooling");
  fs::copy(kFolder / "tuned", folder / "model.safetensors");
  put_text(folder / "config.json", "{\n  \"model_type\": \"bert\"\n}\n");
  put_text(folder / "merges.txt", "");
  put_text(folder / "tokenizer.json", std::string(5000, ' ') + "{}");
  put_text(folder / "caf\u00e9.md", "text");
  put_text(folder / "1_Pooling" / "config.json", "{}");
}

/// Writes small models with every mode and kind of tensor.
void write_models() {
  std::vector<Tensor> base;
  std::vector<Tensor> tuned;
  const auto both = [&](const std::string& name, DType dtype, Shape shape) {
    const auto seed = static_cast<unsigned>(base.size());
    base.push_back(noise(name, dtype, std::move(shape), seed));
    tuned.push_back(deltadct::is_element(dtype) ? moved(base.back(), 0.01, 100 + seed)
                                                : base.back());
    if (!deltadct::is_element(dtype)) tuned.back().bytes[0] ^= std::byte{1};
  };
  const auto resize = [&](const std::string& name, DType dtype, Shape from, Shape to) {
    const auto seed = static_cast<unsigned>(base.size());
    base.push_back(noise(name, dtype, std::move(from), seed));
    Tensor tensor = noise(name, dtype, std::move(to), 50 + seed);
    const Tensor near = moved(base.back(), 0.01, 100 + seed);
    std::copy_n(near.bytes.begin(), std::min(near.bytes.size(), tensor.bytes.size()),
                tensor.bytes.begin());
    tuned.push_back(tensor);
  };
  both("bf16", DType::bf16, {64, 48});
  both("f16", DType::f16, {20, 33});
  both("f32", DType::f32, {33, 20});
  both("f64", DType::f64, {17, 16});
  both("experts", DType::bf16, {2, 64, 64});
  both("conv", DType::f32, {8, 4, 3, 3});
  both("norm", DType::bf16, {64});
  both("scalar", DType::f32, {});
  both("f8", DType::f8_e4m3, {5, 5});
  both("ids", DType::i64, {3, 4});
  base.push_back(noise("empty", DType::f32, {0, 8}, 1));
  tuned.push_back(base.back());
  base.push_back(noise("same", DType::i32, {9}, 2));
  tuned.push_back(base.back());
  resize("embed", DType::bf16, {40, 24}, {44, 24});
  resize("head", DType::f32, {24, 16}, {20, 16});
  base.push_back(noise("widened", DType::bf16, {16, 20}, 3));
  tuned.push_back(noise("widened", DType::f32, {16, 20}, 3));
  base.push_back(noise("gone", DType::f32, {3}, 4));
  tuned.push_back(noise("new", DType::f32, {40, 30}, 5));
  tuned.push_back(tuned.back());
  tuned.back().name = "twin";
  write_model(kFolder / "base", base, {{"format", "pt"}});
  write_model(kFolder / "tuned", tuned, {{"format", "pt"}, {"made by", "deltadct"}});
}

/// Writes the fine-tune with outliers, in every dtype and in matrices of a stack.
void write_outliers() {
  const auto model = io::Model::open(kFolder / "tuned");
  std::vector<Tensor> tuned;
  io::TensorBytes bytes;
  for (const io::ModelTensor& tensor : model.tensors()) {
    model.read(tensor, bytes);
    tuned.push_back({tensor.name, tensor.dtype, tensor.shape,
                     Bytes(bytes.bytes().begin(), bytes.bytes().end())});
    for (const auto& [name, at] : {std::pair("bf16", 100),
                                   {"f16", 7},
                                   {"f32", 200},
                                   {"f64", 9},
                                   {"experts", 5},
                                   {"experts", 4095},
                                   {"experts", 4096}}) {
      if (tensor.name == name) tuned.back().set(static_cast<std::size_t>(at), 6.5);
    }
  }
  write_model(kFolder / "tuned_outliers", tuned, model.metadata());
}

void apply(const Golden& golden, const fs::path& output) {
  const auto base = io::Model::open(kFolder / "base");
  const auto archive = io::DeltaArchive::open(kFolder / golden.name);
  io::ApplyOptions options;
  options.output.overwrite = io::Overwrite::yes;
  io::apply_archive(base, archive, output, options, deltadct::with_baselines(serial_codec));
}

/// The distance between two numbers of a dtype, in units in the last place. A number smaller than
/// the deltas is the difference of larger numbers and only as exact as those.
double ulps(DType dtype, double a, double b) {
  const int digits = dtype == DType::bf16  ? 8
                     : dtype == DType::f16 ? 11
                     : dtype == DType::f32 ? 24
                                           : 53;
  const double scale = std::max({std::abs(a), std::abs(b), 0.1});
  return std::abs(a - b) / std::ldexp(1.0, std::ilogb(scale) + 1 - digits);
}

/// The files beside a model in a folder; none if the model is a single file.
std::map<std::string, Bytes> files_beside(const fs::path& path) {
  std::map<std::string, Bytes> files;
  if (!fs::is_directory(path)) return files;
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    if (!entry.is_regular_file() || entry.path().extension() == ".safetensors") continue;
    files.emplace(entry.path().lexically_relative(path).generic_string(), get(entry.path()));
  }
  return files;
}

void check_equal(const fs::path& found_path, const fs::path& expected_path,
                 const io::DeltaArchive& archive) {
  const auto found = io::Model::open(found_path);
  const auto expected = io::Model::open(expected_path);
  REQUIRE(found.tensors().size() == expected.tensors().size());
  CHECK(found.metadata() == expected.metadata());
  CHECK(fs::is_directory(found_path) == fs::is_directory(expected_path));
  CHECK(files_beside(found_path) == files_beside(expected_path));
  io::TensorBytes a;
  io::TensorBytes b;
  for (std::size_t i = 0; i < found.tensors().size(); ++i) {
    const io::ModelTensor& tensor = found.tensors()[i];
    CAPTURE(tensor.name);
    REQUIRE(tensor.name == expected.tensors()[i].name);
    REQUIRE(tensor.dtype == expected.tensors()[i].dtype);
    REQUIRE(tensor.shape == expected.tensors()[i].shape);
    found.read(tensor, a);
    expected.read(expected.tensors()[i], b);
    if (!io::has_delta(archive.target(*archive.find(tensor.name)).mode)) {
      CHECK(std::ranges::equal(a.bytes(), b.bytes()));
      continue;
    }
    const auto x = values(tensor.dtype, a.bytes());
    const auto y = values(tensor.dtype, b.bytes());
    double most = 0;
    for (std::size_t k = 0; k < x.size(); ++k) {
      most = std::max(most, ulps(tensor.dtype, x[k], y[k]));
    }
    CHECK(most <= 4);
  }
}

using nlohmann::json;

/// Alters archives at random, and updates their checksums.
class Mutator {
 public:
  explicit Mutator(unsigned seed) : random_(seed) {}

  /// Alters one or more things in a section, an entry or a codec.
  void alter(Draft& draft) {
    for (std::size_t left = 1 + pick(2); left > 0; --left) {
      const std::size_t kind = pick(8);
      if (kind < 4 && !draft.sections.empty()) {
        alter_section(draft, draft.sections[pick(draft.sections.size())]);
      } else if (kind < 7) {
        json& tensors = draft.manifest["tensors"];
        alter_value(any_leaf(tensors[pick(tensors.size())]));
      } else {
        alter_value(any_leaf(draft.manifest));
      }
    }
  }

 private:
  std::size_t pick(std::size_t n) { return random_() % n; }

  void alter_section(Draft& draft, Tensor& section) {
    Bytes bytes = section.bytes;
    const std::size_t kind = pick(8);
    if (kind == 0) {
      bytes.resize(bytes.size() + 8 * pick(3) - std::min<std::size_t>(bytes.size(), 8 * pick(3)));
    } else if (!bytes.empty()) {
      // Most of the bytes that say how to read the rest are at the front.
      const std::size_t range = kind < 4 ? std::min<std::size_t>(bytes.size(), 48) : bytes.size();
      for (std::size_t n = 1 + pick(3); n > 0; --n) {
        std::byte& byte = bytes[pick(range)];
        byte = pick(2) == 0 ? byte ^ static_cast<std::byte>(1u << pick(8))
                            : static_cast<std::byte>(pick(256));
      }
    }
    const std::string name = section.name;
    draft.replace(name, std::move(bytes));
    const std::size_t colon = name.find(':');
    for (json& entry : draft.manifest["tensors"]) {
      if (entry["name"] != name.substr(colon + 1)) continue;
      entry[name.substr(0, colon)] = io::fingerprint(draft.section(name).bytes);
    }
  }

  json& any_leaf(json& value) {
    json* at = &value;
    while (at->is_structured() && !at->empty() && pick(12) != 0) {
      auto item = at->begin();
      std::advance(item, static_cast<std::ptrdiff_t>(pick(at->size())));
      at = &*item;
    }
    return *at;
  }

  void alter_value(json& value) {
    static const char* const kTexts[] = {
        "",   "delta", "grown", "same", "added",    "removed", "F32",  "F64", "BF16",
        "U8", "dct",   "w",     "I64",  "lossless", "tied",    "twin", "new", "__metadata__"};
    switch (pick(4)) {
      case 0:
        if (value.is_number_integer()) {
          value = value.get<std::int64_t>() + static_cast<std::int64_t>(pick(5)) - 2;
          return;
        }
        break;
      case 1:
        if (value.is_number()) {
          const double numbers[] = {0, 1, -1, 2, 3, 8, 64, 1e-40, 1e39, 1e300, 4294967296.0};
          const double x = numbers[pick(std::size(numbers))];
          value = x == std::floor(x) && x < 1e15 ? json(static_cast<std::int64_t>(x)) : json(x);
          return;
        }
        break;
      case 2:
        if (value.is_array() && !value.empty()) {
          if (pick(2) == 0)
            value.erase(pick(value.size()));
          else
            value.push_back(value[pick(value.size())]);
          return;
        }
        break;
      default:
        break;
    }
    if (value.is_string()) value = kTexts[pick(std::size(kTexts))];
  }

  std::mt19937 random_;
};

/// Whether an error is about a wrong base, which an archive alone cannot detect. Only with the base
/// is it known whether what depends on the base restores the fine-tune.
bool is_of_base(const Error& error, const io::DeltaArchive& archive) {
  switch (error.code()) {
    case Errc::wrong_base:
    case Errc::missing_tensor:
    case Errc::shape_mismatch:
    case Errc::dtype_mismatch:
      return true;
    case Errc::checksum_mismatch:
      return std::ranges::any_of(archive.entries(), [&](const io::ManifestEntry& entry) {
        return entry.mode == io::Mode::lossless && names(error, ": " + entry.name);
      });
    default:
      return false;
  }
}

}  // namespace

TEST_CASE("golden/archives: what is altered and passes for sound can be applied to its base") {
  const Folder folder;
  const auto base = io::Model::open(kFolder / "base");
  const auto codecs = deltadct::with_baselines(serial_codec);
  // The number of rounds can be raised for a longer search.
  const char* asked = std::getenv("DELTADCT_ROUNDS");
  const int rounds = asked == nullptr ? 40 : std::atoi(asked);
  int sound = 0;
  for (const Golden& golden : kGolden) {
    if (golden.max_shard_bytes != 0) continue;
    CAPTURE(golden.name);
    const Draft original(kFolder / golden.name);
    for (int round = 0; round < rounds; ++round) {
      CAPTURE(round);
      Draft draft = original;
      Mutator(static_cast<unsigned>(round)).alter(draft);
      draft.write(folder / "delta");
      try {
        io::verify_archive(io::DeltaArchive::open(folder / "delta"), nullptr, codecs);
      } catch (const Error&) {
        continue;
      }
      ++sound;
      const auto archive = io::DeltaArchive::open(folder / "delta");
      io::ApplyOptions options;
      options.output.overwrite = io::Overwrite::yes;
      try {
        io::apply_archive(base, archive, folder / "out", options, codecs);
      } catch (const Error& error) {
        INFO(std::string(error.what()));
        INFO(draft.manifest.dump());
        CHECK(is_of_base(error, archive));
      }
    }
  }
  CHECK(sound > 0);
}

TEST_CASE("golden/archives: every archive restores what it did when it was written") {
  const Folder folder;
  for (const Golden& golden : kGolden) {
    CAPTURE(golden.name);
    apply(golden, folder / golden.name);
    check_equal(folder / golden.name, kFolder / (std::string(golden.name) + ".out"),
                io::DeltaArchive::open(kFolder / golden.name));
  }
}

TEST_CASE("write the golden archives" * doctest::skip()) {
  if (!fs::exists(kFolder / "base")) write_models();
  if (!fs::exists(kFolder / "tuned_outliers")) write_outliers();
  for (const Golden& golden : kGolden) {
    if (fs::exists(kFolder / golden.name)) continue;
    io::CompressOptions options;
    options.codec = golden.codec;
    options.lossless = golden.lossless;
    options.output = {io::Overwrite::yes, golden.max_shard_bytes, io::Resume::no};
    const Folder folder;
    write_folder(folder / "tuned");
    const fs::path tuned = golden.folder ? folder / "tuned" : kFolder / golden.tuned;
    io::compress_model(io::Model::open(kFolder / "base"), io::Model::open(tuned),
                       kFolder / golden.name, options,
                       deltadct::with_baselines(serial_codec, golden.baseline));
    apply(golden, kFolder / (std::string(golden.name) + ".out"));
  }
}
