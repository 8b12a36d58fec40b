#!/usr/bin/env python3
"""Checks the symbols of plugins that were compiled in different ways: all that are the library's carry one ABI namespace, and no
variable is unique to the process (STB_GNU_UNIQUE), which would keep a plugin from being unloaded.

    own_symbols.py NM NAME=PLUGIN...
"""
import re
import subprocess
import sys

NAMESPACE = re.compile(r"9phi4flash(\d+)(v\d\w*)")


def main():
    nm, plugins = sys.argv[1], [a.split("=", 1) for a in sys.argv[2:]]
    failures, checked = [], 0
    for name, path in plugins:
        tags = set()
        out = subprocess.run([nm, "--defined-only", path], capture_output=True, text=True, check=True).stdout
        for line in out.splitlines():
            kind, symbol = line.split()[-2:]
            if "9phi4flash" not in symbol:
                continue
            checked += 1
            tags.update(text[:int(length)] for length, text in NAMESPACE.findall(symbol))
            if not NAMESPACE.search(symbol):
                failures.append(f"{name}: {symbol} is outside the ABI namespace")
            if kind == "u":
                failures.append(f"{name}: {symbol} is unique to the process; mark the variable with PHI4FLASH_OWN_DATA")
        if len(tags) != 1:
            failures.append(f"{name}: want one ABI namespace, have {sorted(tags)}")
    print("\n".join(failures))
    if failures or not checked:
        sys.exit(f"own_symbols: {len(failures)} of {checked} symbols are wrong")
    print(f"own_symbols: {checked} symbols of {len(plugins)} files")


if __name__ == "__main__":
    main()
