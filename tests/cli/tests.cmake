# The program, from outside. Needs python3 and nothing but its standard library.
if(TARGET phi4flash_cli AND Python3_FOUND)
    foreach(file cli generate text_tools quality output standard_output signals files config chat chat_editor chat_history input installed session)
        string(REGEX REPLACE "^cli$" "program" test ${file})
        add_test(NAME cli/${test} COMMAND Python3::Interpreter "${CMAKE_CURRENT_LIST_DIR}/${file}_test.py" "$<TARGET_FILE:phi4flash_cli>")
        set_tests_properties(cli/${test} PROPERTIES LABELS "cli" TIMEOUT 600)
    endforeach()
    set_tests_properties(cli/chat cli/chat_editor cli/chat_history PROPERTIES SKIP_RETURN_CODE 77)
endif()
