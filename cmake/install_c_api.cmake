# install: the C API, component c. A package and a pkg-config file of its own, phi4flash-c, which look for no headers of the back end: what was
# compiled in is compiled in.
set(phi4flash_c_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/phi4flash-c")
install(TARGETS phi4flash_c phi4flash_c_static EXPORT phi4flash-c-targets
    RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}" COMPONENT c
    LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT c
    ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT c)
install(FILES include/phi4flash/phi4flash.h DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/phi4flash" COMPONENT c)
install(EXPORT phi4flash-c-targets NAMESPACE phi4flash:: DESTINATION "${phi4flash_c_package_dir}" COMPONENT c)
file(WRITE "${PROJECT_BINARY_DIR}/phi4flash-c-config.cmake" "# find_package(phi4flash-c) makes phi4flash::c (shared) and phi4flash::c_static.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
include(\"\${CMAKE_CURRENT_LIST_DIR}/phi4flash-c-targets.cmake\")
")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/phi4flash-c-config-version.cmake" COMPATIBILITY SameMajorVersion)
install(FILES "${PROJECT_BINARY_DIR}/phi4flash-c-config.cmake" "${PROJECT_BINARY_DIR}/phi4flash-c-config-version.cmake"
    DESTINATION "${phi4flash_c_package_dir}" COMPONENT c)

# Relative to the .pc file itself, so that the installed tree can be moved.
file(RELATIVE_PATH PC_PREFIX "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" "${CMAKE_INSTALL_PREFIX}")
string(REGEX REPLACE "/$" "" PC_PREFIX "${PC_PREFIX}")
file(RELATIVE_PATH PC_INCLUDEDIR "${CMAKE_INSTALL_PREFIX}" "${CMAKE_INSTALL_FULL_INCLUDEDIR}")
file(RELATIVE_PATH PC_LIBDIR "${CMAKE_INSTALL_PREFIX}" "${CMAKE_INSTALL_FULL_LIBDIR}")
set(PC_VERSION "${PROJECT_VERSION}")
set(PC_PRIVATE_LIBS "-pthread -lm")
foreach(library IN LISTS CMAKE_CXX_IMPLICIT_LINK_LIBRARIES)
    if(library MATCHES "^(stdc\\+\\+|c\\+\\+)$")
        string(PREPEND PC_PRIVATE_LIBS "-l${library} ")
    endif()
endforeach()
configure_file(packaging/phi4flash-c.pc.in "${PROJECT_BINARY_DIR}/phi4flash-c.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/phi4flash-c.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig" COMPONENT c)
