// Encode and decode_add of whole matrices, compared with memcpy and with reading and writing the
// same matrix in place.
#include "support.hpp"

#include <deltadct/openmp.hpp>

#include <algorithm>

namespace {

using namespace bench;

/// "paper", or the one width that all patches have.
RatioAllocator mix(int bits) {
  return bits == 0 ? RatioAllocator{} : RatioAllocator{{bits, 1.0}};
}
std::string mix_name(int bits) {
  return bits == 0 ? "paper" : std::to_string(bits);
}

template <class T>
std::string name_of(const std::string& what, int p, int bits, std::size_t side) {
  return what + "/P:" + std::to_string(p) + "/type:" + type_name<T>() + "/bits:" + mix_name(bits) +
         "/side:" + std::to_string(side);
}

template <class Policy, class Backend, std::size_t Side>
void encode(benchmark::State& state, int bits, bool from_pair) {
  using T = typename Policy::Element;
  const DeltaCodec<Policy, Backend> codec(mix(bits));
  const Pair<T>& from = pair<T, Side>();
  CompressedTensor out;
  std::vector<std::byte> workspace(codec.encode_workspace_bytes(Side, Side));
  for (auto _ : state) {
    if (from_pair)
      codec.encode_into(out, workspace, from.base_view(), from.tuned_view());
    else
      codec.encode_into(out, workspace, from.tuned_view());
    benchmark::ClobberMemory();
  }
  count_bytes<T>(state, Side * Side);
  // Includes one bit per patch, which tells the two widths of the paper's mix apart.
  const double map_bits =
      static_cast<double>(out.header.patches() * (out.header.classes.size() - 1));
  state.counters["bits_per_weight"] =
      (8.0 * static_cast<double>(out.codes.size() + out.bounds.size()) + map_bits) /
      static_cast<double>(Side * Side);
  if constexpr (std::is_same_v<T, float>) {
    if (!from_pair) return;
    Values<float> decoded(Side * Side);
    codec.decode(out, MatrixView<float>(decoded.data(), Side, Side));
    state.counters["snr_db"] = snr_db(delta<Side>(), decoded);
  }
}

/// Where decode_add writes its sums.
enum class Target { in_place, elsewhere, strided };

template <class Policy, class Backend, std::size_t Side, class Executor>
void decode_add(benchmark::State& state, int bits, Target target, const Executor& executor) {
  using T = typename Policy::Element;
  const DeltaCodec<Policy, Backend> codec(mix(bits));
  const Pair<T>& from = pair<T, Side>();
  const CompressedTensor delta = codec.encode(from.base_view(), from.tuned_view());
  const std::size_t stride = target == Target::strided ? Side + 5 : Side;
  Values<T> weights(Side * stride);
  MatrixView<T> view(weights.data(), Side, Side);
  view.row_stride = static_cast<std::ptrdiff_t>(stride);
  for (std::size_t i = 0; i < Side; ++i) {
    for (std::size_t j = 0; j < Side; ++j) view(i, j) = from.base_view()(i, j);
  }
  for (auto _ : state) {
    if (target == Target::elsewhere)
      codec.decode_add(delta, from.base_view(), view, 1.0, executor);
    else
      codec.decode_add(delta, view, 1.0, executor);
    benchmark::ClobberMemory();
  }
  count_bytes<T>(state, Side * Side);
}

/// Norms that spread over a few powers of two, as real patches do.
std::vector<float> random_scores(std::size_t n) {
  std::mt19937 random(7);
  std::normal_distribution<float> exponent;
  std::vector<float> scores(n);
  for (float& score : scores) score = std::exp(exponent(random));
  return scores;
}

template <class T, int P, std::size_t Side = 4096, class Backend = DefaultBackend>
void register_encode(int bits, bool from_pair = true, const std::string& what = "encode") {
  benchmark::RegisterBenchmark(name_of<T>(what, P, bits, Side).c_str(),
                               [=](benchmark::State& state) {
                                 encode<PaperPolicy<T, P>, Backend, Side>(state, bits, from_pair);
                               });
}

template <class T, int P, std::size_t Side = 4096, class Backend = DefaultBackend>
void register_decode(int bits, Target target = Target::in_place,
                     const std::string& what = "decode_add") {
  benchmark::RegisterBenchmark(
      name_of<T>(what, P, bits, Side).c_str(), [=](benchmark::State& state) {
        decode_add<PaperPolicy<T, P>, Backend, Side>(state, bits, target, SerialExecutor{});
      });
}

template <class T, int P, std::size_t Side>
void register_threads() {
  for (const int threads : {1, 2}) {
    benchmark::RegisterBenchmark(
        name_of<T>("decode_add_threads:" + std::to_string(threads), P, 2, Side).c_str(),
        [=](benchmark::State& state) {
          decode_add<PaperPolicy<T, P>, DefaultBackend, Side>(state, 2, Target::in_place,
                                                              OpenMpExecutor{threads});
        })
        ->UseRealTime();
  }
}

// At 1 bit, for comparison with the paper's mix, which has the same size.
template <int P>
void register_unit_gain() {
  using Policy = UnitGainPolicy<float, P>;
  benchmark::RegisterBenchmark(
      name_of<float>("encode_unit_gain", P, 1, 4096).c_str(),
      [](benchmark::State& state) { encode<Policy, DefaultBackend, 4096>(state, 1, true); });
  benchmark::RegisterBenchmark(
      name_of<float>("decode_add_unit_gain", P, 1, 4096).c_str(), [](benchmark::State& state) {
        decode_add<Policy, DefaultBackend, 4096>(state, 1, Target::in_place, SerialExecutor{});
      });
}

// Both mixes.
template <int P>
void register_size() {
  for (const int bits : {0, 2}) {
    register_encode<float, P>(bits);
    register_decode<float, P>(bits);
  }
}

template <class T>
void register_type() {
  register_memory<T, 4096>();
  for (const int bits : {0, 2}) {
    register_encode<T, 16>(bits);
    register_decode<T, 16>(bits);
  }
}

// The time of allocators for the patches of 8192 x 8192 weights, beside a sort of their scores.
template <class Allocator>
void register_allocator(const std::string& what, const Allocator& allocator) {
  benchmark::RegisterBenchmark((what + "/patches:262144").c_str(), [=](benchmark::State& state) {
    const std::vector<float> scores = random_scores(262144);
    std::vector<std::uint32_t> order(scores.size());
    std::vector<std::uint32_t> classes(scores.size());
    for (auto _ : state) {
      if constexpr (std::is_same_v<Allocator, BudgetAllocator>)
        allocator.allocate(PatchGrid{16, 2}, std::span(scores), order, classes);
      else
        allocator.allocate(std::span(scores), order, classes);
      benchmark::ClobberMemory();
    }
    count_bytes<float>(state, scores.size());
  });
}

void register_allocators() {
  register_allocator("allocate_mix", RatioAllocator{});
  for (const double budget : {0.3, 0.9, 2.5}) {
    register_allocator("allocate_budget:" + std::to_string(budget).substr(0, 3),
                       BudgetAllocator(budget));
  }
  benchmark::RegisterBenchmark("sort_scores/patches:262144", [](benchmark::State& state) {
    const std::vector<float> scores = random_scores(262144);
    for (auto _ : state) {
      std::vector<float> sorted = scores;
      std::ranges::sort(sorted);
      benchmark::ClobberMemory();
    }
    count_bytes<float>(state, scores.size());
  });
}

// Both mixes at every patch size; every width at one patch size; every type at one.
void register_all() {
  register_memory<float, 4096>();
  register_memory<float, 512>();
  register_size<8>();
  register_size<12>();
  register_size<16>();
  register_size<32>();
  register_size<64>();
  register_unit_gain<16>();
  register_unit_gain<32>();
  register_unit_gain<64>();
  for (const int bits : {1, 3, 4, 6, 8}) {
    register_encode<float, 16>(bits);
    register_decode<float, 16>(bits);
  }
  register_type<half>();
  register_type<bfloat16>();
  register_type<double>();
  register_encode<float, 16>(0, false, "encode_delta");
  register_decode<float, 16>(2, Target::elsewhere, "decode_add_elsewhere");
  register_decode<float, 16>(2, Target::strided, "decode_add_strided");
  register_encode<float, 16, 4096, Serial>(0, true, "encode_serial");
  register_decode<float, 16, 4096, Serial>(2, Target::in_place, "decode_add_serial");
  register_encode<float, 16, 512>(0);
  register_decode<float, 16, 512>(2);
  register_threads<float, 16, 1024>();
  register_threads<float, 16, 4096>();
  register_allocators();
}

}  // namespace

int main(int argc, char** argv) {
  return run_benchmarks(argc, argv, register_all);
}
