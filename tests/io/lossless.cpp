// Lossless sections: every byte is restored, and anything else is refused.
#include <deltadct/io/lossless.hpp>

#include "support.hpp"

#include <array>
#include <cstdint>

#include <zstd.h>

using namespace io_test;
using deltadct::SerialExecutor;
using io::Coding;
using io::kChunkBytes;

namespace {

/// Runs the indices from last to first.
struct Backwards {
  template <class Fn>
  void parallel_for(std::size_t n, Fn&& fn) const {
    while (n-- > 0) fn(n);
  }
};

/// Random bytes, the same on every machine.
Bytes scrambled(std::size_t count, unsigned seed) {
  std::mt19937_64 bits(seed);
  Bytes bytes(count);
  for (std::size_t i = 0; i < count; i += 8) {
    const std::uint64_t word = bits();
    std::memcpy(bytes.data() + i, &word, std::min<std::size_t>(8, count - i));
  }
  return bytes;
}

Bytes text(std::size_t count) {
  const std::string_view words = "the weights of a model, fine-tuned and kept without any loss; ";
  Bytes bytes;
  while (bytes.size() < count) {
    const Bytes more = bytes_of(std::string(words) + std::to_string(bytes.size() * 7));
    bytes.insert(bytes.end(), more.begin(), more.end());
  }
  bytes.resize(count);
  return bytes;
}

/// Bytes for all kinds of chunks: regular, random, and near the base.
Bytes mixed(std::size_t count, const Bytes& base) {
  Bytes bytes = scrambled(count, 1);
  for (std::size_t at = 0; at < count; ++at) {
    if (at / 1000 % 3 == 1) bytes[at] = static_cast<std::byte>(at % 5);
    if (at / 1000 % 3 == 2 && at < base.size()) bytes[at] = base[at];
  }
  return bytes;
}

template <class Executor = SerialExecutor>
Bytes encode(const Bytes& bytes, const Bytes& base, std::size_t element,
             const Executor& executor = {}) {
  return io::encode_lossless(bytes, base, element, executor);
}

/// The contents of a section stored without a base, chunk by chunk.
Bytes joined_chunks(const Bytes& section, std::size_t bytes, std::size_t element = 1) {
  Bytes out;
  double budget = 1e12;
  const bool is_known = io::check_lossless(
      section, bytes, 0, element, budget,
      [&](std::span<const std::byte> chunk) { out.insert(out.end(), chunk.begin(), chunk.end()); });
  CHECK(is_known);
  CHECK(budget == 1e12 - static_cast<double>(bytes));
  return out;
}

Bytes decode(const Bytes& section, std::size_t bytes, const Bytes& base = {},
             std::size_t element = 1) {
  Bytes out(bytes, std::byte{0xAA});
  io::decode_lossless(section, base, element, out, SerialExecutor{});
  if (base.empty()) CHECK(joined_chunks(section, bytes, element) == out);
  return out;
}

std::uint32_t word_of(const Bytes& section, std::size_t chunk) {
  std::uint32_t word = 0;
  REQUIRE(section.size() >= 4 * chunk + 4);
  std::memcpy(&word, section.data() + 4 * chunk, 4);
  return word;
}

void set_word(Bytes& section, std::size_t chunk, std::uint32_t word) {
  std::memcpy(section.data() + 4 * chunk, &word, 4);
}

Coding coding_of(const Bytes& section, std::size_t chunk = 0) {
  return static_cast<Coding>(word_of(section, chunk) % 16);
}

std::size_t stored_of(const Bytes& section, std::size_t chunk = 0) {
  return word_of(section, chunk) / 16;
}

Bytes zstd_frame(std::span<const std::byte> bytes) {
  Bytes frame(ZSTD_compressBound(bytes.size()));
  frame.resize(ZSTD_compress(frame.data(), frame.size(), bytes.data(), bytes.size(), 3));
  return frame;
}

/// A section assembled by hand.
Bytes section_of(const std::vector<std::pair<Coding, Bytes>>& chunks) {
  Bytes section(io::detail::padded(4 * chunks.size()));
  for (std::size_t k = 0; k < chunks.size(); ++k) {
    set_word(section, k,
             static_cast<std::uint32_t>(16 * chunks[k].second.size()) |
                 static_cast<std::uint32_t>(chunks[k].first));
  }
  for (const auto& [coding, stored] : chunks) {
    section.insert(section.end(), stored.begin(), stored.end());
  }
  section.resize(io::detail::padded(section.size()));
  return section;
}

void check_refused(const Bytes& section, std::size_t bytes, const char* detail = "") {
  const Error error = caught([&] { decode(section, bytes); });
  const Error in_turn = caught([&] { joined_chunks(section, bytes); });
  INFO(std::string(error.what()));
  CHECK(std::string(in_turn.what()) == error.what());
  CHECK(error.code() == Errc::corrupt_data);
  CHECK(names(error, "lossless section"));
  CHECK(names(error, detail));
}

}  // namespace

