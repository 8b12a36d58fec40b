# Finds the headers that phi4flash can use, and attaches them to targets. Shared by the build tree and by
# find_package(phi4flash), hence without state of its own.
#
# Every dependency becomes phi4flash::dependency_<name>, an interface target with system include folders and nothing to
# link: of Highway and the others only headers are used.

# phi4flash_dependency(<name> HEADER <file> VERSION_HEADER <file> VERSION_MACROS <macro...> MINIMUM <version>
#                      [PACKAGE <config package> TARGET <its target>]
#                      GIT <url> TAG <tag> INCLUDE <folder in that repository>)
# Looks for an existing target, a config package, a header on CMake's search paths, and downloads only if
# PHI4FLASH_FETCH_DEPENDENCIES is on. Sets phi4flash_<name>_FOUND in the caller.
function(phi4flash_dependency name)
    cmake_parse_arguments(arg "" "HEADER;VERSION_HEADER;MINIMUM;PACKAGE;TARGET;GIT;TAG;INCLUDE" "VERSION_MACROS" ${ARGN})
    set(target phi4flash::dependency_${name})
    string(TOUPPER "${name}" upper)
    set(phi4flash_${name}_FOUND TRUE PARENT_SCOPE)
    if(TARGET ${target})
        return()
    endif()

    # 1. A target that the surrounding project made, or that a config package (vcpkg, conan, a distribution) brings.
    if(arg_PACKAGE AND NOT TARGET ${arg_TARGET})
        find_package(${arg_PACKAGE} CONFIG QUIET)
    endif()
    if(arg_TARGET AND TARGET ${arg_TARGET})
        if(NOT ${arg_PACKAGE}_VERSION OR ${arg_PACKAGE}_VERSION VERSION_GREATER_EQUAL arg_MINIMUM)
            add_library(${target} INTERFACE IMPORTED GLOBAL)
            target_link_libraries(${target} INTERFACE ${arg_TARGET})
            return()
        endif()
    endif()

    # 2. A header.
    set(variable PHI4FLASH_${upper}_INCLUDE_DIR)
    find_path(${variable} NAMES ${arg_HEADER} DOC "Folder that holds ${arg_HEADER}")
    mark_as_advanced(${variable})
    if(${variable})
        phi4flash_header_version("${${variable}}/${arg_VERSION_HEADER}" found_version ${arg_VERSION_MACROS})
        if(found_version VERSION_GREATER_EQUAL arg_MINIMUM)
            add_library(${target} INTERFACE IMPORTED GLOBAL)
            target_include_directories(${target} SYSTEM INTERFACE "${${variable}}")
            return()
        endif()
        message(STATUS "phi4flash: ignoring ${arg_HEADER} ${found_version} in ${${variable}}, ${arg_MINIMUM} or newer is needed")
        unset(${variable} CACHE)
    endif()

    # 3. The network, if the user said so. Headers only: the other project's own build is not run.
    if(PHI4FLASH_FETCH_DEPENDENCIES)
        include(FetchContent)
        FetchContent_Declare(
            phi4flash_${name}
            GIT_REPOSITORY ${arg_GIT}
            GIT_TAG ${arg_TAG}
            GIT_SHALLOW TRUE
            SOURCE_SUBDIR no-build)
        FetchContent_MakeAvailable(phi4flash_${name})
        add_library(${target} INTERFACE IMPORTED GLOBAL)
        target_include_directories(${target} SYSTEM INTERFACE "${phi4flash_${name}_SOURCE_DIR}/${arg_INCLUDE}")
        return()
    endif()
    set(phi4flash_${name}_FOUND FALSE PARENT_SCOPE)
endfunction()

# Reads "1.2.0" from `#define NAME_MAJOR 1` lines, or from one `#define NAME_VERSION "1.2.0"`.
function(phi4flash_header_version file out)
    set(version "")
    if(EXISTS "${file}")
        file(READ "${file}" text)
        foreach(macro IN LISTS ARGN)
            if(text MATCHES "#[ \t]*define[ \t]+${macro}[ \t]+\"?([0-9.]+)")
                list(APPEND version "${CMAKE_MATCH_1}")
            endif()
        endforeach()
        string(REPLACE ";" "." version "${version}")
    endif()
    if(version STREQUAL "")
        set(version 0)
    endif()
    set(${out} "${version}" PARENT_SCOPE)
endfunction()

