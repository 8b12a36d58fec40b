# Headers on the include path and nothing else. GCC and clang.
make_old_headers()
bring(highway "${work}/new/include")
set(compile "${COMPILER}" -Wall -Wextra -Wundef -Werror -fsyntax-only "-I${SOURCE_DIR}/include")
set(old "-I${work}/old/include")

# A guess is told once, in the file that compiles kernels, and no -Werror turns it into a failure; a choice is silent.
run(${compile} ${old} -std=c++20 "${here}/quick.cpp")
expect_times(1 "pragma message: phi4flash: KERNELS ARE SCALAR|warning: phi4flash: KERNELS ARE SCALAR")
expect("git clone --depth 1 --branch 1.2.0 https://github.com/google/highway" "-DPHI4FLASH_SIMD_SCALAR=1")
run(${compile} ${old} -std=c++20 -DPHI4FLASH_SIMD_SCALAR=1 "${here}/quick.cpp")
expect_not("KERNELS ARE SCALAR")
run(${compile} ${old} -std=c++20 -DPHI4FLASH_COMPILE_ONCE=1 "${here}/quick.cpp")
expect_not("KERNELS ARE SCALAR")
if(HIGHWAY_DIR)
    run(${compile} -isystem "${work}/new/include" -std=c++20 -DPHI4FLASH_COMPILE_ONCE=1 -DEXPECT=PHI4FLASH_SIMD_HIGHWAY "${here}/bare_header/expect.cpp")
endif()

# A choice that the include path does not allow, and a standard that is too old, are sentences.
run_failing(${compile} ${old} -std=c++20 -DPHI4FLASH_SIMD_HIGHWAY=1 "${here}/bare_header/expect.cpp")
expect("the first Highway on the include path is older than 1.2")
run_failing(${compile} ${old} -std=c++20 -DPHI4FLASH_SIMD_XSIMD=1 "${here}/bare_header/expect.cpp")
expect("the first xsimd on the include path is older than 13")
if(NOT SYSTEM_HAS_HEADERS)
    run_failing(${compile} -std=c++20 -DPHI4FLASH_SIMD_HIGHWAY=1 "${here}/bare_header/expect.cpp")
    expect("no Highway is on the include path; add it, or set PHI4FLASH_SIMD_SCALAR=1 instead")
endif()
run_failing(${compile} ${old} -std=c++17 "${here}/bare_header/expect.cpp")
expect("phi4flash needs C++20")
