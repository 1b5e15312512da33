// Results are bit-identical whatever the executor, and wherever the matrix lies.
#include "support.hpp"

#include <deltadct/openmp.hpp>
#if __has_include(<oneapi/tbb/parallel_for.h>)
  #include <deltadct/tbb.hpp>
#endif

#include <thread>

using namespace test;

namespace {

void check_same(const CompressedTensor& found, const CompressedTensor& expected) {
  CHECK(found.codes == expected.codes);
  CHECK(found.bounds == expected.bounds);
  CHECK(std::ranges::equal(found.places, expected.places, {}, &PatchPlace::packed,
                           &PatchPlace::packed));
  CHECK(std::bit_cast<std::uint64_t>(found.header.scale) ==
        std::bit_cast<std::uint64_t>(expected.header.scale));
}

// Runs from the last index to the first.
struct BackwardExecutor {
  template <class Fn>
  void parallel_for(std::size_t n, Fn&& fn) const {
    for (std::size_t i = n; i-- > 0;) fn(i);
  }
};

template <class Codec, class Executor>
void check_executor(const Executor& executor) {
  const Codec codec{RatioAllocator(kWideMix)};
  // Wide enough that one row of patches is several units of work.
  const auto base = random_matrix<float>(43, 9001, 1);
  const auto tuned = random_matrix<float>(43, 9001, 2);
  const auto expected = codec.encode(base.view(), tuned.view());
  const auto found = codec.encode(base.view(), tuned.view(), executor);
  check_same(found, expected);

  auto serial = base;
  auto other = base;
  codec.decode_add(expected, serial.view(), 0.5);
  codec.decode_add(found, other.view(), 0.5, executor);
  CHECK(values_of(other) == values_of(serial));
  codec.decode(expected, serial.view());
  codec.decode(found, other.view(), executor);
  CHECK(values_of(other) == values_of(serial));
  codec.decode_add_block(expected, 5, 3, serial.view().block(5, 3, 30, 8400));
  codec.decode_add_block(found, 5, 3, other.view().block(5, 3, 30, 8400), 1, executor);
  CHECK(values_of(other) == values_of(serial));
}

using Codec8 = DeltaCodec<DefaultPolicy<float, 8>>;

}  // namespace

TEST_CASE("determinism: any number of OpenMP threads gives the same bits") {
  for (const int threads : {1, 2, 3, 8}) {
    CAPTURE(threads);
    check_executor<Codec8>(OpenMpExecutor{threads});
  }
}

#if __has_include(<oneapi/tbb/parallel_for.h>)
TEST_CASE("determinism: any number of oneTBB threads gives the same bits") {
  for (const int threads : {1, 2, 3}) {
    CAPTURE(threads);
    oneapi::tbb::task_arena arena(threads);
    check_executor<Codec8>(OneTbbExecutor{&arena});
  }
}
#endif

TEST_CASE("determinism: the order of the work does not matter") {
  check_executor<Codec8>(BackwardExecutor{});
}

TEST_CASE("determinism: one codec may run on many threads at once") {
  const Codec8 codec{RatioAllocator(kWideMix)};
  const auto delta = random_matrix<float>(150, 170, 3);
  const auto expected = codec.encode(delta.view());
  std::vector<CompressedTensor> found(4);
  std::vector<std::thread> threads;
  for (auto& c : found) threads.emplace_back([&] { c = codec.encode(delta.view()); });
  for (auto& thread : threads) thread.join();
  for (const auto& c : found) check_same(c, expected);
}

TEST_CASE("determinism: where a matrix lies in memory does not matter") {
  const Codec8 codec{RatioAllocator(kWideMix)};
  const auto expected = codec.encode(random_matrix<float>(61, 83, 4).view());
  for (const Layout layout : kLayouts) {
    check_same(codec.encode(random_matrix<float>(61, 83, 4, layout).view()), expected);
  }
}
