# install: headers, the single header, a package for find_package(phi4flash) and a pkg-config file.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(phi4flash_package_dir "${CMAKE_INSTALL_DATADIR}/cmake/phi4flash")

install(DIRECTORY include/phi4flash DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" FILES_MATCHING PATTERN "*.hpp")
if(EXISTS "${PROJECT_SOURCE_DIR}/single_include/phi4flash/phi4flash.hpp")
    install(FILES single_include/phi4flash/phi4flash.hpp DESTINATION "${CMAKE_INSTALL_DATADIR}/phi4flash/single_include/phi4flash")
endif()
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/phi4flash")

configure_package_config_file(
    cmake/phi4flash-config.cmake.in "${PROJECT_BINARY_DIR}/phi4flash-config.cmake"
    INSTALL_DESTINATION "${phi4flash_package_dir}"
    PATH_VARS CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(
    "${PROJECT_BINARY_DIR}/phi4flash-config-version.cmake" COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(
    FILES "${PROJECT_BINARY_DIR}/phi4flash-config.cmake" "${PROJECT_BINARY_DIR}/phi4flash-config-version.cmake"
          cmake/phi4flash-dependencies.cmake
    DESTINATION "${phi4flash_package_dir}")

# Relative to the .pc file itself, so that the installed tree can be moved.
file(RELATIVE_PATH phi4flash_pc_prefix "/${CMAKE_INSTALL_DATADIR}/pkgconfig" "/")
configure_file(cmake/phi4flash.pc.in "${PROJECT_BINARY_DIR}/phi4flash.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/phi4flash.pc" DESTINATION "${CMAKE_INSTALL_DATADIR}/pkgconfig")

if(TARGET phi4flash_cli)
    install(TARGETS phi4flash_cli RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endif()
