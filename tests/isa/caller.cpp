// Calls probe(). The test is whether this links.
#include "probe.hpp"

#include <cstdio>

int main() {
  std::puts(deltadct::probe());
}
