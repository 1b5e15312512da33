// The library's macros: host/device marks, inlining hints and the name of the inline namespace.
#pragma once

#include <deltadct/version.hpp>

/// Marks what is compiled for host and device; empty outside CUDA.
#if defined(__CUDACC__)
  #if defined(__NVCC__) && !defined(__CUDACC_RELAXED_CONSTEXPR__)
    #error \
        "deltadct calls constexpr functions on the device: compile with nvcc --expt-relaxed-constexpr"
  #endif
  #define DELTADCT_HD __host__ __device__
#else
  #define DELTADCT_HD
#endif

// Sanitizers instrument every access: kernels inlined whole would take minutes to compile.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  #define DELTADCT_SANITIZED 1
#elif defined(__has_feature)
  #if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
      __has_feature(memory_sanitizer)
    #define DELTADCT_SANITIZED 1
  #endif
#endif

/// Inlining is part of the kernels' design: registers hold a patch only across inlined calls, and
/// where nothing is held, what stays out of line spares the instruction cache and compilers. A
/// device has no stack worth a call.
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

// Unrolls the loop that follows: the indices become constants and the arrays registers.
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

// Whether there is a SIMD backend. nvcc knows no SIMD registers in what it compiles for both sides.
#if __has_include(<xsimd/xsimd.hpp>) && !defined(__CUDACC__)
  #define DELTADCT_HAS_SIMD 1
#else
  #define DELTADCT_HAS_SIMD 0
#endif

// The inline namespace carries the version and the instruction set, so that two translation units
// built with different -m flags never share an instantiation.
#if defined(__AVX512F__)
  #define DELTADCT_ARCH avx512
#elif defined(__AVX2__) && defined(__FMA__)
  #define DELTADCT_ARCH avx2_fma
#elif defined(__AVX2__)
  #define DELTADCT_ARCH avx2
#elif defined(__AVX__) && defined(__F16C__)
  #define DELTADCT_ARCH avx_f16c
#elif defined(__AVX__)
  #define DELTADCT_ARCH avx
#elif defined(__SSE4_2__)
  #define DELTADCT_ARCH sse4_2
#elif defined(__SSE4_1__)
  #define DELTADCT_ARCH sse4_1
#elif defined(__SSSE3__)
  #define DELTADCT_ARCH ssse3
#elif defined(__SSE2__) || defined(_M_X64)
  #define DELTADCT_ARCH sse2
#elif defined(__ARM_NEON)
  #define DELTADCT_ARCH neon
#else
  #define DELTADCT_ARCH scalar
#endif

#define DELTADCT_ABI_JOIN(major, minor, arch) v##major##_##minor##_##arch
#define DELTADCT_ABI_NAME(major, minor, arch) DELTADCT_ABI_JOIN(major, minor, arch)
#define DELTADCT_ABI \
  DELTADCT_ABI_NAME(DELTADCT_VERSION_MAJOR, DELTADCT_VERSION_MINOR, DELTADCT_ARCH)

#define DELTADCT_TEXT_OF(name) #name
#define DELTADCT_TEXT(name) DELTADCT_TEXT_OF(name)
#define DELTADCT_ABI_TEXT DELTADCT_TEXT(DELTADCT_ABI)
