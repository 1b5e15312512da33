// The CUDA backends on the current device: decoding into weights, encoding, and the DCT alone. They
// are compared with a copy in device memory, which is the upper limit, and with cuFFT.
#include "timing.hpp"

#include <deltadct/cuda.hpp>
#include <deltadct/cufft.hpp>

#include <memory>
#include <random>

using namespace deltadct;
using bench::Buffer;
using bench::report;
using bench::seconds;

namespace {

constexpr std::size_t kSide = 8192, kWeights = kSide * kSide;
constexpr int kBuffers = 4;  // of 128 MiB in bf16, larger than any second-level cache

cudaStream_t stream;

/// Bell-shaped bf16 weights, with a copy in each buffer.
struct Weights {
  std::vector<std::unique_ptr<Buffer<bfloat16>>> buffers;

  explicit Weights(unsigned seed, float size) {
    std::mt19937 random(seed);
    std::vector<bfloat16> host(kWeights);
    for (bfloat16& x : host) {
      float sum = -2;
      for (int k = 0; k < 4; ++k) sum += static_cast<float>(random()) * 0x1p-32F;
      x = static_cast<bfloat16>(size * sum);
    }
    for (int n = 0; n < kBuffers; ++n) {
      buffers.push_back(std::make_unique<Buffer<bfloat16>>(kWeights));
      bench::check_cuda(cudaMemcpy(buffers.back()->data(), host.data(), kWeights * sizeof(bfloat16),
                                   cudaMemcpyHostToDevice),
                        "cudaMemcpy");
    }
  }
  MatrixView<bfloat16> view(int turn) const {
    return {buffers[static_cast<std::size_t>(turn % kBuffers)]->data(), kSide, kSide};
  }
  MatrixView<const bfloat16> const_view(int turn) const { return view(turn); }
};

/// out += delta, for the variant that decodes into a separate buffer first.
__global__ void add(bfloat16* out, const bfloat16* delta, std::size_t n) {
  const std::size_t s = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x;
  if (s < n) out[s] = bfloat16(static_cast<float>(out[s]) + static_cast<float>(delta[s]));
}

/// Encodes, and decodes into live weights. The bytes of the compressed delta are counted too.
template <class Policy>
void codec(const std::string& name, const Weights& base, const Weights& tuned) {
  using Codec = DeltaCodec<Policy, Cuda>;
  constexpr int P = Policy::patch;
  const Codec codec;
  const Buffer<std::byte> memory(codec.max_device_bytes(kSide, kSide));
  const Buffer<std::byte> workspace(Codec::template encode_workspace_bytes<bfloat16>(kSide, kSide));
  const auto encode = [&](int turn) {
    return codec.encode(base.const_view(turn), tuned.const_view(turn), memory.span(),
                        workspace.span(), stream);
  };
  const auto tensor = Codec::finish(encode(0));
  const auto delta = static_cast<double>(Codec::download(tensor, stream).bytes());
  const auto weights = static_cast<double>(kWeights);
  report("encode, " + name, P, weights, 4 * weights + delta,
         seconds(stream, [&](int turn) { encode(turn); }));
  report("decode_add, " + name, P, weights, 4 * weights + delta,
         seconds(stream, [&](int turn) { codec.decode_add(tensor, base.view(turn), 1, stream); }));
  const Buffer<bfloat16> apart(kWeights);
  report("decode, then add, " + name, P, weights, 4 * weights + delta,
         seconds(stream, [&](int turn) {
           codec.decode(tensor, MatrixView<bfloat16>(apart.data(), kSide, kSide), stream);
           add<<<kWeights / 256, 256, 0, stream>>>(base.view(turn).data, apart.data(), kWeights);
         }));
}

template <class Backend, int P>
void dct(const std::string& name) {
  constexpr std::size_t count = kWeights / (P * P);
  const Buffer<float> from(kWeights), to(kWeights);
  const DctKernel<Backend> kernel(stream);
  const auto weights = static_cast<double>(kWeights);
  report("forward, " + name, P, weights, 8 * weights, seconds(stream, [&](int) {
           forward_dct<Backend, P>(from.data(), to.data(), count, kernel);
         }));
  report("inverse, " + name, P, weights, 8 * weights, seconds(stream, [&](int) {
           inverse_dct<Backend, P>(from.data(), to.data(), count, kernel);
         }));
}

template <int P>
void both_dcts() {
  dct<Cuda, P>("block kernels");
  dct<Cufft, P>("cuFFT");
}

void run() {
  cudaDeviceProp device;
  int driver = 0, runtime = 0;
  bench::check_cuda(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  bench::check_cuda(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  bench::check_cuda(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  std::printf("{\"device\": \"%s\", \"driver\": %d, \"runtime\": %d}\n", device.name, driver,
              runtime);
  bench::check_cuda(cudaStreamCreate(&stream), "cudaStreamCreate");

  const Weights base(1, 0.02F), tuned(2, 0.02F);
  const auto weights = static_cast<double>(kWeights);
  report("copy", 0, weights, 4 * weights, seconds(stream, [&](int turn) {
           cudaMemcpyAsync(base.view(turn).data, tuned.view(turn).data, kWeights * sizeof(bfloat16),
                           cudaMemcpyDeviceToDevice, stream);
         }));
  codec<PaperPolicy<float, 8>>("paper", base, tuned);
  codec<PaperPolicy<float, 16>>("paper", base, tuned);
  codec<PaperPolicy<float, 32>>("paper", base, tuned);
  codec<PaperPolicy<float, 64>>("paper", base, tuned);
  codec<UnitGainPolicy<float, 16>>("unit gain", base, tuned);
  codec<UnitGainPolicy<float, 32>>("unit gain", base, tuned);
  codec<UnitGainPolicy<float, 64>>("unit gain", base, tuned);
  both_dcts<8>();
  both_dcts<16>();
  both_dcts<32>();
  both_dcts<64>();
}

}  // namespace

int main() {
  if (!DctKernel<Cuda>::available()) {
    std::puts("skipped: no CUDA device");
    return 0;
  }
  run();
}
