# Finds the headers that phi4flash can use. Shared by the build tree and by find_package(phi4flash), hence without state of
# its own.
#
# Every dependency becomes phi4flash::dependency_<name>, an interface target with system include folders: of Highway and the
# others only headers are used. Its properties say where it is from:
#   PHI4FLASH_INCLUDE_DIR  the folder, if it is known
#   PHI4FLASH_ORIGIN       target, path (CMake's search paths), hint (PHI4FLASH_DEPENDENCY_HINTS) or fetched

# phi4flash_dependency(<name> HEADER <file> VERSION_HEADERS <file...> VERSION_MACROS <macro...> MINIMUM <version>
#                      [PACKAGE <config package>] [TARGETS <its target...>]
#                      GIT <url> TAG <tag> INCLUDE <folder in that repository>)
# Takes the first that is new enough: a target that the surrounding project made, a config package, a header on CMake's search
# paths, a header in PHI4FLASH_DEPENDENCY_HINTS (a list of include folders); downloads only if PHI4FLASH_FETCH_DEPENDENCIES is
# on. Sets phi4flash_<name>_FOUND in the caller. What is too old is remembered for phi4flash_too_old().
function(phi4flash_dependency name)
    cmake_parse_arguments(arg "" "HEADER;MINIMUM;PACKAGE;GIT;TAG;INCLUDE" "TARGETS;VERSION_HEADERS;VERSION_MACROS" ${ARGN})
    if(NOT TARGET phi4flash::dependency_${name})
        set_property(GLOBAL PROPERTY PHI4FLASH_TOO_OLD_${name} "")
        set(found "")
        set(folder "")
        set(linked "")
        phi4flash_find_target()
        if(NOT found)
            phi4flash_find_header()
        endif()
        if(NOT found AND PHI4FLASH_FETCH_DEPENDENCIES)
            phi4flash_fetch()
        endif()
        if(NOT found)
            set(phi4flash_${name}_FOUND FALSE PARENT_SCOPE)
            return()
        endif()
        add_library(phi4flash::dependency_${name} INTERFACE IMPORTED GLOBAL)
        set_target_properties(phi4flash::dependency_${name} PROPERTIES PHI4FLASH_ORIGIN ${found} PHI4FLASH_INCLUDE_DIR "${folder}")
        if(linked)
            target_link_libraries(phi4flash::dependency_${name} INTERFACE ${linked})
        else()
            target_include_directories(phi4flash::dependency_${name} SYSTEM INTERFACE "${folder}")
        endif()
    endif()
    set(phi4flash_${name}_FOUND TRUE PARENT_SCOPE)
endfunction()

# The three ways, parts of the function above. Each sets found (the origin, or empty) and folder; linked is the target to link.

macro(phi4flash_find_target)
    set(known FALSE)
    foreach(candidate IN LISTS arg_TARGETS)
        if(TARGET ${candidate})
            set(known TRUE)
        endif()
    endforeach()
    if(arg_PACKAGE AND NOT known)
        find_package(${arg_PACKAGE} CONFIG QUIET)
    endif()
    foreach(candidate IN LISTS arg_TARGETS)
        if(TARGET ${candidate} AND NOT found)
            phi4flash_target_folder(${candidate} ${arg_HEADER} folder)
            phi4flash_new_enough("${folder}" "${${arg_PACKAGE}_VERSION}")
            if(new_enough AND arg_PACKAGE)
                set(linked ${candidate})
                set(found target)
            elseif(new_enough AND folder)
                set(found target)
            endif()
        endif()
    endforeach()
endmacro()

macro(phi4flash_find_header)
    string(TOUPPER "PHI4FLASH_${name}_INCLUDE_DIR" variable)
    if(${variable} AND NOT EXISTS "${${variable}}/${arg_HEADER}")
        unset(${variable} CACHE)
    endif()
    while(NOT found)
        find_path(${variable} NAMES ${arg_HEADER} DOC "Folder that holds ${arg_HEADER}")
        set(folder "${${variable}}")
        if(NOT folder)
            break()
        endif()
        phi4flash_new_enough("${folder}" 0)
        if(new_enough)
            set(found path)
        else()
            list(APPEND CMAKE_IGNORE_PATH "${folder}")
            unset(${variable} CACHE)
        endif()
    endwhile()
    foreach(candidate IN LISTS PHI4FLASH_DEPENDENCY_HINTS)
        if(NOT found AND EXISTS "${candidate}/${arg_HEADER}")
            phi4flash_new_enough("${candidate}" 0)
            if(new_enough)
                set(${variable} "${candidate}" CACHE PATH "Folder that holds ${arg_HEADER}" FORCE)
                set(folder "${candidate}")
                set(found hint)
            endif()
        endif()
    endforeach()
    if(found STREQUAL "path" AND folder IN_LIST PHI4FLASH_DEPENDENCY_HINTS)
        set(found hint)  # the cache remembers it
    endif()
    mark_as_advanced(${variable})
endmacro()

# Headers only: the other project's own build is not run.
macro(phi4flash_fetch)
    include(FetchContent)
    FetchContent_Declare(
        phi4flash_${name}
        GIT_REPOSITORY ${arg_GIT}
        GIT_TAG ${arg_TAG}
        GIT_SHALLOW TRUE
        SOURCE_SUBDIR no-build)
    FetchContent_MakeAvailable(phi4flash_${name})
    get_filename_component(folder "${phi4flash_${name}_SOURCE_DIR}/${arg_INCLUDE}" ABSOLUTE)
    set(found fetched)
endmacro()

