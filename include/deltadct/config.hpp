// The library's macros: host and device marks, inlining hints, and whether there is a SIMD backend.
#pragma once

#if defined(_MSVC_LANG)
  #define DELTADCT_CPLUSPLUS _MSVC_LANG
#else
  #define DELTADCT_CPLUSPLUS __cplusplus
#endif
#if DELTADCT_CPLUSPLUS < 201709L  // what g++ 10 calls C++20
  #error \
      "deltadct is C++20: compile with -std=c++20 (g++, clang++, and nvcc from CUDA 12 on), /std:c++20 (MSVC)"
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
  #error \
      "deltadct is for little-endian machines: codes and archives lie in memory as they are stored"
#endif

#include <deltadct/abi.hpp>

/// Marks what is compiled for both host and device. Empty outside CUDA.
#if defined(__CUDACC__)
  #if defined(__NVCC__) && !defined(__CUDACC_RELAXED_CONSTEXPR__)
    #error \
        "deltadct calls constexpr functions on the device: compile with nvcc --expt-relaxed-constexpr"
  #endif
  #define DELTADCT_HD __host__ __device__
#else
  #define DELTADCT_HD
#endif

// Sanitizers instrument every access. Fully inlined kernels would then take minutes to compile.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  #define DELTADCT_SANITIZED 1
#elif defined(__has_feature)
  #if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
      __has_feature(memory_sanitizer)
    #define DELTADCT_SANITIZED 1
  #endif
#endif

/// Inlining is part of the kernels' design. A patch stays in registers only across inlined calls.
/// Where nothing is held in registers, functions stay out of line, which spares the instruction
/// cache and compile time. On a device everything is inlined, because its stack makes calls
/// expensive.
#if defined(DELTADCT_SANITIZED)
  #define DELTADCT_INLINE inline
  #define DELTADCT_INLINE_LAMBDA
  #define DELTADCT_NOINLINE
#elif defined(_MSC_VER) && !defined(__clang__)
  #define DELTADCT_INLINE __forceinline
  #define DELTADCT_INLINE_LAMBDA
  #define DELTADCT_NOINLINE __declspec(noinline)
#else
  #define DELTADCT_INLINE inline __attribute__((always_inline))
  #define DELTADCT_INLINE_LAMBDA __attribute__((always_inline))
  #if defined(__CUDA_ARCH__)
    #define DELTADCT_NOINLINE
  #else
    #define DELTADCT_NOINLINE __attribute__((noinline))
  #endif
#endif

// Unrolls the loop that follows, so that indices become constants and arrays become registers.
#if defined(__CUDA_ARCH__)
  #define DELTADCT_UNROLL _Pragma("unroll")
#elif defined(__CUDACC__)
  #define DELTADCT_UNROLL
#elif defined(__clang__)
  #define DELTADCT_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
  #define DELTADCT_UNROLL _Pragma("GCC unroll 64")
#else
  #define DELTADCT_UNROLL
#endif

/// Whether there is a SIMD backend: xsimd must be installed and support the target. nvcc has no
/// SIMD registers in code that it compiles for both sides.
#if DELTADCT_HAS_XSIMD && !defined(__CUDACC__)
  #define DELTADCT_HAS_SIMD 1
#else
  #define DELTADCT_HAS_SIMD 0
#endif
