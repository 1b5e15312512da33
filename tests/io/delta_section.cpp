// The section of a delta: appended matrices are read back, whole or as a block.
#include <deltadct/io/delta_section.hpp>
#include <deltadct/io/model.hpp>

#include "support.hpp"

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
