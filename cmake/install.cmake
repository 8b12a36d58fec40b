# install: headers, the single header, a package for find_package(phi4flash), a pkg-config file, and the headers of the back end and
# of JSON where nobody could find them again: those in build/deps and those that CMake downloaded. With
# PHI4FLASH_INSTALL_DEPENDENCIES=OFF (distributions, vcpkg) nothing of the dependencies is installed or remembered.
# Components: dev is all that, program is the example program with its model and manual.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(phi4flash_package_dir "${CMAKE_INSTALL_DATADIR}/cmake/phi4flash")
set(phi4flash_dependencies_dir "${CMAKE_INSTALL_DATADIR}/phi4flash/dependencies")

install(DIRECTORY include/phi4flash DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT dev FILES_MATCHING PATTERN "*.hpp")
if(EXISTS "${PROJECT_SOURCE_DIR}/single_include/phi4flash/phi4flash.hpp")
    install(FILES single_include/phi4flash/phi4flash.hpp DESTINATION "${CMAKE_INSTALL_DATADIR}/phi4flash/single_include/phi4flash" COMPONENT dev)
endif()
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/phi4flash" COMPONENT dev)

# ---- dependencies ------------------------------------------------------------------------------------------------------

# Headers and licence of one that is to be installed. Of Highway's folder, what its own tests and sorting need stays behind.
function(phi4flash_install_dependency name folder origin)
    set(top_highway hwy)
    set(top_xsimd xsimd)
    set(top_json nlohmann)
    install(DIRECTORY "${folder}/${top_${name}}" DESTINATION "${phi4flash_dependencies_dir}/include" COMPONENT dev
        FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp" PATTERN "hwy/contrib" EXCLUDE PATTERN "hwy/tests" EXCLUDE PATTERN "hwy/examples" EXCLUDE)
    if(origin STREQUAL "fetched")
        file(GLOB licences "${phi4flash_${name}_SOURCE_DIR}/LICENSE*")
    else()
        file(GLOB licences "${folder}/../share/doc/*${top_${name}}*/copyright")
    endif()
    if(licences)
        install(FILES ${licences} DESTINATION "${phi4flash_dependencies_dir}/licenses/${name}" COMPONENT dev)
    endif()
endfunction()

set(phi4flash_dependencies ${PHI4FLASH_SIMD_CHOSEN})
list(REMOVE_ITEM phi4flash_dependencies scalar)
if(PHI4FLASH_JSON_CHOSEN)
    list(APPEND phi4flash_dependencies json)
endif()
set(phi4flash_dependency_folders "")
set(phi4flash_outside_dependencies "")  # those that are not installed beside ours
if(PHI4FLASH_INSTALL_DEPENDENCIES)
    foreach(name IN LISTS phi4flash_dependencies)
        get_target_property(folder phi4flash::dependency_${name} PHI4FLASH_INCLUDE_DIR)
        get_target_property(origin phi4flash::dependency_${name} PHI4FLASH_ORIGIN)
        if(origin MATCHES "^(hint|fetched)$")
            phi4flash_install_dependency(${name} "${folder}" ${origin})
            set(folder "${CMAKE_INSTALL_FULL_DATADIR}/phi4flash/dependencies/include")
        else()
            list(APPEND phi4flash_outside_dependencies ${name})
        endif()
        if(folder AND NOT folder IN_LIST CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES)
            list(APPEND phi4flash_dependency_folders "${folder}")
        endif()
    endforeach()
    list(REMOVE_DUPLICATES phi4flash_dependency_folders)
else()
    set(phi4flash_outside_dependencies ${phi4flash_dependencies})
endif()

# Those that have a pkg-config file for the same folder are named there as the meson build names them; only their flags are used.
set(phi4flash_module_highway libhwy 1.2.0)
set(phi4flash_module_xsimd xsimd 13.0.0)
set(phi4flash_module_json nlohmann_json 3.11.0)
set(PC_REQUIRES "")
find_program(PHI4FLASH_PKG_CONFIG NAMES pkg-config pkgconf)
mark_as_advanced(PHI4FLASH_PKG_CONFIG)
if(PHI4FLASH_PKG_CONFIG AND NOT CMAKE_CROSSCOMPILING)
    foreach(name IN LISTS phi4flash_outside_dependencies)
        list(GET phi4flash_module_${name} 0 module)
        list(GET phi4flash_module_${name} 1 oldest)
        get_target_property(folder phi4flash::dependency_${name} PHI4FLASH_INCLUDE_DIR)
        execute_process(COMMAND "${PHI4FLASH_PKG_CONFIG}" "--atleast-version=${oldest}" ${module} RESULT_VARIABLE missing ERROR_QUIET)
        execute_process(COMMAND "${PHI4FLASH_PKG_CONFIG}" --variable=includedir ${module}
            OUTPUT_VARIABLE told ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
        get_filename_component(told "${told}" REALPATH)
        get_filename_component(folder "${folder}" REALPATH)
        if(missing EQUAL 0 AND told STREQUAL folder)
            list(APPEND PC_REQUIRES "${module} >= ${oldest}")
        endif()
    endforeach()
endif()
list(JOIN PC_REQUIRES ", " PC_REQUIRES)

# As they are written into the two files: folders inside the prefix move with it. (pkg-config escapes spaces in -isystem only if the folder
# follows at once.)
set(PC_DEPENDENCIES "")
set(phi4flash_package_hints "")
foreach(folder IN LISTS phi4flash_dependency_folders)
    file(RELATIVE_PATH relative "${CMAKE_INSTALL_PREFIX}" "${folder}")
    if(relative MATCHES "^\\.\\.")
        string(REPLACE " " "\\ " escaped "${folder}")
        string(APPEND PC_DEPENDENCIES "-isystem${escaped} ")
        list(APPEND phi4flash_package_hints "${folder}")
    else()
        string(APPEND PC_DEPENDENCIES "-isystem\${prefix}/${relative} ")
        list(APPEND phi4flash_package_hints "\${PACKAGE_PREFIX_DIR}/${relative}")
    endif()
endforeach()

# ---- the package -------------------------------------------------------------------------------------------------------

# A choice, made or found, is remembered; where nothing was found, the user of the package looks again.
set(phi4flash_package_simd "${PHI4FLASH_SIMD_CHOSEN}")
if(PHI4FLASH_SIMD STREQUAL "auto" AND PHI4FLASH_SIMD_CHOSEN STREQUAL "scalar")
    set(phi4flash_package_simd auto)
endif()
set(phi4flash_package_json "${PHI4FLASH_JSON_CHOSEN}")
if(PHI4FLASH_WITH_JSON STREQUAL "AUTO" AND NOT PHI4FLASH_JSON_CHOSEN)
    set(phi4flash_package_json AUTO)
endif()
configure_package_config_file(
    cmake/phi4flash-config.cmake.in "${PROJECT_BINARY_DIR}/phi4flash-config.cmake"
    INSTALL_DESTINATION "${phi4flash_package_dir}"
    PATH_VARS CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(
    "${PROJECT_BINARY_DIR}/phi4flash-config-version.cmake" COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(
    FILES "${PROJECT_BINARY_DIR}/phi4flash-config.cmake" "${PROJECT_BINARY_DIR}/phi4flash-config-version.cmake"
          cmake/phi4flash-dependencies.cmake cmake/phi4flash-choices.cmake
    DESTINATION "${phi4flash_package_dir}" COMPONENT dev)

# Relative to the .pc file itself, so that the installed tree can be moved.
set(PHI4FLASH_INSTALL_PKGCONFIGDIR "${CMAKE_INSTALL_DATADIR}/pkgconfig" CACHE STRING "Folder of phi4flash.pc, below the prefix or absolute")
get_filename_component(phi4flash_pc_dir "${PHI4FLASH_INSTALL_PKGCONFIGDIR}" ABSOLUTE BASE_DIR "${CMAKE_INSTALL_PREFIX}")
file(RELATIVE_PATH PC_PREFIX "${phi4flash_pc_dir}" "${CMAKE_INSTALL_PREFIX}")
string(REGEX REPLACE "/$" "" PC_PREFIX "${PC_PREFIX}")
file(RELATIVE_PATH PC_INCLUDEDIR "${CMAKE_INSTALL_PREFIX}" "${CMAKE_INSTALL_FULL_INCLUDEDIR}")
string(TOUPPER "${phi4flash_package_simd}" PC_SIMD)  # AUTO leaves the search, and the note, to the header
set(PC_JSON 0)
if(PHI4FLASH_JSON_CHOSEN)
    set(PC_JSON 1)
endif()
set(PC_DESCRIPTION "${PROJECT_DESCRIPTION}")
set(PC_VERSION "${PROJECT_VERSION}")
configure_file(packaging/phi4flash.pc.in "${PROJECT_BINARY_DIR}/phi4flash.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/phi4flash.pc" DESTINATION "${PHI4FLASH_INSTALL_PKGCONFIGDIR}" COMPONENT dev)

# ---- the program, and the model that it finds from where it is ------------------------------------------------------------

if(TARGET phi4flash_cli)
    install(TARGETS phi4flash_cli RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}" COMPONENT program)
    install(DIRECTORY models/tiny-arithmetic DESTINATION "${CMAKE_INSTALL_DATADIR}/phi4flash/models" COMPONENT program)
    install(FILES packaging/phi4flash.1 DESTINATION "${CMAKE_INSTALL_MANDIR}/man1" COMPONENT program)
endif()
