// A base and a fine-tune on disk, for tests of whole models.
#pragma once

#include "support.hpp"

#include <deltadct/io/checkpoint.hpp>

namespace io_test {

using deltadct::RatioAllocator;
using deltadct::SerialExecutor;
using io::Access;
using io::ApplyOptions;
using io::CheckpointReport;
using io::CompressOptions;
using io::DeltaArchive;
using io::ManifestEntry;
using io::Mode;
using io::Model;
using io::OutputOptions;
using io::Overwrite;
using io::ReadOptions;
using io::Resume;

/// How far the tests' fine-tunes are from their base.
inline constexpr double kStep = 0.01;

/// The dtypes that the codec accepts.
inline constexpr DType kElements[] = {DType::f64, DType::f32, DType::f16, DType::bf16};

/// The first rows of a tensor, with new ones below.
inline Tensor with_rows(const Tensor& tensor, std::uint64_t rows, unsigned seed) {
  Shape shape = tensor.shape;
  shape[0] = rows;
  Tensor result = noise(tensor.name, tensor.dtype, shape, seed);
  std::copy_n(tensor.bytes.begin(), std::min(tensor.bytes.size(), result.bytes.size()),
              result.bytes.begin());
  return result;
}

inline Tensor renamed(Tensor tensor, const std::string& name) {
  tensor.name = name;
  return tensor;
}

inline CompressOptions options_of(int patch, RatioAllocator mix = {}) {
  CompressOptions options;
  options.codec.patch = patch;
  options.codec.allocator = std::move(mix);
  options.output.overwrite = Overwrite::yes;
  return options;
}

inline ReadOptions reading(Access access) {
  ReadOptions options;
  options.access = access;
  return options;
}

inline Bytes data(const Model& model, const std::string& name) {
  io::TensorBytes bytes;
  const auto* tensor = model.find(name);
  REQUIRE(tensor != nullptr);
  model.read(*tensor, bytes);
  return {bytes.bytes().begin(), bytes.bytes().end()};
}

/// Writes shards and their index.
inline void write_sharded(const fs::path& folder, const std::vector<std::vector<Tensor>>& shards,
                          const io::Metadata& metadata = {},
                          const std::string& index_name = "model.safetensors.index.json") {
  fs::create_directories(folder);
  io::ShardIndex index;
  index.total_size = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name = io::numbered("part", i + 1) + ".safetensors";
    write_model(folder / name, shards[i], metadata);
    for (const Tensor& tensor : shards[i]) {
      index.shards[name].push_back(tensor.name);
      *index.total_size += tensor.bytes.size();
    }
  }
  put(folder / index_name, bytes_of(io::shard_index_text(index)));
}

/// A base and a fine-tune in their own folder, with room for outputs.
struct Pair {
  Pair(std::vector<Tensor> base_tensors, std::vector<Tensor> tuned_tensors)
      : base(std::move(base_tensors)), tuned(std::move(tuned_tensors)) {
    write();
  }

  void write() const {
    write_model(folder / "base", base, {{"format", "pt"}, {"made by", "a test"}});
    write_model(folder / "tuned", tuned, {{"format", "pt"}, {"made by", "another"}});
  }

  CheckpointReport compress(const CompressOptions& options, Access access = Access::map,
                            const io::ProgressFn& progress = {}) const {
    return io::compress_model(Model::open(folder / "base", reading(access)),
                              Model::open(folder / "tuned", reading(access)), folder / "delta",
                              options, serial_codec, SerialExecutor{}, progress);
  }

  CheckpointReport apply(const ApplyOptions& options, Access access = Access::map,
                         const io::ProgressFn& progress = {}) const {
    return io::apply_archive(Model::open(folder / "base", reading(access)),
                             DeltaArchive::open(folder / "delta", reading(access)), folder / "out",
                             options, serial_codec, SerialExecutor{}, progress);
  }
  CheckpointReport apply(Overwrite overwrite = Overwrite::no, Access access = Access::map,
                         const io::ProgressFn& progress = {}) const {
    ApplyOptions options;
    options.output.overwrite = overwrite;
    return apply(options, access, progress);
  }

