#!/usr/bin/env python3
"""check.py FILE COMPILER...: FILE must compile with PHI4FLASH_TEST_FIXED and fail without it, with the sentence after "// expect: "."""
import subprocess
import sys

source, compiler = sys.argv[1], sys.argv[2:]
first = open(source, encoding="utf-8").readline()
if not first.startswith("// expect: "):
    sys.exit(f'{source}: the first line must be "// expect: <the sentence of the static_assert>"')
sentence = first.removeprefix("// expect: ").strip()

fixed = subprocess.run([*compiler, "-DPHI4FLASH_TEST_FIXED=1", "-fsyntax-only", source], capture_output=True, text=True, check=False)
if fixed.returncode != 0:
    sys.exit(f"{source} does not compile even with its mistake repaired:\n{fixed.stderr}")
broken = subprocess.run([*compiler, "-fsyntax-only", source], capture_output=True, text=True, check=False)
if broken.returncode == 0:
    sys.exit(f"{source} compiles, and must not")
if sentence not in broken.stderr:
    sys.exit(f'{source} fails, but without the sentence "{sentence}":\n{broken.stderr}')
print(f'refused with "{sentence}"')
