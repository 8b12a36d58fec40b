# cmake -DKIND=... -DSETTINGS=... -P run.cmake: runs <KIND>/steps.cmake in a folder of its own. The steps see nothing of this machine
# but the compiler: no Highway, no xsimd, no JSON, unless they bring them.
include("${SETTINGS}")
set(here "${CMAKE_CURRENT_LIST_DIR}")
set(work "${WORK_DIR}/${KIND}")
file(REMOVE_RECURSE "${work}")
file(MAKE_DIRECTORY "${work}/empty")

# ---- running, and looking at what was printed ------------------------------------------------------------------------------

# run(<command...>) sets output, standard error included; the spaces and line ends that CMake puts into long messages are one space
# in words.
function(run_command expected_code)
    execute_process(COMMAND ${ARGN} WORKING_DIRECTORY "${work}" RESULT_VARIABLE code OUTPUT_VARIABLE out ERROR_VARIABLE err)
    string(REPLACE ";" " " command "${ARGN}")
    message(STATUS "${command}\n${out}${err}")
    if(code EQUAL 0 AND NOT expected_code EQUAL 0)
        message(FATAL_ERROR "should have failed: ${command}")
    elseif(NOT code EQUAL 0 AND expected_code EQUAL 0)
        message(FATAL_ERROR "failed (${code}): ${command}")
    endif()
    set(output "${out}${err}" PARENT_SCOPE)
    string(REGEX REPLACE "[ \n]+" " " words "${out}${err}")
    set(words "${words}" PARENT_SCOPE)
endfunction()
macro(run)
    run_command(0 ${ARGN})
endmacro()
macro(run_failing)
    run_command(1 ${ARGN})
endmacro()

function(expect)
    foreach(text IN LISTS ARGN)
        string(FIND "${words}" "${text}" at)
        if(at EQUAL -1)
            message(FATAL_ERROR "not printed: ${text}")
        endif()
    endforeach()
endfunction()
function(expect_not)
    foreach(text IN LISTS ARGN)
        string(FIND "${words}" "${text}" at)
        if(NOT at EQUAL -1)
            message(FATAL_ERROR "printed, and should not be: ${text}")
        endif()
    endforeach()
endfunction()
function(expect_times count pattern)
    string(REGEX MATCHALL "${pattern}" matches "${words}")
    list(LENGTH matches found)
    if(NOT found EQUAL count)
        message(FATAL_ERROR "printed ${found} times instead of ${count}: ${pattern}")
    endif()
endfunction()
function(expect_warnings count)
    expect_times(${count} "CMake Warning")
endfunction()

# take_line(<out> <pattern>): the first line that matches, without spaces around it.
function(take_line out pattern)
    if(NOT output MATCHES "\n *(meson\\|)? *([^\n]*${pattern}[^\n]*)\n")
        message(FATAL_ERROR "no line has ${pattern}")
    endif()
    string(REGEX REPLACE "^phi4flash\\| *" "" line "${CMAKE_MATCH_2}")
    set(${out} "${line}" PARENT_SCOPE)
endfunction()

# ---- what consumers start from ---------------------------------------------------------------------------------------------

# bring(<highway|xsimd|json> <folder>): copies its headers, as far as the machine has them.
function(bring name folder)
    string(TOUPPER ${name} upper)
    set(top_highway hwy)
    set(top_xsimd xsimd)
    set(top_json nlohmann)
    if(${upper}_DIR)
        file(COPY "${${upper}_DIR}/${top_${name}}" DESTINATION "${folder}" PATTERN contrib EXCLUDE PATTERN tests EXCLUDE)
    endif()
endfunction()

# A checkout without build/deps. Its setup.sh --headers brings the headers that this machine has, as the real one does, without a network.
macro(make_checkout)
    foreach(name CMakeLists.txt LICENSE cmake include meson.build meson_options.txt packaging single_include)
        file(COPY "${SOURCE_DIR}/${name}" DESTINATION "${work}/checkout")
    endforeach()
    file(COPY "${SOURCE_DIR}/tools/print_version.py" "${SOURCE_DIR}/tools/list_files.py" DESTINATION "${work}/checkout/tools")
    foreach(name highway xsimd json)
        bring(${name} "${work}/headers")
    endforeach()
    file(WRITE "${work}/checkout/tools/setup.sh" "#!/bin/sh
[ \"$*\" = --headers ] || exit 1
mkdir -p '${work}/checkout/build/deps/usr' && cp -R '${work}/headers' '${work}/checkout/build/deps/usr/include'
")
    file(CHMOD "${work}/checkout/tools/setup.sh" PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
endmacro()

# Headers as Debian 12 and Ubuntu 22.04 have them.
macro(make_old_headers)
    file(WRITE "${work}/old/include/hwy/base.h" "\n")
    file(WRITE "${work}/old/include/hwy/highway.h" "#define HWY_MAJOR 1\n#define HWY_MINOR 0\n#define HWY_PATCH 3\n")
    file(WRITE "${work}/old/include/xsimd/xsimd.hpp" "\n")
    file(WRITE "${work}/old/include/xsimd/config/xsimd_config.hpp"
        "#define XSIMD_VERSION_MAJOR 8\n#define XSIMD_VERSION_MINOR 1\n#define XSIMD_VERSION_PATCH 0\n")
    file(WRITE "${work}/old/include/nlohmann/json.hpp" "#define NLOHMANN_JSON_VERSION_MAJOR 3\n#define NLOHMANN_JSON_VERSION_MINOR 10
#define NLOHMANN_JSON_VERSION_PATCH 5\n")
endmacro()

# CMake sees no headers but those it is pointed to. Kernels for one target, not optimized, by no build type either: how fast they are is not the
# question.
set(flags "-O0 -DPHI4FLASH_STATIC_DISPATCH=1")
file(WRITE "${work}/nothing.cmake" "set(CMAKE_CXX_COMPILER [[${COMPILER}]] CACHE FILEPATH \"\")
set(CMAKE_CXX_FLAGS [[${flags}]] CACHE STRING \"\")
set(CMAKE_CXX_FLAGS_RELEASE -DNDEBUG CACHE STRING \"\")
set(CMAKE_IGNORE_PATH [[${IMPLICIT_FOLDERS}]] CACHE STRING \"\")
set(CMAKE_DISABLE_FIND_PACKAGE_xsimd ON CACHE BOOL \"\")
set(CMAKE_DISABLE_FIND_PACKAGE_nlohmann_json ON CACHE BOOL \"\")
")

macro(install_library prefix)
    run("${CMAKE_COMMAND}" -C "${work}/nothing.cmake" -S "${work}/checkout" -B "${work}/library" -G "${GENERATOR}"
        -DPHI4FLASH_BUILD_TESTS=OFF -DPHI4FLASH_BUILD_EXAMPLES=OFF -DPHI4FLASH_BUILD_BENCHMARKS=OFF "-DCMAKE_INSTALL_PREFIX=${prefix}" ${ARGN})
    set(configured "${words}")
    run("${CMAKE_COMMAND}" --build "${work}/library" --target install)
    set(words "${configured}")
endmacro()

macro(build_and_run simd json)
    run("${CMAKE_COMMAND}" --build "${work}/build")
    run("${work}/build/consumer")
    expect("phi4flash ${VERSION}, back end ${simd}" "json ${json}")
endmacro()

if(NOT EXISTS "${here}/${KIND}/steps.cmake")
    message(FATAL_ERROR "unknown kind of consumer '${KIND}'")
endif()
include("${here}/${KIND}/steps.cmake")
