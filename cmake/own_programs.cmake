# Targets that tests, examples and benchmarks share and consumers never see:
#   deltadct_dev     the library, OpenMP, the warnings and every component found except cuda and cufft
#   deltadct_native  this machine's instruction set (DELTADCT_NATIVE)
#   deltadct_codecs  make_codec() of both backends and the baselines, compiled once, which takes a minute
include(CheckCXXCompilerFlag)
include(cmake/warnings.cmake)

set(CMAKE_CXX_EXTENSIONS OFF)

if(NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(DELTADCT_CCACHE ccache)
  mark_as_advanced(DELTADCT_CCACHE)
  if(DELTADCT_CCACHE)
    # Without these ccache does not cache what includes a precompiled header.
    set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros
                                    ${DELTADCT_CCACHE})
  endif()
endif()

add_library(deltadct_dev INTERFACE)
target_link_libraries(deltadct_dev INTERFACE deltadct::deltadct deltadct_warnings)
set(components ${DELTADCT_COMPONENTS})
list(REMOVE_ITEM components cuda cufft)
foreach(component IN LISTS components)
  target_link_libraries(deltadct_dev INTERFACE deltadct::${component})
endforeach()

find_package(OpenMP QUIET COMPONENTS CXX)
if(TARGET OpenMP::OpenMP_CXX)
  target_link_libraries(deltadct_dev INTERFACE OpenMP::OpenMP_CXX)
else()
  message(STATUS "deltadct: OpenMP not found, OpenMpExecutor runs on one thread")
  target_compile_options(deltadct_dev INTERFACE -Wno-unknown-pragmas)
endif()

add_library(deltadct_native INTERFACE)
set(DELTADCT_NATIVE_FLAGS "")
if(DELTADCT_NATIVE)
  check_cxx_compiler_flag(-march=native DELTADCT_HAS_MARCH_NATIVE)
  if(DELTADCT_HAS_MARCH_NATIVE)
    set(DELTADCT_NATIVE_FLAGS -march=native)
    target_compile_options(
      deltadct_native INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${DELTADCT_NATIVE_FLAGS}>
                                $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${DELTADCT_NATIVE_FLAGS}>)
  endif()
endif()

add_library(deltadct_codecs INTERFACE)
target_compile_definitions(deltadct_codecs INTERFACE DELTADCT_EXTERN_CODECS)
foreach(backend IN ITEMS Serial Simd)
  set(source ${PROJECT_BINARY_DIR}/codecs_${backend}.cpp)
  # The same condition as in codec.hpp, which does not know DELTADCT_WITH_XSIMD.
  set(condition 1)
  if(backend STREQUAL Simd)
    set(condition DELTADCT_HAS_SIMD)
  endif()
  file(CONFIGURE OUTPUT ${source}
       CONTENT "#include <deltadct/any_codec.hpp>
#if ${condition}
template std::unique_ptr<deltadct::AnyCodec> deltadct::make_codec<deltadct::${backend}>(
    const deltadct::CodecSpec&);
#endif
")
  add_library(deltadct_codecs_${backend} OBJECT EXCLUDE_FROM_ALL ${source})
  target_link_libraries(deltadct_codecs_${backend} PRIVATE deltadct_dev deltadct_native)
  target_link_libraries(deltadct_codecs INTERFACE $<TARGET_OBJECTS:deltadct_codecs_${backend}>)
endforeach()

if(TARGET deltadct::eigen)
  set(source ${PROJECT_BINARY_DIR}/codecs_baselines.cpp)
  file(CONFIGURE OUTPUT ${source}
       CONTENT "#include <deltadct/baseline/any_baseline.hpp>
template std::unique_ptr<deltadct::AnyCodec> deltadct::make_baseline<float>(
    const deltadct::AnyBaseline&);
template std::unique_ptr<deltadct::AnyCodec> deltadct::make_baseline<double>(
    const deltadct::AnyBaseline&);
")
  add_library(deltadct_codecs_baselines OBJECT EXCLUDE_FROM_ALL ${source})
  # Eigen without its own threads, so that results do not depend on their number.
  target_compile_definitions(deltadct_codecs_baselines PRIVATE EIGEN_DONT_PARALLELIZE)
  target_link_libraries(deltadct_codecs_baselines PRIVATE deltadct_dev deltadct_native)
  target_link_libraries(deltadct_codecs INTERFACE $<TARGET_OBJECTS:deltadct_codecs_baselines>)
endif()

# Unpacks an archive of models to a folder at configure time, and again when the archive has changed.
function(unpack_models archive folder)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${archive})
  if(${archive} IS_NEWER_THAN ${folder}/.unpacked)
    file(REMOVE_RECURSE ${folder})
    file(ARCHIVE_EXTRACT INPUT ${archive} DESTINATION ${folder})
    file(TOUCH ${folder}/.unpacked)
  endif()
endfunction()
