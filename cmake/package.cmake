# cpack: a .tar.gz of everything, to be unpacked anywhere, and on Debian and Ubuntu the packages libphi4flash-dev (component dev) and
# phi4flash (component program). Headers that only this build has are in libphi4flash-dev, those of the system are what it depends on.
set(CPACK_PACKAGE_NAME phi4flash)
set(CPACK_PACKAGE_VENDOR "phi4flash authors")
set(PHI4FLASH_PACKAGE_CONTACT "phi4flash authors <phi4flash@invalid>" CACHE STRING "Who maintains the packages that cpack makes: Name <address>")
set(CPACK_PACKAGE_CONTACT "${PHI4FLASH_PACKAGE_CONTACT}")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "")  # it would come before those of the components
set(CPACK_PACKAGE_FILE_NAME "phi4flash-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR}")
set(CPACK_RESOURCE_FILE_LICENSE "${PROJECT_SOURCE_DIR}/LICENSE")
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
    OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_STRIP_FILES ON)
set(CPACK_VERBATIM_VARIABLES ON)
set(CPACK_SOURCE_GENERATOR "")
set(CPACK_GENERATOR TGZ)
set(CPACK_COMPONENTS_ALL dev)
if(TARGET phi4flash_cli)
    list(APPEND CPACK_COMPONENTS_ALL program)
endif()

find_program(PHI4FLASH_DPKG_DEB dpkg-deb)
find_program(PHI4FLASH_DPKG_SHLIBDEPS dpkg-shlibdeps)
mark_as_advanced(PHI4FLASH_DPKG_DEB PHI4FLASH_DPKG_SHLIBDEPS)
if(PHI4FLASH_DPKG_DEB)
    list(APPEND CPACK_GENERATOR DEB)
    set(CPACK_DEB_COMPONENT_INSTALL ON)
    set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
    set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
    set(CPACK_DEBIAN_PACKAGE_HOMEPAGE "${PROJECT_HOMEPAGE_URL}")
    set(CPACK_PRE_BUILD_SCRIPTS "${PROJECT_SOURCE_DIR}/cmake/package-debian.cmake")  # what Debian wants of a package's documentation
    set(CPACK_PHI4FLASH_SOURCE_DIR "${PROJECT_SOURCE_DIR}")

    set(debian_highway "libhwy-dev (>= 1.2.0)")
    set(debian_xsimd "libxsimd-dev (>= 13.0.0)")
    set(debian_json "nlohmann-json3-dev (>= 3.11.0)")
    set(depends "")
    foreach(name IN LISTS phi4flash_outside_dependencies)
        list(APPEND depends "${debian_${name}}")
    endforeach()
    list(JOIN depends ", " CPACK_DEBIAN_DEV_PACKAGE_DEPENDS)
    set(CPACK_DEBIAN_DEV_PACKAGE_NAME libphi4flash-dev)
    set(CPACK_DEBIAN_DEV_PACKAGE_ARCHITECTURE all)
    set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
    set(CPACK_DEBIAN_DEV_PACKAGE_SUGGESTS "phi4flash")
    set(CPACK_DEBIAN_DEV_DESCRIPTION "inference of Phi-4-mini-flash-reasoning, C++20 headers
Header-only library that runs SambaY models (Mamba, sliding-window
attention, gated memory units) inside other programs on ordinary
processors. Usable through CMake's find_package and pkg-config.")

    set(CPACK_DEBIAN_PROGRAM_PACKAGE_NAME phi4flash)
    set(CPACK_DEBIAN_PROGRAM_PACKAGE_SECTION science)
    set(CPACK_DEBIAN_PROGRAM_DESCRIPTION "inference of Phi-4-mini-flash-reasoning, command line
Chat, generation, conversion and measurement of SambaY models on ordinary
processors, with a small model that does arithmetic.")
    if(PHI4FLASH_DPKG_SHLIBDEPS)
        set(CPACK_DEBIAN_PROGRAM_PACKAGE_SHLIBDEPS ON)
    else()
        message(STATUS "phi4flash: without dpkg-shlibdeps (dpkg-dev) the package phi4flash names no libraries that it needs")
    endif()
endif()
include(CPack)
