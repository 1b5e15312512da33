// Views of matrices: addressing, and the checks that reject what cannot be read or written.
#include "../support/caught.hpp"

#include <deltadct/core/matrix_view.hpp>

#include <cstdint>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

using namespace deltadct;
using namespace test;

namespace {

void refused(const MatrixView<float>& view, std::string_view detail) {
  const Error error = caught([&] { check_view(view, "weights"); });
  CHECK(error.code() == Errc::bad_view);
  CHECK(error.where() == "weights");
  CHECK(error.detail().find(detail) != std::string::npos);
  CHECK(std::string_view(error.what()).starts_with("weights: not a valid matrix view"));
}

void overlaps(std::size_t rows, std::size_t cols, std::ptrdiff_t row, std::ptrdiff_t col) {
  static float memory[64];
  const Error error =
      caught([&] { check_destination(MatrixView<float>(memory, rows, cols, row, col), "out"); });
  CHECK(error.code() == Errc::bad_view);
  CHECK(error.detail().find("overlap") != std::string::npos);
}

void accepted(std::size_t rows, std::size_t cols, std::ptrdiff_t row, std::ptrdiff_t col) {
  static float memory[64];
  CHECK_NOTHROW(check_destination(MatrixView<float>(memory, rows, cols, row, col), "out"));
}

}  // namespace

TEST_CASE("matrix_view: element (i, j) lies at i row strides and j column strides") {
  std::vector<int> memory(60);
  for (int k = 0; k < 60; ++k) memory[static_cast<std::size_t>(k)] = k;
  const MatrixView<int> dense(memory.data(), 6, 10);
  CHECK(dense(2, 3) == 23);
  const MatrixView<int> strided(memory.data(), 3, 4, 20, 2);
  CHECK(strided(2, 3) == 46);
  CHECK(dense.transposed()(3, 2) == 23);
  CHECK(dense.transposed().rows == 10);
  const MatrixView<int> block = dense.block(1, 2, 3, 4);
  CHECK(block(0, 0) == 12);
  CHECK(block(2, 3) == 35);
  CHECK(block.transposed()(3, 2) == 35);
  const MatrixView<const int> constant = dense;
  CHECK(&constant(5, 9) == &dense(5, 9));
}

TEST_CASE("matrix_view: emptiness is a matter of the shape") {
  CHECK(MatrixView<float>().empty());
  CHECK(MatrixView<float>(nullptr, 0, 5).empty());
  CHECK(MatrixView<float>(nullptr, 5, 0).empty());
  float x = 0;
  CHECK(!MatrixView<float>(&x, 1, 1).empty());
}

TEST_CASE("matrix_view: a view without memory or with strides that do not advance is refused") {
  float x[4] = {};
  refused({nullptr, 2, 2}, "null pointer");
  refused({x, 2, 2, 0, 1}, "strides 0, 1 are not positive");
  refused({x, 2, 2, 2, 0}, "strides 2, 0 are not positive");
  refused({x, 2, 2, -2, 1}, "strides -2, 1");
  refused({x, 2, 2, 2, -1}, "strides 2, -1");
}

TEST_CASE("matrix_view: strides of a dimension of one do not matter, nor those of none") {
  float x[4] = {};
  CHECK_NOTHROW(check_view(MatrixView<float>(x, 1, 4, 0, 1), "x"));
  CHECK_NOTHROW(check_view(MatrixView<float>(x, 4, 1, 1, 0), "x"));
  CHECK_NOTHROW(check_view(MatrixView<float>(x, 1, 1, -7, -7), "x"));
  CHECK_NOTHROW(check_view(MatrixView<float>(nullptr, 0, 5, 0, 0), "x"));
}

TEST_CASE("matrix_view: elements beyond the address space are refused") {
  float x[4] = {};
  constexpr auto far = std::numeric_limits<std::ptrdiff_t>::max();
  constexpr auto many = std::numeric_limits<std::size_t>::max();
  for (const std::size_t count : {many, many / 2, many / 4}) {
    refused({x, count, 1, 1, 1}, "leave the address space");
    refused({x, 1, count, 0, 1}, "leave the address space");
  }
  refused({x, 2, 2, far, 1}, "2 x 2 elements leave the address space");
  refused({x, 2, 2, 1, far}, "leave the address space");
  refused({x, 3, 3, far / 8, far / 8}, "leave the address space");
  refused({x, std::size_t{1} << 32, std::size_t{1} << 32, 1, 1 << 30}, "leave the address space");
  // In a dimension of one element, strides that would be invalid do not matter.
  CHECK_NOTHROW(check_view(MatrixView<float>(x, 1, 4, far, 1), "x"));
  CHECK_NOTHROW(check_view(MatrixView<float>(x, 4, 1, 1, -far), "x"));
  CHECK_NOTHROW(check_view(MatrixView<float>(x, many, 0, 1, 1), "x"));
}

