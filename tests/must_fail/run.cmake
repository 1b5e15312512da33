# Compiles SOURCE with COMPILER and the response file FLAGS. It must compile as it is. It must not
# compile with DELTADCT_MUST_FAIL defined and the flags of its line "// flags: <flags>", if it has
# one; the compiler's message must then match its line "// expect: <regex>" and, without such flags,
# have at most 30 lines.
cmake_minimum_required(VERSION 3.25)
set(ENV{LC_ALL} C)

file(STRINGS ${SOURCE} expect REGEX "^// expect: ")
string(REGEX REPLACE "^// expect: " "" expect "${expect}")
if(expect STREQUAL "")
  message(FATAL_ERROR "${SOURCE} has no line \"// expect: <regex>\"")
endif()

file(STRINGS ${SOURCE} flags REGEX "^// flags: ")
string(REGEX REPLACE "^// flags: " "" flags "${flags}")
separate_arguments(flags NATIVE_COMMAND "${flags}")

set(compile ${COMPILER} @${FLAGS} -fsyntax-only ${SOURCE})

execute_process(COMMAND ${compile} RESULT_VARIABLE result OUTPUT_VARIABLE output
                ERROR_VARIABLE output)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "The corrected twin does not compile:\n${output}")
endif()

execute_process(COMMAND ${compile} -DDELTADCT_MUST_FAIL ${flags} RESULT_VARIABLE result
                OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(result EQUAL 0)
  message(FATAL_ERROR "Compiles, and must not")
endif()
if(NOT output MATCHES "${expect}")
  message(FATAL_ERROR "Fails to compile without saying \"${expect}\":\n${output}")
endif()

string(REGEX MATCHALL "\n" lines "${output}")
list(LENGTH lines count)
if(count GREATER 30 AND flags STREQUAL "")
  message(FATAL_ERROR "Takes ${count} lines to say so:\n${output}")
endif()
