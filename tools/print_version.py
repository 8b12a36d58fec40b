#!/usr/bin/env python3
"""Prints the version in include/phi4flash/config/version.hpp, for build systems. --check: and compares the files that have to repeat it."""
import argparse
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MANIFESTS = ("vcpkg.json", "packaging/vcpkg/ports/phi4flash/vcpkg.json")
# Places in texts that name it: a pattern that must find it.
TEXTS = {
    "CHANGELOG.md": r"## \[([0-9.]+)\]",
    "docs/embedding.md": r"`v([0-9]+_[0-9]+_[0-9]+)_",
    "include/phi4flash/config/abi.hpp": r'"v([0-9]+_[0-9]+_[0-9]+)_',
    "examples/consumer/conanfile.txt": r">=([0-9.]+)",
    "include/phi4flash/phi4flash.h": r'/\* "([0-9.]+)"',
}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--check", action="store_true")
options = parser.parse_args()

header = ROOT / "include/phi4flash/config/version.hpp"
version = re.search(r'VERSION_STRING "([^"]+)"', header.read_text(encoding="utf-8")).group(1)
print(version)
if options.check:
    for name in MANIFESTS:
        said = json.loads((ROOT / name).read_text(encoding="utf-8"))["version"]
        if said != version:
            sys.exit(f"print_version: {name} says {said}, version.hpp {version}")
    numbers = ".".join(re.search(rf"VERSION_{part} ([0-9]+)", header.read_text(encoding="utf-8")).group(1) for part in ("MAJOR", "MINOR", "PATCH"))
    if numbers != version:
        sys.exit(f"print_version: the numbers in version.hpp say {numbers}, its string {version}")
    for name, pattern in TEXTS.items():
        found = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"))
        said = found.group(1).replace("_", ".") if found else "nothing"
        if said != version:
            sys.exit(f"print_version: {name} says {said}, version.hpp {version}")
