# install: the C API, component c. A package and a pkg-config file of its own, phi4flash-c, which look for no headers of the back end: what was
# compiled in is compiled in.
set(phi4flash_c_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/phi4flash-c")
install(TARGETS phi4flash_c phi4flash_c_static EXPORT phi4flash-c-targets
    RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}" COMPONENT c
    LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT c
    ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT c)
install(FILES include/phi4flash/phi4flash.h DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/phi4flash" COMPONENT c)
install(EXPORT phi4flash-c-targets NAMESPACE phi4flash:: DESTINATION "${phi4flash_c_package_dir}" COMPONENT c)
# The C++ run-time library, which the static library needs.
set(phi4flash_c_runtime m)
foreach(library IN LISTS CMAKE_CXX_IMPLICIT_LINK_LIBRARIES)
    if(library MATCHES "^(stdc\\+\\+|c\\+\\+)$")
        list(PREPEND phi4flash_c_runtime ${library})
    endif()
endforeach()
list(REMOVE_DUPLICATES phi4flash_c_runtime)
file(WRITE "${PROJECT_BINARY_DIR}/phi4flash-c-config.cmake" "# find_package(phi4flash-c) makes phi4flash::c (shared) and phi4flash::c_static.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
include(\"\${CMAKE_CURRENT_LIST_DIR}/phi4flash-c-targets.cmake\")
# A project that knows C alone does not link the C++ run-time library by itself.
get_property(phi4flash_c_languages GLOBAL PROPERTY ENABLED_LANGUAGES)
list(FIND phi4flash_c_languages CXX phi4flash_c_knows_cxx)
if(phi4flash_c_knows_cxx EQUAL -1)
    set_property(TARGET phi4flash::c_static APPEND PROPERTY INTERFACE_LINK_LIBRARIES ${phi4flash_c_runtime})
endif()
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
list(TRANSFORM phi4flash_c_runtime PREPEND -l OUTPUT_VARIABLE PC_PRIVATE_LIBS)
list(JOIN PC_PRIVATE_LIBS " " PC_PRIVATE_LIBS)
string(APPEND PC_PRIVATE_LIBS " -pthread")
configure_file(packaging/phi4flash-c.pc.in "${PROJECT_BINARY_DIR}/phi4flash-c.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/phi4flash-c.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig" COMPONENT c)