# phi4flash_new_enough(<include folder> <version>): sets new_enough, and remembers what is too old. The version is what a package
# says of itself; the header in the folder is asked first. If neither tells (a folder that depends on the configuration, a target
# without a package), whoever made the target is trusted.
macro(phi4flash_new_enough where told)
    phi4flash_header_version("${where}" version "${arg_VERSION_HEADERS}" "${arg_VERSION_MACROS}")
    if(NOT version)
        set(version "${told}")
    endif()
    set(new_enough TRUE)
    if(version VERSION_LESS arg_MINIMUM AND NOT version STREQUAL "")
        set(new_enough FALSE)
        set_property(GLOBAL PROPERTY PHI4FLASH_TOO_OLD_${name} "${version} in ${where}")
    endif()
endmacro()

# phi4flash_too_old(<name> <out>): "1.0.3 in /usr/include" if that is all there is of it, else "".
function(phi4flash_too_old name out)
    get_property(text GLOBAL PROPERTY PHI4FLASH_TOO_OLD_${name})
    set(${out} "${text}" PARENT_SCOPE)
endfunction()

# phi4flash_target_folder(<target> <header> <out>): the include folder of a target that holds the header.
function(phi4flash_target_folder target header out)
    set(${out} "" PARENT_SCOPE)
    get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
    foreach(folder IN LISTS folders)
        string(REGEX REPLACE "^\\$<BUILD_INTERFACE:(.*)>$" "\\1" folder "${folder}")
        if(EXISTS "${folder}/${header}")
            set(${out} "${folder}" PARENT_SCOPE)
            return()
        endif()
    endforeach()
endfunction()

# Reads "1.2.0" from `#define NAME_MAJOR 1` lines, or from one `#define NAME_VERSION "1.2.0"`, in the first file that has any.
function(phi4flash_header_version folder out files macros)
    set(version "")
    foreach(file IN LISTS files)
        if(version STREQUAL "" AND EXISTS "${folder}/${file}")
            file(READ "${folder}/${file}" text)
            foreach(macro IN LISTS macros)
                if(text MATCHES "#[ \t]*define[ \t]+${macro}[ \t]+\"?([0-9.]+)")
                    list(APPEND version "${CMAKE_MATCH_1}")
                endif()
            endforeach()
        endif()
    endforeach()
    string(REPLACE ";" "." version "${version}")
    set(${out} "${version}" PARENT_SCOPE)
endfunction()

# ---- what there is -----------------------------------------------------------------------------------------------------

# Highway's target would bring its library along, so it has no PACKAGE: only its folder is taken.
macro(phi4flash_find_highway)
    phi4flash_dependency(highway
        HEADER hwy/highway.h VERSION_HEADERS hwy/base.h hwy/highway.h VERSION_MACROS HWY_MAJOR HWY_MINOR HWY_PATCH MINIMUM 1.2.0
        TARGETS hwy hwy::hwy
        GIT https://github.com/google/highway.git TAG 1.2.0 INCLUDE .)
endmacro()

macro(phi4flash_find_xsimd)
    phi4flash_dependency(xsimd
        HEADER xsimd/xsimd.hpp VERSION_HEADERS xsimd/config/xsimd_config.hpp
        VERSION_MACROS XSIMD_VERSION_MAJOR XSIMD_VERSION_MINOR XSIMD_VERSION_PATCH MINIMUM 13.0.0
        PACKAGE xsimd TARGETS xsimd xsimd::xsimd
        GIT https://github.com/xtensor-stack/xsimd.git TAG 13.2.0 INCLUDE include)
endmacro()

macro(phi4flash_find_json)
    phi4flash_dependency(json
        HEADER nlohmann/json.hpp VERSION_HEADERS nlohmann/detail/abi_macros.hpp nlohmann/json.hpp
        VERSION_MACROS NLOHMANN_JSON_VERSION_MAJOR NLOHMANN_JSON_VERSION_MINOR NLOHMANN_JSON_VERSION_PATCH MINIMUM 3.11.0
        PACKAGE nlohmann_json TARGETS nlohmann_json::nlohmann_json
        GIT https://github.com/nlohmann/json.git TAG v3.11.3 INCLUDE include)
endmacro()

macro(phi4flash_find_doctest)
    phi4flash_dependency(doctest
        HEADER doctest/doctest.h VERSION_HEADERS doctest/doctest.h
        VERSION_MACROS DOCTEST_VERSION_MAJOR DOCTEST_VERSION_MINOR DOCTEST_VERSION_PATCH MINIMUM 2.4.11
        PACKAGE doctest TARGETS doctest::doctest
        GIT https://github.com/doctest/doctest.git TAG v2.4.11 INCLUDE .)
endmacro()

macro(phi4flash_find_cli11)
    phi4flash_dependency(cli11
        HEADER CLI/CLI.hpp VERSION_HEADERS CLI/Version.hpp CLI/CLI.hpp VERSION_MACROS CLI11_VERSION MINIMUM 2.3.0
        PACKAGE CLI11 TARGETS CLI11::CLI11
        GIT https://github.com/CLIUtils/CLI11.git TAG v2.4.1 INCLUDE include)
endmacro()

macro(phi4flash_find_barkeep)
    phi4flash_dependency(barkeep
        HEADER barkeep/barkeep.h VERSION_HEADERS barkeep/barkeep.h VERSION_MACROS BARKEEP_VERSION MINIMUM 0.1.0
        PACKAGE barkeep TARGETS barkeep::barkeep
        GIT https://github.com/oir/barkeep.git TAG v0.1.6 INCLUDE .)
endmacro()
