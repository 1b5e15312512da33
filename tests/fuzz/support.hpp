// What the fuzz targets share: files in memory, and limits that keep a run short.
#pragma once

#include <deltadct/baseline/any_baseline.hpp>
#include <deltadct/io/apply.hpp>

#include <cstdint>
#include <cstdlib>
#include <string>

#include <sys/mman.h>

namespace fuzz {

using namespace deltadct;

/// Bytes as a file that is in no folder.
class MemoryFile {
 public:
  explicit MemoryFile(std::span<const std::byte> bytes)
      : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    if (descriptor_.get() == -1) std::abort();
    io::detail::write_at(descriptor_.get(), 0, bytes, "memory");
  }

  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_.get()); }

 private:
  io::detail::Descriptor descriptor_;
};

inline io::Limits limits() {
  io::Limits limits;
  limits.tensors = 1000;
  limits.bytes = 1 << 20;
  limits.file_bytes = 1 << 21;
  return limits;
}

/// Aborts, which is what a fuzzer looks for, if a property of the library does not hold.
inline void require(bool holds) {
  if (!holds) std::abort();
}

/// Whether an archive is found sound without its base.
inline bool is_sound(const io::DeltaArchive& archive) {
  try {
    io::verify_archive(archive, nullptr, with_baselines(make_codec<Serial>));
    return true;
  } catch (const Error&) {
    return false;
  }
}

/// A model of zeros with every tensor that an archive needs of its base, as far as they fit into a
/// mebibyte.
inline std::vector<std::byte> base_for(const io::DeltaArchive& archive) {
  std::vector<io::TensorInfo> tensors;
  std::uint64_t end = 0;
  for (const io::ManifestEntry& entry : archive.entries()) {
    if (!entry.base) continue;
    const auto bytes = io::tensor_bytes(entry.base->dtype, entry.base->shape);
    if (!bytes || *bytes > (1u << 20) - end) continue;
    tensors.push_back({entry.name, entry.base->dtype, entry.base->shape, end, end + *bytes});
    end += *bytes;
  }
  std::string text = io::detail::header_text(tensors, {}, "base");
  text.append((8 - text.size() % 8) % 8, ' ');
  std::vector<std::byte> file(8 + text.size() + end);
  const std::uint64_t length = text.size();
  std::memcpy(file.data(), &length, sizeof length);
  std::memcpy(file.data() + 8, text.data(), text.size());
  return file;
}

/// Restores every tensor of an archive in the fine-tune's dtype, and rounded at random.
inline void restore_otherwise(const io::Model& base, const io::DeltaArchive& archive) {
  const auto codecs = with_baselines(make_codec<Serial>);
  for (const io::OutputDTypes dtypes : {io::OutputDTypes::base, io::OutputDTypes::tuned}) {
    io::Restorer restorer(base, archive, codecs, SerialExecutor{},
                          {.wrong_base = io::WrongBase::accept,
                           .dtypes = dtypes,
                           .rounding = io::Rounding::stochastic});
    for (const io::ManifestEntry& entry : archive.entries()) {
      if (entry.mode == io::Mode::removed) continue;
      try {
        static_cast<void>(restorer.restore(entry));
      } catch (const Error&) {
      }
    }
  }
}

/// Restores every tensor of an archive, whole and in two blocks, which must agree unless one is
/// refused. An error in one tensor does not keep the others from being tried. A sound archive
/// causes no errors, except those about what the base lacks.
inline void restore_everything(const io::Model& base, const io::DeltaArchive& archive,
                               bool sound = false) {
  const auto codecs = with_baselines(make_codec<Serial>);
  io::Restorer restorer(base, archive, codecs, SerialExecutor{},
                        {.wrong_base = io::WrongBase::accept});
  for (const io::ManifestEntry& entry : archive.entries()) {
    if (entry.mode == io::Mode::removed) continue;
    std::vector<std::byte> whole;
    try {
      const auto bytes = restorer.restore(entry);
      whole.assign(bytes.begin(), bytes.end());
    } catch (const Error& error) {
      require(!sound || error.code() == Errc::missing_tensor);
      continue;
    }
    const io::MatrixStack stack = restorer.stack(archive.target(entry));
    const unsigned bits = dtype_bits(entry.dtype);
    const std::size_t top = stack.rows / 3;
    for (std::size_t k = 0; k < std::min<std::size_t>(stack.count, 4); ++k) {
      for (const io::Block& block : {io::Block{k, 0, 0, top, stack.cols},
                                     io::Block{k, top, 0, stack.rows - top, stack.cols}}) {
        const std::size_t first = (k * stack.rows + block.row) * stack.cols;
        try {
          const auto part = restorer.restore_block(entry, block);
          require(
              std::ranges::equal(part, std::span(whole).subspan(first * bits / 8, part.size())));
        } catch (const Error& error) {
          // The block begins or ends within a byte.
          if (error.code() != Errc::bad_range || bits % 8 == 0) throw;
        }
      }
    }
  }
}

}  // namespace fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
