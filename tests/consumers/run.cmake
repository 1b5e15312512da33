# Installs the library to BINARY_DIR/prefix if PROJECT needs that, then configures, builds and runs
# PROJECT from scratch. The program must print nothing.
cmake_minimum_required(VERSION 3.25)
set(build ${BINARY_DIR}/${PROJECT})
file(REMOVE_RECURSE ${build})

if(PROJECT STREQUAL "find_package")
  file(REMOVE_RECURSE ${BINARY_DIR}/prefix)
  execute_process(COMMAND ${CMAKE_COMMAND} --install ${DELTADCT_BUILD} --prefix ${BINARY_DIR}/prefix
                  OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
endif()
execute_process(COMMAND ${CMAKE_COMMAND} -G ${GENERATOR} -C ${BINARY_DIR}/settings.cmake
                        -S ${CMAKE_CURRENT_LIST_DIR}/${PROJECT} -B ${build}
                COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${build} COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${build}/consumer OUTPUT_VARIABLE output ERROR_VARIABLE output
                COMMAND_ERROR_IS_FATAL ANY)
if(NOT output STREQUAL "")
  message(FATAL_ERROR "The library prints:\n${output}")
endif()
