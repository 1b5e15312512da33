// Compressing a pair: what cannot be compressed is refused, or kept without loss where asked.
#include <deltadct/io/compress.hpp>

#include "pair.hpp"

using namespace io_test;
using io::NonFinite;

TEST_SUITE("models that do not fit") {
  TEST_CASE("a codec that the factory does not have") {
    const Pair pair = one_pair(DType::f32, {64, 64});
    CHECK(fails_leaving_nothing(pair.folder, [&] { pair.compress(options_of(24)); }).code() ==
          Errc::codec_mismatch);
  }
}

TEST_SUITE("values that are not finite") {
  TEST_CASE("they are refused, naming tensor and element") {
    for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
      for (const double value : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
        Pair pair = one_pair(dtype, {10, 20});
        pair.tuned[0].set(7 * 20 + 13, value);
        pair.write();
        const Error error =
            fails_leaving_nothing(pair.folder, [&] { pair.compress(options_of(4)); });
        CHECK(error.code() == Errc::non_finite);
        CHECK(names(error, "w: element (7, 13)"));
      }
    }
  }

  TEST_CASE("keep stores such a tensor without loss, and only it") {
    for (const bool in_base : {true, false}) {
      Pair pair = mixed_pair();
      for (const std::size_t i : {std::size_t{0}, std::size_t{5}}) {
        (in_base ? pair.base : pair.tuned)[i].set(3, std::nan(""));
        (in_base ? pair.base : pair.tuned)[i].set(5, -HUGE_VAL);
      }
      pair.write();
      CompressOptions options = options_of(4);
      options.non_finite = NonFinite::keep;
      const CheckpointReport report = pair.compress(options);
      CHECK(report.count(Mode::delta) == 5);
      CHECK(report.count(Mode::lossless) == 8);
      pair.apply();
      const Model out = pair.out();
      CHECK(data(out, "f32") == pair.tuned[0].bytes);
      CHECK(data(out, "bf16") == pair.tuned[5].bytes);
    }
  }

  TEST_CASE("where nothing is compressed they do no harm") {
    Pair pair = mixed_pair();
    pair.base[6].set(0, std::nan(""));  // unchanged
    pair.tuned[6].set(0, std::nan(""));
    pair.tuned[4].set(0, std::nan(""));   // rank 1
    pair.tuned[10].set(0, std::nan(""));  // small
    pair.tuned[1].set(0, HUGE_VAL);       // scalar
    pair.write();
    pair.compress(options_of(4));
    pair.apply();
    const Model out = pair.out();
    for (const std::size_t i : {std::size_t{6}, std::size_t{4}, std::size_t{10}, std::size_t{1}}) {
      CHECK(data(out, pair.tuned[i].name) == pair.tuned[i].bytes);
    }
  }

  TEST_CASE("a difference between finite values is kept without loss beyond the type's range") {
    Pair pair = one_pair(DType::f32, {8, 8});
    pair.base[0].set(9, -3e38);
    pair.tuned[0].set(9, 3e38);
    pair.write();
    for (const NonFinite non_finite : {NonFinite::refuse, NonFinite::keep}) {
      CompressOptions options = options_of(4);
      options.non_finite = non_finite;
      CHECK(pair.compress(options).count(Mode::lossless) == 1);
      CHECK(pair.reason("w") == "range");
    }
    pair.apply();
    CHECK(data(pair.out(), "w") == pair.tuned[0].bytes);
  }
}

TEST_SUITE("plausibility") {
  TEST_CASE("an unlike pair is refused before anything is written, and told where it is allowed") {
    const Pair pair({noise("w", DType::f32, {64, 64}, 1)}, {noise("w", DType::f32, {64, 64}, 2)});
    CompressOptions options = options_of(16);
    const Error error = fails_leaving_nothing(pair.folder, [&] { pair.compress(options); });
    CHECK(error.code() == Errc::unlike_models);
    options.allow_unlike = true;
    const CheckpointReport report = pair.compress(options);
    CHECK(report.count(Mode::delta) == 1);
    REQUIRE(!report.warnings.empty());
    CHECK(error.detail().starts_with(report.warnings[0].what));
    CHECK(report.weights_ratio == doctest::Approx(std::sqrt(2)).epsilon(0.05));
  }

  TEST_CASE("the report has the norm of the delta over that of the weights") {
    const Pair pair = one_pair(DType::f32, {64, 64});
    const auto from = values(DType::f32, pair.base[0].bytes);
    const auto to = values(DType::f32, pair.tuned[0].bytes);
    CHECK(pair.compress(options_of(16)).weights_ratio ==
          doctest::Approx(norm(difference(to, from)) / norm(to)));
  }
}
