#!/usr/bin/env python3
"""Checks the house rules that a compiler does not: who may include whom, what no header may use, and that the program checks what
it writes.

    tools/check_dependencies.py [--root CHECKOUT]

config <- core <- simd <- kernels <- position <- layers <- model; core <- text; model, text <- io; model, text <- generate.
"""
import argparse
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r"^\s*#\s*include\s+([<\"])([^>\"]+)[>\"]")

# What each folder may include besides itself.
KERNEL_SIDE = ["config", "core", "simd", "kernels", "position", "layers", "model"]
ALLOWED = {folder: set(KERNEL_SIDE[:i]) for i, folder in enumerate(KERNEL_SIDE)}
ALLOWED["text"] = {"config", "core"}
ALLOWED["io"] = set(KERNEL_SIDE) | {"text"}
ALLOWED["generate"] = set(KERNEL_SIDE) | {"text"}

# Rooms of io/, each of which may include those before it; what stands in io/ itself may include all.
ROOMS = ["io/file", "io/json", "io/safetensors", "io/gguf", "io/huggingface", "io/packed", "io"]

SIMD_FILES = re.compile(r"^(simd/.*|config/(macros|abi)\.hpp|kernels/dispatch\.hpp)$")
JSON_FILES = re.compile(r"^io/.*$")
BANNED = {"iostream", "istream", "ostream", "fstream", "sstream", "iomanip", "regex", "thread", "mutex", "future", "locale", "typeinfo",
          "stdexcept", "exception"}
# A pool of threads that a host may choose to use is a header of its own.
MAY_USE_THREADS = {"core/thread_pool.hpp", "core/processors.hpp"}
# Where what containers throw becomes a value.
MAY_CATCH = {"core/out_of_memory.hpp"}
BANNED_WORDS = [
    (re.compile(r"\bthrow\b"), "throws"),
    (re.compile(r"\bdynamic_cast\b|\btypeid\b"), "needs RTTI"),
    (re.compile(r"\bstd::(abort|exit|terminate|cout|cerr)\b|\bassert\s*\("), "aborts or prints"),
    (re.compile(r"\bf?printf\s*\((?!f)"), "prints"),
]

# Writing to standard output belongs to examples/cli/output.cpp, which notices where it fails.
UNCHECKED_OUTPUT = re.compile(r"\bstd::(cout|printf|puts|putchar|print|println)\b|\bstdout\b|\bSTDOUT_FILENO\b")

# What holds vectors is a function that is inlined by force: a lambda may be left where it is, and what it captures goes through memory.
VECTOR_FUNCTION = re.compile(r"PHI4FLASH_VECTOR_INLINE[^;{]*\{")
LAMBDA = re.compile(r"(?<![\w\])\[])\[(?!\[)[^\[\]]*\]\s*(<[^>]*>\s*)?[({]")
LANES_ARE_LOOPS = {"simd/vocabulary_scalar-inl.hpp", "simd/lane_integers-inl.hpp"}


def strip(line):
    """The code of a line, without its // comment and the text of its string literals."""
    line = re.sub(r'"(\\.|[^"\\])*"', '""', line)
    return line.split("//")[0]


def check_header(name, text, complain):
    folder = name.split("/")[0] if "/" in name else None
    inline = name.endswith("-inl.hpp")
    lines = text.splitlines()
    if not inline and (not lines or lines[0] != "#pragma once"):
        complain(1, "the first line must be #pragma once")
    if inline and "#pragma once" in text:
        complain(1, "a -inl.hpp file is compiled once per target and must not have #pragma once")
    if inline and name not in LANES_ARE_LOOPS:
        check_vectors(text, complain)
    if not any(line.startswith("//") for line in lines[:3]):
        complain(1, "the first lines must say in a comment what the file is")
    for number, line in enumerate(lines, 1):
        included = INCLUDE.match(line)
        if included:
            check_include(name, folder, inline, included.group(1), included.group(2), lambda text, n=number: complain(n, text))
            continue
        code = strip(line)
        for pattern, what in BANNED_WORDS:
            if pattern.search(code):
                complain(number, f"'{pattern.search(code).group().strip()}': the library never {what}")
        if re.match(r"\s*namespace\s*\{", code):
            complain(number, "no anonymous namespaces in headers; use namespace detail")


def check_vectors(text, complain):
    for found in VECTOR_FUNCTION.finditer(text):
        end, depth = found.end(), 1
        while depth and end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        for line in LAMBDA.finditer(text, found.end(), end):
            complain(text.count("\n", 0, line.start()) + 1, "a lambda in a function of vectors: make it one of PHI4FLASH_VECTOR_INLINE")