macro(phi4flash_find_highway)
    phi4flash_dependency(highway
        HEADER hwy/highway.h VERSION_HEADER hwy/base.h VERSION_MACROS HWY_MAJOR HWY_MINOR HWY_PATCH MINIMUM 1.2.0
        GIT https://github.com/google/highway.git TAG 1.2.0 INCLUDE .)
endmacro()

macro(phi4flash_find_xsimd)
    phi4flash_dependency(xsimd
        HEADER xsimd/xsimd.hpp VERSION_HEADER xsimd/config/xsimd_config.hpp
        VERSION_MACROS XSIMD_VERSION_MAJOR XSIMD_VERSION_MINOR XSIMD_VERSION_PATCH MINIMUM 13.0.0
        PACKAGE xsimd TARGET xsimd
        GIT https://github.com/xtensor-stack/xsimd.git TAG 13.2.0 INCLUDE include)
endmacro()

macro(phi4flash_find_json)
    phi4flash_dependency(json
        HEADER nlohmann/json.hpp VERSION_HEADER nlohmann/detail/abi_macros.hpp
        VERSION_MACROS NLOHMANN_JSON_VERSION_MAJOR NLOHMANN_JSON_VERSION_MINOR NLOHMANN_JSON_VERSION_PATCH MINIMUM 3.11.0
        PACKAGE nlohmann_json TARGET nlohmann_json::nlohmann_json
        GIT https://github.com/nlohmann/json.git TAG v3.11.3 INCLUDE include)
endmacro()

macro(phi4flash_find_doctest)
    phi4flash_dependency(doctest
        HEADER doctest/doctest.h VERSION_HEADER doctest/doctest.h
        VERSION_MACROS DOCTEST_VERSION_MAJOR DOCTEST_VERSION_MINOR DOCTEST_VERSION_PATCH MINIMUM 2.4.11
        PACKAGE doctest TARGET doctest::doctest
        GIT https://github.com/doctest/doctest.git TAG v2.4.11 INCLUDE .)
endmacro()

macro(phi4flash_find_cli11)
    phi4flash_dependency(cli11
        HEADER CLI/CLI.hpp VERSION_HEADER CLI/Version.hpp VERSION_MACROS CLI11_VERSION MINIMUM 2.3.0
        PACKAGE CLI11 TARGET CLI11::CLI11
        GIT https://github.com/CLIUtils/CLI11.git TAG v2.4.1 INCLUDE include)
endmacro()

macro(phi4flash_find_barkeep)
    phi4flash_dependency(barkeep
        HEADER barkeep/barkeep.h VERSION_HEADER barkeep/barkeep.h VERSION_MACROS BARKEEP_VERSION MINIMUM 0.1.0
        PACKAGE barkeep TARGET barkeep::barkeep
        GIT https://github.com/oir/barkeep.git TAG v0.1.6 INCLUDE .)
endmacro()

# ---- choices ---------------------------------------------------------------------------------------------------------

# phi4flash_choose_simd(<auto|highway|xsimd|scalar> <out>): the back end to use; stops if the one asked for is missing.
function(phi4flash_choose_simd wanted out)
    set(chosen "")
    if(wanted STREQUAL "auto" OR wanted STREQUAL "highway")
        phi4flash_find_highway()
        if(phi4flash_highway_FOUND)
            set(chosen highway)
        endif()
    endif()
    if(NOT chosen AND (wanted STREQUAL "auto" OR wanted STREQUAL "xsimd"))
        phi4flash_find_xsimd()
        if(phi4flash_xsimd_FOUND)
            set(chosen xsimd)
        endif()
    endif()
    if(NOT chosen AND (wanted STREQUAL "auto" OR wanted STREQUAL "scalar"))
        set(chosen scalar)
    endif()
    if(wanted STREQUAL "auto" AND chosen STREQUAL "scalar")
        message(STATUS "phi4flash: neither Highway 1.2 nor xsimd 13 found, kernels are scalar (slow). "
            "tools/setup.sh, vcpkg, conan or PHI4FLASH_FETCH_DEPENDENCIES=ON can supply Highway.")
    endif()
    if(NOT chosen)
        if(NOT wanted MATCHES "^(highway|xsimd)$")
            message(FATAL_ERROR "phi4flash: PHI4FLASH_SIMD is '${wanted}'; want auto, highway, xsimd or scalar")
        endif()
        message(FATAL_ERROR "phi4flash: PHI4FLASH_SIMD is ${wanted}, but Highway 1.2 or xsimd 13 was not found on "
            "CMAKE_PREFIX_PATH. Run tools/setup.sh, install it with a package manager, or set PHI4FLASH_FETCH_DEPENDENCIES=ON.")
    endif()
    set(${out} ${chosen} PARENT_SCOPE)
endfunction()

# phi4flash_choose_json(<AUTO|ON|OFF> <out>)
function(phi4flash_choose_json wanted out)
    set(chosen OFF)
    if(wanted STREQUAL "AUTO" OR wanted)
        phi4flash_find_json()
        if(phi4flash_json_FOUND)
            set(chosen ON)
        elseif(NOT wanted STREQUAL "AUTO")
            message(FATAL_ERROR "phi4flash: PHI4FLASH_WITH_JSON is ON, but nlohmann/json 3.11 was not found on "
                "CMAKE_PREFIX_PATH. Run tools/setup.sh, install it with a package manager, or set PHI4FLASH_FETCH_DEPENDENCIES=ON.")
        endif()
    endif()
    set(${out} ${chosen} PARENT_SCOPE)
endfunction()

# phi4flash_use(<target> <highway|xsimd|scalar> <ON|OFF>): says so on the command line of whoever links the target, so
# that all translation units agree whatever else is on their include paths.
function(phi4flash_use target simd json)
    string(TOUPPER "${simd}" upper)
    if(NOT simd STREQUAL "scalar")
        cmake_language(CALL phi4flash_find_${simd})
        target_link_libraries(${target} INTERFACE phi4flash::dependency_${simd})
    endif()
    target_compile_definitions(${target} INTERFACE PHI4FLASH_SIMD_${upper}=1)
    if(json)
        phi4flash_find_json()
        target_link_libraries(${target} INTERFACE phi4flash::dependency_json)
        target_compile_definitions(${target} INTERFACE PHI4FLASH_HAS_JSON=1)
    else()
        target_compile_definitions(${target} INTERFACE PHI4FLASH_HAS_JSON=0)
    endif()
endfunction()
