// An allocator without widths() is refused as an Allocator.
// expect: Allocator
#include <deltadct/codec.hpp>

struct AllTwo {
#if !defined(DELTADCT_MUST_FAIL)
  std::span<const int> widths() const {
    static constexpr int kWidths[] = {2};
    return kWidths;
  }
#endif
  template <class Score>
  void allocate(std::span<const Score>, std::span<std::uint32_t>,
                std::span<std::uint32_t> classes) const {
    for (auto& k : classes) k = 0;
  }
};

struct Policy : deltadct::DefaultPolicy<float, 4> {
  using Allocator = AllTwo;
};

const deltadct::DeltaCodec<Policy, deltadct::Serial> codec;
