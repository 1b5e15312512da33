// The backend under test, and test cases by element type and patch size.
#pragma once

#include "../../codec/support.hpp"

#include TEST_HEADER

namespace test {

using Backend = deltadct::TEST_BACKEND;

template <class T_, int P_>
struct Case {
  using T = T_;
  static constexpr int P = P_;
};

}  // namespace test
