#!/usr/bin/env python3
"""Checks what README.md and docs/*.md say about this checkout: that links lead somewhere, that names exist, that README is not too wide, and that
docs/embedding.md answers in the order in which hosts ask.

    tools/check_docs.py [--root CHECKOUT]

A name is what stands in backticks and has an underscore, a `::` or a bracket behind it, begins with `--`, or is a path of this checkout. It must be a
word of the sources. docs/migration.md also has names that are gone.
"""
import argparse
import pathlib
import re
import sys

WIDEST = 165
ORDER = ["Threads", "Frame budget", "Cancel", "Memory", "Save games", "Several copies",
         "Consoles without files", "Exceptions off", "Fast math", "Unloading"]
# Of other people's programs, formats and systems.
OTHERS = set("""add_subdirectory find_package target_link_libraries FetchContent_Declare FetchContent_MakeAvailable transparent_hugepage static_assert
    CMAKE_BUILD_TYPE CMAKE_PREFIX_PATH cpp_std buildtype save_pretrained direct_io foreach_target libbenchmark avx2_vnni avx3_vnni Q4_K Q6_K Q4_0 Q8_0
    IQ4_NL huggingface_hub""".split())
SOURCES = ("include", "src", "examples", "tests", "tools", "cmake", "packaging", "benchmarks", "models", "fuzz")
LOOSE = ("CMakeLists.txt", "meson.build", "meson_options.txt", "CMakePresets.json", "vcpkg.json")


def words_of_sources(root):
    words, text = set(), []
    files = [root / name for name in LOOSE]
    for folder in SOURCES:
        files += [p for p in sorted((root / folder).rglob("*")) if p.is_file() and p.suffix not in (".gguf", ".safetensors", ".bin", ".png")]
    for path in files:
        if path.is_file() and path.name != "check_docs.py" and path.stat().st_size < 4 << 20:
            text.append(path.read_text(encoding="utf-8", errors="ignore"))
            words |= set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", text[-1]))
    return words, "\n".join(text)


def anchors_of(text):
    """As GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page, text):
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path) if path else page
        if not there.exists():
            yield f"a link to {target}: there is no such file"
        elif anchor and anchor not in anchors_of(there.read_text(encoding="utf-8")):
            yield f"a link to {target}: the page has no such heading"


def names(root, text, words, all_text):
    for span in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", span):
            if option not in all_text:
                yield f"`{span}`: nobody has the option {option}"
        for path in re.findall(r"(?<![\w./-])(?:docs|tools|tests|examples|packaging|cmake|single_include|src)/[\w./-]+\w", span):
            if not (root / path).exists() and "*" not in span and "..." not in span:
                yield f"`{span}`: there is no {path}"
        levels = "config|core|simd|kernels|position|layers|model|text|generate|io"
        for header in re.findall(rf"(?<![\w./-])(?:phi4flash/)?((?:{levels})/[\w./-]+\.hpp)", span):
            if not (root / "include/phi4flash" / header).exists():
                yield f"`{span}`: there is no header {header}"
        for name in re.findall(r"[A-Za-z_][A-Za-z0-9_]*(?=::|\()|(?<=::)[A-Za-z_]\w*|(?<![\w/.-])[A-Za-z]\w*_\w+", span):
            if name not in words and name not in OTHERS and not name.startswith("PHI4FLASH_..."):
                yield f"`{span}`: no source has {name}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    root = parser.parse_args().root
    words, all_text = words_of_sources(root)
    faults = []
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        found = list(links(page, text))
        if page.name != "migration.md":
            found += names(root, text, words, all_text)
        if page.name == "README.md":
            found += [f"line {i} has {len(line)} characters: want {WIDEST} at most"
                      for i, line in enumerate(text.split("\n"), 1) if len(line) > WIDEST]
        if page.name == "embedding.md":
            have = [title for title in re.findall(r"^## (.*)$", text, re.MULTILINE) if title in ORDER]
            if have != ORDER:
                found.append(f"sections: want {', '.join(ORDER)}; have {', '.join(have)}")
        faults += [f"{page.relative_to(root)}: {fault}" for fault in dict.fromkeys(found)]
    if faults:
        sys.exit("\n".join(faults))
    print(f"check_docs: {len(pages)} pages")


if __name__ == "__main__":
    main()
