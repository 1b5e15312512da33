// Whether long double is more precise than double where a program runs.
#pragma once

namespace test {

/// Whether long double is wider than double. It is not with every compiler, nor under valgrind.
inline bool is_long_double_wide() {
  const volatile long double one = 1;
  const volatile long double little = 0x1p-60L;
  return one + little != one;
}

}  // namespace test
