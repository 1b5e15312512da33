// The main function of every CUDA test program: without a device, what needs one is skipped.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <iostream>

#include <cuda_runtime_api.h>

int main(int argc, char** argv) {
  doctest::Context context(argc, argv);
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::cout << "skipped: no CUDA device\n";
    context.addFilter("test-suite-exclude", "device");
    context.addFilter("test-case-exclude", "device*,cuda dct*,cufft*");
  } else {
    context.addFilter("test-suite-exclude", "no device");
  }
  return context.run();
}
