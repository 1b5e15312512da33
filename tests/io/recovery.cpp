// How much of a delta is restored, as numbers.
#include <deltadct/io/recovery.hpp>

#include <doctest/doctest.h>

using deltadct::io::Recovery;
using deltadct::io::RowLosses;

TEST_CASE("recovery: gain and SNR") {
  const Recovery half{4, 2, 1};
  CHECK(half.gain() == 0.5);
  CHECK(half.snr_db() == doctest::Approx(6.0206));
  const Recovery exact{4, 4, 0};
  CHECK(exact.gain() == 1);
  CHECK(std::isinf(exact.snr_db()));
  CHECK(Recovery{}.gain() == 1);
}

TEST_CASE("recovery: what rounding swallows is lost, what a codec shrinks or blurs is not") {
  CHECK(Recovery{1, 0, 1}.is_lost());            // the base itself
  CHECK(Recovery{1, 0.002, 0.998}.is_lost());    // hardly more than the base
  CHECK(Recovery{1, 0.3, 1.4}.is_lost());        // only noise
  CHECK_FALSE(Recovery{1, 1, 12}.is_lost());     // a tenth of a bit, with unit gain
  CHECK_FALSE(Recovery{1, 0.4, 0.6}.is_lost());  // its largest singular values
  CHECK_FALSE(Recovery{1, 1, 0}.is_lost());
  CHECK_FALSE(Recovery{}.is_lost());
}

TEST_CASE("recovery: sums from the numbers that archives store") {
  const Recovery sums{3.5, 2.25, 0.75};
  const Recovery again = Recovery::of(sums.energy, sums.gain(), sums.snr_db());
  CHECK(again.product == doctest::Approx(sums.product));
  CHECK(again.error == doctest::Approx(sums.error));
  CHECK(Recovery::of(2, 1, std::numeric_limits<double>::infinity()).error == 0);
}

TEST_CASE("recovery: rows that are lost count, however much the others outweigh them") {
  CHECK_FALSE(RowLosses{}.is_substantial());
  CHECK_FALSE(RowLosses{100, 25, 0}.is_substantial());
  CHECK(RowLosses{100, 26, 0}.is_substantial());
  CHECK_FALSE(RowLosses{100, 10, 40}.is_substantial());  // half of the patches may have no bits
  CHECK(RowLosses{100, 10, 41}.is_substantial());
  RowLosses sum{100, 10, 41};
  sum += {50, 1, 2};
  CHECK(sum == RowLosses{150, 11, 43});
  CHECK(sum.lost() == 54);
}
