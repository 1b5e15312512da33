# Install rules: the headers, and a CMake package `deltadct` with the targets deltadct::deltadct and
# (component io) deltadct::io.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/deltadct)

install(DIRECTORY include/deltadct DESTINATION include)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL)

install(TARGETS deltadct EXPORT deltadctTargets)
if(DELTADCT_HAS_IO)
  install(TARGETS deltadct_io EXPORT deltadctTargets)
endif()
install(EXPORT deltadctTargets NAMESPACE deltadct:: DESTINATION ${package_dir})

if(PROJECT_VERSION_MAJOR EQUAL 0)
  set(compatibility SameMinorVersion)
else()
  set(compatibility SameMajorVersion)
endif()
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/deltadctConfigVersion.cmake COMPATIBILITY ${compatibility} ARCH_INDEPENDENT)
configure_package_config_file(
  cmake/deltadctConfig.cmake.in ${PROJECT_BINARY_DIR}/deltadctConfig.cmake
  INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO)
install(FILES ${PROJECT_BINARY_DIR}/deltadctConfig.cmake
              ${PROJECT_BINARY_DIR}/deltadctConfigVersion.cmake DESTINATION ${package_dir})
