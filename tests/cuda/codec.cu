// DeltaCodec on a device. What it refuses is tested anywhere, what it does only with a device.
#include "../codec/support.hpp"

#include <deltadct/cuda.hpp>

#include <limits>
#include <utility>

using namespace test;

namespace {

using Policy = PaperPolicy<float, 16>;
using Codec = DeltaCodec<Policy, Cuda>;
using Host = DeltaCodec<Policy, Serial>;

constexpr std::size_t kRows = 100;
constexpr std::size_t kCols = 75;

CompressedTensor compressed() {
  std::vector<float> delta(kRows * kCols);
  std::mt19937 random(3);
  for (float& x : delta) x = static_cast<float>(random()) * 0x1p-32F - 0.5F;
  return Host{}.encode(MatrixView<const float>(delta.data(), kRows, kCols));
}

// Never read: everything passed here is refused first.
std::span<std::byte> somewhere(std::size_t bytes) {
  return {reinterpret_cast<std::byte*>(std::uintptr_t{1} << 30), bytes};
}

MatrixView<float> matrix_at(std::uintptr_t address, std::size_t rows, std::size_t cols) {
  return {reinterpret_cast<float*>(address), rows, cols};
}

}  // namespace

TEST_CASE("upload: what the host can tell is refused before anything is copied") {
  CompressedTensor tensor = compressed();
  const std::size_t bytes = Codec::device_bytes(tensor.header);
  CHECK(bytes >= tensor.bytes());
  CHECK(caught([&] { Codec::upload(tensor, somewhere(bytes - 1)); }).code() == Errc::too_large);
  CHECK(caught([&] { Codec::upload(tensor, somewhere(bytes + 16).subspan(16)); }).code() ==
        Errc::bad_view);
  tensor.places[1] = tensor.places[0];
  CHECK(caught([&] { Codec::upload(tensor, somewhere(bytes)); }).code() == Errc::corrupt_data);
  tensor = compressed();
  tensor.header.patch = 8;
  CHECK(caught([&] { Codec::upload(tensor, somewhere(bytes)); }).code() == Errc::codec_mismatch);
  tensor.header.classes.resize(kMaxWidthClasses + 1);
  CHECK(caught([&] { Codec::device_bytes(tensor.header); }).code() == Errc::corrupt_data);
}

TEST_CASE("sizes: what would wrap is refused") {
  CHECK(Codec{}.max_device_bytes(0, SIZE_MAX) > 0);  // room for aligning the classes
  CHECK(caught([] { Codec{}.max_device_bytes(SIZE_MAX, SIZE_MAX); }).code() == Errc::too_large);
  CHECK(caught([] { Codec::encode_workspace_bytes(SIZE_MAX, 1); }).code() == Errc::too_large);
}

TEST_SUITE("no device") {
  TEST_CASE("a typed error says that there is none") {
    const CompressedTensor tensor = compressed();
    const Error error =
        caught([&] { Codec::upload(tensor, somewhere(Codec::device_bytes(tensor.header))); });
    CHECK(error.code() == Errc::device_failure);
    CHECK(error.where() == "cudaMemcpyAsync");
    CHECK_FALSE(DctKernel<Cuda>::available());
    const auto* address = reinterpret_cast<const float*>(std::uintptr_t{1} << 30);
    CHECK(caught([&] { forward_dct<Cuda, 8>(address, const_cast<float*>(address), 1); }).code() ==
          Errc::device_failure);
  }
}

