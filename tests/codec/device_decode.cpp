// The kernel that decodes on a device, against the serial backend: every patch size, width, element
// type, edge and stride.
#include "support.hpp"

#include <deltadct/codec/device/decode.hpp>

using namespace test;

namespace {

/// A compressed tensor where kernels find it.
class OnDevice {
 public:
  explicit OnDevice(const CompressedTensor& tensor) {
    memory_.resize(detail::lay_out_on_device(tensor.header, nullptr, arrays_));
    detail::lay_out_on_device(tensor.header, memory_.data(), arrays_);
    detail::for_each_copy(tensor, tensor.header, arrays_,
                          [&](const void* from, std::size_t to, std::size_t bytes) {
                            if (bytes != 0) std::memcpy(memory_.data() + to, from, bytes);
                          });
  }

  const detail::DeviceArrays& arrays() const { return arrays_; }

 private:
  Memory<std::byte> memory_;
  detail::DeviceArrays arrays_{};
};

struct Block {
  std::size_t row;
  std::size_t col;
  std::size_t rows;
  std::size_t cols;
};

/// How far `found` is from `expected`: the square of the difference over that of the delta; and how
/// many of so many elements differ.
struct Difference {
  double nmse;
  double unequal;
  double elements;
};

template <class U>
Difference difference(const Matrix<U>& found, const Matrix<U>& expected, const Matrix<U>& base) {
  double square = 0;
  double error = 0;
  double unequal = 0;
  for (std::size_t i = 0; i < found.rows(); ++i) {
    for (std::size_t j = 0; j < found.cols(); ++j) {
      const auto f = static_cast<double>(static_cast<compute_t<U>>(found.view()(i, j)));
      const auto e = static_cast<double>(static_cast<compute_t<U>>(expected.view()(i, j)));
      const auto b = static_cast<double>(static_cast<compute_t<U>>(base.view()(i, j)));
      error += (f - e) * (f - e);
      square += (e - b) * (e - b);
      unequal += f != e;
    }
  }
  const auto elements = static_cast<double>(found.rows() * found.cols());
  return {square == 0 ? error : error / square, unequal, elements};
}

template <class Policy, class U>
void check(const CompressedTensor& tensor, const Block& block, Layout layout, double alpha) {
  CAPTURE(block.row);
  CAPTURE(block.col);
  CAPTURE(block.rows);
  CAPTURE(block.cols);
  CAPTURE(static_cast<int>(layout));
  using Adds = detail::DecodeKernel<Policy, U, detail::DecodeMode::add>;
  using AddsInPlace = detail::DecodeKernel<Policy, U, detail::DecodeMode::add_in_place>;
  using Stores = detail::DecodeKernel<Policy, U, detail::DecodeMode::store>;
  using T = typename Adds::T;
  const OnDevice compressed(tensor);
  const auto region = [&](auto kernel) {
    return detail::DeviceRegion(tensor.header.cols, block.row, block.col, block.rows, block.cols,
                                Policy::patch, decltype(kernel)::type::Threads::patches);
  };
  const auto factor = static_cast<T>(alpha * tensor.header.scale);
  const Matrix<U> base = random_matrix<U>(block.rows, block.cols, 5, layout, 0.01);
  Matrix<U> expected = base;
  DeltaCodec<Policy, Serial>{}.decode_add_block(tensor, block.row, block.col, expected.view(),
                                                alpha);
  for (const bool backwards : {false, true}) {
    Matrix<U> in_place = base;
    run_kernel(AddsInPlace(compressed.arrays(), region(std::type_identity<AddsInPlace>{}),
                           {{}, in_place.view()}, factor),
               backwards);
    const Difference found = difference(in_place, expected, base);
    CHECK(found.nmse <= (std::same_as<U, T> ? 1e-10 : 1e-5));
    // Sums that differ in their last place are rounded to another element now and then: the
    // oftener, the finer elements are.
    if (std::same_as<U, bfloat16>) CHECK(found.unequal <= 1e-4 * found.elements + 2);
    if (std::same_as<U, half>) CHECK(found.unequal <= 8e-4 * found.elements + 4);
    CHECK(in_place.margins_untouched());

    Matrix<U> apart(block.rows, block.cols, Layout::padded);
    run_kernel(Adds(compressed.arrays(), region(std::type_identity<Adds>{}),
                    {base.view(), apart.view()}, factor),
               backwards);
    CHECK(difference(apart, in_place, base).unequal == 0);
    CHECK(apart.margins_untouched());

    Matrix<U> stored(block.rows, block.cols, layout);
    Matrix<U> zeros(block.rows, block.cols, layout);
    fill(zeros, 1, 0);
    Matrix<U> expected_alone = zeros;
    DeltaCodec<Policy, Serial>{}.decode_add_block(tensor, block.row, block.col,
                                                  expected_alone.view(), alpha);
    run_kernel(Stores(compressed.arrays(), region(std::type_identity<Stores>{}),
                      {{}, stored.view()}, factor),
               backwards);
    CHECK(difference(stored, expected_alone, zeros).nmse <= (std::same_as<U, T> ? 1e-10 : 1e-5));
    CHECK(stored.margins_untouched());
  }
}

template <class Policy, class U>
void check_all() {
  constexpr std::size_t P = Policy::patch;
  // More patches than a block takes, and edges that are not whole.
  constexpr std::size_t across =
      P * (detail::PatchThreads<compute_t<U>, Policy::patch>::patches + 1) + 1;
  constexpr std::size_t rows = 2 * P + P / 2;
  for (const Mix& mix : mixes_of_every_width<Policy>()) {
    CAPTURE(mix[0].bits);
    const DeltaCodec<Policy, Serial> codec(typename Policy::Allocator{RatioAllocator(mix)});
    const Matrix<U> delta = random_matrix<U>(rows, across, 3, Layout::dense, 0.001);
    const CompressedTensor tensor = codec.encode(delta.view());
    for (const Layout layout : {Layout::dense, Layout::aligned, Layout::transposed}) {
      check<Policy, U>(tensor, {0, 0, rows, across}, layout, 1);
    }
    check<Policy, U>(tensor, {P, 2 * P, P, across - 2 * P}, Layout::aligned, 0.5);
    check<Policy, U>(tensor, {P - 1, P + 1, P + 1, P}, Layout::aligned, 1);
    check<Policy, U>(tensor, {1, 2, rows - 2, across - 4}, Layout::spread, -1);
    check<Policy, U>(tensor, {rows - 1, across - 1, 1, 1}, Layout::dense, 1);
    check<Policy, U>(tensor, {3, 3, 0, 0}, Layout::dense, 1);
  }
}

}  // namespace

