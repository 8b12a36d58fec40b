#!/usr/bin/env python3
"""Which macros are still defined after the library was included.

    leaked_macros.py CHECKOUT COMPILER FLAG...

Of the single header those of ours are PUBLIC_MACROS of tools/amalgamate.py, 33 at most, and Highway's target is the only other one. The headers
one by one need more of them, as each opens the ABI namespace; they all begin with PHI4FLASH_. What a system header, Highway, xsimd or nlohmann/json
defines in a file of its own is its own business: -dD tells which file a macro is from.
"""
import pathlib
import re
import subprocess
import sys

root = pathlib.Path(sys.argv[1])
compiler = sys.argv[2:]
sys.path.insert(0, str(root / "tools"))
from amalgamate import FOREIGN_MACROS, PUBLIC_MACROS  # noqa: E402

MOST = 33


def left_by(header, *switches):
    """The macros that are still defined at the end and that a file of the library, or a switch, has defined."""
    run = subprocess.run([*compiler, *switches, "-E", "-dD", "-x", "c++", str(header)], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(run.stderr)
    file, defined = "", {}
    for line in run.stdout.split("\n"):
        if place := re.match(r'# \d+ "([^"]*)"', line):
            file = place.group(1)
        elif made := re.match(r"#define (\w+)", line):
            defined[made.group(1)] = file
        elif gone := re.match(r"#undef (\w+)", line):
            defined.pop(gone.group(1), None)
    folder = str(header.parent)
    return {name for name, where in defined.items() if where.startswith(folder) or name.startswith("PHI4FLASH_")}


faults = []
single, separate = root / "single_include/phi4flash/phi4flash.hpp", root / "include/phi4flash/phi4flash.hpp"
for back_end in ("HIGHWAY", "XSIMD", "SCALAR"):
    chosen = f"-DPHI4FLASH_SIMD_{back_end}=1"
    if subprocess.run([*compiler, chosen, "-E", str(single)], capture_output=True, check=False).returncode != 0:
        print(f"{back_end}: left out, it is not here")
        continue
    left = left_by(single, chosen)
    print(f"{back_end}: single header {len(left)}: {' '.join(sorted(left))}")
    faults += [f"{back_end}: {name} is left by the single header, and is not in PUBLIC_MACROS of tools/amalgamate.py"
               for name in sorted(left - PUBLIC_MACROS - FOREIGN_MACROS)]
    left = left_by(separate, chosen, "-I", str(root / "include"))
    print(f"{back_end}: separate headers {len(left)}")
    faults += [f"{back_end}: {name} is left by the headers: want PHI4FLASH_ before it, or #undef" for name in sorted(left - FOREIGN_MACROS)
               if not name.startswith("PHI4FLASH_")]
if len(PUBLIC_MACROS) > MOST:
    faults.append(f"{len(PUBLIC_MACROS)} public macros: want at most {MOST}")
sys.exit("\n".join(faults) or 0)
