// A whole archive file, verified with its checksums ignored, in both access modes; and restored, on
// an empty base and on one of zeros that has what the archive needs.
#include "support.hpp"

using namespace fuzz;

namespace {

// An empty safetensors file.
constexpr std::string_view kEmptyModel("\x02\0\0\0\0\0\0\0{}", 10);

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const MemoryFile nothing(std::as_bytes(std::span(kEmptyModel)));
  static const io::Model empty = io::Model::open(nothing.path());
  const MemoryFile file(std::as_bytes(std::span(data, size)));
  for (const io::Access access : {io::Access::map, io::Access::read}) {
    try {
      const auto archive = io::DeltaArchive::open(
          file.path(),
          {access, limits(), io::Links::follow, io::Checksums::ignore, io::UnknownDType::keep});
      for (const io::ManifestEntry& entry : archive.entries()) {
        if (!io::has_delta(entry.mode)) continue;
        try {
          static_cast<void>(archive.delta(entry));
        } catch (const Error&) {
        }
      }
      for (const io::FileEntry& entry : archive.companions()) {
        std::uint64_t bytes = 0;
        try {
          archive.read(entry, [&](std::span<const std::byte> piece) { bytes += piece.size(); });
          require(bytes == entry.bytes);
        } catch (const Error&) {
        }
      }
      restore_everything(empty, archive, is_sound(archive));
      const MemoryFile zeros(base_for(archive));
      const io::Model base =
          io::Model::open(zeros.path(), {.unknown_dtype = io::UnknownDType::keep});
      restore_everything(base, archive);
      restore_otherwise(base, archive);
    } catch (const Error&) {
    }
  }
  return 0;
}
