#!/usr/bin/env python3
"""What compiling the library costs, and how large a program becomes: the tables of docs/embedding.md.

    tools/compile_cost.py [--compiler g++] [-isystem FOLDER]... [--runs N] [--only NAME]
    tools/compile_cost.py --sizes ...        sizes alone; fails where a program is larger than its limit (in this script)

Seconds of processor time and the most memory of one compiler, -O2 -c of examples/minimal.cpp, the best of N runs. Nothing else should run meanwhile.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "examples/minimal.cpp"
JSON = "-DPHI4FLASH_HAS_JSON=1"
ONE = ["-DPHI4FLASH_STATIC_DISPATCH=1", "-march=haswell"]
CASES = {
    "all targets, JSON": [JSON],
    "all targets": [],
    "one target": ONE,
    "one target, JSON": [*ONE, JSON],
    "client of compile-once": ["-DPHI4FLASH_COMPILE_ONCE=1"],
    "client of compile-once, JSON": ["-DPHI4FLASH_COMPILE_ONCE=1", JSON],
    "scalar": ["-DPHI4FLASH_SIMD_SCALAR=1"],
}
# Programs without JSON, static and stripped, and their limits in bytes.
PROGRAMS = {
    "an empty program": (None, ["-O2"], None),
    "all targets, -O2": (SOURCE, ["-O2"], 1_800_000),
    "one target, -Os": (SOURCE, ["-Os", *ONE], 1_140_000),
}


def run(command):
    """Seconds of processor time and KiB of memory."""
    process = subprocess.Popen(command)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"compile_cost: {' '.join(map(str, command))}: exit code {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss


def cost(common, flags, runs, folder):
    found = [run([*common, "-O2", *flags, "-c", str(SOURCE), "-o", f"{folder}/object.o"]) for _ in range(runs)]
    return min(seconds for seconds, _ in found), max(memory for _, memory in found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", default="g++", help="default: g++")
    parser.add_argument("-isystem", action="append", default=[], dest="folders",
                        help="where Highway and nlohmann/json are; default: build/deps/usr/include")
    parser.add_argument("--runs", type=int, default=1, help="of which the best is told; default: 1")
    parser.add_argument("--only", metavar="NAME", choices=[*CASES, *PROGRAMS], help="one of: " + "; ".join([*CASES, *PROGRAMS]))
    parser.add_argument("--sizes", action="store_true", help="sizes alone")
    options = parser.parse_args()
    folders = options.folders or [str(ROOT / "build/deps/usr/include")]
    common = [options.compiler, "-std=c++20", "-DNDEBUG", f"-I{ROOT / 'include'}", *(word for f in folders for word in ("-isystem", f))]
    wanted = lambda name: options.only is None or options.only == name
    too_large = False
    with tempfile.TemporaryDirectory() as folder:
        if not options.sizes:
            print("| | seconds | MB |\n|---|---|---|")
            for name, flags in CASES.items():
                if wanted(name):
                    seconds, memory = cost(common, flags, options.runs, folder)
                    print(f"| {name} | {seconds:.1f} | {memory / 1000:.0f} |", flush=True)
            print()
        if options.only not in CASES:
            print("| static, stripped | MB | limit |\n|---|---|---|")
        for name, (source, flags, limit) in PROGRAMS.items():
            if not wanted(name):
                continue
            program = f"{folder}/program"
            if source is None:
                source = f"{folder}/empty.cpp"
                pathlib.Path(source).write_text("int main() {}\n", encoding="utf-8")
            run([*common, *flags, "-ffunction-sections", "-fdata-sections", "-static", "-s", "-Wl,--gc-sections",
                 str(source), "-o", program, "-pthread"])
            size = os.path.getsize(program)
            print(f"| {name} | {size / 1e6:.2f} | {'' if limit is None else f'{limit / 1e6:.1f}'} |", flush=True)
            if limit is not None and size > limit:
                print(f"compile_cost: {name}: want at most {limit} bytes, have {size}", file=sys.stderr)
                too_large = True
    sys.exit(1 if too_large else 0)


main()
