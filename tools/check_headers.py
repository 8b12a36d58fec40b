#!/usr/bin/env python3
"""Compiles every header of include/ by itself.

    tools/check_headers.py [--root CHECKOUT] -- COMPILER FLAG...
"""
import argparse
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, default=ROOT)
    parser.add_argument("compiler", nargs="+")
    arguments = parser.parse_args()
    include = arguments.root / "include"
    # Kernels are only declared here: what is asked is whether a header includes all that it needs.
    command = [*arguments.compiler, "-DPHI4FLASH_COMPILE_ONCE=1", "-I", str(include), "-fsyntax-only"]
    headers = [h.relative_to(include).as_posix() for h in sorted(include.rglob("*.hpp")) if not h.name.endswith("-inl.hpp")]

    def compile_alone(header):
        with tempfile.NamedTemporaryFile("w", suffix=".cpp") as unit:
            unit.write(f"#include <{header}>\n#include <{header}>\n")
            unit.flush()
            return header, subprocess.run([*command, unit.name], capture_output=True, text=True, check=False)

    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for header, run in pool.map(compile_alone, headers):
            if run.returncode != 0:
                failed += 1
                print(f"{header} does not compile by itself:\n{run.stderr}")
    if failed or not headers:
        sys.exit(f"check_headers: {failed} of {len(headers)} headers do not compile by themselves")
    print(f"check_headers: {len(headers)} headers compile by themselves")


if __name__ == "__main__":
    main()
