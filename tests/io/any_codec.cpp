// Codecs chosen at run time: every promised combination equals the codec of its types.
#include <deltadct/any_codec.hpp>

#include <array>
#include <cmath>
#include <cstdint>
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

/// The share of a delta of noise that 8 bits do not recover.
template <class T>
double loss(const AnyCodec& codec, std::size_t rows, std::size_t cols) {
  const std::vector<T> tuned = noise<T>(rows * cols);
  std::vector<T> weights(rows * cols, T(compute_t<T>(0)));
  const CompressedTensor c = encode(codec, weights, tuned, rows, cols);
  codec.validate(c, dtype_of<T>());
  codec.decode_add(c, dtype_of<T>(), weights.data(), weights.data(), 1, SerialExecutor{});
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
      const auto single = make_codec<Serial>(
          {.patch = patch, .transform = std::string(transform), .allocator = eight});
      CHECK(loss<float>(*single, 70, 67) < 1e-3);
      CHECK(loss<half>(*single, 5, 70) < 1e-3);
      CHECK(loss<bfloat16>(*single, 70, 5) < 1e-3);
      const auto precise = make_codec<Serial>({.patch = patch,
                                               .transform = std::string(transform),
                                               .double_precision = true,
                                               .allocator = eight});
      CHECK(loss<double>(*precise, 66, 3) < 1e-3);
    }
  }
}

TEST_CASE("there is a codec of unit gain for larger patches of every precision") {
  for (const int patch : {16, 32, 64}) {
    CAPTURE(patch);
    CodecSpec spec = unit_gain_spec();
    spec.patch = patch;
    spec.allocator = {{4, 1.0}};
    CHECK(loss<bfloat16>(*make_codec<Serial>(spec), 70, 67) < 0.03);
    spec.double_precision = true;
    CHECK(loss<double>(*make_codec<Serial>(spec), 66, 70) < 0.03);
  }
  CodecSpec small = unit_gain_spec();
  small.patch = 8;
  CHECK(code_of([&] { make_codec<Serial>(small); }) == Errc::codec_mismatch);
}

TEST_CASE("allocators are told apart by their texts") {
  CHECK(AnyAllocator().text() == "mix 2:0.5 0:0.5");
  CHECK(AnyAllocator({{1, 0.25}, {-3, 0.75}}).text() == "mix 1:0.25 -3:0.75");
  CHECK(AnyAllocator(BudgetAllocator(0.15)).text() == "budget 0.15");
  CHECK(AnyAllocator(BudgetAllocator(0.15)).widths().size() == 8);
}

TEST_CASE("a spec that no codec fits is refused") {
  CHECK(code_of([] { make_codec<Serial>({.quantizer = "gaussian"}); }) == Errc::codec_mismatch);
  CHECK(code_of([] { make_codec<Serial>({.transform = "randomized_dct"}); }) ==
        Errc::codec_mismatch);
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
  any->decode_add(a, DType::f32, x.data(), x.data(), 0.5, SerialExecutor{});
  codec.decode_add(b, MatrixView<float>(y.data(), 30, 21), 0.5);
  CHECK(std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0);
  // From one matrix into another.
  std::vector<float> z(base.size());
  any->decode_add(a, DType::f32, base.data(), z.data(), 0.5, SerialExecutor{});
  CHECK(std::memcmp(z.data(), y.data(), z.size() * sizeof(float)) == 0);
}

TEST_CASE("a block is that of the whole, bit by bit, and no other is written") {
  const RatioAllocator mix{{8, 0.3}, {2, 0.3}, {0, 0.4}};
  for (const int patch : {4, 16}) {
    const auto codec = make_codec<Serial>({.patch = patch, .allocator = mix});
    const std::vector<bfloat16> base = noise<bfloat16>(37 * 29);
    std::vector<bfloat16> tuned = base;
    std::ranges::reverse(tuned);
    const CompressedTensor c = encode(*codec, base, tuned, 37, 29);
    std::vector<bfloat16> whole(base.size());
    codec->decode_add(c, DType::bf16, base.data(), whole.data(), 0.5, SerialExecutor{});
    struct Block {
      std::size_t row, col, rows, cols;
    };
    for (const auto& [row, col, rows, cols] : {Block{0, 0, 37, 29},
                                               {0, 0, 1, 1},
                                               {36, 28, 1, 1},
                                               {5, 7, 20, 3},
                                               {16, 0, 16, 29},
                                               {3, 3, 0, 5},
                                               {37, 29, 0, 0}}) {
      const std::string at = std::to_string(row) + ", " + std::to_string(col);
      CAPTURE(at);
      std::vector<bfloat16> block(rows * cols + 1, bfloat16(0.0F));
      for (std::size_t i = 0; i < rows * cols; ++i) {
        block[i] = base[(row + i / cols) * 29 + col + i % cols];
      }
      codec->decode_add_block(c, DType::bf16, row, col, block.data(), rows, cols, 0.5,
                              SerialExecutor{});
      for (std::size_t i = 0; i < rows * cols; ++i) {
        const bfloat16 expected = whole[(row + i / cols) * 29 + col + i % cols];
        CHECK(static_cast<float>(block[i]) == static_cast<float>(expected));
      }
      CHECK(static_cast<float>(block.back()) == 0);
    }
    std::vector<bfloat16> block(37 * 29);
    for (const auto& [row, col, rows, cols] : {Block{0, 0, 38, 1},
                                               {0, 0, 1, 30},
                                               {37, 0, 1, 1},
                                               {0, 29, 1, 1},
                                               {38, 0, 0, 0},
                                               {SIZE_MAX, 0, 2, 1},
                                               {0, SIZE_MAX, 1, 2}}) {
      CHECK(code_of([&, r = row, k = col, n = rows, m = cols] {
              codec->decode_add_block(c, DType::bf16, r, k, block.data(), n, m, 1,
                                      SerialExecutor{});
            }) == Errc::bad_range);
    }
    CHECK(code_of([&] {
            codec->decode_add_block(c, DType::i16, 0, 0, block.data(), 1, 1, 1, SerialExecutor{});
          }) == Errc::unsupported_dtype);
  }
}

