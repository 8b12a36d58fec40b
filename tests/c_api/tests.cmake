# The C API from C: programs in C11, the header by itself in both languages, and what the shared library exports. The tests in C++ are
# test_c_api, as every area has them.
set(c_api "${CMAKE_CURRENT_LIST_DIR}")
set(c_flags -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wundef -Werror)
if(NOT MSVC)
    add_test(NAME c_api/header_as_cpp
        COMMAND ${CMAKE_CXX_COMPILER} -std=c++20 -Wall -Wextra -Wpedantic -Wshadow -Wundef -Werror "-I${PROJECT_SOURCE_DIR}/include"
                -x c++ -fsyntax-only "${c_api}/header.c" "${c_api}/talk.c")
    set_tests_properties(c_api/header_as_cpp PROPERTIES LABELS "builds")
endif()
if(CMAKE_C_COMPILER)
    # Each program once with each library: c and c_static.
    foreach(kind c c_static)
        foreach(source "${c_api}/header.c" "${c_api}/talk.c" "${PROJECT_SOURCE_DIR}/examples/c/minimal.c")
            get_filename_component(name "${source}" NAME_WE)
            set(program ${kind}_api_${name})
            add_executable(${program} "${source}")
            target_link_libraries(${program} PRIVATE phi4flash::${kind})
            if(NOT MSVC)
                target_compile_options(${program} PRIVATE ${c_flags})
            endif()
            set_target_properties(${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
        endforeach()
        add_test(NAME c_api/talk_with_${kind} COMMAND ${kind}_api_talk "${PROJECT_SOURCE_DIR}/models/tiny-arithmetic")
        add_test(NAME c_api/minimal_with_${kind} COMMAND ${kind}_api_minimal "${PROJECT_SOURCE_DIR}/models/tiny-arithmetic" "What is 347 + 285?")
        set_tests_properties(c_api/minimal_with_${kind} PROPERTIES PASS_REGULAR_EXPRESSION "boxed{632}")
        set_tests_properties(c_api/talk_with_${kind} c_api/minimal_with_${kind} PROPERTIES LABELS "unit" TIMEOUT 600)
    endforeach()
endif()
if(Python3_FOUND AND CMAKE_NM AND NOT WIN32 AND NOT APPLE)
    add_test(NAME c_api/exports
        COMMAND Python3::Interpreter "${c_api}/exports_test.py" "${CMAKE_NM}" "$<TARGET_FILE:phi4flash_c>" "${c_api}/symbols.txt"
                "${PROJECT_SOURCE_DIR}/include/phi4flash/phi4flash.h")
    set_tests_properties(c_api/exports PROPERTIES LABELS "rules")
endif()
