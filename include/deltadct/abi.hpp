// The name of the inline namespace: the version, and all that macros tell about the instructions
// and the arithmetic that a translation unit is compiled for. Two translation units whose results
// may differ have different names, so that they never share an instantiation. If one declares a
// function that only the other defines, the linker reports an error.
//
//     v0_1_avx2_fma_f16c             -march=x86-64-v3
//     v0_1_avx2_fma_f16c_fast...     the same with -ffast-math
//
// nvcc asks the host's compiler for these macros, so its host code has the same name as that of the
// host's compiler alone. The name cannot tell what no macro tells: -ffp-contract, the optimisation
// level, and instructions for integers alone, except those of AVX-512.
#pragma once

#include <deltadct/version.hpp>

// Whether xsimd is installed and says that it has registers for this machine.
#if defined(__has_include)
  #if __has_include(<xsimd/config/xsimd_config.hpp>)
    #include <xsimd/config/xsimd_config.hpp>
    #if !defined(XSIMD_NO_SUPPORTED_ARCHITECTURE)
      #define DELTADCT_HAS_XSIMD 1
    #endif
  #endif
#endif
#if !defined(DELTADCT_HAS_XSIMD)
  #define DELTADCT_HAS_XSIMD 0
#endif

#if defined(__AVX512F__)
  #define DELTADCT_ABI_ARCH avx512
#elif defined(__AVX2__)
  #define DELTADCT_ABI_ARCH avx2
#elif defined(__AVX__)
  #define DELTADCT_ABI_ARCH avx
#elif defined(__SSE4_2__)
  #define DELTADCT_ABI_ARCH sse4_2
#elif defined(__SSE4_1__)
  #define DELTADCT_ABI_ARCH sse4_1
#elif defined(__SSSE3__)
  #define DELTADCT_ABI_ARCH ssse3
#elif defined(__SSE3__)
  #define DELTADCT_ABI_ARCH sse3
#elif defined(__SSE2__) || defined(_M_X64)
  #define DELTADCT_ABI_ARCH sse2
#elif defined(__SSE__)
  #define DELTADCT_ABI_ARCH sse
#elif defined(__ARM_NEON)
  #define DELTADCT_ABI_ARCH neon
#else
  #define DELTADCT_ABI_ARCH scalar
#endif

// Whether the processor's 80-bit x87 stack computes some or all of the arithmetic.
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ == 2
  #define DELTADCT_ABI_X87 _x87
#elif defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0
  #define DELTADCT_ABI_X87 _x87_or_sse
#else
  #define DELTADCT_ABI_X87
#endif

#if DELTADCT_HAS_XSIMD
  #define DELTADCT_ABI_BACKEND
#else
  #define DELTADCT_ABI_BACKEND _serial
#endif

// DELTADCT_ABI_WORD(macro, word): the word if the macro is defined as 1; nothing if it is undefined
// or 0. Pasting a value of 1 yields a comma, which makes the word the second argument.
#define DELTADCT_ABI_IS_1 ,
#define DELTADCT_ABI_SECOND(first, second, ...) second
#define DELTADCT_ABI_PICK(...) DELTADCT_ABI_SECOND(__VA_ARGS__, , )
#define DELTADCT_ABI_PASTE(value, word) DELTADCT_ABI_PICK(DELTADCT_ABI_IS_##value word)
#define DELTADCT_ABI_WORD(macro, word) DELTADCT_ABI_PASTE(macro, word)

#define DELTADCT_ABI_JOIN_NOW(a, b, c, d, e, f, g, h) a##b##c##d##e##f##g##h
#define DELTADCT_ABI_JOIN(a, b, c, d, e, f, g, h) DELTADCT_ABI_JOIN_NOW(a, b, c, d, e, f, g, h)

// Among these is an architecture of xsimd's that has other registers.
#define DELTADCT_ABI_VECTORS                                                                      \
  DELTADCT_ABI_JOIN(DELTADCT_ABI_WORD(__FMA__, _fma), DELTADCT_ABI_WORD(__FMA4__, _fma4),         \
                    DELTADCT_ABI_WORD(__F16C__, _f16c), DELTADCT_ABI_WORD(__AVXVNNI__, _avxvnni), \
                    DELTADCT_ABI_WORD(__ARM_FEATURE_FMA, _fma),                                   \
                    DELTADCT_ABI_WORD(__ARM_FEATURE_SVE, _sve), , )
