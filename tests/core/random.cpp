// The random numbers that signs are drawn from.
#include <deltadct/core/random.hpp>

#include <doctest/doctest.h>

TEST_CASE("random: the numbers are those of SplitMix64") {
  // The first numbers of the published generator for this seed.
  const std::uint64_t expected[] = {6457827717110365317u, 3203168211198807973u,
                                    9817491932198370423u, 4593380528125082431u,
                                    16408922859458223821u};
  std::uint64_t index = 0;
  for (const std::uint64_t bits : expected) {
    CHECK(deltadct::random_bits(1234567, index++) == bits);
  }
}
