// Matrices at the very beginning or end of their memory: nothing beyond them is read or written.
#include "support.hpp"

#include <cstring>

#include <sys/mman.h>
#include <unistd.h>

using namespace test;

namespace {

enum class End { first, last };

/// A dense matrix at one end of its memory, with an inaccessible page before and behind.
template <class T>
class Guarded {
 public:
  Guarded(const Matrix<T>& from, End end) : rows_(from.view().rows), cols_(from.view().cols) {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    const std::size_t bytes = rows_ * cols_ * sizeof(T);
    const std::size_t inner = ceil_div(bytes, page) * page;
    bytes_ = inner + 2 * page;
    memory_ = ::mmap(nullptr, bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory_ != MAP_FAILED);
    std::byte* begin = static_cast<std::byte*>(memory_) + page;
    REQUIRE(::mprotect(begin, inner, PROT_READ | PROT_WRITE) == 0);
    data_ = reinterpret_cast<T*>(end == End::first ? begin : begin + inner - bytes);
    for (std::size_t i = 0; i < rows_; ++i) {
      for (std::size_t j = 0; j < cols_; ++j) view()(i, j) = from.view()(i, j);
    }
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { ::munmap(memory_, bytes_); }

  MatrixView<T> view() const { return {data_, rows_, cols_}; }

 private:
  std::size_t rows_;
  std::size_t cols_;
  std::size_t bytes_ = 0;
  void* memory_ = nullptr;
  T* data_ = nullptr;
};

template <class T_, int P_>
struct Case {
  using T = T_;
  static constexpr int P = P_;
};

}  // namespace

TEST_CASE_TEMPLATE("guarded: encode and decode keep within matrices", C, Case<float, 4>,
                   Case<float, 8>, Case<float, 12>, Case<float, 16>, Case<float, 64>,
                   Case<double, 12>, Case<half, 4>, Case<bfloat16, 12>, Case<bfloat16, 32>) {
  using T = typename C::T;
  const DeltaCodec<DefaultPolicy<T, C::P>> codec{RatioAllocator(kWideMix)};
  constexpr std::size_t p = C::P;
  for (const auto& shape : {std::pair{p, p},
                            {p, 3 * p},
                            {2 * p, p + 1},
                            {p - 1, 5 * p},
                            {std::size_t{1}, 2 * p},
                            {std::size_t{1}, std::size_t{1}}}) {
    const std::size_t rows = shape.first;
    const std::size_t cols = shape.second;
    CAPTURE(rows);
    CAPTURE(cols);
    const auto zero = random_matrix<T>(rows, cols, 1, Layout::dense, 0);
    const auto delta = random_matrix<T>(rows, cols, 3);
    const CompressedTensor expected = codec.encode(delta.view());
    Matrix<T> decoded(rows, cols);
    codec.decode(expected, decoded.view());
    for (const End end : {End::first, End::last}) {
      const Guarded<T> base(zero, end);
      const Guarded<T> tuned(delta, end);
      const auto compressed = codec.encode(base.view(), tuned.view());
      CHECK(compressed.codes == expected.codes);
      CHECK(compressed.bounds == expected.bounds);
      const Guarded<T> out(delta, end);
      codec.decode(compressed, out.view());
      codec.decode_add(compressed, base.view());
      const auto same = [&](MatrixView<T> found) {
        for (std::size_t i = 0; i < rows; ++i) {
          for (std::size_t j = 0; j < cols; ++j) {
            const T value = found(i, j);
            const T other = decoded.view()(i, j);
            if (std::memcmp(&value, &other, sizeof(T)) != 0) return false;
          }
        }
        return true;
      };
      CHECK(same(out.view()));
      CHECK(same(base.view()));
    }
  }
}
