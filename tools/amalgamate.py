#!/usr/bin/env python3
"""Makes single_include/phi4flash/phi4flash.hpp, the whole library in one file.

    tools/amalgamate.py             writes it
    tools/amalgamate.py --check     fails if the committed file is not what would be written
    tools/amalgamate.py --output F  writes somewhere else

Rules:
- `#include <phi4flash/x.hpp>` is replaced by the text of that header, once. A header met first inside an #if is pasted again
  where it is needed outside, behind a guard of its own.
- `#include <phi4flash/x-inl.hpp>` is replaced by the text each time: these files are compiled once per instruction set.
- Other includes stay where they are, in the same #if. Only a repeated <standard> header at top level is dropped.
- A macro that is still defined at the end and does not start with PHI4FLASH_ is an error; those that are nobody's business are
  undefined there: all but PUBLIC_MACROS.
"""
import argparse
import difflib
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r"^\s*#\s*include\s+([<\"])([^>\"]+)[>\"]")
DIRECTIVE = re.compile(r"^\s*#\s*(if|ifdef|ifndef|elif|elifdef|elifndef|else|endif|define|undef|pragma)\b\s*(.*)")
OPENING = {"if", "ifdef", "ifndef"}
# Highway's own switches, which kernels/dispatch.hpp sets for each pass as Highway expects.
FOREIGN_MACROS = {"HWY_TARGET", "HWY_TARGET_TOGGLE", "HWY_SET_MACROS_PER_TARGET"}

# What a program may set or ask for (docs/embedding.md).
PUBLIC_MACROS = {"PHI4FLASH_" + name for name in (
    "SIMD_HIGHWAY", "SIMD_XSIMD", "SIMD_SCALAR", "STATIC_DISPATCH", "COMPILE_ONCE", "IMPLEMENTATION", "KERNELS", "AMX", "HAS_JSON", "FILES",
    "THREADS", "HAS_WEIGHTS_F32", "HAS_WEIGHTS_F16", "HAS_WEIGHTS_BF16", "HAS_WEIGHTS_Q8", "HAS_WEIGHTS_Q4", "HAS_WEIGHTS_Q4_DENSE",
    "HAS_KV_F32", "HAS_KV_BF16", "HAS_KV_INT8", "VERSION_MAJOR", "VERSION_MINOR", "VERSION_PATCH", "VERSION_STRING",
    "PRINTF_LIKE", "SINGLE_HEADER_INCLUDED")}


class Failure(Exception):
    pass


