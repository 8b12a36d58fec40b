#!/usr/bin/env python3
"""Lists the headers that the library includes with a switch, and fails if one is among them that the switch leaves out. Also: JSON's parser in
a client of compile-once mode.

    headers_left_out.py COMPILER FLAG... (the include path of the library)
"""
import os
import subprocess
import sys

FILES = {"sys/mman.h", "sys/stat.h", "fcntl.h", "dirent.h", "poll.h", "filesystem", "fstream", "iostream", "windows.h"}
THREADS = {"thread", "mutex", "condition_variable", "future", "shared_mutex", "sched.h"}
# The standard library's other headers use these themselves, depending on its version.
OF_THE_LIBRARY = {"sched.h"}
SWITCHES = {"-DPHI4FLASH_FILES=0": FILES, "-DPHI4FLASH_THREADS=0": THREADS}


def headers(command, flags, program):
    run = subprocess.run([*command, "-std=c++20", "-DPHI4FLASH_SIMD_SCALAR=1", *flags, "-E", "-H", "-x", "c++", "-", "-o", os.devnull],
                         input=program, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f"headers_left_out: {' '.join(flags)}:\n{run.stderr}")
    # ". path", a dot for each level, in the order of their inclusion.
    return [line.split(" ", 1)[1] for line in run.stderr.splitlines() if line.startswith(".")]


def named(paths, names):
    found = set()
    for path in paths:
        for name in names:
            if path.endswith("/" + name) and "phi4flash" not in path:
                # <bits/...>, <ext/...> and <pstl/...> are parts of the library's own
                if not any(part in path for part in ("/bits/" + name, "/ext/" + name, "/pstl/", "/experimental/", "/tr1/")):
                    found.add(name)
    return found


def main():
    command = sys.argv[1:]
    program = "#include <phi4flash/phi4flash.hpp>\n"
    everything = headers(command, [], program)
    failed = False
    for flags in (["-DPHI4FLASH_FILES=0"], ["-DPHI4FLASH_THREADS=0"], list(SWITCHES)):
        have = headers(command, flags, program)
        unwanted = set().union(*(SWITCHES[f] for f in flags)) - OF_THE_LIBRARY
        there = named(have, unwanted)
        print(f"{' '.join(flags)}: {len(have)} headers of {len(everything)}")
        if there:
            print("  these are there and should not be: " + ", ".join(sorted(there)), file=sys.stderr)
            failed = True
    # Clients of compile-once mode declare what reads JSON, and need no parser: no json.hpp is on their include path, and none is asked for.
    client = headers(command, ["-DPHI4FLASH_COMPILE_ONCE=1", "-DPHI4FLASH_HAS_JSON=1"], program)
    if any(path.endswith("/json.hpp") and "phi4flash" not in path for path in client):
        print("headers_left_out: a client of compile-once mode includes the JSON parser", file=sys.stderr)
        failed = True
    # The check can fail: without switches some of them are there.
    if not {"filesystem", "thread"} <= named(everything, FILES | THREADS):
        print("headers_left_out: without switches <filesystem> and <thread> should be there", file=sys.stderr)
        failed = True
    sys.exit(1 if failed else 0)


main()
