// Tensors stored without loss, in chunks of 1 MiB. A chunk is compressed by zstd in the form that
// makes it smallest: its bytes, their XOR with the base's, or that XOR with the first bytes, second
// bytes, ... of the elements grouped. It is stored as it is if zstd does not make it smaller.
//
//   u32 x chunks   16 * stored bytes + coding; padded with zeros to a multiple of 8
//   chunks         one after another; padded with zeros to a multiple of 8
//
// Beyond the end of a base that is shorter than the tensor, or absent, its bytes count as zero.
#pragma once

#include <deltadct/core/arithmetic.hpp>
#include <deltadct/core/error.hpp>
#include <deltadct/core/executor.hpp>
#include <deltadct/io/padding.hpp>
#include <deltadct/io/run_each.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <zstd.h>
#include <zstd_errors.h>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// Bytes of a tensor that are coded together and can be read without the rest.
inline constexpr std::size_t kChunkBytes = std::size_t{1} << 20;

/// What the stored bytes of a chunk are.
enum class Coding : std::uint32_t {
  plain = 0,  ///< the bytes themselves
  zstd = 1,   ///< a zstd frame of the bytes
  xored = 2,  ///< a zstd frame of the bytes XOR those of the base
  split = 3,  ///< that XOR with all first bytes of the elements first, then all second ones, ...
};

namespace detail {

inline constexpr int kZstdLevel = 3;
/// The beginning of a chunk, by which its coding is chosen. A multiple of every known dtype's
/// bytes.
inline constexpr std::size_t kTrialBytes = std::size_t{1} << 17;

inline std::size_t chunk_count(std::uint64_t bytes) noexcept {
  return static_cast<std::size_t>(ceil_div<std::uint64_t>(bytes, kChunkBytes));
}

inline std::span<const std::byte> clipped(std::span<const std::byte> bytes, std::size_t offset,
                                          std::size_t length) noexcept {
  offset = std::min(offset, bytes.size());
  return bytes.subspan(offset, std::min(length, bytes.size() - offset));
}

/// out ^= base. The base may be shorter.
inline void xor_with(std::span<std::byte> out, std::span<const std::byte> base) noexcept {
  for (std::size_t i = 0; i < std::min(out.size(), base.size()); ++i) out[i] ^= base[i];
}

/// Plane b holds byte b of every element. The bytes of an incomplete element stay at the end.
inline void split_planes(std::span<const std::byte> from, std::span<std::byte> to,
                         std::size_t element) noexcept {
  const std::size_t count = from.size() / element;
  for (std::size_t b = 0; b < element; ++b) {
    for (std::size_t i = 0; i < count; ++i) to[b * count + i] = from[i * element + b];
  }
  std::ranges::copy(from.subspan(count * element),
                    to.begin() + static_cast<std::ptrdiff_t>(count * element));
}

inline void join_planes(std::span<const std::byte> from, std::span<std::byte> to,
                        std::size_t element) noexcept {
  const std::size_t count = from.size() / element;
  for (std::size_t b = 0; b < element; ++b) {
    for (std::size_t i = 0; i < count; ++i) to[i * element + b] = from[b * count + i];
  }
  std::ranges::copy(from.subspan(count * element),
                    to.begin() + static_cast<std::ptrdiff_t>(count * element));
}

struct FreeZstd {
  void operator()(ZSTD_CCtx* context) const noexcept { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const noexcept { ZSTD_freeDCtx(context); }
};

/// Encodes chunks of one tensor, one at a time.
class ChunkEncoder {
 public:
  explicit ChunkEncoder(std::size_t element) : element_(element), context_(ZSTD_createCCtx()) {
    if (!context_) throw std::bad_alloc();
  }

  /// Returns the coding and sets `out` to the stored bytes.
  Coding encode(std::span<const std::byte> bytes, std::span<const std::byte> base,
                std::vector<std::byte>& out) {
    Coding best = Coding::zstd;
    if (bytes.size() <= kTrialBytes) {
      best = smallest(bytes, base, out);
    } else {
      best = smallest(bytes.first(kTrialBytes), clipped(base, 0, kTrialBytes), out);
      compress(best, bytes, base, out);
    }
    if (out.size() < bytes.size()) return best;
    out.assign(bytes.begin(), bytes.end());
    return Coding::plain;
  }

 private:
  Coding smallest(std::span<const std::byte> bytes, std::span<const std::byte> base,
                  std::vector<std::byte>& out) {
    Coding best = Coding::zstd;
    compress(best, bytes, base, out);
    for (const Coding coding : {Coding::xored, Coding::split}) {
      if (coding == Coding::xored && base.empty()) continue;  // the same as zstd
      compress(coding, bytes, base, trial_);
      if (trial_.size() >= out.size()) continue;
      best = coding;
      out.swap(trial_);
    }
    return best;
  }

