# cpack: the .tar.gz unpacked anywhere, with the preset of examples/consumer, and the Debian package of the headers where dpkg-deb is. The
# program and its model are in tests/cli/installed_test.py.
make_checkout()
file(COPY "${SOURCE_DIR}/CHANGELOG.md" DESTINATION "${work}/checkout")
file(COPY "${SOURCE_DIR}/examples/consumer" DESTINATION "${work}/app")
set(headers_only -DPHI4FLASH_BUILD_TESTS=OFF -DPHI4FLASH_BUILD_EXAMPLES=OFF -DPHI4FLASH_BUILD_BENCHMARKS=OFF -DPHI4FLASH_BUILD_C_API=OFF)
if(DPKG_DEB)
    # Dependencies that the system has are named, and not packed.
    run("${CMAKE_COMMAND}" -C "${work}/nothing.cmake" -S "${work}/checkout" -B "${work}/library" -G "${GENERATOR}" ${headers_only}
        "-DCMAKE_INCLUDE_PATH=${work}/headers")
    run("${CMAKE_COMMAND}" --build "${work}/library" --target package)
    run("${DPKG_DEB}" --info "${work}/library/libphi4flash-dev_${VERSION}-1_all.deb")
    set(debian_highway libhwy-dev)
    set(debian_xsimd libxsimd-dev)
    expect("Depends: ${debian_${BEST_SIMD}} (>= " "nlohmann-json3-dev (>= 3.11.0)")
    run("${DPKG_DEB}" --contents "${work}/library/libphi4flash-dev_${VERSION}-1_all.deb")
    expect_not("share/phi4flash/dependencies")
    file(REMOVE_RECURSE "${work}/library")
endif()

run("${work}/checkout/tools/setup.sh" --headers)
run("${CMAKE_COMMAND}" -C "${work}/nothing.cmake" -S "${work}/checkout" -B "${work}/library" -G "${GENERATOR}" ${headers_only}
    "-DPHI4FLASH_PACKAGE_CONTACT=A Packager <packager@site.example>")
run("${CMAKE_COMMAND}" --build "${work}/library" --target package)
file(GLOB archive "${work}/library/phi4flash-${VERSION}-*.tar.gz")
file(GLOB debian "${work}/library/libphi4flash-dev_${VERSION}-1_all.deb")
file(RENAME "${archive}" "${work}/phi4flash.tar.gz")
if(DPKG_DEB)
    file(RENAME "${debian}" "${work}/libphi4flash-dev.deb")
elseif(debian)
    message(FATAL_ERROR "a Debian package without dpkg-deb")
endif()
file(REMOVE_RECURSE "${work}/checkout" "${work}/library")

file(ARCHIVE_EXTRACT INPUT "${work}/phi4flash.tar.gz" DESTINATION "${work}/a folder")
file(GLOB unpacked "${work}/a folder/*")
set(ENV{PHI4FLASH_PREFIX} "${unpacked}")
# the flags of the other consumers, and nothing of this machine's headers
run("${CMAKE_COMMAND}" -E chdir "${work}/app/consumer" "${CMAKE_COMMAND}" -C "${work}/nothing.cmake" --preset system -G "${GENERATOR}")
expect_warnings(0)
run("${CMAKE_COMMAND}" -E chdir "${work}/app/consumer" "${CMAKE_COMMAND}" --build --preset system)
run("${work}/app/consumer/build/system/consumer" "${SOURCE_DIR}/models/tiny-arithmetic" "What is 347 + 285?")
expect("phi4flash ${VERSION}, back end ${BEST_SIMD}" "json 1" "\\boxed{632}")

if(DPKG_DEB)
    run("${DPKG_DEB}" --info "${work}/libphi4flash-dev.deb")
    expect("Package: libphi4flash-dev" "Version: ${VERSION}-1" "Architecture: all" "Section: libdevel"
        "Maintainer: A Packager <packager@site.example>"
        "Description: inference of Phi-4-mini-flash-reasoning, C++20 headers")
    expect_not("Depends:")  # headers that only the checkout had are inside
    run("${DPKG_DEB}" -x "${work}/libphi4flash-dev.deb" "${work}/debian")
    foreach(file doc/libphi4flash-dev/copyright doc/libphi4flash-dev/changelog.Debian.gz phi4flash/dependencies/include/nlohmann/json.hpp
            cmake/phi4flash/phi4flash-config.cmake pkgconfig/phi4flash.pc)
        if(NOT EXISTS "${work}/debian/usr/share/${file}")
            message(FATAL_ERROR "the Debian package has no ${file}")
        endif()
    endforeach()
    if(EXISTS "${work}/debian/usr/share/licenses")
        message(FATAL_ERROR "Debian has no /usr/share/licenses")
    endif()
    run("${CMAKE_COMMAND}" -C "${work}/nothing.cmake" "-DCMAKE_PREFIX_PATH=${work}/debian/usr" -G "${GENERATOR}"
        -S "${here}/find_package" -B "${work}/build")
    expect("consumer: ${BEST_SIMD}, JSON ON")
endif()
