# What our own programs share: strict warnings, an output folder, and the sanitizer switch of the presets.

option(PHI4FLASH_SANITIZE "Address and undefined-behaviour sanitizers for tests, examples and benchmarks" OFF)
set(PHI4FLASH_EXTRA_FLAGS "" CACHE STRING "Further compiler flags for tests, examples and benchmarks, as a list")
option(PHI4FLASH_WARNINGS_AS_ERRORS "-Werror for tests, examples and benchmarks" ${PROJECT_IS_TOP_LEVEL})

find_package(Threads REQUIRED)

# phi4flash_program_flags(<target>): never applied to phi4flash itself, whose flags are the user's business.
function(phi4flash_program_flags target)
    set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF)
    if(MSVC)
        target_compile_options(${target} PRIVATE /W4 /permissive- /utf-8 /bigobj $<$<BOOL:${PHI4FLASH_WARNINGS_AS_ERRORS}>:/WX>)
    else()
        target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wundef $<$<BOOL:${PHI4FLASH_WARNINGS_AS_ERRORS}>:-Werror>)
        if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 22)
            target_compile_options(${target} PRIVATE -Wno-c2y-extensions)  # doctest's __COUNTER__
        endif()
        if(PHI4FLASH_SANITIZE)
            target_compile_options(${target} PRIVATE -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
            target_link_options(${target} PRIVATE -fsanitize=address,undefined)
        endif()
    endif()
    target_compile_options(${target} PRIVATE ${PHI4FLASH_EXTRA_FLAGS})
    target_link_libraries(${target} PRIVATE Threads::Threads)
endfunction()

option(PHI4FLASH_UNITY "Compile the files of the example program, and of a program of the tests, eight at a time" OFF)

# phi4flash_unity(<target>): most of the time goes into what all files include, so eight at a time take half of it.
function(phi4flash_unity target)
    if(PHI4FLASH_UNITY)
        set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
    endif()
endfunction()

# phi4flash_program(<target> <name of the executable>): goes to <build>/bin.
function(phi4flash_program target name)
    phi4flash_program_flags(${target})
    set_target_properties(${target} PROPERTIES OUTPUT_NAME "${name}" RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
endfunction()

option(PHI4FLASH_TEST_NO_EXCEPTIONS "Build the tests, with kernels of their own, with -fno-exceptions -fno-rtti" OFF)

# phi4flash_compile_kernels(<target> <library> [flag...]): the objects of src/kernels.cpp and src/library.cpp for that library's back end: all that
# compile-once mode leaves to one place. Programs in that mode add $<TARGET_OBJECTS:target>. A debug build, sanitized or not, optimizes them, or models would crawl.
function(phi4flash_compile_kernels target library)
    add_library(${target} OBJECT "${PROJECT_SOURCE_DIR}/src/kernels.cpp" "${PROJECT_SOURCE_DIR}/src/library.cpp")
    target_link_libraries(${target} PRIVATE ${library})
    if(NOT MSVC)
        target_compile_options(${target} PRIVATE $<$<CONFIG:Debug>:-O1> ${ARGN})
    endif()
    phi4flash_program_flags(${target})
endfunction()
# The best back end's, shared by the example programs and the tests.
phi4flash_compile_kernels(phi4flash_kernels phi4flash::phi4flash)
