#!/usr/bin/env python3
"""Prints the version in include/phi4flash/config/version.hpp, for build systems."""
import argparse
import pathlib
import re

argparse.ArgumentParser(description=__doc__).parse_args()

header = pathlib.Path(__file__).resolve().parent.parent / "include/phi4flash/config/version.hpp"
print(re.search(r'VERSION_STRING "([^"]+)"', header.read_text(encoding="utf-8")).group(1))
