# Picks the newest clang++ on the PATH, whatever the distribution calls it.
if(NOT CMAKE_CXX_COMPILER)
    set(names)
    foreach(version RANGE 30 16 -1)
        list(APPEND names clang++-${version})
    endforeach()
    find_program(PHI4FLASH_CLANGXX NAMES ${names} clang++ REQUIRED)
    set(CMAKE_CXX_COMPILER "${PHI4FLASH_CLANGXX}")
endif()
