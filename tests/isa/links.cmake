# A program of two translation units must link if, and only if, their flags give the same results.
# COMPILER compiles the caller, and the callee unless NVCC does, with the response file FLAGS, in
# the folder WORK.
cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/flags.cmake)

set(linker ${COMPILER})
if(DEFINED NVCC)
  set(linker ${NVCC} -ccbin ${COMPILER})
endif()

function(compile_callee flags object)
  if(NOT DEFINED NVCC)
    compile(probe.cpp "${flags}" ${object})
    return()
  endif()
  separate_arguments(flags NATIVE_COMMAND "${flags}")
  list(TRANSFORM flags PREPEND -Xcompiler=)
  execute_process(
    COMMAND ${linker} --options-file ${FLAGS} --expt-relaxed-constexpr ${flags} -x cu -c
            ${CMAKE_CURRENT_LIST_DIR}/probe.cpp -o ${object} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

set(all_flags "" -mavx2 "-mavx2 -mfma" "-mavx2 -ffast-math"
              "-mavx512f -mavx512bw -mfma -mf16c" "-mavx512f -mavx512bw -mavx512vl -mfma -mf16c")
set(index 0)
foreach(flags IN LISTS all_flags)
  compile(caller.cpp "${flags}" ${WORK}/caller_${index}.o)
  compile_callee("${flags}" ${WORK}/callee_${index}.o)
  math(EXPR index "${index} + 1")
endforeach()

math(EXPR last "${index} - 1")
foreach(caller RANGE ${last})
  foreach(callee RANGE ${last})
    execute_process(
      COMMAND ${linker} ${WORK}/caller_${caller}.o ${WORK}/callee_${callee}.o -o ${WORK}/linked
      RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
    list(GET all_flags ${caller} caller_flags)
    list(GET all_flags ${callee} callee_flags)
    if(caller EQUAL callee AND NOT result EQUAL 0)
      message(SEND_ERROR "'${caller_flags}' does not link with itself:\n${output}")
    elseif(NOT caller EQUAL callee AND NOT output MATCHES "undefined.*probe")
      message(SEND_ERROR "'${caller_flags}' links with '${callee_flags}':\n${output}")
    endif()
  endforeach()
endforeach()
