# As a subproject: nothing is found but a Highway that is too old; the line of the warning brings what is missing.
make_checkout()
make_old_headers()
set(configure "${CMAKE_COMMAND}" -C "${work}/nothing.cmake" "-DPHI4FLASH_SOURCE_DIR=${work}/checkout" -G "${GENERATOR}"
    -S "${here}/add_subdirectory" -B "${work}/build")

run(${configure} "-DCMAKE_PREFIX_PATH=${work}/old")
expect_warnings(1)
expect("KERNELS ARE SCALAR" "neither Highway 1.2 nor xsimd 13 or newer was found" "Highway 1.0.3 in ${work}/old/include is too old"
    "MODELS FROM HUGGING FACE CANNOT BE READ" "-DPHI4FLASH_SIMD=scalar -DPHI4FLASH_WITH_JSON=OFF" "SIMD scalar, JSON OFF")
take_line(mend "setup\\.sh'? --headers")

# What somebody asked for is silent, or an error if it is missing.
run(${configure} -DPHI4FLASH_SIMD=scalar -DPHI4FLASH_WITH_JSON=OFF)
expect_warnings(0)
run(${configure} -DCMAKE_CXX_FLAGS=)
expect_warnings(1)
expect("KERNELS ARE NOT OPTIMIZED" "-DCMAKE_BUILD_TYPE=Release ${work}/build")
run(${configure} -DCMAKE_BUILD_TYPE=Debug)
expect_warnings(0)
set(configure ${configure} -DCMAKE_BUILD_TYPE= "-DCMAKE_CXX_FLAGS=${flags}")
run(${configure} -DPHI4FLASH_SIMD=scalar -DPHI4FLASH_WITH_JSON=AUTO)
expect_warnings(1)
expect_not("KERNELS ARE SCALAR")
run_failing(${configure} -DPHI4FLASH_SIMD=highway -DPHI4FLASH_WITH_JSON=ON)
expect("back end is to be highway, but Highway 1.2 or newer was not found" "JSON is wanted, but nlohmann/json 3.11 or newer was not found")
run_failing(${configure} -DPHI4FLASH_SIMD=sse)
expect("PHI4FLASH_SIMD is 'sse'; want auto, highway, xsimd or scalar")

run(${configure} -DPHI4FLASH_SIMD=auto -DPHI4FLASH_WITH_JSON=AUTO)
expect_warnings(1)
run(sh -c "${mend}")
expect_warnings(0)
expect("SIMD ${BEST_SIMD}, JSON ON")
build_and_run(${BEST_SIMD} 1)
