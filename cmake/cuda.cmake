# Enables CUDA as a language of the project's own programs, if nvcc and the toolkit are found:
#   DELTADCT_HAS_NVCC   whether they are
#   deltadct_device     what targets compiled by nvcc link: the library, cuFFT, the warnings
include(CheckLanguage)
set(DELTADCT_HAS_NVCC OFF)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER AND TARGET deltadct::cufft)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    # Ampere, Hopper, and PTX for later architectures.
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
  endif()
  if(DELTADCT_CCACHE AND NOT DEFINED CMAKE_CUDA_COMPILER_LAUNCHER)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${DELTADCT_CCACHE})
  endif()
  enable_language(CUDA)
  set(DELTADCT_HAS_NVCC ON)
  # nvcc supports C++20, but CMake 3.25.1 does not know.
  if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  endif()
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)

  add_library(deltadct_device INTERFACE)
  target_link_libraries(deltadct_device INTERFACE deltadct::cuda deltadct::cufft deltadct_warnings
                                                  deltadct_native)
  # Prints registers, spills and shared memory of every kernel; bench/cuda/resources.py reads them.
  target_compile_options(deltadct_device INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-Xptxas=-v>)
else()
  message(STATUS "deltadct: no nvcc or no cuFFT, nothing is compiled for a device")
endif()
