// Prints what each translation unit of a pair computes.
#include <cinttypes>
#include <cstdint>
#include <cstdio>

std::uint64_t first();
std::uint64_t second();

int main() {
  std::printf("%016" PRIx64 " %016" PRIx64 "\n", first(), second());
}
