// Outliers of a compressed matrix are added to the decoded patches: of whole matrices, of blocks,
// and with a factor.
#include "support.hpp"

#include <deltadct/baseline/bit_delta.hpp>

using namespace test;

namespace {

using Policy = PaperPolicy<float, 16>;

const std::vector<Outlier> kOutliers{{0, 0, 3}, {5, 17, -2.5}, {5, 18, 1}, {39, 49, 100}};

CompressedTensor compressed() {
  const Matrix<float> delta = random_matrix<float>(40, 50, 1);
  CompressedTensor tensor = DeltaCodec<Policy>{}.encode(delta.view());
  tensor.outliers = kOutliers;
  return tensor;
}

CompressedTensor without(CompressedTensor tensor) {
  tensor.outliers.clear();
  return tensor;
}

double value_at(std::size_t i, std::size_t j) {
  for (const Outlier& outlier : kOutliers) {
    if (outlier.row == i && outlier.col == j) return outlier.value;
  }
  return 0;
}

}  // namespace

TEST_CASE("outliers: are added once, wherever the weights lie") {
  const CompressedTensor tensor = compressed();
  const CompressedTensor bare = without(tensor);
  const DeltaCodec<Policy> codec;
  for (const Layout layout : kLayouts) {
    for (const double alpha : {1.0, -0.5}) {
      Matrix<float> with = random_matrix<float>(40, 50, 2, layout);
      Matrix<float> plain = random_matrix<float>(40, 50, 2, layout);
      codec.decode_add(tensor, with.view(), alpha);
      codec.decode_add(bare, plain.view(), alpha);
      for (std::size_t i = 0; i < 40; ++i) {
        for (std::size_t j = 0; j < 50; ++j) {
          const auto expected = plain.view()(i, j) + static_cast<float>(alpha * value_at(i, j));
          CHECK(with.view()(i, j) == expected);
        }
      }
      CHECK(with.margins_untouched());
    }
  }
}

TEST_CASE("outliers: a block has its own") {
  const CompressedTensor tensor = compressed();
  const DeltaCodec<Policy> codec;
  Matrix<float> whole(40, 50);
  codec.decode(tensor, whole.view());
  for (const auto& [row, col, rows, cols] :
       {std::array<std::size_t, 4>{0, 0, 40, 50}, {5, 18, 1, 1}, {0, 17, 6, 1}, {6, 0, 34, 49}}) {
    Matrix<float> block(rows, cols);
    for (std::size_t i = 0; i < rows; ++i) {
      for (std::size_t j = 0; j < cols; ++j) block.view()(i, j) = 0;
    }
    codec.decode_add_block(tensor, row, col, block.view());
    for (std::size_t i = 0; i < rows; ++i) {
      for (std::size_t j = 0; j < cols; ++j) {
        CHECK(block.view()(i, j) == whole.view()(row + i, col + j));
      }
    }
  }
}

TEST_CASE("outliers: encode() makes none, and forgets those that were there") {
  CompressedTensor tensor = compressed();
  CHECK(tensor.bytes() == without(tensor).bytes() + 4 * sizeof(Outlier));
  const DeltaCodec<Policy> codec;
  const Matrix<float> delta = random_matrix<float>(40, 50, 1);
  std::vector<std::byte> workspace(codec.encode_workspace_bytes(40, 50));
  codec.encode_into(tensor, workspace, delta.view());
  CHECK(tensor.outliers.empty());
}

TEST_CASE("outliers: those that are none are refused") {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const std::vector<Outlier>& outliers : {std::vector<Outlier>{{40, 0, 1}},
                                               {{0, 50, 1}},
                                               {{1, 1, 1}, {1, 1, 1}},
                                               {{2, 0, 1}, {1, 9, 1}},
                                               {{0, 0, infinity}},
                                               {{0, 0, 1e39}}}) {
    CompressedTensor tensor = compressed();
    DeltaCodec<Policy>::validate(tensor);
    tensor.outliers = outliers;
    CHECK(caught([&] { DeltaCodec<Policy>::validate(tensor); }).code() == Errc::corrupt_data);
  }
  const Matrix<float> delta = random_matrix<float>(40, 50, 1);
  CompressedTensor whole = BaselineCodec<BitDelta>{}.encode(delta.view());
  whole.outliers = kOutliers;
  CHECK(caught([&] { BaselineCodec<BitDelta>::validate(whole); }).code() == Errc::corrupt_data);
}
