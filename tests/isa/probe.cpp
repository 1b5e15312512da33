// Defines probe(). nvcc also compiles this file.
#include "probe.hpp"

const char* deltadct::probe() {
  return DELTADCT_ABI_TEXT;
}
