// Tensors without loss: each chunk of 1 MiB as whatever zstd makes smallest of its bytes, of their
// XOR with the base's, and of that XOR with first bytes, second bytes, ... of the elements apart.
//
//   u32 x chunks   16 * stored bytes + coding; padded with zeros to a multiple of 8
//   chunks         one after another; padded with zeros to a multiple of 8
//
// A base that is shorter than the tensor, or absent, is zero beyond its end.
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

namespace deltadct::inline DELTADCT_ABI::io {

/// Bytes of a tensor that are coded together, and can be read without the rest.
inline constexpr std::size_t kChunkBytes = std::size_t{1} << 20;

/// What a chunk's stored bytes are.
enum class Coding : std::uint32_t {
  plain = 0,  ///< the bytes themselves
  zstd = 1,   ///< a zstd frame of the bytes
  xored = 2,  ///< a zstd frame of the bytes XOR those of the base
  split = 3,  ///< the same, all first bytes of the elements before all second ones, ...
};

namespace detail {

inline constexpr int kZstdLevel = 3;
/// What decides on a chunk's coding: so much of its beginning. A multiple of every known dtype's
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

/// out ^= base, which may be shorter.
inline void xor_with(std::span<std::byte> out, std::span<const std::byte> base) noexcept {
  for (std::size_t i = 0; i < std::min(out.size(), base.size()); ++i) out[i] ^= base[i];
}

/// Plane b holds byte b of every element; bytes of an element cut off stay behind at the end.
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

/// Codes chunks of one tensor, one at a time.
class ChunkEncoder {
 public:
  explicit ChunkEncoder(std::size_t element) : element_(element), context_(ZSTD_createCCtx()) {
    if (!context_) throw std::bad_alloc();
  }

  /// Returns the coding; `out` becomes the stored bytes.
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

/// Bytes of the table before the chunks.
inline std::size_t chunk_table_bytes(std::uint64_t bytes) noexcept {
  return padded(chunk_count(bytes) * 4);
}

/// Where the chunks of a tensor lie. Throws corrupt_data unless the table fits a section of
/// `section_bytes`, padding included.
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

/// The same of a whole section, at whose end padding is zero, too.
inline std::vector<ChunkPlace> read_chunks(std::span<const std::byte> section,
                                           std::uint64_t bytes) {
  const std::size_t table = chunk_table_bytes(bytes);
  if (section.size() < table) fail_lossless("size of the section");
  auto places = read_chunk_table(section.first(table), bytes, section.size());
  const std::size_t end = places.empty() ? table : places.back().offset + places.back().stored;
  if (!is_zero(section.subspan(end))) fail_lossless("padding is not zero");
  return places;
}

/// Restores chunks of one tensor, one at a time.
class ChunkDecoder {
 public:
  explicit ChunkDecoder(std::size_t element) : element_(element), context_(ZSTD_createDCtx()) {
    if (!context_) throw std::bad_alloc();
  }

  /// Throws corrupt_data where the stored bytes are seen not to decode to exactly `bytes` without
  /// being decoded.
  static void check(Coding coding, std::span<const std::byte> stored, std::size_t bytes) {
    if (coding == Coding::plain) return;  // its size is in the table
    // Nothing but one frame: zstd would go on to a second, and pass over what it may skip.
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

/// The section that stores `bytes`, whose elements have `element` bytes, given a base that may be
/// shorter or empty; nothing where it would be longer than `most`, which is found out as soon as so
/// many chunks are coded. The same for any executor.
template <concepts::Executor Executor>
std::optional<std::vector<std::byte>> encode_lossless_within(std::span<const std::byte> bytes,
                                                             std::span<const std::byte> base,
                                                             std::size_t element,
                                                             std::uint64_t most,
                                                             const Executor& executor) {
  const std::size_t count = detail::chunk_count(bytes.size());
  std::vector<std::byte> section(detail::chunk_table_bytes(bytes.size()));
  // So many at a time that threads are busy, and that little is coded in vain.
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

/// The same, however long it is.
template <concepts::Executor Executor>
std::vector<std::byte> encode_lossless(std::span<const std::byte> bytes,
                                       std::span<const std::byte> base, std::size_t element,
                                       const Executor& executor) {
  constexpr std::uint64_t kAny = std::numeric_limits<std::uint64_t>::max();
  return *encode_lossless_within(bytes, base, element, kAny, executor);
}

/// Restores the whole tensor. Throws corrupt_data where the section does not hold out.size() bytes.
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

/// Checks a section that holds `bytes` without the base, of which `base_bytes` are in it, chunk by
/// chunk: decodes as much as `budget` has left, which is counted down, and of chunks beyond that
/// looks at the frames. Passes to fn(bytes) what the tensor is known to begin with, in turn;
/// returns whether that is all of it. Throws corrupt_data.
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

}  // namespace deltadct::inline DELTADCT_ABI::io
