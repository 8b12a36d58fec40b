#!/usr/bin/env python3
"""What the shared library of the C API exports is the list under version control, what the header declares, and nothing else.

    exports_test.py NM LIBRARY SYMBOLS HEADER
"""
import pathlib
import re
import subprocess
import sys


def main():
    nm, library, symbols, header = sys.argv[1:]
    want = pathlib.Path(symbols).read_text(encoding="utf-8").split()
    if want != sorted(want):
        sys.exit(f"{symbols}: want it sorted")
    out = subprocess.run([nm, "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in out.splitlines()]
    # "A" is the name of the version itself.
    exported = sorted(name.split("@")[0] for *_, kind, name in lines if kind != "A")
    text = re.sub(r"/\*.*?\*/", "", pathlib.Path(header).read_text(encoding="utf-8"), flags=re.DOTALL)
    declared = sorted(re.findall(r"^PHI4FLASH_API [^(;]*?(\w+)\(", text, re.MULTILINE))
    failed = False
    for name, have in [(library, exported), (header, declared)]:
        for missing in sorted(set(want) - set(have)):
            failed = True
            print(f"{name}: {missing} is gone, which breaks programs that are compiled already")
        for new in sorted(set(have) - set(want)):
            failed = True
            print(f"{name}: {new} is not in {symbols}")
    if failed or not want:
        sys.exit("exports_test: the lists differ")
    print(f"exports_test: {len(want)} functions, and nothing else")


if __name__ == "__main__":
    main()
