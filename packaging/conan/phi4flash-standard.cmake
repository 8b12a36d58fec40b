# Included by what conan generates for find_package(phi4flash): whoever links the target compiles as C++20 or newer, whatever the profile's
# compiler.cppstd. Conan has no property for it.
if(TARGET phi4flash::phi4flash)
    set_property(TARGET phi4flash::phi4flash APPEND PROPERTY INTERFACE_COMPILE_FEATURES cxx_std_20)
endif()
