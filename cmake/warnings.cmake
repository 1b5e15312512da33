# deltadct_warnings: the warnings the project's own programs are compiled with. Never linked by
# deltadct::deltadct, so no consumer sees them.
add_library(deltadct_warnings INTERFACE)
target_compile_options(
  deltadct_warnings
  INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wconversion;-Wshadow;$<$<BOOL:${DELTADCT_WERROR}>:-Werror>>
    # nvcc's own code for the host is not pedantic.
    $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Wconversion,-Wshadow;$<$<BOOL:${DELTADCT_WERROR}>:-Werror=all-warnings>>
)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # g++ 12 sees overlapping copies in std::string's operator+ that cannot happen, and uninitialised
  # values in its own AVX-512 intrinsics. clang++ keeps watch over the latter.
  target_compile_options(
    deltadct_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict;-Wno-uninitialized;-Wno-maybe-uninitialized>)
endif()
