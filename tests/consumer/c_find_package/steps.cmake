# The C library, installed and moved, in a project that knows C alone: shared and static, by its package and by pkg-config. Nothing of the headers
# that it was made with is needed.
make_checkout()
file(COPY "${SOURCE_DIR}/src" DESTINATION "${work}/checkout")
run("${work}/checkout/tools/setup.sh" --headers)
install_library("${work}/as_installed" -DPHI4FLASH_BUILD_C_API=ON)
file(RENAME "${work}/as_installed" "${work}/prefix")
file(REMOVE_RECURSE "${work}/checkout" "${work}/library" "${work}/headers" "${work}/prefix/include/phi4flash/phi4flash.hpp"
    "${work}/prefix/share/phi4flash/dependencies")
set(program "${SOURCE_DIR}/examples/c/minimal.c")
set(model "${SOURCE_DIR}/models/tiny-arithmetic")

foreach(kind c c_static)
    run("${CMAKE_COMMAND}" "-DCMAKE_PREFIX_PATH=${work}/prefix" -G "${GENERATOR}" -S "${here}/c_find_package" -B "${work}/build_${kind}"
        "-DWANTED_VERSION=${VERSION}" -DWANTED_KIND=${kind} "-DPROGRAM=${program}")
    expect_warnings(0)
    run("${CMAKE_COMMAND}" --build "${work}/build_${kind}")
    run("${work}/build_${kind}/consumer" "${model}" "What is 347 + 285?")
    expect("boxed{632}")
endforeach()

if(PKG_CONFIG AND CC)
    file(GLOB_RECURSE modules "${work}/prefix/*/phi4flash-c.pc")
    get_filename_component(modules "${modules}" DIRECTORY)
    get_filename_component(libraries "${modules}" DIRECTORY)
    set(ENV{PKG_CONFIG_LIBDIR} "${modules}")
    foreach(static "" "--static")
        run("${PKG_CONFIG}" ${static} --cflags --libs "phi4flash-c = ${VERSION}")
        string(STRIP "${output}" flags)
        separate_arguments(flags UNIX_COMMAND "${flags}")
        if(static)  # the archive is taken by its name, as a linker that finds both takes the shared one
            list(TRANSFORM flags REPLACE "^-lphi4flash-c$" "-l:libphi4flash-c.a")
        endif()
        run("${CC}" -std=c11 "${program}" ${flags} "-Wl,-rpath,${libraries}" -o consumer)
        run("${work}/consumer" "${model}" "What is 347 + 285?")
        expect("boxed{632}")
    endforeach()
endif()
