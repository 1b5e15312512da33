// A scorer that is summed while the matrix is read must declare its degree.
// expect: degree
#include <deltadct/codec.hpp>

struct Energy {
#if !defined(DELTADCT_MUST_FAIL)
  static constexpr int degree = 2;
#endif
  template <int P, class T>
  T operator()(std::span<const T, static_cast<std::size_t>(P) * P> patch) const {
    return deltadct::detail::sum_patch<P, T>(patch.data(), [](T x) { return x * x; });
  }
  template <class V>
  static V term(V x) {
    return x * x;
  }
  template <class T>
  static bool from_sum(T sum, T& score) {
    score = sum;
    return true;
  }
};

struct Policy : deltadct::DefaultPolicy<float, 4> {
  using Scorer = Energy;
};

const deltadct::DeltaCodec<Policy, deltadct::Serial> codec;