  void compress(Coding coding, std::span<const std::byte> bytes, std::span<const std::byte> base,
                std::vector<std::byte>& out) {
    std::span<const std::byte> from = bytes;
    if (coding != Coding::zstd) {
      xored_.assign(bytes.begin(), bytes.end());
      xor_with(xored_, base);
      from = xored_;
    }
    if (coding == Coding::split) {
      planes_.resize(bytes.size());
      split_planes(xored_, planes_, element_);
      from = planes_;
    }
    out.resize(ZSTD_compressBound(from.size()));
    const std::size_t size = ZSTD_compressCCtx(context_.get(), out.data(), out.size(), from.data(),
                                               from.size(), kZstdLevel);
    if (ZSTD_getErrorCode(size) == ZSTD_error_memory_allocation) throw std::bad_alloc();
    if (ZSTD_isError(size)) throw Error(Errc::io_failure, "zstd", ZSTD_getErrorName(size));
    out.resize(size);
  }

  std::size_t element_;
  std::unique_ptr<ZSTD_CCtx, FreeZstd> context_;
  std::vector<std::byte> xored_;
  std::vector<std::byte> planes_;
  std::vector<std::byte> trial_;
};

struct ChunkPlace {
  Coding coding;
  std::size_t offset;  ///< in the section
  std::size_t stored;
};

[[noreturn]] inline void fail_lossless(std::string_view what) {
  throw Error(Errc::corrupt_data, "lossless section", what);
}

/// Bytes of the table in front of the chunks.
inline std::size_t chunk_table_bytes(std::uint64_t bytes) noexcept {
  return padded(chunk_count(bytes) * 4);
}

/// Where the chunks of a tensor lie. Throws corrupt_data unless the table fits a section of
/// `section_bytes` bytes, including padding.
inline std::vector<ChunkPlace> read_chunk_table(std::span<const std::byte> table,
                                                std::uint64_t bytes, std::uint64_t section_bytes) {
  const std::size_t count = chunk_count(bytes);
  std::vector<ChunkPlace> places(count);
  std::size_t offset = table.size();
  if (section_bytes < offset) fail_lossless("size of the section");
  for (std::size_t k = 0; k < count; ++k) {
    std::uint32_t word = 0;
    std::memcpy(&word, table.data() + 4 * k, 4);
    places[k] = {static_cast<Coding>(word % 16), offset, word / 16};
    if (places[k].coding > Coding::split) fail_lossless("unknown coding of a chunk");
    const std::uint64_t whole = std::min<std::uint64_t>(kChunkBytes, bytes - k * kChunkBytes);
    if (places[k].coding == Coding::plain && places[k].stored != whole) {
      fail_lossless("size of a plain chunk");
    }
    if (places[k].stored > section_bytes - offset) fail_lossless("chunks longer than the section");
    offset += places[k].stored;
  }
  if (!is_zero(table.subspan(4 * count))) fail_lossless("padding is not zero");
  if (padded(offset) != section_bytes) fail_lossless("size of the section");
  return places;
}

/// The same for a whole section, in which the padding at the end must be zero, too.
inline std::vector<ChunkPlace> read_chunks(std::span<const std::byte> section,
                                           std::uint64_t bytes) {
  const std::size_t table = chunk_table_bytes(bytes);
  if (section.size() < table) fail_lossless("size of the section");
  auto places = read_chunk_table(section.first(table), bytes, section.size());
  const std::size_t end = places.empty() ? table : places.back().offset + places.back().stored;
  if (!is_zero(section.subspan(end))) fail_lossless("padding is not zero");
  return places;
}

/// Decodes chunks of one tensor, one at a time.
class ChunkDecoder {
 public:
  explicit ChunkDecoder(std::size_t element) : element_(element), context_(ZSTD_createDCtx()) {
    if (!context_) throw std::bad_alloc();
  }

  /// Throws corrupt_data if the stored bytes show, without being decoded, that they do not decode
  /// to exactly `bytes` bytes.
  static void check(Coding coding, std::span<const std::byte> stored, std::size_t bytes) {
    if (coding == Coding::plain) return;  // its size is in the table
    // Exactly one frame: zstd would decode a second one, too, and skip skippable frames.
    if (ZSTD_findFrameCompressedSize(stored.data(), stored.size()) != stored.size()) {
      fail_lossless("a chunk is not one zstd frame");
    }
    const auto said = ZSTD_getFrameContentSize(stored.data(), stored.size());
    if (said != ZSTD_CONTENTSIZE_UNKNOWN && said != bytes) {
      fail_lossless(said < bytes ? "a chunk is too short" : "a chunk is too long");
    }
    if (ZSTD_getDictID_fromFrame(stored.data(), stored.size()) != 0) {
      fail_lossless("a chunk needs a dictionary");
    }
  }

  /// Throws corrupt_data unless the stored bytes decode to exactly out.size() bytes.
  void decode(Coding coding, std::span<const std::byte> stored, std::span<const std::byte> base,
              std::span<std::byte> out) {
    check(coding, stored, out.size());
    if (coding == Coding::plain) {
      std::ranges::copy(stored, out.begin());
      return;
    }
    std::span<std::byte> to = out;
    if (coding == Coding::split) {
      planes_.resize(out.size());
      to = planes_;
    }
    const std::size_t size =
        ZSTD_decompressDCtx(context_.get(), to.data(), to.size(), stored.data(), stored.size());
    if (ZSTD_isError(size)) fail_lossless(ZSTD_getErrorName(size));
    if (size != out.size()) fail_lossless("a chunk is too short");
    if (coding == Coding::split) join_planes(planes_, out, element_);
    if (coding != Coding::zstd) xor_with(out, base);
  }

