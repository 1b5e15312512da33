// The kernel that decodes on a device, compared with the serial backend: every patch size, width,
// element type, edge and stride.
#include "device.hpp"

using namespace test;

namespace {

template <class Policy, class U>
void check_all() {
  constexpr std::size_t P = Policy::patch;
  // More patches than one block takes, with partial patches at the edges.
  constexpr std::size_t across =
      P * (detail::PatchThreads<compute_t<U>, Policy::patch>::patches + 1) + 1;
  constexpr std::size_t rows = 2 * P + P / 2;
  for (const Mix& mix : mixes_of_every_width<Policy>()) {
    CAPTURE(mix[0].bits);
    const DeltaCodec<Policy, Serial> codec(typename Policy::Allocator{RatioAllocator(mix)});
    const Matrix<U> delta = random_matrix<U>(rows, across, 3, Layout::dense, 0.001);
    const CompressedTensor tensor = codec.encode(delta.view());
    for (const Layout layout : {Layout::dense, Layout::aligned, Layout::transposed}) {
      check_decode<Policy, U>(tensor, {0, 0, rows, across}, layout, 1);
    }
    check_decode<Policy, U>(tensor, {P, 2 * P, P, across - 2 * P}, Layout::aligned, 0.5);
    check_decode<Policy, U>(tensor, {P - 1, P + 1, P + 1, P}, Layout::aligned, 1);
    check_decode<Policy, U>(tensor, {1, 2, rows - 2, across - 4}, Layout::spread, -1);
    check_decode<Policy, U>(tensor, {rows - 1, across - 1, 1, 1}, Layout::dense, 1);
    check_decode<Policy, U>(tensor, {3, 3, 0, 0}, Layout::dense, 1);
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
  check_decode<Policy, float>(tensor, {0, 0, 30, 40}, Layout::dense, 1);
}