TEST_CASE("dtypes it does not compute in are refused, by validate() too, and nothing is written") {
  const auto single = make_codec<Serial>({.patch = 4});
  const auto precise = make_codec<Serial>({.patch = 4, .double_precision = true});
  const std::vector<float> base(16);
  const CompressedTensor c = encode(*single, base, noise<float>(16), 4, 4);
  std::array<double, 16> weights{};
  const auto decode = [&](const AnyCodec& codec, DType dtype) {
    const Errc decoded = code_of(
        [&] { codec.decode_add(c, dtype, weights.data(), weights.data(), 1, SerialExecutor{}); });
    CHECK(code_of([&] { codec.validate(c, dtype); }) == decoded);
    return decoded;
  };
  single->validate(c, DType::f32);
  single->validate(c, DType::bf16);
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

TEST_CASE("what encode() could not have made is refused before it is decoded") {
  const auto codec =
      make_codec<Serial>({.patch = 4, .allocator = RatioAllocator{{2, 0.5}, {0, 0.5}}});
  const std::vector<float> base(96);
  const CompressedTensor sound = encode(*codec, base, noise<float>(96), 8, 12);
  REQUIRE(sound.header.classes.size() == 2);
  codec->validate(sound, DType::f32);
  const auto refused = [&](auto alter) {
    CompressedTensor c = sound;
    alter(c);
    return code_of([&] { codec->validate(c, DType::f32); });
  };
  const auto bound = [](CompressedTensor& c, std::size_t index, float value) {
    std::memcpy(c.bounds.data() + 4 * index, &value, 4);
  };
  CHECK(refused([](auto& c) { c.header.scale = 1e300; }) == Errc::corrupt_data);
  CHECK(refused([](auto& c) { c.header.scale = std::nan(""); }) == Errc::corrupt_data);
  CHECK(refused([](auto& c) { c.header.rows = 9; }) == Errc::corrupt_data);
  CHECK(refused([](auto& c) { c.header.bound = DType::f64; }) == Errc::codec_mismatch);
  CHECK(refused([](auto& c) { c.header.bound = DType::bf16; }) == Errc::corrupt_data);
  CHECK(refused([](auto& c) { c.header.transform = "identity"; }) == Errc::codec_mismatch);
  CHECK(refused([](auto& c) { c.header.quantizer = "magic"; }) == Errc::codec_mismatch);
  CHECK(refused([](auto& c) { c.header.classes[0].bound_count = 1; }) == Errc::codec_mismatch);
  CHECK(refused([](auto& c) { c.header.classes[1].codes_at += 1; }) == Errc::corrupt_data);
  CHECK(refused([](auto& c) { c.codes.pop_back(); }) == Errc::corrupt_data);
  CHECK(refused([](auto& c) { c.bounds.resize(c.bounds.size() + 4); }) == Errc::corrupt_data);
  CHECK(refused([](auto& c) { c.places.pop_back(); }) == Errc::corrupt_data);
  CHECK(refused([](auto& c) { c.places[0] = PatchPlace::make(7, 0); }) == Errc::corrupt_data);
  CHECK(refused([&](auto& c) { bound(c, 0, std::nanf("")); }) == Errc::corrupt_data);
  CHECK(refused([&](auto& c) { bound(c, 8, HUGE_VALF); }) == Errc::corrupt_data);
  // Inverted, overflowing and equal bounds: only the codec knows what its bounds mean.
  CHECK(refused([&](auto& c) {
          bound(c, 0, 1);
          bound(c, 1, 0.5F);
        }) == Errc::corrupt_data);
  CHECK(refused([&](auto& c) {
          bound(c, 2, -3e38F);
          bound(c, 3, 3e38F);
        }) == Errc::corrupt_data);
  CHECK(refused([&](auto& c) {
          bound(c, 0, 1);
          bound(c, 1, 1);
          std::ranges::fill(c.codes, std::byte{0x55});
        }) == Errc::corrupt_data);
  CompressedTensor equal = sound;
  bound(equal, 0, 1);
  bound(equal, 1, 1);
  std::fill_n(equal.codes.begin(), 4, std::byte{0});
  codec->validate(equal, DType::f32);
}

TEST_CASE("all that encode() makes is valid, of the tiniest and the largest deltas, too") {
  for (const int patch : {4, 16}) {
    for (const double step : {0.0, 1e-30, 1e-20, 1.0, 1e30, 1e36}) {
      CAPTURE(step);
      const auto codec = make_codec<Serial>(
          {.patch = patch,
           .allocator = RatioAllocator{{8, 0.25}, {3, 0.25}, {1, 0.25}, {0, 0.25}}});
      std::vector<float> tuned = noise<float>(33 * 35);
      for (float& x : tuned) x = static_cast<float>(step * static_cast<double>(x));
      const std::vector<float> base(tuned.size());
      const CompressedTensor c = encode(*codec, base, tuned, 33, 35);
      codec->validate(c, DType::f32);
      std::vector<float> out(tuned.size());
      codec->decode_add(c, DType::f32, base.data(), out.data(), 1, SerialExecutor{});
      for (const float x : out) CHECK(std::isfinite(x));
    }
  }
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
