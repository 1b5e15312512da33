// What tests of the kernels share: encoding and decoding with kernels, and comparing the results
// with those of the serial backend.
#pragma once

#include "support.hpp"

#include <deltadct/codec/device/decode.hpp>
#include <deltadct/codec/device/encode.hpp>

#include <cstring>
#include <type_traits>

namespace test {

/// Runs kernels with run_kernel() and sorts on the host.
struct HostQueue {
  bool backwards;
  int* launched = nullptr;  // counts kernels

  template <class Kernel>
  void launch(const Kernel& kernel) const {
    if (launched != nullptr) ++*launched;
    if (kernel.blocks() != 0) run_kernel(kernel, backwards);
  }
  template <class T>
  void sort_scores(const T* scores, T*, const std::uint32_t* index, std::uint32_t* order,
                   std::size_t n) const {
    std::copy_n(index, n, order);
    std::stable_sort(order, order + n, [=](auto a, auto b) { return scores[a] > scores[b]; });
  }
  void sort_classes(const std::uint32_t* classes, std::uint32_t*, const std::uint32_t* index,
                    std::uint32_t* order, std::size_t n) const {
    std::copy_n(index, n, order);
    std::stable_sort(order, order + n, [=](auto a, auto b) { return classes[a] < classes[b]; });
  }
  void fill(void* memory, int byte, std::size_t n) const { std::memset(memory, byte, n); }
  void copy(void* to, const void* from, std::size_t n) const {
    if (n != 0) std::memcpy(to, from, n);
  }
};

template <class Policy, class U, bool Subtracts>
CompressedTensor encode(const typename Policy::Allocator& allocator, MatrixView<const U> base,
                        MatrixView<const U> tuned, bool backwards, int* launched = nullptr) {
  using Encoder = detail::DeviceEncoder<Policy, U, Subtracts>;
  using T = typename Encoder::T;
  const Encoder encoder({base, tuned});
  const std::size_t patches = Encoder::patches_of(tuned.rows, tuned.cols);
  Memory<std::byte> memory;
  Memory<std::byte> scratch(detail::DeviceWorkspace<T>(nullptr, patches, 0).bytes);
  std::memset(scratch.data(), 0xFF, scratch.size());
  const detail::DeviceWorkspace<T> workspace(scratch.data(), patches, 0);
  CompressedTensor out;
  detail::DeviceArrays arrays{};
  encoder.run(HostQueue{backwards, launched}, allocator, workspace, out.header,
              [&](const TensorHeader& header) {
                memory.resize(detail::lay_out_on_device(header, nullptr, arrays));
                detail::lay_out_on_device(header, memory.data(), arrays);
                return arrays;
              });
  out.header.scale = Encoder::scale_of(*workspace.outcome, out.header);
  detail::resize_arrays(out);
  detail::for_each_copy(out, out.header, arrays,
                        [&](void* to, std::size_t from, std::size_t bytes) {
                          if (bytes != 0) std::memcpy(to, memory.data() + from, bytes);
                        });
  return out;
}

/// How many codes two tensors with the same header have, and how many of them differ.
struct Codes {
  double all = 0;
  double differ = 0;
};

inline Codes compare_codes(const CompressedTensor& a, const CompressedTensor& b) {
  Codes codes;
  const CompressedView left = a;
  const CompressedView right = b;
  const int n = a.header.patch * a.header.patch;
  for (std::size_t patch = 0; patch < a.places.size(); ++patch) {
    const int bits = left.width_class(a.places[patch]).bits;
    const std::byte* l = left.codes_of(a.places[patch]);
    const std::byte* r = right.codes_of(b.places[patch]);
    const int count = bits == 0 ? 0 : bits < 0 ? n >> -bits : n;
    for (int s = 0; s < count; ++s) {
      const auto at = static_cast<std::size_t>(s);
      codes.all += 1;
      codes.differ += bits < 0
                          ? bits::get_dense(l, 1 - bits, at) != bits::get_dense(r, 1 - bits, at)
                          : read_code(l, bits, n, s) != read_code(r, bits, n, s);
    }
  }
  return codes;
}

template <class Policy>
void check_same(const CompressedTensor& found, const CompressedTensor& expected) {
  using T = compute_t<typename Policy::Element>;
  DeltaCodec<Policy, Serial>::validate(found);
  REQUIRE(found.header.classes.size() == expected.header.classes.size());
  for (std::size_t k = 0; k < found.header.classes.size(); ++k) {
    CHECK(found.header.classes[k].bits == expected.header.classes[k].bits);
    CHECK(found.header.classes[k].patches == expected.header.classes[k].patches);
  }
  std::size_t moved = 0;
  for (std::size_t s = 0; s < found.places.size(); ++s) {
    moved += found.places[s].packed != expected.places[s].packed;
  }
  CHECK(moved == 0);
  if (moved != 0) return;
  CHECK(found.header.scale == doctest::Approx(expected.header.scale).epsilon(1e-5));
  const Codes codes = compare_codes(found, expected);
  CHECK(codes.differ <= 1e-4 * codes.all + 1);
  const std::size_t bytes = dtype_bytes(found.header.bound);
  for (std::size_t at = 0; at < found.bounds.size(); at += bytes) {
    const T f = detail::load_bound<T>(found.bounds.data() + at, found.header.bound, 0);
    const T e = detail::load_bound<T>(expected.bounds.data() + at, found.header.bound, 0);
    // The bound may be rounded to the other neighbour, which matters with 16 bits.
    REQUIRE(f == doctest::Approx(e).epsilon(bytes == 2 ? 0.008 : 1e-4).scale(1e-3));
  }
}

/// A compressed tensor in memory that kernels can reach.
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

/// How far `found` is from `expected`: the squared difference relative to the squared delta, and
/// how many of the elements differ.
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
void check_decode(const CompressedTensor& tensor, const Block& block, Layout layout, double alpha) {
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
    // Sums whose last digit differs are sometimes rounded to different elements, and more often if
    // elements are finer.
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

}  // namespace test
