# What the scripts of this folder share. COMPILER compiles with the response file FLAGS.
set(ENV{LC_ALL} C)

# Compiles a source of this folder to an object file. Flags are written as on a command line.
function(compile source flags object)
  separate_arguments(flags NATIVE_COMMAND "${flags}")
  execute_process(COMMAND ${COMPILER} @${FLAGS} ${flags} -c ${CMAKE_CURRENT_LIST_DIR}/${source} -o
                          ${object} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

# The name of the inline namespace under such flags, or nothing if the compiler does not know them.
function(abi_of result flags)
  separate_arguments(flags NATIVE_COMMAND "${flags}")
  execute_process(COMMAND ${COMPILER} @${FLAGS} ${flags} -E -P ${CMAKE_CURRENT_LIST_DIR}/probe.cpp
                  OUTPUT_VARIABLE output ERROR_QUIET)
  string(REGEX MATCH "return \"([^\"]+)\"" ignored "${output}")
  set(${result} "${CMAKE_MATCH_1}" PARENT_SCOPE)
endfunction()
