// Defines probe(); compiled by nvcc, too.
#include "probe.hpp"

const char* deltadct::probe() {
  return DELTADCT_ABI_TEXT;
}
