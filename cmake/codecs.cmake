# deltadct::codecs: make_codec() of both backends and, with Eigen, make_baseline(), compiled once. It is built
# where something links to it, or if DELTADCT_CODECS is on, which also installs it.
#
# DELTADCT_ABI names the instructions that a file is compiled for (abi.hpp). A program must therefore be compiled
# for those of the library, which are exported; otherwise the linker does not find make_codec().
add_library(deltadct_codecs STATIC)
add_library(deltadct::codecs ALIAS deltadct_codecs)
set_target_properties(deltadct_codecs PROPERTIES EXPORT_NAME codecs CXX_EXTENSIONS OFF
                                                 POSITION_INDEPENDENT_CODE ON)
if(NOT DELTADCT_CODECS)
  set_target_properties(deltadct_codecs PROPERTIES EXCLUDE_FROM_ALL ON)
endif()
target_link_libraries(deltadct_codecs PUBLIC deltadct)
target_compile_definitions(deltadct_codecs INTERFACE DELTADCT_EXTERN_CODECS)

set(DELTADCT_NATIVE_FLAGS "")
if(DELTADCT_NATIVE)
  include(CheckCXXCompilerFlag)
  check_cxx_compiler_flag(-march=native DELTADCT_HAS_MARCH_NATIVE)
  if(DELTADCT_HAS_MARCH_NATIVE)
    set(DELTADCT_NATIVE_FLAGS -march=native)
    target_compile_options(deltadct_codecs PUBLIC $<$<COMPILE_LANGUAGE:CXX>:${DELTADCT_NATIVE_FLAGS}>)
  endif()
endif()

# Adds a source file with that text.
function(deltadct_add_codecs name text)
  set(source ${PROJECT_BINARY_DIR}/codecs/${name}.cpp)
  file(CONFIGURE OUTPUT ${source} CONTENT "${text}")
  target_sources(deltadct_codecs PRIVATE ${source})
endfunction()

foreach(backend IN ITEMS Serial Simd)
  # The same condition as in codec.hpp, which does not know DELTADCT_WITH_XSIMD.
  set(condition 1)
  if(backend STREQUAL Simd)
    set(condition DELTADCT_HAS_SIMD)
  endif()
  deltadct_add_codecs(${backend} "#include <deltadct/any_codec.hpp>
#if ${condition}
template std::unique_ptr<deltadct::AnyCodec> deltadct::make_codec<deltadct::${backend}>(
    const deltadct::CodecSpec&);
#endif
")
endforeach()

if(TARGET deltadct::eigen)
  deltadct_add_codecs(baselines "#include <deltadct/baseline/any_baseline.hpp>
template std::unique_ptr<deltadct::AnyCodec> deltadct::make_baseline<float>(
    const deltadct::AnyBaseline&);
template std::unique_ptr<deltadct::AnyCodec> deltadct::make_baseline<double>(
    const deltadct::AnyBaseline&);
")
  target_link_libraries(deltadct_codecs PRIVATE $<BUILD_INTERFACE:deltadct_eigen>)
  # Eigen without its own threads, so that results do not depend on their number.
  target_compile_definitions(deltadct_codecs PRIVATE EIGEN_DONT_PARALLELIZE)
endif()
