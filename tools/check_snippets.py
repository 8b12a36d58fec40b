#!/usr/bin/env python3
"""Compiles the C++ and C blocks of README.md and docs/*.md.

    tools/check_snippets.py [--root CHECKOUT] [--c-compiler CC] -- COMPILER FLAG...

The words after ```cpp say what a block is:
    ```cpp            statements: becomes the body of a function; its #include lines go to the top
    ```cpp continue   more statements of the block before it
    ```cpp file       a whole file; so is any block that has `int main(`
    ```cpp file PATH  the very text of that file of the checkout, which is compiled and run elsewhere
    ```cpp fragment   not compiled (a layout, a signature cut out of a header)

```c blocks are the same in C11, over phi4flash.h; without --c-compiler they are compiled as C++20, which they must be as well.
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
FENCE = re.compile(r"^```(cpp|c)\b[ \t]*([^\n]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
HEADERS = {"cpp": "#include <phi4flash/phi4flash.hpp>\n",
           "c": "#include <phi4flash/phi4flash.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"}


def blocks_of(path):
    """(language, line, words, code) of each block."""
    text = path.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        yield match.group(1), text.count("\n", 0, match.start()) + 2, match.group(2).split(), match.group(3)


def units_of(path, name, language):
    """What a page needs: (its #include lines, functions with its statements), and (None, text) for each whole file."""
    includes, bodies, files = [], [], []
    for written_in, line, words, code in blocks_of(path):
        if "fragment" in words or written_in != language:
            continue
        where = f'#line {line} "{name}"\n'
        if words[:1] == ["file"] and len(words) == 2:
            if code != (ROOT / words[1]).read_text(encoding="utf-8"):
                sys.exit(f"{name}:{line}: want the text of {words[1]}, have another: copy the file into the page")
            continue
        if "file" in words or re.search(r"\bint main\s*\(", code):
            files.append((None, where + code))
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
        parameters = "" if language == "cpp" else "void"
        names = [f"snippet_{re.sub('[^a-z0-9]', '_', name.lower())}_{i}({parameters})" for i in range(len(bodies))]
        files.insert(0, (list(dict.fromkeys(includes)), "".join(f"void {n};\nvoid {n} {{\n{b}}}\n" for n, b in zip(names, bodies))))
    return files


def merged(units, parts):
    """The units as (pages, language, text): pages that include nothing of their own share `parts` units, as the library takes longest."""
    alone, shared = [], {}
    for name, language, (includes, text) in units:
        if includes is None:
            alone.append((name, language, text))
        elif includes:
            alone.append((name, language, HEADERS[language] + "\n".join(includes) + "\n" + text))
        else:
            shared.setdefault(language, []).append((name, text))
    together = [(", ".join(name for name, _ in pages[i::parts]), language, HEADERS[language] + "".join(text for _, text in pages[i::parts]))
                for language, pages in shared.items() for i in range(min(parts, len(pages)))]
    return together + alone


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, default=ROOT)
    parser.add_argument("--c-compiler", default="")
    parser.add_argument("compiler", nargs="+")
    arguments = parser.parse_args()
    root = arguments.root
    pages = [p for p in [root / "README.md", *sorted((root / "docs").glob("*.md"))] if p.is_file()]
    # Readers' names in snippets need not be used up.
    lenient = ["-Wno-unused-variable", "-Wno-unused-but-set-variable", "-Wno-missing-field-initializers",
               "-I", str(root / "include"), "-fsyntax-only"]
    in_c = [arguments.c_compiler, "-std=c11"] if arguments.c_compiler else [arguments.compiler[0], "-std=c++20", "-x", "c++"]
    commands = {"cpp": [*arguments.compiler, "-DPHI4FLASH_COMPILE_ONCE=1", *lenient],
                "c": [*in_c, "-Wall", "-Wextra", "-Wpedantic", "-Werror", *lenient]}
    units = [(p.relative_to(root).as_posix(), language, unit)
             for p in pages for language in commands for unit in units_of(p, p.relative_to(root).as_posix(), language)]
    count = len(units)
    units = merged(units, os.cpu_count())

    def compile_unit(unit):
        name, language, text = unit
        with tempfile.NamedTemporaryFile("w", suffix="." + language, encoding="utf-8") as file:
            file.write(text)
            file.flush()
            return name, subprocess.run([*commands[language], file.name], capture_output=True, text=True, check=False)

    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, run in pool.map(compile_unit, units):
            if run.returncode != 0:
                failed += 1
                print(f"{name}:\n{run.stderr}")
    if failed:
        sys.exit(f"check_snippets: {failed} of {len(units)} files with snippets do not compile")
    print(f"check_snippets: {count} units from {len(pages)} pages compile")


if __name__ == "__main__":
    main()
