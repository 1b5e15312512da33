// The same archive on the serial and on the SIMD backend. A fuzzer would never guess a container
// around a manifest. So it invents the manifest and the bytes of the sections, and the harness
// assembles them: sections get the size that the manifest implies, and the base gets what the
// manifest asks for.
//
//   u16 length of the manifest, u8 changes to the sizes of sections, manifest, bytes
#include "support.hpp"

#include <cmath>

using namespace fuzz;

namespace {

/// Hands out the bytes of an input, and zeros once they are used up.
class Source {
 public:
  explicit Source(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::vector<std::byte> take(std::size_t count) {
    std::vector<std::byte> out(count);
    const auto front = bytes_.first(std::min(count, bytes_.size()));
    std::ranges::copy(front, out.begin());
    bytes_ = bytes_.subspan(front.size());
    return out;
  }

 private:
  std::span<const std::byte> bytes_;
};

/// A container in memory.
class Container {
 public:
  void add(const std::string& name, DType dtype, std::vector<std::uint64_t> shape,
           const std::vector<std::byte>& bytes) {
    tensors_.push_back({name, dtype, std::move(shape), data_.size(), data_.size() + bytes.size()});
    data_.insert(data_.end(), bytes.begin(), bytes.end());
  }

  MemoryFile file(const io::Metadata& metadata) const {
    const std::string header = io::detail::header_text(tensors_, metadata, "fuzz");
    std::vector<std::byte> bytes(8);
    const std::uint64_t length = header.size();
    std::memcpy(bytes.data(), &length, 8);
    for (const char c : header) bytes.push_back(static_cast<std::byte>(c));
    bytes.insert(bytes.end(), data_.begin(), data_.end());
    return MemoryFile(bytes);
  }

 private:
  std::vector<io::TensorInfo> tensors_;
  std::vector<std::byte> data_;
};

constexpr std::size_t kMost = 1 << 16;

std::size_t delta_bytes(const io::ManifestEntry& entry) {
  std::size_t bytes = 0;
  for (TensorHeader header : entry.matrices) {
    bytes = std::min(kMost, bytes + std::min(kMost, io::detail::lay_out(header).bytes()));
  }
  return bytes;
}

/// Assembles an archive and its base. Refuses entries that are too large for a quick run.
void build(const io::Manifest& manifest, std::string_view text, unsigned change, Source& source,
           Container& archive, Container& base) {
  for (const io::ManifestEntry& entry : manifest.entries) {
    if (io::has_delta(entry.mode)) {
      const auto bytes = source.take(delta_bytes(entry) + (change & 1) * 8);
      archive.add("delta:" + entry.name, DType::u8, {bytes.size()}, bytes);
    }
    if (io::has_lossless(entry.mode)) {
      const std::uint64_t whole = io::DeltaArchive::lossless_bytes(entry);
      const std::size_t table = io::detail::chunk_table_bytes(whole);
      auto bytes = source.take(std::min<std::size_t>(table, kMost) + (change >> 1) % 64 * 8);
      archive.add("lossless:" + entry.name, DType::u8, {bytes.size()}, bytes);
    }
    if (!entry.base) continue;
    const auto bytes = *io::tensor_bytes(entry.base->dtype, entry.base->shape);
    if (bytes > kMost) throw Error(Errc::limit_exceeded, "base");
    base.add(entry.name, entry.base->dtype, entry.base->shape,
             source.take(static_cast<std::size_t>(bytes)));
  }
  const auto bytes = std::as_bytes(std::span(text));
  archive.add("manifest:1", DType::u8, {bytes.size()}, {bytes.begin(), bytes.end()});
}

/// The magnitude of what is stored, as far as it bounds the results of decoding.
double magnitude(const CompressedView& matrix) {
  double most = 0;
  const std::size_t value = dtype_bytes(matrix.header->bound);
  for (std::size_t at = 0; at < matrix.bounds.size(); at += value) {
    most = std::max(most, std::abs(detail::load_bound<double>(matrix.bounds.data() + at,
                                                              matrix.header->bound, 0)));
  }
  // The greatest level is a bound or, for a quantizer with 4 bits, about 22 steps.
  const bool is_gaussian = matrix.header->quantizer == Gaussian<0>::name;
  require(is_gaussian || matrix.header->quantizer == MinMax<0>::name);
  const double level = is_gaussian ? 22.5 : 1;
  return most * level * std::max(1.0, std::abs(matrix.header->scale)) * 64;
}

/// Decodes a matrix on both backends, into the widest type. The results must nearly agree.
void compare(const CompressedView& matrix) {
  const bool wide = dtype_bytes(matrix.header->bound) == 8;
  const CodecSpec spec{.patch = matrix.header->patch,
                       .transform = matrix.header->transform,
                       .quantizer = matrix.header->quantizer,
                       .double_precision = wide};
  const auto serial = make_codec<Serial>(spec);
  const auto simd = make_codec<DefaultBackend>(spec);
  const DType dtype = wide ? DType::f64 : DType::f32;
  serial->validate(matrix, dtype);
  simd->validate(matrix, dtype);
  const std::size_t count = matrix.header->rows * matrix.header->cols;
  if (count > kMost) return;
  const auto decode = [&](const AnyCodec& with, auto zero) {
    std::vector<decltype(zero)> out(count, zero);
    with.decode_add(matrix, dtype, out.data(), out.data(), 1, SerialExecutor{});
    return out;
  };
  const auto nearly_equal = [&](auto zero, double largest, double tolerance) {
    const auto a = decode(*serial, zero);
    const auto b = decode(*simd, zero);
    const double most = magnitude(matrix);
    if (most > largest) return;  // it overflows, but not everywhere in the same way
    for (std::size_t i = 0; i < count; ++i) {
      require(std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])) <= tolerance * most);
    }
  };
  if (wide)
    nearly_equal(0.0, 1e300, 1e-12);
  else
    nearly_equal(0.0F, 1e34, 1e-4);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return 0;
  const std::size_t length = std::min<std::size_t>(data[0] + 256u * data[1], size - 3);
  const std::string_view text(reinterpret_cast<const char*>(data) + 3, length);
  Source source(std::as_bytes(std::span(data, size)).subspan(3 + length));
  try {
    Container archive;
    Container base;
    build(io::parse_manifest(text, "fuzz", {.limits = limits()}), text, data[2], source, archive,
          base);
    const MemoryFile archive_file = archive.file({{"format", "deltadct"}, {"version", "1"}});
    const MemoryFile base_file = base.file({});
    const auto opened = io::DeltaArchive::open(
        archive_file.path(), {io::Access::map, limits(), io::Links::follow, io::Checksums::ignore});
    restore_everything(io::Model::open(base_file.path()), opened);
    for (const io::ManifestEntry& entry : opened.entries()) {
      if (!io::has_delta(entry.mode)) continue;
      try {
        const io::StoredDelta delta = opened.delta(entry);
        for (std::size_t k = 0; k < delta.size(); ++k) compare(delta.view(k));
      } catch (const Error&) {
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
