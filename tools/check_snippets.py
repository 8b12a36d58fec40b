#!/usr/bin/env python3
"""Compiles the C++ blocks of README.md and docs/*.md.

    tools/check_snippets.py [--root CHECKOUT] [--list] -- COMPILER FLAG...

The words after ```cpp say what a block is:
    ```cpp            statements: becomes the body of a function; its #include lines go to the top
    ```cpp continue   more statements of the block before it
    ```cpp file       a whole file; so is any block that has `int main(`
    ```cpp file PATH  the very text of that file of the checkout, which is compiled and run elsewhere
    ```cpp fragment   not compiled (a layout, a signature cut out of a header)
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```cpp\b[ \t]*([^\n]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


def blocks_of(path):
    """(line, words, code) of each C++ block."""
    text = path.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        yield text.count("\n", 0, match.start()) + 2, match.group(1).split(), match.group(2)


def units_of(path, name):
    """The translation units that a page needs: one for all its statements, one for each whole file."""
    includes, bodies, files = [], [], []
    for line, words, code in blocks_of(path):
        if "fragment" in words:
            continue
        where = f'#line {line} "{name}"\n'
        if words[:1] == ["file"] and len(words) == 2:
            if code != (ROOT / words[1]).read_text(encoding="utf-8"):
                sys.exit(f"{name}:{line}: want the text of {words[1]}, have another: copy the file into the page")
            continue
        if "file" in words or re.search(r"\bint main\s*\(", code):
            files.append(where + code)
            continue
        lines = code.splitlines()
        includes += [x for x in lines if x.lstrip().startswith("#include")]
        body = where + "\n".join("" if x.lstrip().startswith("#include") else x for x in lines) + "\n"
        if "continue" in words:
            if not bodies:
                sys.exit(f"{name}:{line}: there is no block to continue")
            bodies[-1] += body
        else:
            bodies.append(body)
    if bodies:
        functions = "".join(f"[[maybe_unused]] static void snippet_{i}() {{\n{body}}}\n" for i, body in enumerate(bodies))
        files.insert(0, "#include <phi4flash/phi4flash.hpp>\n" + "\n".join(dict.fromkeys(includes)) + "\n" + functions)
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, default=ROOT)
    parser.add_argument("compiler", nargs="+")
    arguments = parser.parse_args()
    root = arguments.root
    pages = [p for p in [root / "README.md", *sorted((root / "docs").glob("*.md"))] if p.is_file()]
    # Readers' names in snippets need not be used up.
    command = [*arguments.compiler, "-DPHI4FLASH_COMPILE_ONCE=1", "-Wno-unused-variable", "-Wno-unused-but-set-variable",
               "-Wno-missing-field-initializers",
               "-I", str(root / "include"), "-fsyntax-only"]
    units = [(p.relative_to(root).as_posix(), unit) for p in pages for unit in units_of(p, p.relative_to(root).as_posix())]

    def compile_unit(named):
        with tempfile.NamedTemporaryFile("w", suffix=".cpp", encoding="utf-8") as file:
            file.write(named[1])
            file.flush()
            return named[0], subprocess.run([*command, file.name], capture_output=True, text=True, check=False)

    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, run in pool.map(compile_unit, units):
            if run.returncode != 0:
                failed += 1
                print(f"{name}:\n{run.stderr}")
    if failed:
        sys.exit(f"check_snippets: snippets of {failed} of {len(units)} units do not compile")
    print(f"check_snippets: {len(units)} units from {len(pages)} pages compile")


if __name__ == "__main__":
    main()
