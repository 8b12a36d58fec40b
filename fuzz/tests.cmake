# The entries of fuzz/ in one program, for the compiler that builds the tests: each runs its seeds and what was ever found, and a hundred mutations
# of them that are always the same. Each file of an entry, with memory.cpp, is also an ordinary program of libFuzzer's.
set(fuzz "${CMAKE_CURRENT_LIST_DIR}")
include(CheckCXXSourceCompiles)
if(NOT PHI4FLASH_JSON_CHOSEN OR CMAKE_CROSSCOMPILING OR PHI4FLASH_SINGLE_HEADER)
    return()
endif()

# Scalar: it compiles quickest, and a sanitizer sees every element that it touches. Not optimized: g++ takes many minutes for that with sanitizers.
add_library(phi4flash_fuzz_library INTERFACE)
target_link_libraries(phi4flash_fuzz_library INTERFACE phi4flash_headers)
phi4flash_use(phi4flash_fuzz_library scalar ON)
add_executable(phi4flash_fuzz "${fuzz}/driver.cpp" "${fuzz}/all.cpp" "${PROJECT_SOURCE_DIR}/src/kernels.cpp" "${PROJECT_SOURCE_DIR}/src/library.cpp")
target_link_libraries(phi4flash_fuzz PRIVATE phi4flash_fuzz_library)
target_include_directories(phi4flash_fuzz PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}")
target_compile_definitions(phi4flash_fuzz PRIVATE PHI4FLASH_COMPILE_ONCE=1)
phi4flash_program(phi4flash_fuzz fuzz)
target_compile_options(phi4flash_fuzz PRIVATE -O0 -g0)

# With address and undefined-behaviour sanitizers in every preset, where the compiler has them: most of what was found shows itself to them alone,
# and memory is counted by them. The kernels of other back ends are the tests' own, and have none.
set(CMAKE_REQUIRED_FLAGS -fsanitize=address,undefined)
check_cxx_source_compiles("int main() { return 0; }" PHI4FLASH_FUZZ_CAN_SANITIZE)
unset(CMAKE_REQUIRED_FLAGS)
if(PHI4FLASH_FUZZ_CAN_SANITIZE AND NOT PHI4FLASH_SANITIZE)
    target_compile_options(phi4flash_fuzz PRIVATE -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(phi4flash_fuzz PRIVATE -fsanitize=address,undefined)
endif()

# The other back ends of the entry `differential`, with the kernels that the tests have anyway: those of targets by their own names.
foreach(back_end highway xsimd)
    string(TOUPPER ${back_end} upper)
    set(library phi4flash_${back_end})
    set(kernels phi4flash_kernels.${back_end})
    if(back_end STREQUAL PHI4FLASH_SIMD_CHOSEN)
        set(library phi4flash::phi4flash)
        set(kernels phi4flash_kernels)
    endif()
    if(TARGET ${kernels} AND TARGET ${library})
        add_library(phi4flash_fuzz_${back_end} OBJECT "${fuzz}/differential_unit.cpp")
        target_link_libraries(phi4flash_fuzz_${back_end} PRIVATE ${library})
        target_compile_definitions(phi4flash_fuzz_${back_end} PRIVATE
            PHI4FLASH_COMPILE_ONCE=1 PHI4FLASH_FUZZ_UNIT=phi4flash_fuzz_${back_end})
        target_compile_options(phi4flash_fuzz_${back_end} PRIVATE $<$<NOT:$<CONFIG:Debug>>:-O1>)
        phi4flash_program_flags(phi4flash_fuzz_${back_end})
        target_compile_definitions(phi4flash_fuzz PRIVATE PHI4FLASH_FUZZ_HAS_${upper}=1)
        target_sources(phi4flash_fuzz PRIVATE $<TARGET_OBJECTS:phi4flash_fuzz_${back_end}> $<TARGET_OBJECTS:${kernels}>)
    endif()
endforeach()

file(STRINGS "${fuzz}/entries.inc" entries REGEX "^PHI4FLASH_FUZZ_ENTRY")
foreach(entry IN LISTS entries)
    string(REGEX REPLACE ".*\\((.*)\\).*" "\\1" entry "${entry}")
    set(mutations 100)
    if(entry STREQUAL "differential")  # its tolerance is a bound of experience: what breaks it is to be looked at, and not to stop a build
        set(mutations 0)
    endif()
    add_test(NAME fuzz/${entry} COMMAND phi4flash_fuzz ${entry} --mutate ${mutations} "${fuzz}/seeds/${entry}")
    set_tests_properties(fuzz/${entry} PROPERTIES LABELS "fuzz" TIMEOUT 600
        WORKING_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}"
        ENVIRONMENT "ASAN_OPTIONS=abort_on_error=1:detect_leaks=1;UBSAN_OPTIONS=print_stacktrace=1:abort_on_error=1")
endforeach()