class Amalgamation:
    def __init__(self, include_folder):
        self.folder = include_folder
        self.lines = []
        self.conditions = []  # one (number of the #if, number of the branch) for each #if that is open
        self.next_condition = 0
        self.pasted = {}  # header -> the condition stacks under which it was pasted
        self.standard = {}  # <vector> -> the condition stacks under which it was included
        self.inline_seen = set()
        self.stack = []  # headers being pasted, to name a cycle
        self.macros = {}  # name -> where it was defined
        self.guards = []  # of headers that were pasted inside an #if

    def run(self, spine):
        self.paste(spine, "phi4flash.hpp")
        leaks = [f"{name} ({where})" for name, where in sorted(self.macros.items()) if not name.startswith("PHI4FLASH_")]
        if leaks:
            raise Failure("macros that leak out of the header: " + ", ".join(leaks) + ". Undefine them where they were last used, "
                          "or give them the prefix PHI4FLASH_.")
        # Not before the end: the macros of the ABI namespace are expanded wherever it is opened.
        self.lines += ["", "// ---- macros that end here " + "-" * 94]
        self.lines += [f"#undef {name}" for name in sorted(set(self.guards) | set(self.macros) - PUBLIC_MACROS)]
        return self.lines

    def covered(self, record, name):
        """Was `name` already included wherever this line is reached?"""
        here = tuple(self.conditions)
        return any(here[: len(stack)] == stack for stack in record.get(name, ()))

    def include(self, name, where):
        if name in self.stack:
            raise Failure(f"{where}: include cycle: {' -> '.join(self.stack)} -> {name}")
        if name.endswith("-inl.hpp"):
            self.paste_inline(name, where)
            return
        if self.covered(self.pasted, name):
            return
        inline_parents = [parent for parent in self.stack if parent.endswith("-inl.hpp")]
        if inline_parents:
            raise Failure(f"{where}: {name} is first included from {inline_parents[-1]}, which is compiled once per target; "
                          "include it in kernels/dispatch.hpp, before the first target.")
        self.paste(name, where)

    def read(self, name, where):
        path = self.folder / name
        if not path.is_file():
            raise Failure(f"{where}: no such header: {name}")
        return path.read_text(encoding="utf-8").splitlines()

    def paste(self, name, where):
        text = self.read(name, where)
        guarded = bool(self.conditions)
        if guarded or name in self.pasted:
            guard = "PHI4FLASH_ONCE_" + re.sub(r"[^A-Za-z0-9]", "_", name.removeprefix("phi4flash/")).upper()
            self.lines += [f"#ifndef {guard}", f"#define {guard}"]
            self.guards.append(guard)
        else:
            guard = None
        self.pasted.setdefault(name, []).append(tuple(self.conditions))
        self.walk(name, text, strip_comments=False)
        if guard:
            self.lines.append("#endif")

    def paste_inline(self, name, where):
        text = self.read(name, where)
        self.walk(name, text, strip_comments=name in self.inline_seen)
        self.inline_seen.add(name)

    def walk(self, name, text, strip_comments):
        self.stack.append(name)
        outer = len(self.conditions)
        self.lines += ["", f"// ---- {name} " + "-" * max(4, 116 - len(name))]
        in_comment = False
        blank = True
        for number, line in enumerate(text, 1):
            where = f"include/{name}:{number}"
            if in_comment:
                in_comment = "*/" not in line
                self.lines.append(line)
                continue
            if line.lstrip().startswith("/*") and "*/" not in line:
                in_comment = True
            included = INCLUDE.match(line)
            if included:
                self.on_include(line, included.group(1), included.group(2), where)
                continue
            directive = DIRECTIVE.match(line)
            if directive and not self.on_directive(directive.group(1), directive.group(2), where):
                continue
            if strip_comments and line.lstrip().startswith("//"):
                continue
            if not line.strip():
                if not blank:
                    self.lines.append("")
                blank = True
                continue
            blank = False
            self.lines.append(line.rstrip())
        if len(self.conditions) != outer:
            raise Failure(f"include/{name}: an #if without #endif")
        self.stack.pop()

    def on_include(self, line, mark, target, where):
        if mark == '"':
            raise Failure(f'{where}: #include "{target}": the library includes with angle brackets only')
        if target.startswith("phi4flash/"):
            self.include(target, where)
            return
        if "/" not in target and not target.endswith(".h"):
            if self.covered(self.standard, target):
                return
            self.standard.setdefault(target, []).append(tuple(self.conditions))
        self.lines.append(line.rstrip())

    def on_directive(self, word, rest, where):
        """Keeps the books; says whether the line is kept."""
        if word in OPENING:
            self.conditions.append((self.next_condition, 0))
            self.next_condition += 1
        elif word in ("elif", "elifdef", "elifndef", "else"):
            if not self.conditions:
                raise Failure(f"{where}: #{word} without #if")
            block, branch = self.conditions[-1]
            self.conditions[-1] = (block, branch + 1)
        elif word == "endif":
            if not self.conditions:
                raise Failure(f"{where}: #endif without #if")
            self.conditions.pop()
        elif word in ("define", "undef"):
            macro = re.match(r"\w+", rest)
            if macro and word == "define" and macro.group() not in FOREIGN_MACROS:
                self.macros[macro.group()] = where
            elif macro:
                self.macros.pop(macro.group(), None)
        elif word == "pragma" and rest.split()[:1] == ["once"]:
            return False
        return True


def amalgamate(include_folder, licence):
    version = re.search(r'VERSION_STRING "([^"]+)"', (include_folder / "phi4flash/config/version.hpp").read_text(encoding="utf-8"))
    head = ["// phi4flash " + version.group(1) + ": the whole library in one header.",
            "// Made by tools/amalgamate.py from include/phi4flash; change that, not this.", "//"]
    head += ["// " + line if line else "//" for line in licence.read_text(encoding="utf-8").splitlines()]
    # A guard and not #pragma once: the file may be reached under two names.
    head += ["#ifndef PHI4FLASH_SINGLE_HEADER_INCLUDED", "#define PHI4FLASH_SINGLE_HEADER_INCLUDED 1"]
    body = Amalgamation(include_folder).run("phi4flash/phi4flash.hpp")
    return "\n".join(head + body + ["", "#endif  // PHI4FLASH_SINGLE_HEADER_INCLUDED", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the file instead of writing it")
    parser.add_argument("--root", type=pathlib.Path, default=ROOT, help="checkout to work on")
    parser.add_argument("--output", type=pathlib.Path, help="file to write or to compare with")
    arguments = parser.parse_args()
    output = arguments.output or arguments.root / "single_include/phi4flash/phi4flash.hpp"
    try:
        text = amalgamate(arguments.root / "include", arguments.root / "LICENSE")
    except Failure as failure:
        sys.exit(f"amalgamate: {failure}")
    if arguments.check:
        old = output.read_text(encoding="utf-8") if output.is_file() else ""
        if old == text:
            print(f"amalgamate: {output.name} is up to date, {text.count(chr(10))} lines")
            return
        changes = difflib.unified_diff(old.splitlines(), text.splitlines(), "committed", "from include/", lineterm="", n=1)
        for _, line in zip(range(40), changes):
            print(line)
        sys.exit("amalgamate: single_include/phi4flash/phi4flash.hpp is stale. Run tools/amalgamate.py and commit the file it writes.")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    print(f"amalgamate: wrote {output}, {text.count(chr(10))} lines")


if __name__ == "__main__":
    main()
