#!/usr/bin/env python3
"""Makes the API reference with Doxygen, and checks it.

    tools/reference.py [--doxygen PROGRAM] [--output FOLDER]      build/reference, HTML and XML
    tools/reference.py --filter HEADER                            for docs/Doxyfile: a header as Doxygen wants it

Fails for every warning of Doxygen's, for every public name (type, function, constant, concept) without a comment, and for every name that
docs/names_0.1.txt does not have and that does not say since when it is there: `@since` in its comment, or in the first comment of its header.
Ends with 77 where there is no Doxygen.
"""
import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as tree

ROOT = pathlib.Path(__file__).resolve().parent.parent
VERSION = re.search(r'VERSION_STRING "([0-9]+\.[0-9]+)', (ROOT / "include/phi4flash/config/version.hpp").read_text(encoding="utf-8")).group(1)


def filtered(path):
    """No line is added, so that places in warnings are right."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".hpp":
        return text.replace("#pragma once\n", "/// @file\n", 1)
    # C: a comment at the end of a line is of what stands before it, any other one of what follows. Lines that divide a file are of nothing.
    text = text.replace("#define PHI4FLASH_PHI4FLASH_H\n/* ", "/** @file\n * ", 1)
    lines = []
    for line in text.split("\n"):
        if re.match(r"\s*/\* ----", line):
            line = line.replace("/*", "//", 1).replace("*/", "")
        elif line.lstrip().startswith("/*"):
            line = re.sub(r"/\*(?!\*)", "/**", line, count=1)
        else:
            line = line.replace("/*", "/**<")
        lines.append(line)
    return "\n".join(lines)


def words_of(element, *tags):
    """The text of these children; where one says `@since`, with that word."""
    since = "@since" if element.find("detaileddescription//simplesect[@kind='since']") is not None else ""
    return since * ("detaileddescription" in tags) + "".join("".join(found.itertext()) for tag in tags for found in element.findall(tag)).strip()


def public_names(xml):
    """(name, header, line, documentation) of each type, function, constant and concept outside of classes, and of each public type inside."""
    seen = set()
    for path in sorted(xml.glob("*.xml")):
        if path.name == "index.xml":
            continue
        for compound in tree.parse(path).getroot().iter("compounddef"):
            here = compound.find("location")
            name = words_of(compound, "compoundname")
            said = words_of(compound, "briefdescription", "detaileddescription")
            if compound.get("kind") in ("struct", "class", "concept", "union"):
                if compound.get("prot") != "private":
                    yield name, here.get("file"), here.get("line"), said
            elif compound.get("kind") == "namespace" or (compound.get("kind") == "file" and name.endswith(".h")):
                for member in compound.iter("memberdef"):
                    if member.get("id") in seen or member.get("kind") == "define" or words_of(member, "name").startswith("@"):
                        continue
                    seen.add(member.get("id"))
                    where = member.find("location")
                    yield (words_of(member, "qualifiedname") or words_of(member, "name"), where.get("file"), where.get("line"),
                           words_of(member, "briefdescription", "detaileddescription"))


def first_comment(header):
    lines = header.read_text(encoding="utf-8").split("\n")
    return "\n".join(line for line in lines[:40] if line.startswith("///")) if header.suffix == ".hpp" else ""


def faults_of(xml):
    old = set((ROOT / "docs/names_0.1.txt").read_text(encoding="utf-8").split("\n"))
    documented, names = set(), []
    for name, file, line, said in public_names(xml):
        names.append((name, file, line, said))
        if said:
            documented.add(name)
    for name, file, line, said in names:
        header = pathlib.Path(file) if pathlib.Path(file).is_absolute() else ROOT / file
        where = f"{header.relative_to(ROOT)}:{line}"
        # Overloads and specializations share the comment of the first.
        if name not in documented and re.sub(r"<.*", "", name).strip() not in documented:
            yield f"{where}: {name} has no comment"
        plain = re.sub(r"\s*<.*", "", name)
        outer = plain.rsplit("::", 1)[0]
        new = plain not in old and header.suffix == ".hpp" and not (outer != "phi4flash" and any(n == outer for n, *_ in names))
        if new and "@since" not in said and "@since" not in first_comment(header):
            yield f"{where}: {name} is new: want '/// @since {VERSION}' in its comment or in the first one of the header"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--doxygen", default="doxygen")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "build/reference")
    parser.add_argument("--filter", type=pathlib.Path)
    options = parser.parse_args()
    if options.filter:
        sys.stdout.write(filtered(options.filter))
        return
    if not shutil.which(options.doxygen):
        print("reference: skipped, there is no doxygen here (apt-get install doxygen)")
        sys.exit(77)
    output = options.output.resolve()
    if output.exists():
        shutil.rmtree(output)
    output.mkdir(parents=True)
    with tempfile.NamedTemporaryFile("w", suffix=".doxyfile") as settings:
        number = re.search(r'VERSION_STRING "([^"]+)"', (ROOT / "include/phi4flash/config/version.hpp").read_text(encoding="utf-8")).group(1)
        settings.write((ROOT / "docs/Doxyfile").read_text(encoding="utf-8") + f'PROJECT_NUMBER = {number}\nOUTPUT_DIRECTORY = "{output}"\n')
        settings.flush()
        run = subprocess.run([options.doxygen, settings.name], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode != 0 or run.stderr.strip():
        sys.exit(f"{run.stderr}reference: Doxygen has complaints")
    faults = sorted(set(faults_of(output / "xml")))
    if faults:
        sys.exit("\n".join(faults) + f"\nreference: {len(faults)} names")
    print(f"reference: {output / 'html/index.html'}: {len({name for name, *_ in public_names(output / 'xml')})} names, no warnings")


if __name__ == "__main__":
    main()
