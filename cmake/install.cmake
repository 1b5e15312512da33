# Installs the headers and a CMake package `deltadct` with deltadct::deltadct and, as its components, the
# targets of components.cmake and codecs.cmake. Each component is exported separately: a consumer who lacks the
# dependencies of one component can use the others.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

# Without compiled code, the package is that of every machine.
if(DELTADCT_CODECS)
  set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/deltadct)
  set(any_machine "")
else()
  set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/deltadct)
  set(any_machine ARCH_INDEPENDENT)
endif()

install(DIRECTORY include/deltadct DESTINATION include)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL)

install(TARGETS deltadct EXPORT deltadctTargets)
install(EXPORT deltadctTargets NAMESPACE deltadct:: DESTINATION ${package_dir})
set(components ${DELTADCT_COMPONENTS})
if(DELTADCT_CODECS)
  list(APPEND components codecs)
endif()
foreach(component IN LISTS components)
  install(TARGETS deltadct_${component} EXPORT deltadct_${component}Targets)
  install(EXPORT deltadct_${component}Targets NAMESPACE deltadct:: DESTINATION ${package_dir})
endforeach()

if(PROJECT_VERSION_MAJOR EQUAL 0)
  set(compatibility SameMinorVersion)
else()
  set(compatibility SameMajorVersion)
endif()
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/deltadctConfigVersion.cmake COMPATIBILITY ${compatibility} ${any_machine})
configure_package_config_file(
  cmake/deltadctConfig.cmake.in ${PROJECT_BINARY_DIR}/deltadctConfig.cmake
  INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO)
install(FILES ${PROJECT_BINARY_DIR}/deltadctConfig.cmake
              ${PROJECT_BINARY_DIR}/deltadctConfigVersion.cmake DESTINATION ${package_dir})
