// Values near the limits of the type are restored as well as others, or refused with an error.
#include "support.hpp"

#include <limits>

using namespace test;

namespace {

template <class Policy>
double error_at(double size, int bits) {
  const DeltaCodec<Policy> codec{RatioAllocator{{bits, 1.0}}};
  const auto delta = random_matrix<float>(16, 16, 1, Layout::dense, size);
  Matrix<float> out(16, 16);
  const CompressedTensor c = codec.encode(delta.view());
  codec.decode(c, out.view());
  return nmse(values_of(out), values_of(delta));
}

struct Plain : WithoutDct<float, 8> {
  using Rescale = NoRescale;
};

}  // namespace

TEST_CASE("extremes: small values are quantized as well as others") {
  for (const double size : {1e-10, 1e-20, 1e-30, 1e-34}) {
    CAPTURE(size);
    CHECK(error_at<DefaultPolicy<float, 8>>(size, 8) < 1e-3);
    CHECK(error_at<Plain>(size, 8) < 1e-3);
  }
}

TEST_CASE("extremes: large values are quantized as well as others") {
  for (const double size : {1e10, 1e20, 1e30, 1e35}) {
    CAPTURE(size);
    CHECK(error_at<DefaultPolicy<float, 8>>(size, 8) < 1e-3);
    CHECK(error_at<Plain>(size, 8) < 1e-3);
  }
}

TEST_CASE("extremes: a range beyond the largest value is refused or quantized, never garbled") {
  const DeltaCodec<Plain> codec{RatioAllocator{{4, 1.0}}};
  auto delta = random_matrix<float>(16, 16, 1);
  delta.view()(9, 9) = 3e38F;
  delta.view()(10, 10) = -3e38F;
  try {
    Matrix<float> out(16, 16);
    const CompressedTensor c = codec.encode(delta.view());
    codec.decode(c, out.view());
    CHECK(nmse(values_of(out), values_of(delta)) < 1e-2);
  } catch (const Error& error) {
    CHECK(error.code() == Errc::out_of_range);
  }
}

TEST_CASE("extremes: the constant of a patch may be the largest value") {
  const DeltaCodec<Plain> codec{RatioAllocator{{0, 1.0}}};
  Matrix<float> delta(13, 9);
  const auto view = delta.view();
  for (std::size_t s = 0; s < 13 * 9; ++s) {
    view(s / 9, s % 9) = std::numeric_limits<float>::max();
  }
  Matrix<float> out(13, 9);
  const CompressedTensor c = codec.encode(delta.view());
  codec.decode(c, out.view());
  CHECK(nmse(values_of(out), values_of(delta)) < 1e-10);
}

TEST_CASE("extremes: values too small to be told apart are refused, not lost") {
  const auto refused = []<class Codec, class T>(const Codec& codec, const Matrix<T>& delta) {
    const Error error = caught([&] { codec.encode(delta.view()); });
    CHECK(error.code() == Errc::out_of_range);
    CHECK(error.where() == "delta");
    CHECK(error.detail().find("--exclude") != std::string::npos);
  };
  for (const double size : {1e-44, 1e-42}) {
    refused(DeltaCodec<Plain>{}, random_matrix<float>(16, 16, 1, Layout::dense, size));
    refused(DeltaCodec<DefaultPolicy<float, 8>>{},
            random_matrix<float>(16, 16, 1, Layout::dense, size));
  }
  // 255 / 1e-37 exceeds the largest float, so that every code would be 0.
  refused(DeltaCodec<Plain>{RatioAllocator{{8, 1.0}}},
          random_matrix<float>(16, 16, 1, Layout::dense, 1e-37));
  refused(DeltaCodec<DefaultPolicy<double, 8>>{},
          random_matrix<double>(16, 16, 1, Layout::dense, 1e-322));
  // Beside larger values they do not matter.
  auto delta = random_matrix<float>(16, 16, 1);
  for (std::size_t s = 0; s < 64; ++s) delta.view()(s / 8, 8 + s % 8) *= 1e-42F;
  Matrix<float> out(16, 16);
  const DeltaCodec<DefaultPolicy<float, 8>> codec{RatioAllocator{{8, 1.0}}};
  const CompressedTensor c = codec.encode(delta.view());
  codec.decode(c, out.view());
  CHECK(nmse(values_of(out), values_of(delta)) < 1e-3);
}

TEST_CASE("extremes: subnormal values are kept where they are constants") {
  const DeltaCodec<Plain> codec{RatioAllocator{{0, 1.0}}};
  Matrix<float> delta(8, 8);
  for (std::size_t s = 0; s < 64; ++s) delta.view()(s / 8, s % 8) = 0x1p-140F;
  Matrix<float> out(8, 8);
  const CompressedTensor c = codec.encode(delta.view());
  codec.decode(c, out.view());
  CHECK(out.view()(4, 4) == doctest::Approx(0x1p-140F).epsilon(0.1));
}
