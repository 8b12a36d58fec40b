# The examples without a system below them, by the script that a user runs. A script ends with 77, and a sentence, where its tools are absent.
find_program(PHI4FLASH_BASH bash)
mark_as_advanced(PHI4FLASH_BASH)
if(PHI4FLASH_BASH AND TARGET phi4flash_cli AND NOT WIN32 AND NOT APPLE AND NOT CMAKE_CROSSCOMPILING AND NOT PHI4FLASH_SANITIZE)
    foreach(host page firmware)
        add_test(NAME examples/${host} COMMAND "${PHI4FLASH_BASH}" "${CMAKE_CURRENT_LIST_DIR}/${host}/run.sh" --check)
        set_tests_properties(examples/${host} PROPERTIES
            LABELS "examples" TIMEOUT 900 SKIP_RETURN_CODE 77
            ENVIRONMENT "PHI4FLASH_PROGRAM=$<TARGET_FILE:phi4flash_cli>;PHI4FLASH_EXAMPLES_BUILD=${PROJECT_BINARY_DIR}/examples/bare")
    endforeach()
endif()
