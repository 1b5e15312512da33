// The SIMD backend against the serial one: the same codes but for rounding ties, and each decodes
// what the other made.
#include "support.hpp"

using namespace test;

#if __has_include(<xsimd/xsimd.hpp>)

namespace {

template <class T_, int P_>
struct Case {
  using T = T_;
  static constexpr int P = P_;
};

template <class T, class Codec>
std::vector<double> decoded(const Codec& codec, const CompressedTensor& c) {
  Matrix<T> out(c.header.rows, c.header.cols);
  codec.decode(c, out.view());
  return values_of(out);
}

}  // namespace

TEST_CASE_TEMPLATE("backends: codes agree but for ties, reconstructions where codes agree", C,
                   Case<float, 12>, Case<float, 16>, Case<double, 8>) {
  using T = typename C::T;
  using Policy = DefaultPolicy<T, C::P>;
  Tally tally;
  for (const Mix& mix : {kWideMix, Mix{{8, 1.0}}, Mix{{6, 0.5}, {1, 0.5}}, Mix{{4, 1.0}}}) {
    const DeltaCodec<Policy, Simd> simd{RatioAllocator(mix)};
    const DeltaCodec<Policy, Serial> serial{RatioAllocator(mix)};
    const auto delta = random_matrix<T>(190, 210, 7);
    const auto a = simd.encode(delta.view());
    const auto b = serial.encode(delta.view());
    tally.compare(read<T>(a), read<T>(b));
    CHECK(bounds_error(read<T>(a), read<T>(b)) < 2e-6);
    CHECK(a.header.scale == doctest::Approx(b.header.scale).epsilon(1e-5));
    const double limit = sizeof(T) == 4 ? 1e-10 : 1e-25;
    CHECK(nmse(decoded<T>(simd, a), decoded<T>(serial, a)) < limit);
    CHECK(nmse(decoded<T>(simd, b), decoded<T>(serial, b)) < limit);
  }
  tally.check();
}

#endif
