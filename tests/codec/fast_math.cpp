// Compiled with -ffast-math: values that are not finite are refused, although compilers may assume
// that there are none.
#include "../support/caught.hpp"

#include <deltadct/codec.hpp>

#include <array>
#include <cstring>
#include <span>
#include <vector>

#include <doctest/doctest.h>

using namespace deltadct;
using test::caught;

namespace {

/// A number made of bits in memory, like one from a file.
template <class T>
struct Stored {
  T value;
  explicit Stored(detail::FloatBits<T> bits) { std::memcpy(&value, &bits, sizeof(T)); }
};

template <class T>
std::array<Stored<T>, 5> not_finite() {
  using Bits = detail::FloatBits<T>;
  constexpr Bits infinity = detail::exponent_bits<T>();
  constexpr auto sign = static_cast<Bits>(~(static_cast<Bits>(~Bits{0}) >> 1));
  const auto of = [](auto bits) { return Stored<T>(static_cast<Bits>(bits)); };
  return {of(infinity), of(infinity | sign), of(infinity + 1u), of(~Bits{0}), of(sign - 1u)};
}

template <class T>
std::vector<T> ramp() {
  std::vector<T> values(40 * 50);
  for (std::size_t s = 0; s < values.size(); ++s) {
    values[s] = static_cast<T>(static_cast<compute_t<T>>(s % 17) / 64 - compute_t<T>(0.1));
  }
  return values;
}

template <class Codec, class T>
void check_refused(const Codec& codec, std::vector<T> values) {
  const MatrixView<T> weights(values.data(), 40, 50);
  const CompressedTensor good = codec.encode(weights);
  CHECK_NOTHROW(codec.validate(good));
  CHECK_NOTHROW(validate(CompressedView(good)));
  for (const Stored<double>& bad : not_finite<double>()) {
    CompressedTensor c = good;
    std::memcpy(&c.header.scale, &bad.value, sizeof(double));
    CHECK(caught([&] { validate(c); }).where() == "scale");
    CHECK(caught([&] { codec.validate(c); }).where() == "scale");
    CHECK(caught([&] { codec.decode(c, weights); }).where() == "scale");
    CHECK(caught([&] { codec.decode_add(good, weights, bad.value); }).where() == "alpha");
    CHECK(caught([&] { codec.decode_add_block(good, 0, 0, weights, bad.value); }).where() ==
          "alpha");
  }
  with_element(good.header.bound, [&]<class B>() {
    for (const Stored<B>& bad : not_finite<B>()) {
      for (std::size_t at = 0; at < good.bounds.size(); at += 7 * sizeof(B)) {
        CompressedTensor c = good;
        std::memcpy(c.bounds.data() + at, &bad.value, sizeof(B));
        CHECK(caught([&] { validate(c); }).where() == "bounds");
        CHECK(caught([&] { codec.validate(c); }).where() == "bounds");
      }
    }
  });
  for (const Stored<T>& bad : not_finite<T>()) {
    std::vector<T> spoiled = values;
    std::memcpy(&spoiled[73], &bad.value, sizeof(T));
    CHECK(caught([&] { codec.encode(MatrixView<const T>(spoiled.data(), 40, 50)); }).where() ==
          "element (1, 23)");
  }
}

template <class T>
void check_ranges() {
  using Limits = std::numeric_limits<T>;
  const DeltaCodec<DefaultPolicy<T, 8>, Serial> codec{RatioAllocator{{4, 1.0}}};
  std::vector<T> values = ramp<T>();
  CompressedTensor c = codec.encode(MatrixView<const T>(values.data(), 40, 50));
  const auto set = [&](T lo, T hi, double scale) {
    std::memcpy(c.bounds.data(), &lo, sizeof(T));
    std::memcpy(c.bounds.data() + sizeof(T), &hi, sizeof(T));
    c.header.scale = scale;
  };
  // Each value is finite, but their difference is not; then their product with the scale is not.
  set(Limits::lowest(), Limits::max(), 1);
  CHECK(caught([&] { codec.validate(c); }).where() == "bounds of a patch");
  set(0, Limits::max() / 2, 1000);
  CHECK(caught([&] { codec.validate(c); }).where().starts_with("scale and bounds"));
  set(0, Limits::max() / 1024, 1);
  CHECK_NOTHROW(codec.validate(c));
}

}  // namespace

TEST_CASE("fast_math: scales, bounds, factors and elements that are not finite are refused") {
  check_refused(DeltaCodec<DefaultPolicy<float, 8>>{}, ramp<float>());
  check_refused(DeltaCodec<DefaultPolicy<double, 8>, Serial>{}, ramp<double>());
  check_refused(DeltaCodec<UnitGainPolicy<float, 16>, Serial>{}, ramp<float>());
  check_refused(DeltaCodec<UnitGainPolicy<double, 16>, Serial>{RatioAllocator{{-3, 1.0}}},
                ramp<double>());
}

TEST_CASE("fast_math: values that decode beyond the type's range are refused") {
  check_ranges<float>();
  check_ranges<double>();
}

TEST_CASE("fast_math: settings and scores that are no numbers are told") {
  const auto bad = not_finite<double>();
  for (const Stored<double>& nan : std::span(bad).subspan(2)) {
    CHECK(caught([&] { BudgetAllocator allocator(nan.value); }).code() == Errc::bad_mix);
    CHECK(caught([&] { RatioAllocator mix({{2, nan.value}, {0, 0.5}}); }).code() == Errc::bad_mix);
  }
  std::vector<float> scores{1, 2, 0, 3, 5, 4, 7, 6};
  const auto bad_scores = not_finite<float>();
  for (const Stored<float>& nan : std::span(bad_scores).subspan(2)) {
    std::memcpy(&scores[2], &nan.value, sizeof(float));
    std::vector<std::uint32_t> order(8);
    std::vector<std::uint32_t> classes(8);
    RatioAllocator{{8, 0.5}, {2, 0.375}, {0, 0.125}}.allocate(std::span<const float>(scores), order,
                                                              classes);
    CHECK(classes == std::vector<std::uint32_t>{1, 1, 2, 1, 0, 0, 0, 0});
    const BudgetAllocator allocator(1);
    allocator.allocate(PatchGrid{16, 2}, std::span<const float>(scores), order, classes);
    CHECK(classes[2] == *std::ranges::max_element(classes));
    CHECK(classes[0] < classes[2]);
  }
}
