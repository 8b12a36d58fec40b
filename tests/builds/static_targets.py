#!/usr/bin/env python3
"""Checks which kernels static dispatch lists: those that the compiler's flags promise and no others.

    static_targets.py COMPILER FLAG... (the include paths of the library and Highway)
"""
import re
import subprocess
import sys

PROGRAM = "#include <phi4flash/kernels/dispatch.hpp>\n"
# What is asked at run time besides: the system, for matrix tiles.
WANT = {
    "-march=x86-64": ["SSE2::table"],
    "-march=haswell": ["AVX2::table"],
    "-march=alderlake": ["AVX2::vnni_table"],
    "-march=x86-64-v3 -mavxvnni": ["AVX2::vnni_table"],
    "-march=x86-64-v4": ["AVX3::table"],
    "-march=skylake-avx512": ["AVX3::table"],
    "-march=cascadelake": ["AVX3::vnni_table"],
    "-march=icelake-server": ["AVX3_DL::table"],
    "-march=sapphirerapids": ["AVX3_SPR::tile_table", "AVX3_SPR::table"],
    "-march=sapphirerapids -mno-amx-int8": ["AVX3_SPR::table"],
    "-march=sapphirerapids -DHWY_DISABLED_TARGETS=(HWY_AVX3|HWY_AVX3_DL|HWY_AVX3_ZEN4|HWY_AVX3_SPR)": ["AVX2::vnni_table"],
}


def listed(command, flags):
    run = subprocess.run([*command, "-std=c++20", "-DPHI4FLASH_SIMD_HIGHWAY=1", *flags, "-E", "-P", "-x", "c++", "-"], input=PROGRAM,
                         capture_output=True, text=True, check=False)
    if run.returncode != 0:
        return None, run.stderr
    body = run.stdout[run.stdout.rindex("kernel_target_list list{}"):]
    return re.findall(r"\{&N_(\w+::\w+),", body), ""


def main():
    command = sys.argv[1:]
    failed, tried = False, 0
    for flags, want in WANT.items():
        have, why = listed(command, ["-DPHI4FLASH_STATIC_DISPATCH=1", *flags.split()])
        if have is None:
            print(f"{flags}: not tried: {why.strip().splitlines()[0]}")
            continue
        tried += 1
        print(f"{flags}: {' '.join(have)}")
        if have != want:
            print(f"static_targets: {flags}: want {' '.join(want)}", file=sys.stderr)
            failed = True
    every, why = listed(command, [])
    if every is None or len(every) < 5:  # without the switch there is a choice
        print(f"static_targets: without static dispatch: want several targets, have {every} {why}", file=sys.stderr)
        failed = True
    if tried < 5:
        print(f"static_targets: only {tried} flags are known to this compiler", file=sys.stderr)
        failed = True
    sys.exit(1 if failed else 0)


main()
