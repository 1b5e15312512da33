// Encode and decode_add of a 4096 x 4096 float matrix, beside memcpy and an in-place
// read-modify-write of the same matrix; the DCT of 512 x 512 floats, in cache.
//
// Rates are bytes of the uncompressed matrix a second. Compare within one run:
//   --benchmark_repetitions=9 --benchmark_enable_random_interleaving=true
#include <deltadct/codec.hpp>
#include <deltadct/openmp.hpp>

#include <benchmark/benchmark.h>

#include <cstring>
#include <memory>
#include <random>
#include <vector>

namespace {

using namespace deltadct;

constexpr std::size_t kSide = 4096;

template <class T>
struct Pair {
  std::vector<T> base{std::vector<T>(kSide * kSide)};
  std::vector<T> tuned{std::vector<T>(kSide * kSide)};

  Pair() {
    std::mt19937 random(1);
    std::normal_distribution<float> weight(0.0F, 0.02F), change(0.0F, 0.001F);
    for (std::size_t i = 0; i < base.size(); ++i) {
      base[i] = static_cast<T>(weight(random));
      tuned[i] = static_cast<T>(static_cast<float>(base[i]) + change(random));
    }
  }
};

// One pair a type for the whole run: the matrices are large and slow to fill.
template <class T>
const Pair<T>& pair() {
  static const Pair<T> pair;
  return pair;
}

template <class T>
void count_bytes(benchmark::State& state, std::size_t elements) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(elements * sizeof(T)));
}

template <class T>
MatrixView<const T> view(const std::vector<T>& m) {
  return {m.data(), kSide, kSide};
}

template <class T>
void copy(benchmark::State& state) {
  const Pair<T>& from = pair<T>();
  std::vector<T> to(kSide * kSide);
  for (auto _ : state) {
    std::memcpy(to.data(), from.tuned.data(), to.size() * sizeof(T));
    benchmark::ClobberMemory();
  }
  count_bytes<T>(state, to.size());
}

template <class T>
void read_modify_write(benchmark::State& state) {
  std::vector<T> weights = pair<T>().base;
  for (auto _ : state) {
    for (T& w : weights) w = static_cast<T>(static_cast<compute_t<T>>(w) * 1.0001F);
    benchmark::ClobberMemory();
  }
  count_bytes<T>(state, weights.size());
}

template <class T, int P, class Backend = DefaultBackend>
void encode(benchmark::State& state) {
  const DeltaCodec<PaperPolicy<T, P>, Backend> codec;
  const Pair<T>& from = pair<T>();
  CompressedTensor out;
  std::vector<std::byte> workspace(codec.encode_workspace_bytes(kSide, kSide));
  for (auto _ : state) {
    codec.encode_into(out, workspace, view(from.base), view(from.tuned));
    benchmark::ClobberMemory();
  }
  count_bytes<T>(state, kSide * kSide);
}

template <class T, int P, class Backend = DefaultBackend>
void decode_add(benchmark::State& state) {
  // All patches at 2 bits on request: the paper's mix leaves half of them constant.
  const RatioAllocator mix = state.range(0) == 0 ? RatioAllocator{} : RatioAllocator{{2, 1.0}};
  const DeltaCodec<PaperPolicy<T, P>, Backend> codec(mix);
  const CompressedTensor delta = codec.encode(view(pair<T>().base), view(pair<T>().tuned));
  std::vector<T> weights = pair<T>().base;
  for (auto _ : state) {
    codec.decode_add(delta, MatrixView<T>(weights.data(), kSide, kSide));
    benchmark::ClobberMemory();
  }
  count_bytes<T>(state, weights.size());
}

// Matrices for the DCT alone, aligned as the kernels want them.
struct alignas(64) Line {
  float values[16];
};

template <int P, class Backend, bool Forward>
void dct(benchmark::State& state) {
  constexpr std::size_t elements = 512 * 512;
  constexpr std::size_t patches = elements / (P * P);
  std::vector<Line> from(elements / 16), to(elements / 16);
  std::mt19937 random(1);
  std::normal_distribution<float> value;
  for (Line& line : from) {
    for (float& x : line.values) x = value(random);
  }
  for (auto _ : state) {
    for (std::size_t k = 0; k < patches; ++k) {
      const float* in = from.data()->values + k * P * P;
      float* out = to.data()->values + k * P * P;
      if constexpr (Forward)
        forward_dct<Backend, P>(in, out);
      else
        inverse_dct<Backend, P>(in, out);
    }
    benchmark::ClobberMemory();
  }
  count_bytes<float>(state, patches * P * P);
}

BENCHMARK(copy<float>);
BENCHMARK(read_modify_write<float>);
BENCHMARK(encode<float, 8>);
BENCHMARK(encode<float, 16>);
BENCHMARK(encode<float, 32>);
BENCHMARK(decode_add<float, 8>)->ArgName("all2bit")->Arg(0)->Arg(1);
BENCHMARK(decode_add<float, 12>)->ArgName("all2bit")->Arg(0)->Arg(1);
BENCHMARK(decode_add<float, 16>)->ArgName("all2bit")->Arg(0)->Arg(1);
BENCHMARK(decode_add<float, 32>)->ArgName("all2bit")->Arg(0)->Arg(1);
BENCHMARK(decode_add<float, 64>)->ArgName("all2bit")->Arg(0)->Arg(1);
BENCHMARK(encode<bfloat16, 16>);
BENCHMARK(read_modify_write<bfloat16>);
BENCHMARK(decode_add<bfloat16, 16>)->ArgName("all2bit")->Arg(0)->Arg(1);
BENCHMARK(encode<float, 16, Serial>);
BENCHMARK(decode_add<float, 16, Serial>)->ArgName("all2bit")->Arg(0);

#define DELTADCT_BENCH_DCT(P)              \
  BENCHMARK(dct<P, Serial, true>);         \
  BENCHMARK(dct<P, DefaultBackend, true>); \
  BENCHMARK(dct<P, DefaultBackend, false>)
DELTADCT_BENCH_DCT(4);
DELTADCT_BENCH_DCT(8);
DELTADCT_BENCH_DCT(12);
DELTADCT_BENCH_DCT(16);
DELTADCT_BENCH_DCT(32);
DELTADCT_BENCH_DCT(64);

}  // namespace

BENCHMARK_MAIN();
