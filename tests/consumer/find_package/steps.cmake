# An installed package remembers its choices, brings the headers that only the checkout had, and can be moved.
make_checkout()
run("${work}/checkout/tools/setup.sh" --headers)
install_library("${work}/as_installed")
file(RENAME "${work}/as_installed" "${work}/prefix")
file(REMOVE_RECURSE "${work}/checkout" "${work}/library")
set(configure "${CMAKE_COMMAND}" -C "${work}/nothing.cmake" "-DCMAKE_PREFIX_PATH=${work}/prefix" -G "${GENERATOR}"
    -S "${here}/find_package" -B "${work}/build")

run(${configure} "-DWANTED_VERSION=${VERSION}")
expect_warnings(0)
expect("consumer: ${BEST_SIMD}, JSON ON")
build_and_run(${BEST_SIMD} 1)

run(${configure} -DCMAKE_CXX_FLAGS=)
expect_warnings(1)
expect("KERNELS ARE NOT OPTIMIZED")
run(${configure} -DCMAKE_CXX_FLAGS=-O2 "-DWANTED_COMPONENTS=${BEST_SIMD},json")
expect("consumer: ${BEST_SIMD}, JSON ON")
run(${configure} -DWANTED_COMPONENTS=scalar)
expect("consumer: scalar, JSON ON")
run_failing(${configure} -DWANTED_COMPONENTS=turbo)
expect("Component 'turbo' is wanted" "Components are highway, xsimd, scalar and json")
run(${configure} -DWANTED_COMPONENTS= -DPHI4FLASH_SIMD=scalar -DPHI4FLASH_WITH_JSON=OFF)
expect("consumer: scalar, JSON OFF")
expect_warnings(0)

# What it was installed with has gone: an error that says so; whoever asks for the best there is gets one warning.
file(REMOVE_RECURSE "${work}/prefix/share/phi4flash/dependencies" "${work}/build")
run_failing(${configure})
expect("back end is to be ${BEST_SIMD}" "or newer was not found" "JSON is wanted, but" "PHI4FLASH_FETCH_DEPENDENCIES=ON")
run(${configure} -DPHI4FLASH_SIMD=auto -DPHI4FLASH_WITH_JSON=AUTO)
expect_warnings(1)
expect("KERNELS ARE SCALAR" "consumer: scalar, JSON OFF")