TEST_SUITE("device") {
  // In managed memory, so that both sides can reach it.
  struct Resident {
    CompressedTensor tensor = compressed();
    Memory<std::byte> memory = Memory<std::byte>(Codec::device_bytes(tensor.header));
    CudaTensor<Policy> on_device = Codec::upload(tensor, memory);
  };

  TEST_CASE("decodes whole tensors and blocks as the host does") {
    const Resident resident;
    const Codec codec;
    for (const Layout layout : kLayouts) {
      const Matrix<float> base = random_matrix<float>(kRows, kCols, 9, layout);
      Matrix<float> expected = base;
      Host{}.decode_add(resident.tensor, expected.view(), -0.5);
      Matrix<float> found = base;
      codec.decode_add(resident.on_device, found.view(), -0.5);
      Matrix<float> alone(kRows, kCols, layout);
      codec.decode(resident.on_device, alone.view());
      Matrix<float> block = random_matrix<float>(40, 33, 2, layout);
      Matrix<float> expected_block = block;
      Host{}.decode_add_block(resident.tensor, 7, 20, expected_block.view());
      codec.decode_add_block(resident.on_device, 7, 20, block.view());
      REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
      Matrix<float> expected_alone(kRows, kCols, layout);
      Host{}.decode(resident.tensor, expected_alone.view());
      const auto near = [](const Matrix<float>& a, const Matrix<float>& b) {
        double worst = 0;
        for (std::size_t i = 0; i < a.rows(); ++i) {
          for (std::size_t j = 0; j < a.cols(); ++j) {
            worst = std::max(worst, std::abs(double{a.view()(i, j)} - double{b.view()(i, j)}));
          }
        }
        return worst < 1e-5;
      };
      CHECK(near(found, expected));
      CHECK(near(alone, expected_alone));
      CHECK(near(block, expected_block));
      CHECK(found.margins_untouched());
      CHECK(block.margins_untouched());
    }
  }

  TEST_CASE("refuses bad views, ranges and aliases before it launches") {
    const Resident resident;
    const Codec codec;
    const auto code = [&](auto fn) { return caught(fn).code(); };
    const auto weights = matrix_at(std::uintptr_t{1} << 30, kRows, kCols);
    const auto odd = matrix_at((std::uintptr_t{1} << 30) + 2, kRows, kCols);
    const auto next = matrix_at((std::uintptr_t{1} << 30) + 4, kRows, kCols);
    CHECK(code([&] { codec.decode_add(resident.on_device, weights.transposed()); }) ==
          Errc::shape_mismatch);
    CHECK(code([&] { codec.decode_add(resident.on_device, odd); }) == Errc::bad_view);
    CHECK(code([&] {
            codec.decode_add(resident.on_device, MatrixView<const float>(weights), next);
          }) == Errc::bad_view);
    CHECK(code([&] { codec.decode_add_block(resident.on_device, 1, 1, weights); }) ==
          Errc::bad_range);
    codec.decode_add_block(resident.on_device, 3, 3, matrix_at(0, 0, 5));
  }

  TEST_CASE("refuses a factor that is not finite before it launches") {
    const Resident resident;
    Matrix<float> weights(kRows, kCols);
    for (const double alpha : {std::nan(""), HUGE_VAL, -HUGE_VAL, 1e300}) {
      const Error error =
          caught([&] { Codec{}.decode_add(resident.on_device, weights.view(), alpha); });
      CHECK(error.code() == Errc::non_finite);
      CHECK(error.where() == "alpha");
      CHECK(caught([&] {
              Codec{}.decode_add_block(resident.on_device, 0, 0, weights.view(), alpha);
            }).code() == Errc::non_finite);
    }
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    CHECK(weights.view()(0, 0) == 0);
  }

  TEST_CASE("encodes as the host does, and decodes what it encoded") {
    const Matrix<float> base = random_matrix<float>(kRows, kCols, 9, Layout::aligned);
    const Matrix<float> tuned = random_matrix<float>(kRows, kCols, 8, Layout::aligned);
    const Codec codec;
    Memory<std::byte> memory(codec.max_device_bytes(kRows, kCols));
    Memory<std::byte> workspace(Codec::encode_workspace_bytes<float>(kRows, kCols));
    const auto encoding = codec.encode(base.view(), tuned.view(), memory, workspace);
    const auto on_device = Codec::finish(encoding);
    const CompressedTensor found = Codec::download(on_device);
    const CompressedTensor expected = Host{}.encode(base.view(), tuned.view());
    Host::validate(found);
    CHECK(found.header.scale == doctest::Approx(expected.header.scale).epsilon(1e-5));
    CHECK(found.codes.size() == expected.codes.size());
    std::size_t moved = 0;
    for (std::size_t s = 0; s < found.places.size(); ++s) {
      moved += found.places[s].packed != expected.places[s].packed;
    }
    CHECK(moved == 0);
    std::size_t differ = 0;
    for (std::size_t s = 0; s < found.codes.size(); ++s) {
      differ += found.codes[s] != expected.codes[s];
    }
    CHECK(differ <= 2 + found.codes.size() / 2500);
    Matrix<float> weights = base;
    Matrix<float> expected_weights = base;
    codec.decode_add(on_device, weights.view());
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    Host{}.decode_add(found, expected_weights.view());
    for (std::size_t i = 0; i < kRows; ++i) {
      for (std::size_t j = 0; j < kCols; ++j) {
        REQUIRE(weights.view()(i, j) ==
                doctest::Approx(expected_weights.view()(i, j)).epsilon(1e-4));
      }
    }
    CHECK(caught([&] {
            codec.encode(base.view(), tuned.view(), std::span(memory).first(256), workspace);
          }).code() == Errc::too_large);
    CHECK(caught([&] {
            codec.encode(base.view(), tuned.view(), memory, std::span(workspace).first(256));
          }).code() == Errc::too_large);
    Matrix<float> bad = tuned;
    bad.view()(40, 70) = std::numeric_limits<float>::infinity();
    const auto failing = codec.encode(base.view(), std::as_const(bad).view(), memory, workspace);
    CHECK(caught([&] { Codec::finish(failing); }).where() == "patch at element (32, 64)");
  }

  TEST_CASE("encodes on a stream, from mutable views, after an error that was handled") {
    cudaStream_t stream;
    REQUIRE(cudaStreamCreate(&stream) == cudaSuccess);
    Matrix<float> base = random_matrix<float>(kRows, kCols, 9);
    Matrix<float> tuned = random_matrix<float>(kRows, kCols, 8);
    const Codec codec;
    Memory<std::byte> memory(codec.max_device_bytes(kRows, kCols));
    Memory<std::byte> workspace(Codec::encode_workspace_bytes<float>(kRows, kCols));
    void* nowhere = nullptr;
    CHECK(cudaMalloc(&nowhere, std::size_t{1} << 60) != cudaSuccess);
    const auto tensor =
        Codec::finish(codec.encode(base.view(), tuned.view(), memory, workspace, stream));
    const CompressedTensor found = Codec::download(tensor, stream);
    Host::validate(found);
    CHECK(found.header.scale ==
          doctest::Approx(Host{}.encode(base.view(), tuned.view()).header.scale).epsilon(1e-5));
    cudaStreamDestroy(stream);
  }

  TEST_CASE("downloads what was uploaded, widths without patches, too") {
    CompressedTensor tensor = compressed();
    tensor.header.classes.insert(tensor.header.classes.begin() + 1,
                                 WidthClass{.bits = 1, .bound_count = 2});
    for (PatchPlace& place : tensor.places) {
      if (place.width_class() == 1) place = PatchPlace::make(2, place.slot());
    }
    tensor.header.lay_out();
    Memory<std::byte> memory(Codec::device_bytes(tensor.header));
    const CompressedTensor found = Codec::download(Codec::upload(tensor, memory));
    Host::validate(found);
    CHECK(found.header.classes.size() == 3);
    CHECK(found.header.scale == tensor.header.scale);
    CHECK(found.bounds == tensor.bounds);
    CHECK(found.codes == tensor.codes);
    CHECK(std::ranges::equal(found.places, tensor.places,
                             [](auto a, auto b) { return a.packed == b.packed; }));
  }

  TEST_CASE("a device out of memory is a typed error") {
    CHECK(caught([] { Memory<std::byte>(std::size_t{1} << 60); }).code() == Errc::device_failure);
    CHECK(cudaPeekAtLastError() == cudaSuccess);
  }

  TEST_CASE("a stream of another device is a typed error") {
    int devices = 0;
    REQUIRE(cudaGetDeviceCount(&devices) == cudaSuccess);
    if (devices < 2) return;
    const Resident resident;
    Matrix<float> weights = random_matrix<float>(kRows, kCols, 9);
    cudaStream_t other;
    REQUIRE(cudaSetDevice(1) == cudaSuccess);
    REQUIRE(cudaStreamCreate(&other) == cudaSuccess);
    REQUIRE(cudaSetDevice(0) == cudaSuccess);
    CHECK(caught([&] {
            Codec{}.decode_add(resident.on_device, weights.view(), 1, other);
          }).code() == Errc::device_failure);
    cudaStreamDestroy(other);
  }

  TEST_CASE("is safe while a stream is captured") {
    const Resident resident;
    Matrix<float> weights = random_matrix<float>(kRows, kCols, 9);
    Matrix<float> expected = weights;
    Host{}.decode_add(resident.tensor, expected.view(), 2);
    cudaStream_t stream;
    REQUIRE(cudaStreamCreate(&stream) == cudaSuccess);
    cudaGraph_t graph;
    cudaGraphExec_t run;
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
    Codec{}.decode_add(resident.on_device, weights.view(), 1, stream);
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    REQUIRE(cudaGraphInstantiate(&run, graph, 0) == cudaSuccess);
    // Launched twice, while the capture itself ran nothing.
    REQUIRE(cudaGraphLaunch(run, stream) == cudaSuccess);
    REQUIRE(cudaGraphLaunch(run, stream) == cudaSuccess);
    REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
    for (std::size_t i = 0; i < kRows; ++i) {
      for (std::size_t j = 0; j < kCols; ++j) {
        REQUIRE(weights.view()(i, j) == doctest::Approx(expected.view()(i, j)).epsilon(1e-4));
      }
    }
    cudaGraphExecDestroy(run);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
  }

  TEST_CASE("encodes what a graph is launched on") {
    Matrix<float> delta = random_matrix<float>(kRows, kCols, 8);
    const Codec codec;
    Memory<std::byte> memory(codec.max_device_bytes(kRows, kCols));
    Memory<std::byte> workspace(Codec::encode_workspace_bytes<float>(kRows, kCols));
    cudaStream_t stream;
    REQUIRE(cudaStreamCreate(&stream) == cudaSuccess);
    cudaGraph_t graph;
    cudaGraphExec_t run;
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
    const auto encoding = codec.encode(delta.view(), memory, workspace, stream);
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    REQUIRE(cudaGraphInstantiate(&run, graph, 0) == cudaSuccess);
    fill(delta, 21);
    REQUIRE(cudaGraphLaunch(run, stream) == cudaSuccess);
    const CompressedTensor found = Codec::download(Codec::finish(encoding), stream);
    Host::validate(found);
    CHECK(found.header.scale ==
          doctest::Approx(Host{}.encode(delta.view()).header.scale).epsilon(1e-5));
    cudaGraphExecDestroy(run);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
  }
}