TEST_CASE("matrix_view: strides that do not matter do not overflow where views are compared") {
  float x[16] = {};
  constexpr auto far = std::numeric_limits<std::ptrdiff_t>::max();
  for (const std::ptrdiff_t stride : {far, -far, -far - 1}) {
    const MatrixView<const float> row(x, 1, 4, stride, 1);
    const MatrixView<const float> col(x, 4, 1, 1, stride);
    CHECK_NOTHROW(check_apart(row, MatrixView<float>(x + 4, 1, 4, -stride / 2, 1), "out"));
    CHECK(caught([&] {
            check_apart(row, MatrixView<float>(x + 3, 1, 4, stride, 1), "out");
          }).code() == Errc::bad_view);
    CHECK_NOTHROW(check_apart(col, MatrixView<float>(x + 4, 4, 1, 1, stride), "out"));
    CHECK(caught([&] {
            check_apart(col, MatrixView<float>(x + 1, 4, 1, 1, stride), "out");
          }).code() == Errc::bad_view);
  }
}

TEST_CASE("matrix_view: a size that no array has is refused with the shape") {
  CHECK(count_elements(3, 5) == 15);
  CHECK(count_elements(SIZE_MAX, 0) == 0);
  CHECK(count_elements(PTRDIFF_MAX, 1) == PTRDIFF_MAX);
  const Error error = caught([] { count_elements(SIZE_MAX / 2, 3); });
  CHECK(error.code() == Errc::too_large);
  CHECK(error.detail() == shape_text(SIZE_MAX / 2, 3));
  CHECK(caught([] { count_elements(SIZE_MAX, 1); }).code() == Errc::too_large);
}

TEST_CASE("matrix_view: a destination whose elements share addresses is refused") {
  overlaps(4, 5, 4, 1);
  overlaps(4, 5, 1, 1);
  overlaps(4, 5, 1, 3);
  overlaps(2, 2, 1, 1);
  overlaps(3, 5, 8, 2);
}

TEST_CASE("matrix_view: dense, padded, spread and transposed destinations are accepted") {
  accepted(4, 5, 5, 1);
  accepted(4, 5, 9, 1);
  accepted(4, 5, 1, 4);
  accepted(3, 5, 10, 2);
  accepted(3, 5, 9, 2);
  accepted(2, 3, 5, 2);
  accepted(5, 3, 2, 10);
  accepted(1, 5, 0, 1);
  accepted(5, 1, 1, 0);
}

TEST_CASE("matrix_view: base and destination are the same elements or none in common") {
  float x[64] = {};
  const auto apart = [&](int base, int out, std::ptrdiff_t row, std::ptrdiff_t col) {
    try {
      check_apart(MatrixView<const float>(x + base, 3, 4, row, col),
                  MatrixView<float>(x + out, 3, 4, row, col), "out");
    } catch (const Error& error) {
      CHECK(error.code() == Errc::bad_view);
      return false;
    }
    return true;
  };
  CHECK(apart(0, 0, 4, 1));
  CHECK(apart(0, 12, 4, 1));
  CHECK(apart(12, 0, 4, 1));
  CHECK(apart(0, 4, 8, 1));  // the left and the right half of a matrix
  CHECK(apart(4, 0, 8, 1));
  CHECK(apart(0, 1, 8, 2));  // its even and its odd columns
  CHECK(apart(0, 4, 1, 8));  // its upper and its lower half, by columns
  CHECK(apart(16, 3, 8, 1) == false);
  CHECK(apart(0, 1, 4, 1) == false);
  CHECK(apart(4, 0, 4, 1) == false);
  CHECK(apart(0, 3, 8, 1) == false);
  CHECK(apart(8, 2, 8, 2) == false);
  CHECK(apart(0, 2, 1, 8) == false);

  // One layout, read in two ways.
  const MatrixView<const float> square(x, 4, 4);
  const MatrixView<float> turned(x, 4, 4, 1, 4);
  CHECK(caught([&] { check_apart(square, turned, "out"); }).code() == Errc::bad_view);
  const MatrixView<const float> row(x, 1, 4, -7, 1);
  CHECK_NOTHROW(check_apart(row, MatrixView<float>(x, 1, 4, 9, 1), "out"));
  CHECK(caught([&] { check_apart(row, MatrixView<float>(x + 1, 1, 4), "out"); }).code() ==
        Errc::bad_view);
}

TEST_CASE("matrix_view: a wrong shape is named with the expected one") {
  float x[6] = {};
  const MatrixView<float> view(x, 2, 3);
  CHECK_NOTHROW(check_shape(view, 2, 3, "out"));
  const Error error = caught([&] { check_shape(view, 3, 2, "out"); });
  CHECK(error.code() == Errc::shape_mismatch);
  CHECK(std::string_view(error.what()) == "out: shapes differ (2 x 3 where 3 x 2 is expected)");
}