TEST_SUITE("round trip") {
  TEST_CASE("every size and element, with a base that is absent, shorter, equal or longer") {
    for (const std::size_t bytes :
         {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{4099},
          io::detail::kTrialBytes, io::detail::kTrialBytes + 3, kChunkBytes - 1, kChunkBytes,
          kChunkBytes + 1, 3 * kChunkBytes + 5}) {
      CAPTURE(bytes);
      const Bytes all = scrambled(bytes + 5000, 2);
      const auto part = [&](std::size_t length) {
        return Bytes(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(length));
      };
      for (const Bytes& base : {Bytes{}, part(bytes / 2), part(bytes), part(bytes + 5000)}) {
        const Bytes tuned = mixed(bytes, base);
        // Longer ones are tested with one element size only: their planes are those of single
        // chunks.
        for (const std::size_t element : {1u, 2u, 4u, 8u}) {
          if (bytes > 2 * kChunkBytes && element != 2) continue;
          CAPTURE(element);
          const Bytes section = encode(tuned, base, element);
          CHECK(section.size() % 8 == 0);
          CHECK(section.size() >= io::detail::chunk_table_bytes(bytes));
          CHECK(decode(section, bytes, base, element) == tuned);
        }
      }
    }
  }

  TEST_CASE("nothing takes no bytes") {
    CHECK(encode({}, {}, 4).empty());
    CHECK(encode({}, Bytes(10), 4).empty());
    CHECK(decode({}, 0).empty());
  }

  TEST_CASE("the bytes of the base itself take hardly any, whatever they are") {
    const Bytes base = scrambled(2 * kChunkBytes + 3, 4);
    CHECK(encode(base, base, 4).size() < 1000);
    CHECK(decode(encode(base, base, 4), base.size(), base, 4) == base);
  }

  TEST_CASE("a section is never much larger than the bytes") {
    for (const std::size_t bytes : {std::size_t{1}, std::size_t{1000}, 2 * kChunkBytes + 1}) {
      const Bytes section = encode(scrambled(bytes, 5), scrambled(bytes, 6), 2);
      CHECK(section.size() <= io::detail::padded(io::detail::chunk_table_bytes(bytes) + bytes));
    }
  }

  TEST_CASE("a base beyond its end is zero") {
    const Bytes base = scrambled(1000, 7);
    Bytes longer = base;
    longer.resize(1 << 16);
    const Bytes tuned = mixed(1 << 16, longer);
    CHECK(encode(tuned, base, 2) == encode(tuned, longer, 2));
    CHECK(decode(encode(tuned, base, 2), tuned.size(), longer, 2) == tuned);
    // Base bytes beyond the end of the tensor do not matter.
    longer.resize(1 << 17, std::byte{0xEE});
    CHECK(encode(tuned, base, 2) == encode(tuned, longer, 2));
  }

  TEST_CASE("another base gives other bytes, or none") {
    const Bytes base = scrambled(10'000, 8);
    Bytes tuned = base;
    tuned[77] ^= std::byte{1};
    Bytes other = base;
    other[5000] ^= std::byte{2};
    CHECK(decode(encode(tuned, base, 2), tuned.size(), other, 2) != tuned);
  }
}

TEST_SUITE("codings") {
  TEST_CASE("bytes without order are kept plain") {
    const Bytes bytes = scrambled(100'000, 1);
    const Bytes section = encode(bytes, {}, 4);
    CHECK(coding_of(section) == Coding::plain);
    CHECK(stored_of(section) == bytes.size());
    CHECK(std::equal(bytes.begin(), bytes.end(), section.begin() + 8));
    CHECK(coding_of(encode(bytes, scrambled(100'000, 2), 4)) == Coding::plain);
    CHECK(coding_of(encode(Bytes(1), {}, 1)) == Coding::plain);
  }

  TEST_CASE("text is kept as zstd makes it, whatever the base") {
    const Bytes bytes = text(100'000);
    for (const Bytes& base : {Bytes{}, scrambled(100'000, 3)}) {
      const Bytes section = encode(bytes, base, 1);
      CHECK(coding_of(section) == Coding::zstd);
      CHECK(section.size() < bytes.size() / 4);
    }
  }

  TEST_CASE("a few changed bytes are kept relative to the base") {
    const Bytes base = scrambled(100'000, 4);
    Bytes bytes = base;
    for (std::size_t at = 0; at < bytes.size(); at += 9973) bytes[at] ^= std::byte{0x5A};
    const Bytes section = encode(bytes, base, 1);
    CHECK(coding_of(section) == Coding::xored);
    CHECK(section.size() < 400);
  }

  TEST_CASE("floats that all moved a little are kept with first bytes and second ones apart") {
    const Tensor base = noise("w", DType::f32, {50'000}, 5);
    const Tensor tuned = moved(base, 1e-5, 6);
    const Bytes section = encode(tuned.bytes, base.bytes, 4);
    CHECK(coding_of(section) == Coding::split);
    CHECK(section.size() < tuned.bytes.size() * 3 / 4);
    const Tensor half_base = noise("w", DType::bf16, {50'000}, 5);
    const Tensor half_tuned = moved(half_base, 1e-3, 6);
    const Bytes half = encode(half_tuned.bytes, half_base.bytes, 2);
    CHECK(coding_of(half) == Coding::split);
    CHECK(half.size() < half_tuned.bytes.size() / 2);
  }

  TEST_CASE("floats without a base gain from their order, too") {
    const Bytes bytes = noise("w", DType::bf16, {50'000}, 7).bytes;
    const Bytes section = encode(bytes, {}, 2);
    CHECK(coding_of(section) == Coding::split);
    CHECK(section.size() < bytes.size() * 9 / 10);
  }

  TEST_CASE("the coding is the smallest of a chunk that is tried whole") {
    const Bytes base = scrambled(40'000, 8);
    for (const Bytes& bytes : {scrambled(40'000, 9), text(40'000), mixed(40'000, base), base}) {
      for (const std::size_t element : {1u, 2u, 4u, 8u}) {
        Bytes xored = bytes;
        io::detail::xor_with(xored, base);
        Bytes planes(xored.size());
        io::detail::split_planes(xored, planes, element);
        const std::size_t best = std::min({bytes.size(), zstd_frame(bytes).size(),
                                           zstd_frame(xored).size(), zstd_frame(planes).size()});
        CHECK(stored_of(encode(bytes, base, element)) == best);
      }
    }
  }

  TEST_CASE("every chunk has a coding of its own") {
    const Bytes base = scrambled(4 * kChunkBytes, 10);
    Bytes bytes = scrambled(4 * kChunkBytes, 11);
    const auto at = [&](std::size_t chunk) {
      return bytes.begin() + static_cast<std::ptrdiff_t>(chunk * kChunkBytes);
    };
    std::ranges::copy(text(kChunkBytes), at(1));
    std::copy_n(base.begin() + 2 * kChunkBytes, kChunkBytes, at(2));
    bytes[2 * kChunkBytes + 9] ^= std::byte{4};
    const Tensor from = noise("w", DType::f32, {kChunkBytes / 4}, 12);
    Bytes near_base = base;
    std::ranges::copy(from.bytes, near_base.begin() + 3 * kChunkBytes);
    std::ranges::copy(moved(from, 1e-5, 13).bytes, at(3));
    const Bytes section = encode(bytes, near_base, 4);
    CHECK(coding_of(section, 0) == Coding::plain);
    CHECK(coding_of(section, 1) == Coding::zstd);
    CHECK(coding_of(section, 2) == Coding::xored);
    CHECK(coding_of(section, 3) == Coding::split);
    CHECK(decode(section, bytes.size(), near_base, 4) == bytes);
  }

  TEST_CASE("the stored bytes do not depend on the executor") {
    const Bytes base = scrambled(3 * kChunkBytes, 14);
    const Bytes bytes = mixed(3 * kChunkBytes + 11, base);
    const Bytes section = encode(bytes, base, 2);
    CHECK(encode(bytes, base, 2, Backwards{}) == section);
    Bytes out(bytes.size());
    io::decode_lossless(section, base, 2, out, Backwards{});
    CHECK(out == bytes);
  }

  TEST_CASE("planes of elements, and what is left of one") {
    const Bytes bytes = bytes_of("a1b2c3d");
    Bytes planes(bytes.size());
    io::detail::split_planes(bytes, planes, 2);
    CHECK(planes == bytes_of("abc123d"));
    for (const std::size_t element : {1u, 2u, 4u, 8u}) {
      for (const std::size_t count : {0u, 1u, 3u, 8u, 29u, 64u}) {
        const Bytes from = scrambled(count, 1);
        Bytes split(count);
        Bytes joined(count);
        io::detail::split_planes(from, split, element);
        io::detail::join_planes(split, joined, element);
        CHECK(joined == from);
      }
    }
  }
}

TEST_SUITE("malformed section") {
  TEST_CASE("an unknown coding") {
    for (std::uint32_t coding = 4; coding < 16; ++coding) {
      check_refused(section_of({{static_cast<Coding>(coding), Bytes(10)}}), 10, "unknown coding");
    }
  }

  TEST_CASE("a plain chunk of another size than its tensor's") {
    for (const std::size_t stored : {0u, 9u, 11u, 16u}) {
      check_refused(section_of({{Coding::plain, Bytes(stored)}}), 10, "plain chunk");
    }
    const Bytes whole(kChunkBytes);
    check_refused(section_of({{Coding::plain, Bytes(5)}, {Coding::plain, whole}}), kChunkBytes + 5,
                  "plain chunk");
    check_refused(section_of({{Coding::plain, Bytes(kChunkBytes + 1)}, {Coding::plain, Bytes(4)}}),
                  kChunkBytes + 5, "plain chunk");
    CHECK(decode(section_of({{Coding::plain, whole}, {Coding::plain, Bytes(5)}}),
                 kChunkBytes + 5) == Bytes(kChunkBytes + 5));
  }

  TEST_CASE("a chunk that reaches beyond the section") {
    const Bytes frame = zstd_frame(text(1000));
    const Bytes section = section_of({{Coding::zstd, frame}});
    for (const std::uint32_t stored :
         {static_cast<std::uint32_t>(section.size()) - 7, static_cast<std::uint32_t>(1) << 20,
          static_cast<std::uint32_t>(0xFFFFFFF)}) {
      for (const std::uint32_t coding : {1u, 2u, 3u}) {
        Bytes longer = section;
        set_word(longer, 0, 16 * stored + coding);
        check_refused(longer, 1000, "longer than the section");
      }
    }
    // The first of two chunks claims the second one's bytes, too.
    Bytes two =
        section_of({{Coding::zstd, zstd_frame(Bytes(kChunkBytes))}, {Coding::plain, Bytes(8)}});
    set_word(two, 0, word_of(two, 0) + 16 * 8);
    check_refused(two, kChunkBytes + 8, "longer than the section");
  }

  TEST_CASE("a zstd frame that is cut off") {
    const Bytes frame = zstd_frame(text(1000));
    for (std::size_t length = 0; length < frame.size(); ++length) {
      const Bytes cut(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(length));
      for (const Coding coding : {Coding::zstd, Coding::xored, Coding::split}) {
        check_refused(section_of({{coding, cut}}), 1000);
      }
    }
  }

  TEST_CASE("a zstd frame that is damaged gives other bytes or is refused, nothing else") {
    const Bytes frame = zstd_frame(text(300));
    std::size_t refused = 0;
    for (std::size_t at = 0; at < frame.size(); ++at) {
      for (unsigned bit = 1; bit < 256; bit *= 2) {
        Bytes damaged = frame;
        damaged[at] ^= static_cast<std::byte>(bit);
        try {
          decode(section_of({{Coding::zstd, damaged}}), 300);
        } catch (const Error& error) {
          CHECK(error.code() == Errc::corrupt_data);
          ++refused;
        }
      }
    }
    CHECK(refused > frame.size());
  }

  TEST_CASE("a zstd frame that is too short or too long") {
    for (const Coding coding : {Coding::zstd, Coding::xored, Coding::split}) {
      check_refused(section_of({{coding, {}}}), 10, "not one zstd frame");
      for (const std::size_t bytes : {0u, 1u, 9u}) {
        check_refused(section_of({{coding, zstd_frame(Bytes(bytes))}}), 10, "too short");
      }
      for (const std::size_t bytes : {std::size_t{11}, std::size_t{100}, 16 * kChunkBytes}) {
        check_refused(section_of({{coding, zstd_frame(Bytes(bytes))}}), 10);
      }
    }
    // Nor may a chunk extend into the next one.
    const Bytes frame = zstd_frame(Bytes(kChunkBytes + 1));
    check_refused(section_of({{Coding::zstd, frame}, {Coding::plain, Bytes(1)}}), kChunkBytes + 1);
  }

  TEST_CASE("bytes after a zstd frame") {
    Bytes frame = zstd_frame(text(1000));
    frame.push_back(std::byte{0});
    check_refused(section_of({{Coding::zstd, frame}}), 1000);
    frame.resize(frame.size() + 100, std::byte{0x28});
    check_refused(section_of({{Coding::zstd, frame}}), 1000);
  }

  TEST_CASE("a second zstd frame, or one that is skipped, is no part of a chunk") {
    const Bytes frame = zstd_frame(text(1000));
    Bytes skippable{std::byte{0x50}, std::byte{0x2A}, std::byte{0x4D}, std::byte{0x18},
                    std::byte{3},    std::byte{0},    std::byte{0},    std::byte{0},
                    std::byte{1},    std::byte{2},    std::byte{3}};
    const auto both = [](Bytes first, const Bytes& second) {
      first.insert(first.end(), second.begin(), second.end());
      return first;
    };
    for (const Bytes& stored :
         {both(frame, skippable), both(skippable, frame), both(frame, zstd_frame({})),
          both(zstd_frame(text(400)), zstd_frame(Bytes(600)))}) {
      CAPTURE(stored.size());
      const Bytes section = section_of({{Coding::zstd, stored}});
      CHECK_THROWS_AS(decode(section, 1000), Error);
    }
  }

  TEST_CASE("a table that is shorter than the tensor needs") {
    for (const std::size_t bytes : {std::size_t{1}, kChunkBytes, 3 * kChunkBytes + 5}) {
      for (std::size_t length = 0; length < io::detail::chunk_table_bytes(bytes); ++length) {
        check_refused(Bytes(length), bytes, "size of the section");
      }
    }
    // A sound section, but of another tensor.
    check_refused(section_of({{Coding::plain, Bytes(10)}}), kChunkBytes);
    check_refused(section_of({{Coding::plain, Bytes(10)}}), 11);
    check_refused(section_of({{Coding::plain, Bytes(10)}}), 3 * kChunkBytes);
    check_refused(section_of({{Coding::plain, Bytes(10)}}), 0);
  }

  TEST_CASE("bytes after the last chunk, or too few of them") {
    const Bytes section = section_of({{Coding::plain, Bytes(10)}});
    CHECK(section.size() == 24);
    CHECK(decode(section, 10) == Bytes(10));
    for (std::size_t length = 0; length < 40; ++length) {
      if (length == section.size()) continue;
      Bytes other = section;
      other.resize(length);
      check_refused(other, 10);
    }
    check_refused(Bytes(8), 0, "size of the section");
    check_refused(Bytes(1), 0, "size of the section");
  }

  TEST_CASE("padding that is not zero, of the table and of the chunks") {
    const Bytes section = section_of({{Coding::plain, Bytes(10)}});
    for (const std::size_t at : {4u, 5u, 7u, 18u, 19u, 23u}) {
      for (const unsigned value : {1u, 0x80u}) {
        Bytes other = section;
        other[at] = static_cast<std::byte>(value);
        check_refused(other, 10, "padding is not zero");
      }
    }
  }

  TEST_CASE("any changed byte of a section is refused or decodes, nothing else") {
    const Bytes base = scrambled(500, 1);
    for (const Bytes& bytes : {text(500), mixed(500, base), base}) {
      const Bytes section = encode(bytes, base, 4);
      for (std::size_t at = 0; at < section.size(); ++at) {
        for (const unsigned change : {1u, 2u, 3u, 16u, 128u, 255u}) {
          Bytes other = section;
          other[at] ^= static_cast<std::byte>(change);
          try {
            decode(other, bytes.size(), base, 4);
          } catch (const Error& error) {
            CHECK(error.code() == Errc::corrupt_data);
          }
        }
      }
    }
  }

  TEST_CASE("the first malformed chunk is the one that is reported, whatever the executor") {
    const Bytes section = section_of({{Coding::zstd, zstd_frame(Bytes(kChunkBytes))},
                                      {Coding::zstd, zstd_frame(Bytes(9))},
                                      {Coding::zstd, Bytes(9)}});
    Bytes out(2 * kChunkBytes + 10);
    const Error forwards =
        caught([&] { io::decode_lossless(section, {}, 1, out, SerialExecutor{}); });
    const Error backwards = caught([&] { io::decode_lossless(section, {}, 1, out, Backwards{}); });
    CHECK(names(forwards, "too short"));
    CHECK(std::string(forwards.what()) == backwards.what());
  }
}
