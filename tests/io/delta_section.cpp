// The section of a delta: appended matrices are read back, whole or as a block, and what none can
// consist of is refused.
#include <deltadct/io/delta_section.hpp>
#include <deltadct/io/model.hpp>

#include "altered.hpp"

#include <cmath>

using namespace io_test;
using deltadct::CompressedTensor;
using deltadct::CompressedView;
using deltadct::RatioAllocator;
using deltadct::SerialExecutor;
using deltadct::TensorHeader;
using io::Block;
using io::Model;
using io::StoredDelta;
using io::TensorBytes;

namespace {

const RatioAllocator kMixes[] = {
    RatioAllocator{{0, 1.0}}, RatioAllocator{{4, 1.0}}, RatioAllocator{{2, 0.5}, {0, 0.5}},
    RatioAllocator{{8, 0.2}, {2, 0.5}, {0, 0.3}},
    RatioAllocator{{8, 0.1}, {6, 0.1}, {4, 0.1}, {3, 0.1}, {2, 0.2}, {1, 0.2}, {0, 0.2}}};

/// Two matrices compressed with a mix, 37 x 29 in patches of 4, and their section.
struct Section {
  explicit Section(const RatioAllocator& mix) {
    const auto codec = serial_codec({.patch = 4, .allocator = mix});
    const Bytes zero(37 * 29 * 4);
    for (CompressedTensor& matrix : matrices) {
      const Tensor tensor = noise("w", DType::f32, {37, 29}, static_cast<unsigned>(headers.size()));
      codec->encode_into(matrix, workspace, DType::f32, zero.data(), tensor.bytes.data(), 37, 29,
                         SerialExecutor{});
      io::append_matrix(bytes, matrix);
      headers.push_back(matrix.header);
      // As in a manifest, which does not store offsets.
      for (deltadct::WidthClass& k : headers.back().classes) k.bounds_at = k.codes_at = 0;
    }
  }

  /// The section as read from a file.
  TensorBytes stored() const {
    write_model(folder / "s", std::vector{Tensor{"s", DType::u8, {bytes.size()}, bytes}});
    TensorBytes result;
    const Model model = Model::open(folder / "s");
    model.read(model.tensors()[0], result);
    return result;
  }

  CompressedTensor matrices[2];
  std::vector<TensorHeader> headers;
  Bytes bytes;
  Bytes workspace;
  Folder folder;
};

void check_equal(const CompressedView& found, const CompressedView& expected) {
  CHECK(std::ranges::equal(found.bounds, expected.bounds));
  CHECK(std::ranges::equal(found.codes, expected.codes));
  CHECK(std::ranges::equal(found.places, expected.places, {}, &deltadct::PatchPlace::packed,
                           &deltadct::PatchPlace::packed));
  for (std::size_t k = 0; k < expected.header->classes.size(); ++k) {
    CHECK(found.header->classes[k].bounds_at == expected.header->classes[k].bounds_at);
    CHECK(found.header->classes[k].codes_at == expected.header->classes[k].codes_at);
  }
}

}  // namespace

TEST_CASE("a class is named in 0, 1, 2 or 4 bits") {
  const int expected[] = {0, 0, 1, 2, 2, 4, 4, 4};
  for (std::size_t classes = 0; classes < std::size(expected); ++classes) {
    CHECK(io::width_map_bits(classes) == expected[classes]);
  }
}

TEST_CASE("matrices are read back as they were appended") {
  for (const RatioAllocator& mix : kMixes) {
    const Section section(mix);
    CHECK(section.bytes.size() % 8 == 0);
    const StoredDelta delta = StoredDelta::of_section(section.stored(), section.headers);
    REQUIRE(delta.size() == 2);
    for (std::size_t k = 0; k < 2; ++k) check_equal(delta.view(k), section.matrices[k]);
  }
}

TEST_CASE("a section is its matrices' from the first byte to the last") {
  for (const RatioAllocator& mix : kMixes) {
    Section section(mix);
    const Bytes whole = section.bytes;
    const auto refused = [&] {
      return caught([&] { StoredDelta::of_section(section.stored(), section.headers); }).code();
    };
    for (const std::size_t less : {std::size_t{1}, std::size_t{8}, whole.size() / 2}) {
      section.bytes.resize(whole.size() - less);
      CHECK(refused() == Errc::corrupt_data);
    }
    section.bytes = whole;
    section.bytes.resize(whole.size() + 8);
    CHECK(refused() == Errc::corrupt_data);
  }
}

TEST_CASE("a block asks for the width map and its patches' parts, within the section") {
  for (const RatioAllocator& mix : kMixes) {
    const Section section(mix);
    const Tensor tensor{"s", DType::u8, {section.bytes.size()}, section.bytes};
    write_model(section.folder / "m", std::vector{tensor});
    const Model model = Model::open(section.folder / "m");
    std::uint64_t asked = 0;
    const auto read = [&](std::uint64_t offset, std::uint64_t length, TensorBytes& into) {
      asked += length;
      model.read(model.tensors()[0], offset, length, into);
    };
    const Block blocks[] = {
        {0, 0, 0, 37, 29}, {1, 0, 0, 37, 29}, {1, 5, 6, 7, 9}, {1, 36, 28, 1, 1}};
    for (const Block& block : blocks) {
      CAPTURE(block.row);
      asked = 0;
      const StoredDelta delta =
          StoredDelta::of_block(section.headers, section.bytes.size(), block, read);
      REQUIRE(delta.size() == 1);
      const CompressedView view = delta.view();
      const CompressedView whole = section.matrices[block.matrix];
      const std::size_t map =
          io::detail::width_map_bytes(whole.places.size(), whole.header->classes.size());
      CHECK(asked == map + view.bounds.size() + view.codes.size());
      const std::size_t first_row = block.row / 4;
      const std::size_t first_col = block.col / 4;
      const std::size_t cols = (block.col + block.cols + 3) / 4 - first_col;
      REQUIRE(view.places.size() == ((block.row + block.rows + 3) / 4 - first_row) * cols);
      for (std::size_t i = 0; i < view.places.size(); ++i) {
        const auto place = view.places[i];
        const auto from = whole.places[(first_row + i / cols) * 8 + first_col + i % cols];
        REQUIRE(place.width_class() == from.width_class());
        const auto& k = view.width_class(place);
        CHECK(std::equal(view.bounds_of(place),
                         view.bounds_of(place) + view.header->bounds_stride(k),
                         whole.bounds_of(from)));
        CHECK(std::equal(view.codes_of(place), view.codes_of(place) + view.header->codes_stride(k),
                         whole.codes_of(from)));
      }
    }
    for (const Block& block : {Block{0, 0, 0, 38, 1}, {1, 0, 30, 0, 0}, {1, 1, 0, SIZE_MAX, 1}}) {
      CHECK(caught([&] {
              StoredDelta::of_block(section.headers, section.bytes.size(), block, read);
            }).code() == Errc::bad_range);
    }
    for (const std::uint64_t bytes : {std::uint64_t{0}, std::uint64_t{section.bytes.size()} - 8}) {
      CHECK(caught([&] {
              StoredDelta::of_block(section.headers, bytes, {1, 0, 0, 1, 1}, read);
            }).code() == Errc::corrupt_data);
    }
  }
}

TEST_SUITE("container") {
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
}

TEST_SUITE("malformed delta") {
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
}
