# A host's own flags may not change what the library computes: programs with and without -Ofast print the same numbers. Linked with it, a
# program also has the processor treat subnormal numbers as zero. Scalar, where a compiler sees through most of the arithmetic.
add_library(phi4flash_host_flags INTERFACE)
target_link_libraries(phi4flash_host_flags INTERFACE phi4flash_headers)
phi4flash_use(phi4flash_host_flags scalar "${PHI4FLASH_JSON_CHOSEN}")
foreach(kind plain fast)
    set(program numbers_${kind})
    add_executable(${program} "${CMAKE_CURRENT_LIST_DIR}/numbers.cpp")
    target_link_libraries(${program} PRIVATE phi4flash_host_flags)
    phi4flash_program(${program} ${program})
    target_compile_options(${program} PRIVATE -O1)
endforeach()
target_compile_options(numbers_fast PRIVATE -ffast-math)
target_link_options(numbers_fast PRIVATE -ffast-math)
add_test(NAME builds/host_flags
    COMMAND Python3::Interpreter "${CMAKE_CURRENT_LIST_DIR}/compare.py" "${PROJECT_SOURCE_DIR}/models/tiny-arithmetic"
            $<TARGET_FILE:numbers_plain> $<TARGET_FILE:numbers_fast>)
set_tests_properties(builds/host_flags PROPERTIES LABELS "builds")
