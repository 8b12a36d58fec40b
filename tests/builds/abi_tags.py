#!/usr/bin/env python3
"""Checks the name of the ABI namespace: switches that change a layout or a function's body change it, others do not.

    abi_tags.py COMPILER FLAG... (the include paths of the library, Highway and xsimd)
"""
import concurrent.futures
import itertools
import os
import subprocess
import sys

HIGHWAY, XSIMD, SCALAR = "-DPHI4FLASH_SIMD_HIGHWAY=1", "-DPHI4FLASH_SIMD_XSIMD=1", "-DPHI4FLASH_SIMD_SCALAR=1"

# Each way has a namespace of its own.
DIFFERENT = [
    [SCALAR], [SCALAR, "-DPHI4FLASH_HAS_JSON=1"], [SCALAR, "-fno-exceptions"], [SCALAR, "-ffast-math"], [SCALAR, "-ffinite-math-only"],
    [SCALAR, "-ffast-math", "-fno-exceptions", "-DPHI4FLASH_HAS_JSON=1"], [HIGHWAY], [HIGHWAY, "-DPHI4FLASH_STATIC_DISPATCH=1"], [XSIMD],
    [SCALAR, "-DPHI4FLASH_FILES=0"], [SCALAR, "-DPHI4FLASH_THREADS=0"], [SCALAR, "-DPHI4FLASH_FILES=0", "-DPHI4FLASH_THREADS=0"],
    [SCALAR, "-DPHI4FLASH_HAS_WEIGHTS_Q4=0"], [SCALAR, "-DPHI4FLASH_HAS_WEIGHTS_Q4_DENSE=0"], [SCALAR, "-DPHI4FLASH_HAS_WEIGHTS_F32=0"],
    [SCALAR, "-DPHI4FLASH_HAS_KV_F32=0"], [SCALAR, "-DPHI4FLASH_HAS_KV_INT8=0"],
    [SCALAR, "-DPHI4FLASH_HAS_KV_INT8=0", "-DPHI4FLASH_HAS_WEIGHTS_Q4=0"],
]
DIFFERENT_LIBSTDCXX = [[SCALAR, "-D_GLIBCXX_DEBUG"], [SCALAR, "-D_GLIBCXX_USE_CXX11_ABI=0"]]
DIFFERENT_X86 = [
    [HIGHWAY, "-DPHI4FLASH_AMX=0"], [HIGHWAY, "-DHWY_DISABLED_TARGETS=HWY_AVX3"], [HIGHWAY, "-DHWY_DISABLED_TARGETS=(HWY_AVX3|HWY_AVX2)"],
    [HIGHWAY, "-mavx2"], [HIGHWAY, "-mavx2", "-mfma"], [HIGHWAY, "-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mpclmul", "-maes"],
    [HIGHWAY, "-march=x86-64-v2"], [HIGHWAY, "-march=x86-64-v3"], [HIGHWAY, "-march=x86-64-v4"], [HIGHWAY, "-march=cascadelake"],
    [HIGHWAY, "-march=icelake-server"], [HIGHWAY, "-march=sapphirerapids"], [HIGHWAY, "-march=sapphirerapids", "-mno-amx-int8"],
    [XSIMD, "-mavx2"], [SCALAR, "-mavx2"],
]
# Each of these is the same as [SCALAR]: files of one project may differ so.
SAME = [["-fno-rtti"], ["-DNDEBUG"], ["-O3"], ["-std=c++23"], ["-DPHI4FLASH_COMPILE_ONCE=1"],
        ["-DPHI4FLASH_COMPILE_ONCE=1", "-DPHI4FLASH_IMPLEMENTATION=1"], ["-fPIC"], ["-funsigned-char"], ["-fvisibility=hidden"]]
PROGRAM = "#include <phi4flash/config/abi.hpp>\nTAG PHI4FLASH_ABI\n"

WHAT_THERE_IS = """#include <version>
#if __has_include(<hwy/base.h>)
has_highway
#endif
#if __has_include(<xsimd/xsimd.hpp>)
has_xsimd
#endif
#if defined(__GLIBCXX__)
libstdcxx
#endif
#if defined(__x86_64__)
is_x86
#endif
"""


def main():
    command = sys.argv[1:]

    def tag(flags):
        run = subprocess.run([*command, "-std=c++20", *flags, "-E", "-P", "-x", "c++", "-"], input=PROGRAM, capture_output=True, text=True,
                             check=False)
        if run.returncode != 0:
            sys.exit(f"abi_tags: {' '.join(flags)}:\n{run.stderr}")
        return run.stdout.strip().splitlines()[-1]

    available = subprocess.run([*command, "-std=c++20", "-E", "-P", "-x", "c++", "-"], input=WHAT_THERE_IS, capture_output=True, text=True,
                               check=True).stdout.split()
    ways = [*DIFFERENT]
    if "libstdcxx" in available:
        ways += DIFFERENT_LIBSTDCXX
    if "is_x86" in available:
        ways += DIFFERENT_X86
    ways = [w for w in ways if not (HIGHWAY in w and "has_highway" not in available) and not (XSIMD in w and "has_xsimd" not in available)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        tags = list(pool.map(tag, ways))
        same = list(pool.map(tag, [[SCALAR, *flags] for flags in SAME]))
    failures = [f"{' '.join(a)} and {' '.join(b)} have the same namespace: {x}"
                for (a, x), (b, y) in itertools.combinations(zip(ways, tags), 2) if x == y]
    failures += [f"{' '.join(flags)} changes the namespace: {have}" for flags, have in zip(SAME, same) if have != tags[0]]
    for way, name in zip(ways, tags):
        if not name.removeprefix("TAG ").isidentifier() or "__" in name:
            failures.append(f"{' '.join(way)}: no name for a namespace: {name}")
        print(f"{name.removeprefix('TAG '):55} {' '.join(way)}")
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
