// Popular compressors on the delta of the same 4096 x 4096 float matrices, if they are installed:
// zfp at fixed rates, and zstd without loss.
#include "support.hpp"

#if defined(BENCH_ZFP)
  #include <zfp.h>
#endif
#if defined(BENCH_ZSTD)
  #include <zstd.h>
#endif

#include <memory>

namespace {

using namespace bench;

constexpr std::size_t kSide = 4096;

[[maybe_unused]] void count(benchmark::State& state, std::size_t compressed_bytes) {
  count_bytes<float>(state, kSide * kSide);
  state.counters["bits_per_weight"] =
      8.0 * static_cast<double>(compressed_bytes) / static_cast<double>(kSide * kSide);
}

#if defined(BENCH_ZFP)

/// zfp over one matrix and one buffer. The modes of zfp are functions, not types.
class Zfp {
 public:
  Zfp(float* values, double rate)
      : field_(zfp_field_2d(values, zfp_type_float, kSide, kSide), zfp_field_free),
        stream_(zfp_stream_open(nullptr), zfp_stream_close) {
    zfp_stream_set_rate(stream_.get(), rate, zfp_type_float, 2, 0);
    buffer_.resize(zfp_stream_maximum_size(stream_.get(), field_.get()));
    bits_.reset(stream_open(buffer_.data(), buffer_.size()));
    zfp_stream_set_bit_stream(stream_.get(), bits_.get());
  }

  std::size_t compress() {
    zfp_stream_rewind(stream_.get());
    return zfp_compress(stream_.get(), field_.get());
  }

  void decompress(float* to) {
    zfp_field_set_pointer(field_.get(), to);
    zfp_stream_rewind(stream_.get());
    zfp_decompress(stream_.get(), field_.get());
  }

 private:
  std::unique_ptr<zfp_field, void (*)(zfp_field*)> field_;
  std::unique_ptr<zfp_stream, void (*)(zfp_stream*)> stream_;
  std::vector<std::byte> buffer_;
  std::unique_ptr<bitstream, void (*)(bitstream*)> bits_{nullptr, stream_close};
};

void zfp(benchmark::State& state, double rate, bool compress) {
  Values<float> from = delta<kSide>();
  Values<float> to(from.size());
  Zfp zfp(from.data(), rate);
  const std::size_t bytes = zfp.compress();
  for (auto _ : state) {
    if (compress)
      zfp.compress();
    else
      zfp.decompress(to.data());
    benchmark::ClobberMemory();
  }
  zfp.decompress(to.data());
  count(state, bytes);
  state.counters["snr_db"] = snr_db(delta<kSide>(), to);
}

void register_zfp() {
  for (const double rate : {1.25, 2.0, 4.0}) {
    for (const bool compress : {true, false}) {
      const std::string name = std::string(compress ? "compress" : "decompress") +
                               "/codec:zfp-rate-" + std::to_string(rate).substr(0, 4);
      benchmark::RegisterBenchmark(name.c_str(),
                                   [=](benchmark::State& state) { zfp(state, rate, compress); });
    }
  }
}

#endif
#if defined(BENCH_ZSTD)

void zstd(benchmark::State& state, bool compress) {
  const Values<float>& from = delta<kSide>();
  const std::size_t bytes = from.size() * sizeof(float);
  std::vector<std::byte> buffer(ZSTD_compressBound(bytes));
  Values<float> to(from.size());
  const auto run = [&] {
    return ZSTD_compress(buffer.data(), buffer.size(), from.data(), bytes, 3);
  };
  const std::size_t size = run();
  for (auto _ : state) {
    if (compress)
      run();
    else
      ZSTD_decompress(to.data(), bytes, buffer.data(), size);
    benchmark::ClobberMemory();
  }
  count(state, size);
}

void register_zstd() {
  for (const bool compress : {true, false}) {
    const std::string name = std::string(compress ? "compress" : "decompress") + "/codec:zstd-3";
    benchmark::RegisterBenchmark(name.c_str(),
                                 [=](benchmark::State& state) { zstd(state, compress); });
  }
}

#endif

void register_all() {
  register_memory<float, kSide>();
#if defined(BENCH_ZFP)
  register_zfp();
#endif
#if defined(BENCH_ZSTD)
  register_zstd();
#endif
}

}  // namespace

int main(int argc, char** argv) {
  return run_benchmarks(argc, argv, register_all);
}
