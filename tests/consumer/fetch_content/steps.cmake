# By FetchContent, which also downloads what is missing if it is told to: here from folders, as the tests need no network.
make_checkout()
set(configure "${CMAKE_COMMAND}" -C "${work}/nothing.cmake" "-DPHI4FLASH_SOURCE_DIR=${work}/checkout" -G "${GENERATOR}"
    -S "${here}/fetch_content" -B "${work}/build")
run(${configure})
expect_warnings(1)
expect("KERNELS ARE SCALAR")
take_line(mend "PHI4FLASH_FETCH_DEPENDENCIES=ON")

# Targets of the surrounding project come first, unless they are too old.
make_old_headers()
run(${configure} "-DOWN_DEPENDENCIES=${work}/headers")
expect_warnings(0)
expect("SIMD highway, JSON ON")
run(${configure} "-DOWN_DEPENDENCIES=${work}/old/include")
expect_warnings(1)
expect("Highway 1.0.3 in ${work}/old/include is too old" "nlohmann/json 3.10.5 in ${work}/old/include is too old")
run(${configure} -DOWN_DEPENDENCIES=)

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