  void verify(bool with_base, const io::ProgressFn& progress = {}) const {
    const Model model = Model::open(folder / "base");
    io::verify_archive(archive(), with_base ? &model : nullptr, serial_codec, SerialExecutor{},
                       progress);
  }

  DeltaArchive archive() const { return DeltaArchive::open(folder / "delta"); }
  Model out() const { return Model::open(folder / "out"); }
  Mode mode(const std::string& name) const { return archive().find(name)->mode; }
  std::string reason(const std::string& name) const { return archive().find(name)->reason; }

  Folder folder;
  std::vector<Tensor> base;
  std::vector<Tensor> tuned;
};

/// Whether the file system has the attributes by which outputs are recognised.
inline bool has_attributes(const Folder& folder) {
  put_text(folder / "probe", "");
  const bool has = ::setxattr((folder / "probe").c_str(), "user.deltadct.probe", "x", 1, 0) == 0;
  fs::remove(folder / "probe");
  return has;
}

/// Writes a file as an output is written.
inline void write_own(const fs::path& path, std::string_view text) {
  io::AtomicFile file(path, Overwrite::yes);
  file.write(view_of(text));
  file.commit();
}

inline Pair one_pair(DType dtype, Shape shape) {
  const Tensor base = noise("w", dtype, std::move(shape), 1);
  return {{base}, {moved(base, kStep, 2)}};
}

/// Every kind of tensor: floats of ranks 0 to 4, integers, unchanged, small and empty ones.
inline Pair mixed_pair() {
  std::vector<Tensor> base;
  std::vector<Tensor> tuned;
  const auto add = [&](const std::string& name, DType dtype, Shape shape, bool changed = true) {
    const auto seed = static_cast<unsigned>(base.size());
    base.push_back(noise(name, dtype, std::move(shape), seed));
    tuned.push_back(base.back());
    if (!changed) return;
    if (deltadct::is_element(dtype)) tuned.back() = moved(base.back(), kStep, 100 + seed);
    for (std::byte& byte : tuned.back().bytes) {
      if (!deltadct::is_element(dtype)) byte ^= std::byte{1};
    }
  };
  add("f32", DType::f32, {33, 20});
  add("scalar", DType::f32, {});
  add("flags", DType::boolean, {3});
  add("f16", DType::f16, {12, 16});
  add("norm", DType::f32, {64});
  add("bf16", DType::bf16, {40, 7});
  add("unchanged", DType::f32, {16, 16}, false);
  add("f64", DType::f64, {9, 9});
  add("experts", DType::f32, {3, 6, 8});
  add("conv", DType::bf16, {4, 3, 3, 5});
  add("small", DType::f32, {3, 5});
  add("thin", DType::f32, {1, 40});
  add("empty", DType::f32, {0, 8});
  add("ids", DType::i64, {4, 8});
  add("f8", DType::f8_e4m3, {8, 8});
  add("unchanged.ids", DType::i32, {5}, false);
  return {std::move(base), std::move(tuned)};
}

inline double norm(const std::vector<double>& x) {
  double sum = 0;
  for (const double value : x) sum += value * value;
  return std::sqrt(sum);
}

inline std::vector<double> difference(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> result(a.size());
  std::ranges::transform(a, b, result.begin(), std::minus{});
  return result;
}

/// Runs fn, which must fail and leave as many entries in the folder as before.
template <class Fn>
Error fails_leaving_nothing(const Folder& folder, Fn fn) {
  const std::size_t before = folder.entries();
  const Error error = caught(fn);
  INFO(std::string(error.what()));
  CHECK(folder.entries() == before);
  return error;
}

/// The files of a folder with their contents.
inline std::map<std::string, Bytes> files_of(const fs::path& folder) {
  std::map<std::string, Bytes> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    files.emplace(entry.path().filename().string(), get(entry.path()));
  }
  return files;
}

}  // namespace io_test
