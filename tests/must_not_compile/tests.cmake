# Each file compiles as it stands with PHI4FLASH_TEST_FIXED, and without it fails with the sentence in its first line.
file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/*.cpp")
get_target_property(headers phi4flash_headers INTERFACE_INCLUDE_DIRECTORIES)
foreach(source IN LISTS sources)
    get_filename_component(name "${source}" NAME_WE)
    add_test(NAME must_not_compile/${name}
        COMMAND Python3::Interpreter "${CMAKE_CURRENT_LIST_DIR}/check.py" "${source}"
                ${CMAKE_CXX_COMPILER} -std=c++20 -Wall -Wextra -Werror -DPHI4FLASH_SIMD_SCALAR=1 -DPHI4FLASH_HAS_JSON=0
                -DPHI4FLASH_COMPILE_ONCE=1 -I "${headers}")
    set_tests_properties(must_not_compile/${name} PROPERTIES LABELS "builds")
endforeach()
