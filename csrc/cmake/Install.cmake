# Installation. In a wheel build: both libraries into dgrt/, nothing else. Otherwise: library, header, CMake package
# and pkg-config file in the usual places.
include(GNUInstallDirs)

if(SKBUILD)
  install(TARGETS dgrt_native dgrt LIBRARY DESTINATION dgrt COMPONENT wheel)
  return()
endif()

include(CMakePackageConfigHelpers)
set(_dgrt_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/dgrt)

install(TARGETS dgrt EXPORT dgrtTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${PROJECT_SOURCE_DIR}/csrc/include/dgrt/dgrt.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/dgrt)
install(EXPORT dgrtTargets NAMESPACE dgrt:: DESTINATION ${_dgrt_cmake_dir})

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/dgrtConfig.cmake.in ${PROJECT_BINARY_DIR}/dgrtConfig.cmake
  INSTALL_DESTINATION ${_dgrt_cmake_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/dgrtConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/dgrtConfig.cmake ${PROJECT_BINARY_DIR}/dgrtConfigVersion.cmake
  DESTINATION ${_dgrt_cmake_dir})

# The file says where it is relative to itself, so that an installed tree can be moved.
file(RELATIVE_PATH DGRT_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(${CMAKE_CURRENT_LIST_DIR}/dgrt.pc.in ${PROJECT_BINARY_DIR}/dgrt.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/dgrt.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