def check_include(name, folder, inline, mark, target, complain):
    if mark == '"':
        complain(f'#include "{target}": headers are included with angle brackets')
        return
    if target in BANNED and not (name in MAY_USE_THREADS and target in ("thread", "mutex")) \
            and not (name in MAY_CATCH and target == "stdexcept"):
        complain(f"<{target}>: the library uses no iostreams, regular expressions, threads, exceptions or RTTI")
    if target.startswith(("hwy/", "xsimd/")) and not SIMD_FILES.match(name):
        complain(f"<{target}>: hwy/ and xsimd/ belong in simd/, config/ and kernels/dispatch.hpp")
    if target.startswith("nlohmann/") and not JSON_FILES.match(name):
        complain(f"<{target}>: JSON belongs in io/ and text/")
    if not target.startswith("phi4flash/"):
        return
    target = target.removeprefix("phi4flash/")
    if target.endswith("-inl.hpp") and not inline and name != "kernels/dispatch.hpp":
        complain(f"<phi4flash/{target}>: only kernels/dispatch.hpp and -inl.hpp files include -inl.hpp files")
    if folder is None or "/" not in target:
        if folder is not None:
            complain(f"<phi4flash/{target}>: the spine includes headers; no header includes the spine")
        return
    to = target.split("/")[0]
    if folder not in ALLOWED:
        complain(f"folder {folder}/ is not in the plan; add it to ALLOWED in tools/check_dependencies.py")
    elif to == folder == "io" and ROOMS.index(target.rsplit("/", 1)[0]) > ROOMS.index(name.rsplit("/", 1)[0]):
        complain(f"<phi4flash/{target}>: rooms of io/ include only those before them: {', '.join(ROOMS)}")
    elif to != folder and to not in ALLOWED[folder]:
        complain(f"<phi4flash/{target}>: {folder}/ may include {', '.join(sorted(ALLOWED[folder])) or 'nothing else'}, not {to}/")


def check_program(folder, complain):
    for path in sorted(folder.glob("*.[ch]pp")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = UNCHECKED_OUTPUT.search(strip(line))
            if found and path.name != "output.cpp":
                complain(f"examples/cli/{path.name}:{number}: '{found.group()}': write to cli::standard_output, which remembers failures")


def find_cycles(graph):
    done, path = set(), []

    def visit(node):
        if node in path:
            return path[path.index(node):] + [node]
        if node in done:
            return None
        path.append(node)
        for child in graph.get(node, ()):
            cycle = visit(child)
            if cycle:
                return cycle
        path.pop()
        done.add(node)
        return None

    for start in graph:
        cycle = visit(start)
        if cycle:
            return cycle
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, default=ROOT)
    root = parser.parse_args().root
    folder = root / "include" / "phi4flash"
    complaints, graph = [], {}
    check_program(root / "examples" / "cli", complaints.append)
    headers = sorted(folder.rglob("*.hpp"))
    for path in headers:
        name = path.relative_to(folder).as_posix()
        text = path.read_text(encoding="utf-8")
        check_header(name, text, lambda line, what, n=name: complaints.append(f"include/phi4flash/{n}:{line}: {what}"))
        graph[name] = [m.group(2).removeprefix("phi4flash/") for m in map(INCLUDE.match, text.splitlines())
                       if m and m.group(2).startswith("phi4flash/")]
        complaints += [f"include/phi4flash/{name}: <phi4flash/{to}> does not exist" for to in graph[name] if not (folder / to).is_file()]
    cycle = find_cycles(graph)
    if cycle:
        complaints.append("include cycle: " + " -> ".join(cycle))
    spine = folder / "phi4flash.hpp"
    if spine.is_file():
        reached, todo = set(), ["phi4flash.hpp"]
        while todo:
            node = todo.pop()
            if node not in reached:
                reached.add(node)
                todo += graph.get(node, [])
        for name in sorted(set(graph) - reached):
            complaints.append(f"include/phi4flash/{name}: not reached from phi4flash.hpp, so the single header lacks it")
    for complaint in complaints:
        print(complaint)
    if complaints or not headers:
        sys.exit(f"check_dependencies: {len(complaints)} violations in {len(headers)} headers")
    print(f"check_dependencies: {len(headers)} headers, all in order")


if __name__ == "__main__":
    main()
