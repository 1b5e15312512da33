// Calls probe(): whether it links is what is tested.
#include "probe.hpp"

#include <cstdio>

int main() {
  std::puts(deltadct::probe());
}
