#!/usr/bin/env python3
"""Prints the version in include/phi4flash/config/version.hpp, for build systems. --check: and compares the files that have to repeat it."""
import argparse
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MANIFESTS = ("vcpkg.json", "packaging/vcpkg/ports/phi4flash/vcpkg.json")

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