TEST_CASE("device decode: the paper's policy, every patch size") {
  check_all<PaperPolicy<float, 4>, float>();
  check_all<PaperPolicy<float, 8>, float>();
  check_all<PaperPolicy<float, 12>, float>();
  check_all<PaperPolicy<float, 16>, float>();
  check_all<PaperPolicy<float, 32>, float>();
  check_all<PaperPolicy<float, 64>, float>();
}

TEST_CASE("device decode: unit gain") {
  check_all<UnitGainPolicy<float, 8>, float>();
  check_all<UnitGainPolicy<float, 12>, float>();
  check_all<UnitGainPolicy<float, 16>, float>();
  check_all<UnitGainPolicy<float, 32>, float>();
  check_all<UnitGainPolicy<float, 64>, float>();
}

TEST_CASE("device decode: without a transform") {
  check_all<WithoutDct<float, 8>, float>();
  check_all<WithoutDct<float, 32>, float>();
}

TEST_CASE("device decode: elements of two bytes") {
  check_all<PaperPolicy<float, 8>, half>();
  check_all<PaperPolicy<float, 16>, bfloat16>();
  check_all<UnitGainPolicy<float, 16>, bfloat16>();
  check_all<UnitGainPolicy<float, 32>, half>();
}

TEST_CASE("device decode: double") {
  check_all<PaperPolicy<double, 12>, double>();
  check_all<PaperPolicy<double, 64>, double>();
  check_all<UnitGainPolicy<double, 16>, double>();
  check_all<WithoutDct<double, 4>, double>();
}

TEST_CASE("device decode: a width without patches keeps its place among the others") {
  using Policy = PaperPolicy<float, 8>;
  const Matrix<float> delta = random_matrix<float>(30, 40, 3);
  CompressedTensor tensor =
      DeltaCodec<Policy, Serial>(RatioAllocator{{4, 0.5}, {0, 0.5}}).encode(delta.view());
  tensor.header.classes.insert(tensor.header.classes.begin() + 1,
                               WidthClass{.bits = 2, .bound_count = 2});
  for (PatchPlace& place : tensor.places) {
    if (place.width_class() == 1) place = PatchPlace::make(2, place.slot());
  }
  tensor.header.lay_out();
  DeltaCodec<Policy, Serial>::validate(tensor);
  const OnDevice compressed(tensor);
  TensorHeader header = tensor.header;
  header.classes = detail::classes_on_device(compressed.arrays(), header.bound);
  header.lay_out();
  REQUIRE(header.classes.size() == 3);
  DeltaCodec<Policy, Serial>::validate(
      CompressedView{&header, tensor.places, tensor.bounds, tensor.codes});
  check<Policy, float>(tensor, {0, 0, 30, 40}, Layout::dense, 1);
}