#define DELTADCT_ABI_AVX512                                                               \
  DELTADCT_ABI_JOIN(                                                                      \
      DELTADCT_ABI_WORD(__AVX512CD__, _cd), DELTADCT_ABI_WORD(__AVX512BW__, _bw),         \
      DELTADCT_ABI_WORD(__AVX512DQ__, _dq), DELTADCT_ABI_WORD(__AVX512VL__, _vl),         \
      DELTADCT_ABI_WORD(__AVX512IFMA__, _ifma), DELTADCT_ABI_WORD(__AVX512VBMI__, _vbmi), \
      DELTADCT_ABI_WORD(__AVX512VBMI2__, _vbmi2), DELTADCT_ABI_WORD(__AVX512VNNI__, _vnni))
#define DELTADCT_ABI_MORE_AVX512                                                             \
  DELTADCT_ABI_JOIN(DELTADCT_ABI_WORD(__AVX512BITALG__, _bitalg),                            \
                    DELTADCT_ABI_WORD(__AVX512VPOPCNTDQ__, _vpopcntdq),                      \
                    DELTADCT_ABI_WORD(__AVX512BF16__, _bf16),                                \
                    DELTADCT_ABI_WORD(__AVX512FP16__, _fp16),                                \
                    DELTADCT_ABI_WORD(__AVX512VP2INTERSECT__, _vp2intersect),                \
                    DELTADCT_ABI_JOIN(DELTADCT_ABI_WORD(__AVX512ER__, _er),                  \
                                      DELTADCT_ABI_WORD(__AVX512PF__, _pf),                  \
                                      DELTADCT_ABI_WORD(__AVX5124FMAPS__, _4fmaps),          \
                                      DELTADCT_ABI_WORD(__AVX5124VNNIW__, _4vnniw), , , , ), \
                    , )

// -ffast-math, and each of its parts that changes results.
#define DELTADCT_ABI_MATH                                                                        \
  DELTADCT_ABI_JOIN(                                                                             \
      DELTADCT_ABI_WORD(__FAST_MATH__, _fast), DELTADCT_ABI_WORD(__FINITE_MATH_ONLY__, _finite), \
      DELTADCT_ABI_WORD(__ASSOCIATIVE_MATH__, _associative),                                     \
      DELTADCT_ABI_WORD(__RECIPROCAL_MATH__, _reciprocal),                                       \
      DELTADCT_ABI_WORD(__NO_SIGNED_ZEROS__, _unsigned_zeros),                                   \
      DELTADCT_ABI_WORD(__ROUNDING_MATH__, _any_rounding), DELTADCT_ABI_WORD(_M_FP_FAST, _fast), \
      DELTADCT_ABI_WORD(_M_FP_CONTRACT, _contract))

#define DELTADCT_ABI_VERSION \
  DELTADCT_ABI_JOIN(v, DELTADCT_VERSION_MAJOR, _, DELTADCT_VERSION_MINOR, _, , , )

/// The name of the inline namespace.
#define DELTADCT_ABI                                                                 \
  DELTADCT_ABI_JOIN(DELTADCT_ABI_VERSION, DELTADCT_ABI_ARCH, DELTADCT_ABI_VECTORS,   \
                    DELTADCT_ABI_AVX512, DELTADCT_ABI_MORE_AVX512, DELTADCT_ABI_X87, \
                    DELTADCT_ABI_MATH, DELTADCT_ABI_BACKEND)

/// The same as a string.
#define DELTADCT_ABI_TEXT DELTADCT_ABI_TEXT_OF(DELTADCT_ABI)
#define DELTADCT_ABI_TEXT_OF(name) DELTADCT_ABI_TEXT_OF_NAME(name)
#define DELTADCT_ABI_TEXT_OF_NAME(name) #name