 private:
  std::size_t element_;
  std::unique_ptr<ZSTD_DCtx, FreeZstd> context_;
  std::vector<std::byte> planes_;
};

}  // namespace detail

/// The section that stores `bytes`, whose elements have `element` bytes each, given a base that may
/// be shorter or empty. Returns nothing if the section would be longer than `most`; it stops coding
/// as soon as that is clear. The result is the same for any executor.
template <concepts::Executor Executor>
std::optional<std::vector<std::byte>> encode_lossless_within(std::span<const std::byte> bytes,
                                                             std::span<const std::byte> base,
                                                             std::size_t element,
                                                             std::uint64_t most,
                                                             const Executor& executor) {
  const std::size_t count = detail::chunk_count(bytes.size());
  std::vector<std::byte> section(detail::chunk_table_bytes(bytes.size()));
  // Enough chunks at a time to keep threads busy, but few enough to code little in vain.
  constexpr std::size_t kMostAtOnce = 32;
  const std::size_t at_once =
      static_cast<std::size_t>(std::min<std::uint64_t>(kMostAtOnce, most / kChunkBytes + 1));
  std::vector<std::vector<std::byte>> chunks(at_once);
  std::vector<Coding> codings(at_once);
  for (std::size_t first = 0; first < count; first += at_once) {
    const std::size_t n = std::min(at_once, count - first);
    detail::run_each(executor, n, [&](std::size_t k) {
      codings[k] = detail::ChunkEncoder(element).encode(
          detail::clipped(bytes, (first + k) * kChunkBytes, kChunkBytes),
          detail::clipped(base, (first + k) * kChunkBytes, kChunkBytes), chunks[k]);
    });
    for (std::size_t k = 0; k < n; ++k) {
      const std::uint32_t word = static_cast<std::uint32_t>(16 * chunks[k].size()) |
                                 static_cast<std::uint32_t>(codings[k]);
      std::memcpy(section.data() + 4 * (first + k), &word, 4);
      section.insert(section.end(), chunks[k].begin(), chunks[k].end());
    }
    if (section.size() > most) return std::nullopt;
  }
  section.resize(detail::padded(section.size()));
  if (section.size() > most) return std::nullopt;
  return section;
}

/// The same without a limit on the length.
template <concepts::Executor Executor>
std::vector<std::byte> encode_lossless(std::span<const std::byte> bytes,
                                       std::span<const std::byte> base, std::size_t element,
                                       const Executor& executor) {
  constexpr std::uint64_t kAny = std::numeric_limits<std::uint64_t>::max();
  return *encode_lossless_within(bytes, base, element, kAny, executor);
}

/// Restores a whole tensor. Throws corrupt_data if the section does not hold out.size() bytes.
template <concepts::Executor Executor>
void decode_lossless(std::span<const std::byte> section, std::span<const std::byte> base,
                     std::size_t element, std::span<std::byte> out, const Executor& executor) {
  const auto places = detail::read_chunks(section, out.size());
  detail::run_each(executor, places.size(), [&](std::size_t k) {
    const std::size_t at = k * kChunkBytes;
    const std::size_t length = std::min(kChunkBytes, out.size() - at);
    detail::ChunkDecoder(element).decode(
        places[k].coding, section.subspan(places[k].offset, places[k].stored),
        detail::clipped(base, at, length), out.subspan(at, length));
  });
}

/// Checks a section that holds `bytes` bytes, chunk by chunk, without the base, which has
/// `base_bytes` bytes. Decodes chunks as long as `budget`, which is counted down, lasts; of later
/// chunks it checks only the frames. Passes the beginning of the tensor, as far as it is known
/// without the base, to fn(bytes) piece by piece. Returns whether that is the whole tensor. Throws
/// corrupt_data.
template <class Fn>
bool check_lossless(std::span<const std::byte> section, std::uint64_t bytes,
                    std::uint64_t base_bytes, std::size_t element, double& budget, Fn&& fn) {
  detail::ChunkDecoder decoder(element);
  std::vector<std::byte> chunk;
  std::uint64_t at = 0;
  bool is_known = true;
  for (const detail::ChunkPlace& place : detail::read_chunks(section, bytes)) {
    const auto stored = section.subspan(place.offset, place.stored);
    const auto length = static_cast<std::size_t>(std::min<std::uint64_t>(kChunkBytes, bytes - at));
    const auto cost = static_cast<double>(length);
    if (budget >= cost) {
      budget -= cost;
      chunk.resize(length);
      decoder.decode(place.coding, stored, {}, chunk);
      is_known = is_known && (place.coding < Coding::xored || at >= base_bytes);
    } else {
      detail::ChunkDecoder::check(place.coding, stored, length);
      is_known = false;
    }
    if (is_known) fn(std::span<const std::byte>(chunk));
    at += length;
  }
  return is_known;
}

}}}  // namespace deltadct::inline DELTADCT_ABI::io
