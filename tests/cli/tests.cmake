# The program, from outside. Needs python3 and nothing but its standard library.
if(TARGET phi4flash_cli AND Python3_FOUND)
    add_test(NAME cli/program COMMAND Python3::Interpreter "${CMAKE_CURRENT_LIST_DIR}/cli_test.py" "$<TARGET_FILE:phi4flash_cli>")
    add_test(NAME cli/output COMMAND Python3::Interpreter "${CMAKE_CURRENT_LIST_DIR}/output_test.py" "$<TARGET_FILE:phi4flash_cli>")
    add_test(NAME cli/files COMMAND Python3::Interpreter "${CMAKE_CURRENT_LIST_DIR}/files_test.py" "$<TARGET_FILE:phi4flash_cli>")
    add_test(NAME cli/config COMMAND Python3::Interpreter "${CMAKE_CURRENT_LIST_DIR}/config_test.py" "$<TARGET_FILE:phi4flash_cli>")
    set_tests_properties(cli/program cli/output cli/files cli/config PROPERTIES LABELS "cli" TIMEOUT 600)
endif()
