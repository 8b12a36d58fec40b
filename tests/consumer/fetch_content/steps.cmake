# By FetchContent, which also downloads what is missing if it is told to: here from folders, as the tests need no network.
make_checkout()
set(configure "${CMAKE_COMMAND}" -C "${work}/nothing.cmake" "-DPHI4FLASH_SOURCE_DIR=${work}/checkout" -G "${GENERATOR}"
    -S "${here}/fetch_content" -B "${work}/build")
run(${configure})
expect_warnings(1)
expect("KERNELS ARE SCALAR")
take_line(mend "PHI4FLASH_FETCH_DEPENDENCIES=ON")

bring(highway "${work}/downloads/highway")
bring(json "${work}/downloads/json/include")
foreach(name highway json)
    string(TOUPPER ${name} upper)
    string(APPEND mend " -DFETCHCONTENT_SOURCE_DIR_PHI4FLASH_${upper}='${work}/downloads/${name}'")
endforeach()
run(sh -c "${mend}")
expect_warnings(0)
expect("SIMD highway, JSON ON")
build_and_run(highway 1)
