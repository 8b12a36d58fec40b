#!/usr/bin/env python3
"""list_files.py FOLDER PATTERN [--folders]: files of the checkout, or the folders right in FOLDER that have such files, one a line, for meson."""
import pathlib
import sys

root = pathlib.Path(__file__).resolve().parent.parent
folder = root / sys.argv[1]
matches = sorted(folder.glob(sys.argv[2]))
if "--folders" in sys.argv:
    print("\n".join(sorted({m.relative_to(folder).parts[0] for m in matches})))
else:
    print("\n".join(m.relative_to(root).as_posix() for m in matches))
