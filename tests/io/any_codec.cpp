// Codecs chosen at run time: every combination that is promised, equal to the one of its types.
#include <deltadct/any_codec.hpp>

#include <array>
#include <cstring>
#include <random>

#include <doctest/doctest.h>

using namespace deltadct;

namespace {

/// Values in -1 .. 1, the same on every machine.
template <class T>
std::vector<T> noise(std::size_t count) {
  std::mt19937 bits(7);
  std::vector<T> values;
  for (std::size_t i = 0; i < count; ++i) {
    values.push_back(T(static_cast<compute_t<T>>(static_cast<double>(bits()) * 0x1p-31 - 1)));
  }
  return values;
}

template <class Fn>
Errc code_of(Fn fn) {
  try {
    fn();
  } catch (const Error& error) {
    return error.code();
  }
  FAIL("nothing was thrown");
  return Errc::io_failure;
}

template <class T>
CompressedTensor encode(const AnyCodec& codec, const std::vector<T>& base,
                        const std::vector<T>& tuned, std::size_t rows, std::size_t cols) {
  CompressedTensor out;
  std::vector<std::byte> workspace;
  codec.encode_into(out, workspace, dtype_of<T>(), base.data(), tuned.data(), rows, cols,
                    SerialExecutor{});
  return out;
}

/// The share of a delta of noise that 8 bits do not give back.
template <class T>
double loss(const AnyCodec& codec, std::size_t rows, std::size_t cols) {
  const std::vector<T> tuned = noise<T>(rows * cols);
  std::vector<T> weights(rows * cols, T(compute_t<T>(0)));
  const CompressedTensor c = encode(codec, weights, tuned, rows, cols);
  codec.decode_add(c, dtype_of<T>(), weights.data(), 1, SerialExecutor{});
  double error = 0;
  double whole = 0;
  for (std::size_t i = 0; i < tuned.size(); ++i) {
    const auto x = static_cast<double>(static_cast<compute_t<T>>(tuned[i]));
    const auto y = static_cast<double>(static_cast<compute_t<T>>(weights[i]));
    error += (x - y) * (x - y);
    whole += x * x;
  }
  return error / whole;
}

}  // namespace

TEST_CASE("there is a codec for every patch size, transform and precision") {
  for (const int patch : {4, 8, 12, 16, 32, 64}) {
    for (const std::string_view transform : {Dct::name, Identity::name}) {
      CAPTURE(patch);
      const RatioAllocator eight{{8, 1.0}};
      const auto single = make_codec<Serial>({patch, std::string(transform), false, eight});
      CHECK(loss<float>(*single, 70, 67) < 1e-3);
      CHECK(loss<half>(*single, 5, 70) < 1e-3);
      CHECK(loss<bfloat16>(*single, 70, 5) < 1e-3);
      const auto precise = make_codec<Serial>({patch, std::string(transform), true, eight});
      CHECK(loss<double>(*precise, 66, 3) < 1e-3);
    }
  }
}

TEST_CASE("a spec that no codec fits is refused") {
  for (const int patch : {-4, 0, 1, 5, 24, 63, 128}) {
    CHECK(code_of([&] { make_codec<Serial>({.patch = patch}); }) == Errc::codec_mismatch);
  }
  for (const char* transform : {"", "DCT", "wavelet"}) {
    CHECK(code_of([&] { make_codec<Serial>({.transform = transform}); }) == Errc::codec_mismatch);
  }
}

TEST_CASE("it is the codec of its types, bit by bit") {
  const std::vector<float> base = noise<float>(30 * 21);
  std::vector<float> tuned = base;
  std::ranges::reverse(tuned);
  const RatioAllocator mix{{4, 0.3}, {1, 0.3}, {0, 0.4}};
  const auto any = make_codec<Serial>({.patch = 8, .allocator = mix});
  const DeltaCodec<DefaultPolicy<float, 8>, Serial> codec(mix);
  const CompressedTensor a = encode(*any, base, tuned, 30, 21);
  const CompressedTensor b = codec.encode(MatrixView<const float>(base.data(), 30, 21),
                                          MatrixView<const float>(tuned.data(), 30, 21));
  CHECK(a.header.scale == b.header.scale);
  CHECK(a.bounds == b.bounds);
  CHECK(a.codes == b.codes);
  std::vector<float> x = base;
  std::vector<float> y = base;
  any->decode_add(a, DType::f32, x.data(), 0.5, SerialExecutor{});
  codec.decode_add(b, MatrixView<float>(y.data(), 30, 21), 0.5);
  CHECK(std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0);
}

TEST_CASE("dtypes it does not compute in are refused, by check() too, and nothing is written") {
  const auto single = make_codec<Serial>({.patch = 4});
  const auto precise = make_codec<Serial>({.patch = 4, .double_precision = true});
  const std::vector<float> base(16);
  const CompressedTensor c = encode(*single, base, noise<float>(16), 4, 4);
  std::array<double, 16> weights{};
  const auto decode = [&](const AnyCodec& codec, DType dtype) {
    const Errc decoded =
        code_of([&] { codec.decode_add(c, dtype, weights.data(), 1, SerialExecutor{}); });
    CHECK(code_of([&] { codec.check(c, dtype); }) == decoded);
    return decoded;
  };
  single->check(c, DType::f32);
  single->check(c, DType::bf16);
  CHECK(decode(*single, DType::f64) == Errc::codec_mismatch);
  CHECK(decode(*precise, DType::f32) == Errc::codec_mismatch);
  CHECK(decode(*precise, DType::bf16) == Errc::codec_mismatch);
  for (const DType dtype : {DType::i32, DType::u8, DType::boolean, DType::f8_e4m3}) {
    CHECK(decode(*single, dtype) == Errc::unsupported_dtype);
  }
  CHECK(decode(*make_codec<Serial>({.patch = 8}), DType::f32) == Errc::codec_mismatch);
  CHECK(decode(*make_codec<Serial>({.patch = 4, .transform = std::string(Identity::name)}),
               DType::f32) == Errc::codec_mismatch);
  CHECK(weights == std::array<double, 16>{});
}

TEST_CASE("an executor reference runs every index, on the executor it refers to") {
  struct Backwards {
    void parallel_for(std::size_t n, const std::function<void(std::size_t)>& fn) const {
      while (n-- > 0) fn(n);
    }
  };
  const Backwards backwards;
  std::vector<std::size_t> seen;
  ExecutorRef(backwards).parallel_for(4, [&](std::size_t i) { seen.push_back(i); });
  CHECK(seen == std::vector<std::size_t>{3, 2, 1, 0});
}
