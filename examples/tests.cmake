# The examples that stand on the C API, each in its real host by the script that a user runs, with the library of this build. A script ends with 77,
# and a sentence, where its host is absent.
find_program(PHI4FLASH_BASH bash)
mark_as_advanced(PHI4FLASH_BASH)
if(PHI4FLASH_BASH AND NOT WIN32 AND NOT APPLE AND NOT CMAKE_CROSSCOMPILING AND NOT PHI4FLASH_SANITIZE)
    foreach(host sqlite python love godot game)
        add_test(NAME examples/${host} COMMAND "${PHI4FLASH_BASH}" "${CMAKE_CURRENT_LIST_DIR}/${host}/run.sh" --check)
        set_tests_properties(examples/${host} PROPERTIES
            LABELS "examples" TIMEOUT 600 SKIP_RETURN_CODE 77
            ENVIRONMENT "PHI4FLASH_C_LIBRARY=$<TARGET_FILE:phi4flash_c>;PHI4FLASH_EXAMPLES_BUILD=${PROJECT_BINARY_DIR}/examples/hosts")
    endforeach()
endif()
