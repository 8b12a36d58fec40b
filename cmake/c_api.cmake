# The C API (include/phi4flash/phi4flash.h) as libraries: phi4flash::c is shared, phi4flash::c_static is not. Both are one compiled file and the
# kernels; what uses them needs no C++ compiler, only its run-time library.
add_library(phi4flash_c_objects OBJECT "${PROJECT_SOURCE_DIR}/src/c_api.cpp")
target_link_libraries(phi4flash_c_objects PRIVATE phi4flash::phi4flash)
target_compile_definitions(phi4flash_c_objects PRIVATE PHI4FLASH_COMPILE_ONCE=1 PHI4FLASH_C_BUILD_SHARED=1)
if(TARGET phi4flash_kernels)  # those of the programs
    set(phi4flash_c_kernels phi4flash_kernels)
    phi4flash_program_flags(phi4flash_c_objects)
else()
    set(phi4flash_c_kernels phi4flash_c_kernels)
    add_library(phi4flash_c_kernels OBJECT "${PROJECT_SOURCE_DIR}/src/kernels.cpp" "${PROJECT_SOURCE_DIR}/src/library.cpp")
    target_link_libraries(phi4flash_c_kernels PRIVATE phi4flash::phi4flash)
endif()
set_target_properties(phi4flash_c_objects ${phi4flash_c_kernels} PROPERTIES
    POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)

find_package(Threads REQUIRED)
foreach(kind SHARED STATIC)
    set(target phi4flash_c)
    set(exported c)
    if(kind STREQUAL "STATIC")
        set(target phi4flash_c_static)
        set(exported c_static)
    endif()
    add_library(${target} ${kind} $<TARGET_OBJECTS:phi4flash_c_objects> $<TARGET_OBJECTS:${phi4flash_c_kernels}>)
    add_library(phi4flash::${exported} ALIAS ${target})
    set_target_properties(${target} PROPERTIES
        OUTPUT_NAME phi4flash-c EXPORT_NAME ${exported} LINKER_LANGUAGE CXX VERSION "${PROJECT_VERSION}" SOVERSION 0
        ARCHIVE_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib" LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib"
        RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
    target_include_directories(${target} INTERFACE
        "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>" "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
    target_link_libraries(${target} PRIVATE Threads::Threads)
endforeach()
if(MSVC)  # phi4flash-c.lib would be the static library and the other one's import library
    set_target_properties(phi4flash_c_static PROPERTIES OUTPUT_NAME phi4flash-c-static)
endif()
target_compile_definitions(phi4flash_c INTERFACE PHI4FLASH_C_SHARED=1)

# Hidden visibility leaves the standard library's templates, which are nobody's business either.
set(phi4flash_c_exports "${PROJECT_SOURCE_DIR}/src/c_api/exports.map")
if(APPLE)
    target_link_options(phi4flash_c PRIVATE "LINKER:-exported_symbol,_phi4flash_*")
elseif(NOT WIN32)
    target_link_options(phi4flash_c PRIVATE "LINKER:--version-script=${phi4flash_c_exports}" "LINKER:--no-undefined")
    set_target_properties(phi4flash_c PROPERTIES LINK_DEPENDS "${phi4flash_c_exports}")
endif()
if(PHI4FLASH_SANITIZE AND NOT MSVC)
    target_link_options(phi4flash_c PRIVATE -fsanitize=address,undefined "LINKER:-z,undefs")
    target_link_options(phi4flash_c_static INTERFACE -fsanitize=address,undefined)
endif()
