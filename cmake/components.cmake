# Optional targets beside deltadct::deltadct. Each exists if the packages that its headers need are found:
#
#   deltadct::io      deltadct/io/*.hpp       nlohmann_json, xxHash, zstd
#   deltadct::eigen   deltadct/eigen.hpp      Eigen
#   deltadct::fftw    deltadct/fftw.hpp       FFTW in float and double (under the GPL)
#   deltadct::tbb     deltadct/tbb.hpp        oneTBB
#   deltadct::cuda    deltadct/cuda.hpp       the CUDA Toolkit; nvcc for files that launch kernels
#   deltadct::cufft   deltadct/cufft.hpp      the same, and cuFFT
#
# DELTADCT_COMPONENTS lists those that exist.
set(DELTADCT_COMPONENTS "")

function(deltadct_add_component name)
  add_library(deltadct_${name} INTERFACE)
  add_library(deltadct::${name} ALIAS deltadct_${name})
  set_target_properties(deltadct_${name} PROPERTIES EXPORT_NAME ${name})
  target_link_libraries(deltadct_${name} INTERFACE deltadct ${ARGN})
  list(APPEND DELTADCT_COMPONENTS ${name})
  set(DELTADCT_COMPONENTS ${DELTADCT_COMPONENTS} PARENT_SCOPE)
endfunction()

# xxHash is a single header, included with XXH_INLINE_ALL, so there is nothing to link.
if(NOT TARGET nlohmann_json::nlohmann_json)
  find_package(nlohmann_json QUIET)
endif()
find_path(DELTADCT_XXHASH_INCLUDE_DIR xxhash.h)
find_path(DELTADCT_ZSTD_INCLUDE_DIR zstd.h)
find_library(DELTADCT_ZSTD_LIBRARY zstd)
mark_as_advanced(DELTADCT_XXHASH_INCLUDE_DIR DELTADCT_ZSTD_INCLUDE_DIR DELTADCT_ZSTD_LIBRARY)
if(TARGET nlohmann_json::nlohmann_json
   AND DELTADCT_XXHASH_INCLUDE_DIR
   AND DELTADCT_ZSTD_INCLUDE_DIR
   AND DELTADCT_ZSTD_LIBRARY)
  deltadct_add_component(io nlohmann_json::nlohmann_json $<BUILD_INTERFACE:${DELTADCT_ZSTD_LIBRARY}>
                $<INSTALL_INTERFACE:zstd>)
  target_include_directories(
    deltadct_io SYSTEM INTERFACE $<BUILD_INTERFACE:${DELTADCT_XXHASH_INCLUDE_DIR}>
                                 $<BUILD_INTERFACE:${DELTADCT_ZSTD_INCLUDE_DIR}>)
endif()

if(NOT TARGET Eigen3::Eigen)
  find_package(Eigen3 QUIET NO_MODULE)
endif()
if(TARGET Eigen3::Eigen)
  deltadct_add_component(eigen Eigen3::Eigen)
endif()

# Where FFTW was built with autotools, its CMake package is missing or broken.
find_path(DELTADCT_FFTW_INCLUDE_DIR fftw3.h)
find_library(DELTADCT_FFTW_LIBRARY fftw3)
find_library(DELTADCT_FFTWF_LIBRARY fftw3f)
mark_as_advanced(DELTADCT_FFTW_INCLUDE_DIR DELTADCT_FFTW_LIBRARY DELTADCT_FFTWF_LIBRARY)
if(DELTADCT_FFTW_INCLUDE_DIR AND DELTADCT_FFTW_LIBRARY AND DELTADCT_FFTWF_LIBRARY)
  deltadct_add_component(
    fftw $<BUILD_INTERFACE:${DELTADCT_FFTW_LIBRARY}> $<BUILD_INTERFACE:${DELTADCT_FFTWF_LIBRARY}>
    $<INSTALL_INTERFACE:fftw3> $<INSTALL_INTERFACE:fftw3f>)
  target_include_directories(deltadct_fftw SYSTEM
                             INTERFACE $<BUILD_INTERFACE:${DELTADCT_FFTW_INCLUDE_DIR}>)
endif()

if(NOT TARGET TBB::tbb)
  find_package(TBB QUIET)
endif()
if(TARGET TBB::tbb)
  deltadct_add_component(tbb TBB::tbb)
endif()

find_package(CUDAToolkit QUIET)
if(TARGET CUDA::cudart)
  deltadct_add_component(cuda CUDA::cudart)
  target_compile_options(deltadct_cuda
                         INTERFACE $<$<COMPILE_LANG_AND_ID:CUDA,NVIDIA>:--expt-relaxed-constexpr>)
  if(TARGET CUDA::cufft)
    deltadct_add_component(cufft deltadct_cuda CUDA::cufft)
  endif()
endif()

message(STATUS "deltadct: components ${DELTADCT_COMPONENTS}")
