# Targets that tests, examples and benchmarks share and consumers never see:
#   deltadct_dev     the library, OpenMP, the warnings and every component found except cuda and cufft
#   deltadct_native  this machine's instruction set (DELTADCT_NATIVE)
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
if(DELTADCT_NATIVE_FLAGS)
  target_compile_options(
    deltadct_native INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${DELTADCT_NATIVE_FLAGS}>
                              $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${DELTADCT_NATIVE_FLAGS}>)
endif()

# Files of deltadct::codecs are compiled as the project's own are.
target_link_libraries(deltadct_codecs PRIVATE $<BUILD_INTERFACE:deltadct_warnings>)
set_target_properties(deltadct_codecs PROPERTIES CXX_COMPILER_LAUNCHER "${CMAKE_CXX_COMPILER_LAUNCHER}")

# Unpacks an archive of models to a folder at configure time, and again when the archive has changed.
function(unpack_models archive folder)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${archive})
  if(${archive} IS_NEWER_THAN ${folder}/.unpacked)
    file(REMOVE_RECURSE ${folder})
    file(ARCHIVE_EXTRACT INPUT ${archive} DESTINATION ${folder})
    file(TOUCH ${folder}/.unpacked)
  endif()
endfunction()
