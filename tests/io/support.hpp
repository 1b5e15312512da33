// What the tests of archives and of whole models share: folders, small models, limits.
#pragma once

#include "../support/caught.hpp"
#include "../support/files.hpp"

#include <deltadct/any_codec.hpp>
#include <deltadct/io/safetensors.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

namespace io_test {

using namespace test;

namespace fs = std::filesystem;
namespace io = deltadct::io;
using deltadct::DType;
using deltadct::Errc;
using deltadct::Error;
using deltadct::StoredDType;

using Bytes = std::vector<std::byte>;
using Shape = std::vector<std::uint64_t>;

inline Bytes get(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

inline void put(const fs::path& path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

inline Bytes bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

/// A tensor of a model.
struct Tensor {
  std::string name;
  StoredDType dtype;
  Shape shape;
  Bytes bytes;

  io::TensorInfo info() const { return {name, dtype, shape, 0, bytes.size()}; }

  /// Replaces one element of a floating-point tensor.
  void set(std::size_t index, double value) {
    deltadct::with_element(dtype, [&]<class T>() {
      const T x(static_cast<deltadct::compute_t<T>>(value));
      std::memcpy(bytes.data() + index * sizeof(T), &x, sizeof(T));
    });
  }
};

/// Elements of a floating-point tensor as doubles.
inline std::vector<double> values(DType dtype, std::span<const std::byte> bytes) {
  std::vector<double> result(bytes.size() / deltadct::dtype_bytes(dtype));
  deltadct::with_element(dtype, [&]<class T>() {
    for (std::size_t i = 0; i < result.size(); ++i) {
      T x;
      std::memcpy(&x, bytes.data() + i * sizeof(T), sizeof(T));
      result[i] = static_cast<double>(static_cast<deltadct::compute_t<T>>(x));
    }
  });
  return result;
}

/// Uniform in -1 .. 1, the same on every machine.
class Noise {
 public:
  explicit Noise(unsigned seed) : bits_(seed) {}
  double operator()() { return static_cast<double>(bits_()) * 0x1p-31 - 1; }

 private:
  std::mt19937 bits_;
};

/// A tensor of noise: floats in -1 .. 1; for other dtypes arbitrary bytes.
inline Tensor noise(const std::string& name, const StoredDType& dtype, Shape shape, unsigned seed) {
  Tensor tensor{name, dtype, std::move(shape), {}};
  tensor.bytes.resize(static_cast<std::size_t>(*io::tensor_bytes(dtype, tensor.shape)));
  Noise random(seed);
  if (deltadct::is_element(dtype)) {
    const std::size_t count = tensor.bytes.size() / deltadct::dtype_bytes(dtype);
    for (std::size_t i = 0; i < count; ++i) tensor.set(i, random());
  } else {
    for (std::byte& byte : tensor.bytes) byte = static_cast<std::byte>(100 * (random() + 1));
  }
  return tensor;
}

/// The tensor after a fine-tune: every element moves by up to `step`.
inline Tensor moved(Tensor tensor, double step, unsigned seed) {
  Noise random(seed);
  const std::vector<double> from = values(tensor.dtype, tensor.bytes);
  for (std::size_t i = 0; i < from.size(); ++i) tensor.set(i, from[i] + step * random());
  return tensor;
}

/// Writes tensors in their order.
inline void write_model(const fs::path& path, std::span<const Tensor> tensors,
                        const io::Metadata& metadata = {}) {
  std::vector<io::TensorInfo> infos;
  std::uint64_t end = 0;
  for (const Tensor& tensor : tensors) {
    infos.push_back(tensor.info());
    infos.back().begin = end;
    infos.back().end = end += tensor.bytes.size();
  }
  io::SafetensorsWriter writer(path, io::Overwrite::yes, io::header_bytes(infos, metadata));
  for (const Tensor& tensor : tensors) {
    writer.begin(tensor.name, tensor.dtype, tensor.shape);
    writer.write(tensor.bytes);
  }
  writer.finish(metadata);
}

/// The codecs used in the tests.
inline std::unique_ptr<deltadct::AnyCodec> serial_codec(const deltadct::CodecSpec& spec) {
  return deltadct::make_codec<deltadct::Serial>(spec);
}

}  // namespace io_test
