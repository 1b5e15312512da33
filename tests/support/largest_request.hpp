// Replaces a program's operator new with one that remembers the largest request, to show that no
// allocation has a size made up by a file. For programs of one translation unit beside main.cpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace test {

inline std::size_t largest_request = 0;

}  // namespace test

// Not inlined, because g++ would report new and free as a mismatched pair.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  test::largest_request = std::max(test::largest_request, bytes);
  if (void* p = std::malloc(std::max<std::size_t>(bytes, 1))) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  test::largest_request = std::max(test::largest_request, bytes);
  return std::malloc(std::max<std::size_t>(bytes, 1));
}
[[gnu::noinline]] void operator delete(void* p) noexcept {
  std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept {
  std::free(p);
}
