// What the benchmarks share: matrices, memory traffic for comparison, and names.
//
// Rates are bytes of the uncompressed matrix per second. Names are paths of key:value, which
// report.py splits. Compare only figures of one run, with interleaved repetitions.
#pragma once

#include <deltadct/codec.hpp>

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

namespace bench {

using namespace deltadct;

/// Memory with the alignment that kernels require.
template <class T>
struct Aligned {
  using value_type = T;
  Aligned() = default;
  template <class U>
  explicit Aligned(const Aligned<U>&) noexcept {}
  T* allocate(std::size_t n) {
    return static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{64}));
  }
  void deallocate(T* p, std::size_t) noexcept { ::operator delete (p, std::align_val_t{64}); }
  bool operator==(const Aligned&) const = default;
};
template <class T>
using Values = std::vector<T, Aligned<T>>;

/// A base of normal weights, and a fine-tune that differs by a twentieth of their size; side x
/// side.
template <class T>
struct Pair {
  std::size_t side;
  Values<T> base = Values<T>(side * side);
  Values<T> tuned = Values<T>(side * side);

  explicit Pair(std::size_t n) : side(n) {
    std::mt19937 random(1);
    std::normal_distribution<float> weight(0.0F, 0.02F), change(0.0F, 0.001F);
    for (std::size_t i = 0; i < base.size(); ++i) {
      base[i] = static_cast<T>(weight(random));
      tuned[i] = static_cast<T>(static_cast<float>(base[i]) + change(random));
    }
  }

  MatrixView<const T> base_view() const { return {base.data(), side, side}; }
  MatrixView<const T> tuned_view() const { return {tuned.data(), side, side}; }
};

/// One pair per type and size for the whole run, because large matrices are slow to fill.
template <class T, std::size_t Side = 4096>
const Pair<T>& pair() {
  static const Pair<T> pair(Side);
  return pair;
}

/// tuned - base of the pair of floats.
template <std::size_t Side = 4096>
const Values<float>& delta() {
  static const Values<float> delta = [] {
    const Pair<float>& from = pair<float, Side>();
    Values<float> made(from.base.size());
    for (std::size_t i = 0; i < made.size(); ++i) made[i] = from.tuned[i] - from.base[i];
    return made;
  }();
  return delta;
}

/// The signal-to-noise ratio of a reconstruction, in decibels.
inline double snr_db(const Values<float>& original, const Values<float>& found) {
  double signal = 0;
  double noise = 0;
  for (std::size_t i = 0; i < original.size(); ++i) {
    const double x = original[i];
    signal += x * x;
    noise += (x - found[i]) * (x - found[i]);
  }
  return 10 * std::log10(signal / noise);
}

template <class T>
void count_bytes(benchmark::State& state, std::size_t elements) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(elements * sizeof(T)));
}

template <class T>
constexpr const char* type_name() {
  if constexpr (std::is_same_v<T, float>) return "f32";
  if constexpr (std::is_same_v<T, double>) return "f64";
  if constexpr (std::is_same_v<T, half>) return "f16";
  if constexpr (std::is_same_v<T, bfloat16>) return "bf16";
}

template <class T, std::size_t Side>
void copy(benchmark::State& state) {
  const auto& from = pair<T, Side>();
  Values<T> to(from.tuned.size());
  for (auto _ : state) {
    std::memcpy(to.data(), from.tuned.data(), to.size() * sizeof(T));
    benchmark::ClobberMemory();
  }
  count_bytes<T>(state, to.size());
}

// Works on integers, which cause the traffic of every type but no floating-point arithmetic.
template <class T, std::size_t Side>
void read_modify_write(benchmark::State& state) {
  using Word = std::conditional_t<sizeof(T) == 2, std::uint16_t, std::uint32_t>;
  Values<Word> words(Side * Side * sizeof(T) / sizeof(Word), Word{1});
  for (auto _ : state) {
    for (Word& word : words) word = static_cast<Word>(word + 3);
    benchmark::ClobberMemory();
  }
  count_bytes<T>(state, Side * Side);
}

/// Registers both, as "memcpy/..." and "read_modify_write/...".
template <class T, std::size_t Side>
void register_memory() {
  const std::string matrix =
      std::string("/type:") + type_name<T>() + "/side:" + std::to_string(Side);
  benchmark::RegisterBenchmark(("memcpy" + matrix).c_str(), copy<T, Side>);
  benchmark::RegisterBenchmark(("read_modify_write" + matrix).c_str(), read_modify_write<T, Side>);
}

/// The body of main(): registers the benchmarks and runs those that the command line asks for.
inline int run_benchmarks(int argc, char** argv, void (*register_all)()) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  register_all();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace bench
