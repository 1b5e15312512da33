// What the codec allocates: nothing to decode, and next to nothing to encode again. Also the
// largest size of a compressed tensor.
#include "support.hpp"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<int> allocations = 0;

void* counted(std::size_t bytes, std::size_t alignment) {
  ++allocations;
  const std::size_t whole =
      (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, whole);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

// The array forms call these by default. The nothrow forms do so as well, except under the address
// sanitizer. Not inlined, because compilers would report new and free as a mismatched pair.
DELTADCT_NOINLINE void* operator new(std::size_t bytes) {
  return counted(bytes, alignof(std::max_align_t));
}
DELTADCT_NOINLINE void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return counted(bytes, static_cast<std::size_t>(alignment));
}
DELTADCT_NOINLINE void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  try {
    return counted(bytes, alignof(std::max_align_t));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
DELTADCT_NOINLINE void operator delete(void* memory) noexcept {
  std::free(memory);
}
DELTADCT_NOINLINE void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
DELTADCT_NOINLINE void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
DELTADCT_NOINLINE void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}

using namespace test;

namespace {

using Codec = DeltaCodec<DefaultPolicy<float, 8>>;

template <class Fn>
int allocations_of(Fn fn) {
  const int before = allocations;
  fn();
  return allocations - before;
}

// Counts, remainders and their order: each grows from empty, for a mix of up to seven widths.
constexpr int kAllocatorsOwn = 12;

}  // namespace

TEST_CASE("allocation: the counter counts") {
  // A volatile pointer, because the compiler could otherwise remove the pair.
  int* volatile memory = nullptr;
  CHECK(allocations_of([&] { memory = new int(1); }) == 1);
  CHECK(allocations_of([&] { delete memory; }) == 0);
}

TEST_CASE("allocation: decoding allocates nothing") {
  const Codec codec{RatioAllocator(kWideMix)};
  const CompressedTensor c = codec.encode(random_matrix<float>(100, 300, 1).view());
  auto weights = random_matrix<half>(100, 300, 2);
  Matrix<half> out(100, 300, Layout::transposed);
  CHECK(allocations_of([&] { codec.decode(c, out.view()); }) == 0);
  CHECK(allocations_of([&] { codec.decode_add(c, weights.view(), 0.5); }) == 0);
  CHECK(allocations_of(
            [&] { codec.decode_add(c, MatrixView<const half>(weights.view()), out.view()); }) == 0);
  CHECK(allocations_of([&] {
          codec.decode_add_block(c, 3, 5, weights.view().block(3, 5, 70, 200), 0.5);
        }) == 0);
  CHECK(allocations_of([&] { CHECK_NOTHROW(static_cast<void>(CompressedView(c))); }) == 0);
}

TEST_CASE("allocation: encoding into warm memory allocates only what the allocator does") {
  const Codec codec{RatioAllocator(kWideMix)};
  const auto small = random_matrix<float>(100, 300, 1);
  const auto large = random_matrix<float>(300, 700, 1);
  CompressedTensor out;
  std::vector<std::byte> workspace(codec.encode_workspace_bytes(300, 700));
  codec.encode_into(out, workspace, large.view());
  const auto expected = codec.encode(small.view());
  const int again = allocations_of([&] { codec.encode_into(out, workspace, large.view()); });
  const int smaller = allocations_of([&] { codec.encode_into(out, workspace, small.view()); });
  CHECK(again <= kAllocatorsOwn);
  CHECK(smaller <= kAllocatorsOwn);
  CHECK(out.codes == expected.codes);
  CHECK(out.bounds == expected.bounds);
  CHECK(out.header.scale == expected.header.scale);
}

TEST_CASE("allocation: asking for sizes allocates nothing") {
  const Codec codec;
  CHECK(allocations_of([&] {
          static_cast<void>(codec.max_compressed_bytes(1000, 1000));
          static_cast<void>(codec.encode_workspace_bytes(1000, 1000));
        }) == 0);
}

TEST_CASE("allocation: a compressed tensor never exceeds its bound") {
  std::mt19937 random(3);
  const Mix mixes[] = {{{8, 1.0}}, {{0, 1.0}},           {{1, 1.0}},
                       kWideMix,   {{6, 0.1}, {4, 0.9}}, {{3, 1.0}}};
  for (const Mix& mix : mixes) {
    const Codec codec{RatioAllocator(mix)};
    for (int k = 0; k < 20; ++k) {
      const std::size_t rows = random() % 60;
      const std::size_t cols = random() % 60;
      const auto c = codec.encode(random_matrix<float>(rows, cols, 1).view());
      CHECK(c.bytes() <= codec.max_compressed_bytes(rows, cols));
      if (mix.size() == 1) CHECK(c.bytes() == codec.max_compressed_bytes(rows, cols));
    }
  }
}

TEST_CASE("allocation: codes, bounds and places are all the bytes there are") {
  const Codec codec{RatioAllocator{{2, 1.0}}};
  const auto c = codec.encode(random_matrix<float>(80, 80, 1).view());
  CHECK(c.codes.size() == 80 * 80 / 4);
  CHECK(c.bounds.size() == 100 * 2 * sizeof(float));
  CHECK(c.bytes() == c.codes.size() + c.bounds.size() + 100 * sizeof(PatchPlace));
}
