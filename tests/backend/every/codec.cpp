// A codec on TEST_BACKEND, compared with one on the serial backend: they give the same codes,
// except for rounding ties, and each decodes what the other encoded.
#include "case.hpp"

using namespace test;

namespace {

#ifndef TEST_CASES
  #define TEST_CASES                                                                   \
    Case<float, 4>, Case<float, 8>, Case<float, 12>, Case<float, 16>, Case<float, 64>, \
        Case<double, 8>, Case<double, 32>
#endif

template <class T, class Policy>
void check_against_serial(const Mix& mix, Tally& tally) {
  const DeltaCodec<Policy, Backend> codec{RatioAllocator(mix)};
  const DeltaCodec<Policy, Serial> serial{RatioAllocator(mix)};
  const auto delta = random_matrix<T>(190, 210, 7);
  const auto a = codec.encode(delta.view());
  const auto b = serial.encode(delta.view());
  tally.compare(read<T>(a), read<T>(b));
  CHECK(bounds_error(read<T>(a), read<T>(b)) < 2e-6);
  CHECK(a.header.scale == doctest::Approx(b.header.scale).epsilon(1e-5));
  const double limit = sizeof(T) == 4 ? 1e-10 : 1e-25;
  CHECK(nmse(decoded<T>(codec, a), decoded<T>(serial, a)) < limit);
  CHECK(nmse(decoded<T>(codec, b), decoded<T>(serial, b)) < limit);
}

/// Counts bytes of codes that differ. Steps agree wherever codes do.
template <class T, class Policy>
void check_unit_gain(const Mix& mix) {
  const DeltaCodec<Policy, Backend> codec{RatioAllocator(mix)};
  const DeltaCodec<Policy, Serial> serial{RatioAllocator(mix)};
  const auto delta = random_matrix<T>(190, 210, 7);
  const auto a = codec.encode(delta.view());
  const auto b = serial.encode(delta.view());
  REQUIRE(a.codes.size() == b.codes.size());
  std::size_t different = 0;
  for (std::size_t i = 0; i < a.codes.size(); ++i) different += a.codes[i] != b.codes[i];
  CHECK(different * 1000 <= a.codes.size());
  CHECK(a.header.scale == doctest::Approx(b.header.scale).epsilon(1e-3));
  const double limit = sizeof(T) == 4 ? 1e-10 : 1e-25;
  CHECK(nmse(decoded<T>(codec, a), decoded<T>(serial, a)) < limit);
  CHECK(nmse(decoded<T>(codec, b), decoded<T>(serial, b)) < limit);
}

/// A transform that differs from its inverse: every row moves down by one.
struct RowsDown {
  static constexpr std::string_view name = "rows_down";
  template <int P>
  static constexpr int gain = 1;

  template <int P, class V, class Source, class Sink>
  static void forward(const Source& source, const Sink& sink) {
    move<P, V>(source, sink, 1);
  }
  template <int P, class V, class Source, class Sink>
  static void inverse(const Source& source, const Sink& sink) {
    move<P, V>(source, sink, P - 1);
  }

 private:
  template <int P, class V, class Source, class Sink>
  static void move(const Source& source, const Sink& sink, int by) {
    for (int i = 0; i < P; ++i) {
      for (int j = 0; j < P; j += Lanes<V>::count) {
        sink.store((i + by) % P, j, source.template load<V>(i, j));
      }
    }
  }
};

struct WithRowsDown : DefaultPolicy<float, 16> {
  using Transform = RowsDown;
};

}  // namespace

TEST_CASE_TEMPLATE("backend: codes agree but for ties, reconstructions where codes agree", C,
                   TEST_CASES) {
  using T = typename C::T;
  Tally tally;
  for (const Mix& mix : {kWideMix, Mix{{8, 1.0}}, Mix{{6, 0.5}, {1, 0.5}}, Mix{{4, 1.0}}}) {
    check_against_serial<T, DefaultPolicy<T, C::P>>(mix, tally);
  }
  tally.check();
}

TEST_CASE("backend: unit gain, above and below a bit") {
  check_unit_gain<float, UnitGainPolicy<float, 16>>({{1, 1.0}});
  for (const Mix& mix : {Mix{{1, 1.0}}, Mix{{4, 0.2}, {3, 0.2}, {2, 0.2}, {-2, 0.2}, {-4, 0.2}}}) {
    check_unit_gain<float, UnitGainPolicy<float, 32>>(mix);
    check_unit_gain<double, UnitGainPolicy<double, 12>>(mix);
  }
}

TEST_CASE("backend: the identity is no business of the backend's DCT") {
  Tally tally;
  check_against_serial<float, WithoutDct<float, 16>>(kWideMix, tally);
  CHECK(tally.different == 0);
}

TEST_CASE("backend: a transform of the user's is undone by its inverse") {
  Tally tally;
  check_against_serial<float, WithRowsDown>(kWideMix, tally);
  CHECK(tally.different == 0);
  const DeltaCodec<WithRowsDown, Backend> codec{RatioAllocator{{8, 1.0}}};
  const auto delta = random_matrix<float>(64, 48, 5);
  CHECK(nmse(decoded<float>(codec, codec.encode(delta.view())), values_of(delta)) < 1e-4);
}
