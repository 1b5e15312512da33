// Compiled with -ffast-math: non-finite numbers in a packed form must be refused although the
// compiler may assume that there are none.
#include "../support/caught.hpp"

#include <deltadct/baseline/bit_delta.hpp>
#include <deltadct/baseline/dare.hpp>
#include <deltadct/baseline/delta_come.hpp>
#include <deltadct/baseline/ultra_delta.hpp>

#include <cstring>
#include <vector>

#include <doctest/doctest.h>

using namespace deltadct;
using test::caught;

namespace {

/// Writes every kind of non-finite value over one T of the packed form. All must be refused.
template <class T, class Method>
void check_refused(const Method& method, std::size_t at) {
  CAPTURE(method.name);
  CAPTURE(at);
  const BaselineCodec<Method> codec(method);
  std::vector<float> delta(40 * 50);
  for (std::size_t s = 0; s < delta.size(); ++s) delta[s] = static_cast<float>(s % 17) / 64 - 0.1F;
  const CompressedTensor good = codec.encode(MatrixView<const float>(delta.data(), 40, 50));
  CHECK_NOTHROW(codec.validate(good));
  using Bits = detail::FloatBits<T>;
  const Bits infinity = detail::exponent_bits<T>();
  for (const Bits bits :
       {infinity, static_cast<Bits>(infinity + 1u), static_cast<Bits>(~Bits{0})}) {
    CompressedTensor c = good;
    std::memcpy(c.codes.data() + at, &bits, sizeof(bits));
    CHECK(caught([&] { codec.validate(c); }).code() == Errc::corrupt_data);
    std::vector<float> out(delta.size());
    CHECK(caught([&] { codec.decode(c, MatrixView<float>(out.data(), 40, 50)); }).code() ==
          Errc::corrupt_data);
  }
}

}  // namespace

TEST_CASE("fast_math: numbers that are not finite are refused in every packed form") {
  check_refused<bfloat16>(BitDelta{}, 1);
  check_refused<float>(Dare{.drop = 0.5}, 12);
  check_refused<half>(Dare{.drop = 0.5}, 16);
  check_refused<half>(Dare{.drop = 0.5}, 16 + 2 * 100);
  check_refused<float>(UltraDelta{.groups = {{{.sparsity = 0.5}}}}, 8);
  check_refused<float>(UltraDelta{.groups = {{{.sparsity = 0.5}}}}, 12);
  constexpr std::size_t front = 3 * 4 + 2;
  check_refused<bfloat16>(DeltaCome{}, front);
  check_refused<half>(DeltaCome{}, front + 2 * 2);      // a step
  check_refused<half>(DeltaCome{}, front + 2 * 2 + 2);  // its zero
}

TEST_CASE("fast_math: settings that are no numbers are told") {
  const std::vector<float> delta(12, 1.0F);
  const MatrixView<const float> view(delta.data(), 3, 4);
  const std::uint64_t bits = 0x7FF8000000000000;
  Dare dare;
  std::memcpy(&dare.drop, &bits, sizeof(bits));
  CHECK(caught([&] { BaselineCodec<Dare>(dare).encode(view); }).code() == Errc::bad_range);
  UltraDelta ultra;
  for (UltraDelta::Group& group : ultra.groups) std::memcpy(&group.sparsity, &bits, sizeof(bits));
  CHECK(caught([&] { BaselineCodec<UltraDelta>(ultra).encode(view); }).code() == Errc::bad_range);
}
