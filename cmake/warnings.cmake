# deltadct_warnings: the warnings for the project's own programs. deltadct::deltadct never links it, so
# consumers do not get them.
add_library(deltadct_warnings INTERFACE)
target_compile_options(
  deltadct_warnings
  INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wconversion;-Wshadow;$<$<BOOL:${DELTADCT_WERROR}>:-Werror>>
    # Without -Wpedantic, because the host code that nvcc generates is not pedantic.
    $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Wconversion,-Wshadow;$<$<BOOL:${DELTADCT_WERROR}>:-Werror=all-warnings>>
)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # g++ 12 warns of overlapping copies in std::string's operator+ that cannot happen, and of uninitialised
  # values in its own AVX-512 intrinsics. clang++ still checks for uninitialised values.
  target_compile_options(
    deltadct_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict;-Wno-uninitialized;-Wno-maybe-uninitialized>)
endif()
