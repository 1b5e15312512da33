# The name of the inline namespace must differ for flags that may change results, and only for
# those. COMPILER, of CMake's COMPILER_ID, compiles with the response file FLAGS.
cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/flags.cmake)

# Each flag on its own, and after one that implies most of the others.
set(all_flags "" -msse3 -mssse3 -msse4.1 -msse4.2 -mavx -mavx2 -mavx512f)
foreach(flag IN ITEMS -mfma -mf16c -mfma4 -mavxvnni -ffast-math -ffinite-math-only
                      -DXSIMD_NO_SUPPORTED_ARCHITECTURE)
  list(APPEND all_flags "-mavx2 ${flag}")
endforeach()
if(COMPILER_ID STREQUAL "GNU")  # clang++ has no macro for these.
  list(APPEND all_flags -fassociative-math\ -fno-signed-zeros\ -fno-trapping-math -freciprocal-math
       -fno-signed-zeros -frounding-math -mfpmath=387 -mavx512f\ -mfma -mavx512f\ -mf16c)
endif()
foreach(subset IN ITEMS cd bw dq vl ifma vbmi vbmi2 vnni bitalg vpopcntdq bf16 fp16 vp2intersect er
                        pf)
  list(APPEND all_flags "-mavx512f -mfma -mf16c -mavx512${subset}")
endforeach()

set(names "")
foreach(flags IN LISTS all_flags)
  abi_of(name "${flags}")
  if(name STREQUAL "")
    message("${flags}: this compiler does not know that")
    continue()
  endif()
  message("${flags}: ${name}")
  if(name IN_LIST names)
    message(SEND_ERROR "Other flags have that name, too")
  endif()
  list(APPEND names ${name})
endforeach()

# Flags that cannot change results must not change the name.
foreach(flags IN ITEMS -O3 -DNDEBUG -g -fno-exceptions)
  abi_of(name "${flags}")
  abi_of(plain "")
  if(NOT name STREQUAL plain)
    message(SEND_ERROR "${flags}: ${name}, not ${plain}")
  endif()
endforeach()
