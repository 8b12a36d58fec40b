# pkg-config gives -std, -pthread, the switches and the folders, relative to the file. Needs pkg-config.
make_checkout()
make_old_headers()
# flags_of(<prefix>): sets flags.
macro(flags_of prefix)
    run("${CMAKE_COMMAND}" -E env "PKG_CONFIG_LIBDIR=${prefix}/share/pkgconfig" "${PKG_CONFIG}" --cflags --libs "phi4flash = ${VERSION}")
    string(STRIP "${output}" flags)
    separate_arguments(flags UNIX_COMMAND "${flags}")
    expect("-std=c++20" "-pthread")
    run("${CMAKE_COMMAND}" -E env "PKG_CONFIG_LIBDIR=${prefix}/share/pkgconfig" "${PKG_CONFIG}" --validate phi4flash)
    set(words "${flags}")
endmacro()

# Installed on a machine that had nothing: the header looks again, and says what it finds.
install_library("${work}/guessed")
expect_warnings(1)
flags_of("${work}/guessed")
expect_not("-DPHI4FLASH_SIMD_SCALAR" "-isystem")
run("${COMPILER}" "-I${work}/old/include" ${flags} -fsyntax-only "${here}/quick.cpp")
expect("KERNELS ARE SCALAR")

# Scalar because somebody said so.
install_library("${work}/as_installed" -DPHI4FLASH_SIMD=scalar -DPHI4FLASH_WITH_JSON=OFF)
expect_warnings(0)
file(RENAME "${work}/as_installed" "${work}/scalar")
flags_of("${work}/scalar")
expect("-DPHI4FLASH_SIMD_SCALAR=1" "-DPHI4FLASH_HAS_JSON=0")
run("${COMPILER}" "${here}/quick.cpp" ${flags} -o consumer)
expect_not("KERNELS ARE SCALAR")
run("${work}/consumer")
expect("back end scalar, target scalar, json 0")

# Dependencies that a package manager looks after: named as modules, whose folders come along, and not linked.
foreach(module "libhwy 1.2.0" "xsimd 13.0.0" "nlohmann_json 3.11.2")
    separate_arguments(module)
    list(GET module 0 name)
    list(GET module 1 number)
    file(WRITE "${work}/modules/${name}.pc"
        "includedir=${work}/headers\nName: ${name}\nDescription: a stand-in\nVersion: ${number}\nLibs: -l${name}\nCflags: -I\${includedir}\n")
endforeach()
set(ENV{PKG_CONFIG_LIBDIR} "${work}/modules")
install_library("${work}/of_a_distribution" "-DCMAKE_INCLUDE_PATH=${work}/headers" -DPHI4FLASH_SIMD=${BEST_SIMD} -DPHI4FLASH_WITH_JSON=ON
    -DPHI4FLASH_INSTALL_DEPENDENCIES=OFF -DPHI4FLASH_INSTALL_PKGCONFIGDIR=lib/pkgconfig)
expect_warnings(0)
unset(ENV{PKG_CONFIG_LIBDIR})
file(READ "${work}/of_a_distribution/lib/pkgconfig/phi4flash.pc" words)
expect("nlohmann_json >= 3.11.0")
expect_not("${work}")
run("${CMAKE_COMMAND}" -E env "PKG_CONFIG_LIBDIR=${work}/of_a_distribution/lib/pkgconfig:${work}/modules" "${PKG_CONFIG}" --cflags --libs phi4flash)
expect_not("-lhwy" "-lxsimd" "-lnlohmann")
separate_arguments(flags UNIX_COMMAND "${output}")
run("${COMPILER}" "${here}/quick.cpp" ${flags} -fsyntax-only)
expect_not("KERNELS ARE SCALAR")
run_failing("${CMAKE_COMMAND}" -E env "PKG_CONFIG_LIBDIR=${work}/of_a_distribution/lib/pkgconfig" "${PKG_CONFIG}" --cflags phi4flash)
expect("nlohmann_json")
run("${CMAKE_COMMAND}" -E remove_directory "${work}/library")  # and what its cache remembers

# With the headers that the checkout had.
run("${work}/checkout/tools/setup.sh" --headers)
install_library("${work}/as_installed" -DPHI4FLASH_SIMD=auto -DPHI4FLASH_WITH_JSON=AUTO)
file(MAKE_DIRECTORY "${work}/a folder")
file(RENAME "${work}/as_installed" "${work}/a folder/bundled")
file(REMOVE_RECURSE "${work}/checkout")
flags_of("${work}/a folder/bundled")
string(TOUPPER "${BEST_SIMD}" upper)
expect("-DPHI4FLASH_SIMD_${upper}=1" "-DPHI4FLASH_HAS_JSON=1")
run("${COMPILER}" "${here}/quick.cpp" ${flags} -DPHI4FLASH_STATIC_DISPATCH=1 -o consumer)
run("${work}/consumer")
expect("back end ${BEST_SIMD}" "json 1")
run("${CMAKE_COMMAND}" -E env "PKG_CONFIG_LIBDIR=${work}/a folder/bundled/share/pkgconfig" "${PKG_CONFIG}" --define-variable=std=c++23
    --cflags phi4flash)
expect("-std=c++23")
