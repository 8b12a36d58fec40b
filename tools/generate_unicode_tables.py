#!/usr/bin/env python3
"""Writes include/phi4flash/text/unicode_tables.hpp or normalization_tables.hpp from the Unicode character database.

    generate_unicode_tables.py UCD_FOLDER [--age 16.0] [--check CLASSES.json] > include/phi4flash/text/unicode_tables.hpp
    generate_unicode_tables.py UCD_FOLDER --normalization [--age 9.0] > include/phi4flash/text/normalization_tables.hpp

UCD_FOLDER holds UnicodeData.txt, PropList.txt, DerivedAge.txt and CompositionExclusions.txt: https://www.unicode.org/Public/16.0.0/ucd/,
or /usr/share/unicode of Debian's package unicode-data. A newer database works too: --age leaves out every code point that
was assigned later. --check compares with ranges {"L": [[first, last], ...], "N", "Lu", "Lt", "Lm", "Lo", "Ll", "M", "space"}.

Classes are those of the regular expressions of Hugging Face's tokenizers (Unicode 16.0), normalization is that of its crate
unicode-normalization-alignments (Unicode 9.0). What normalizing does to a code point never changes once it is assigned.
"""
import argparse
import json
import pathlib
import sys

BLOCK = 128
NORMAL_BLOCK = 64
# The order is that of enum class char_class in the generated header.
OTHER, UPPER, LOWER, LETTER, MARK, NUMBER, SPACE, NEWLINE = range(8)
CLASS_OF_CATEGORY = {"Lu": UPPER, "Lt": UPPER, "Ll": LOWER, "Lm": LETTER, "Lo": LETTER,
                     "Mn": MARK, "Mc": MARK, "Me": MARK, "Nd": NUMBER, "Nl": NUMBER, "No": NUMBER}

# Categories that a later database changed: age that still had the old one, code point, old category.
CHANGED_AFTER = [("16.0", 0x0295, "Ll")]


def property_ranges(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = line.split("#")[0].split(";")
        if len(fields) == 2:
            first, _, last = fields[0].strip().partition("..")
            yield int(first, 16), int(last or first, 16), fields[1].strip()


def later_than(folder, age):
    """Ranges of code points that were assigned after a version."""
    wanted = tuple(map(int, age.split(".")))
    for lo, hi, since in property_ranges(folder / "DerivedAge.txt"):
        if tuple(map(int, since.split("."))) > wanted:
            yield lo, hi


def read_classes(folder, age):
    category = ["Cn"] * 0x110000
    first = None
    for line in (folder / "UnicodeData.txt").read_text(encoding="utf-8").splitlines():
        fields = line.split(";")
        code_point = int(fields[0], 16)
        if fields[1].endswith(", First>"):
            first = code_point
            continue
        for c in range(code_point if first is None else first, code_point + 1):
            category[c] = fields[2]
        first = None
    for lo, hi in later_than(folder, age):
        category[lo:hi + 1] = ["Cn"] * (hi - lo + 1)
    wanted = tuple(map(int, age.split(".")))
    for last_age, code_point, old in CHANGED_AFTER:
        if wanted <= tuple(map(int, last_age.split("."))):
            category[code_point] = old
    classes = [CLASS_OF_CATEGORY.get(c, OTHER) for c in category]
    for lo, hi, name in property_ranges(folder / "PropList.txt"):
        if name == "White_Space":
            classes[lo:hi + 1] = [SPACE] * (hi - lo + 1)
    classes[0x0A] = classes[0x0D] = NEWLINE
    return category, classes


def check(category, classes, path):
    """True if every range of the reference names the same code points."""
    good = True
    for name, ranges in json.loads(pathlib.Path(path).read_text()).items():
        if name.endswith("_ci"):
            continue
        want = {c for lo, hi in ranges for c in range(lo, hi + 1)}
        if name == "space":
            have = {c for c, k in enumerate(classes) if k in (SPACE, NEWLINE)}
        else:
            have = {c for c, k in enumerate(category) if k.startswith(name)}
        if want != have:
            good = False
            print(f"{name}: missing {sorted(want - have)[:9]}, extra {sorted(have - want)[:9]}", file=sys.stderr)
    return good


def rows(values, per_line, form):
    return "\n".join("    " + " ".join(form(v) + "," for v in values[i:i + per_line]) for i in range(0, len(values), per_line))


def read_normalization(folder, age):
    """Combining classes, and canonical decompositions as they stand in the database: one or two code points each."""
    later = {c for lo, hi in later_than(folder, age) for c in range(lo, hi + 1)}
    combining, decompositions = {}, {}
    for line in (folder / "UnicodeData.txt").read_text(encoding="utf-8").splitlines():
        fields = line.split(";")
        code_point = int(fields[0], 16)
        if code_point in later:
            continue
        if fields[3] != "0":
            combining[code_point] = int(fields[3])
        if fields[5] and not fields[5].startswith("<"):
            decompositions[code_point] = tuple(int(part, 16) for part in fields[5].split())
    excluded = {lo for line in (folder / "CompositionExclusions.txt").read_text(encoding="utf-8").splitlines()
                if (name := line.split("#")[0].strip()) for lo in [int(name, 16)]}
    composed = {parts: c for c, parts in decompositions.items()
                if len(parts) == 2 and c not in excluded and c not in combining and parts[0] not in combining}
    return combining, decompositions, composed


HANGUL, VOWELS, TRAILS = range(0xAC00, 0xD7A4), range(0x1161, 0x1176), range(0x11A8, 0x11C3)


def normal_kinds(combining, decompositions, composed):
    """Of every code point: (combining class, NFC quick check 0 yes 1 maybe 2 no, whether it decomposes)."""
    seconds = {parts[1] for parts in composed}
    # What the code relies on: no first part can itself be joined to what stands before it, and second parts are whole.
    assert not seconds & {parts[0] for parts in composed} and not seconds & decompositions.keys()
    kinds = {}
    for c in combining.keys() | decompositions.keys() | seconds | set(HANGUL) | set(VOWELS) | set(TRAILS):
        if c in decompositions and decompositions[c] not in composed or c in decompositions and composed[decompositions[c]] != c:
            quick = 2
        else:
            quick = 1 if c in seconds or c in VOWELS or c in TRAILS else 0
        kinds[c] = (combining.get(c, 0), quick, int(c in decompositions or c in HANGUL))
    return kinds


def print_normalization(folder, age):
    combining, decompositions, composed = read_normalization(folder, age)
    kinds = normal_kinds(combining, decompositions, composed)
    names = sorted({(0, 0, 0), *kinds.values()})
    limit = (max(kinds) + NORMAL_BLOCK) // NORMAL_BLOCK * NORMAL_BLOCK
    blocks, index = {}, []
    for start in range(0, limit, NORMAL_BLOCK):
        block = tuple(names.index(kinds.get(c, (0, 0, 0))) for c in range(start, start + NORMAL_BLOCK))
        index.append(blocks.setdefault(block, len(blocks)))
    assert len(blocks) <= 256 and len(names) <= 256
    codes = sorted(decompositions)
    order = [codes.index(c) for _, c in sorted((parts[::-1], c) for parts, c in composed.items())]
    print(f"""#pragma once
/// What normalizing does to Unicode {age} code points, as Hugging Face's tokenizers does it.
/// Generated by tools/generate_unicode_tables.py --normalization; do not edit.
#include <phi4flash/config/abi.hpp>

#include <cstddef>
#include <cstdint>

PHI4FLASH_BEGIN

namespace detail {{

/// A code point by itself.
struct normal_kind {{
    std::uint8_t combining;   ///< canonical combining class; 0: a starter
    std::uint8_t quick;       ///< in NFC as it stands: 0 yes, 1 unless it joins what stands before it, 2 never
    std::uint8_t decomposes;  ///< in NFD: 1 if it becomes something else
}};

PHI4FLASH_OWN_DATA inline constexpr normal_kind normal_kinds[{len(names)}] = {{
{rows(names, 12, lambda k: "{%d, %d, %d}" % k)}
}};

/// First code point past the table; all of those are of kind 0.
inline constexpr char32_t normal_limit = 0x{limit:X};

/// Block of {NORMAL_BLOCK} code points -> its row in normal_rows.
PHI4FLASH_OWN_DATA inline constexpr std::uint8_t normal_blocks[{len(index)}] = {{
{rows(index, 32, str)}
}};

/// Rows of {NORMAL_BLOCK} places in normal_kinds.
PHI4FLASH_OWN_DATA inline constexpr std::uint8_t normal_rows[{len(blocks) * NORMAL_BLOCK}] = {{
{rows([k for block in blocks for k in block], 32, str)}
}};

[[nodiscard]] constexpr normal_kind normal_kind_of(char32_t c) {{
    if (c >= normal_limit) return normal_kinds[0];
    return normal_kinds[normal_rows[normal_blocks[c / {NORMAL_BLOCK}] * std::size_t{{{NORMAL_BLOCK}}} + c % {NORMAL_BLOCK}]];
}}

/// The canonical decomposition of a code point, one step of it; `second` may be 0. Hangul syllables are computed instead.
struct decomposition {{
    char32_t code, first, second;
}};

/// By code.
PHI4FLASH_OWN_DATA inline constexpr decomposition decompositions[{len(codes)}] = {{
{rows([(c, *decompositions[c], 0)[:3] for c in codes], 6, lambda d: "{0x%X, 0x%X, %s}" % (d[0], d[1], hex(d[2]) if d[2] else "0"))}
}};

/// Places in `decompositions` of those that composing undoes, by their second, then their first part.
PHI4FLASH_OWN_DATA inline constexpr std::uint16_t compositions[{len(order)}] = {{
{rows(order, 24, str)}
}};

}}  // namespace detail

PHI4FLASH_END""")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=pathlib.Path)
    arguments.add_argument("--age")
    arguments.add_argument("--check")
    arguments.add_argument("--normalization", action="store_true")
    given = arguments.parse_args()
    if given.normalization:
        return print_normalization(given.folder, given.age or "9.0")
    given.age = given.age or "16.0"
    category, classes = read_classes(given.folder, given.age)
    if given.check and not check(category, classes, given.check):
        sys.exit(1)

    # Above this limit only the variation selectors of plane 14 are not `other`.
    selectors = range(0xE0100, 0xE01F0)
    limit = 1 + max(c for c, k in enumerate(classes) if k != OTHER and c not in selectors)
    limit = (limit + BLOCK - 1) // BLOCK * BLOCK
    assert limit < selectors.start and all(classes[c] == MARK for c in selectors)
    blocks, index = {}, []
    for start in range(0, limit, BLOCK):
        index.append(blocks.setdefault(tuple(classes[start:start + BLOCK]), len(blocks)))
    assert len(blocks) <= 256
    words = []
    for block in blocks:
        for i in range(0, BLOCK, 16):
            words.append(sum(k << (4 * j) for j, k in enumerate(block[i:i + 16])))

    print(f"""#pragma once
/// Classes of Unicode {given.age} code points that the split patterns tell apart, as a two-stage table.
/// Generated by tools/generate_unicode_tables.py; do not edit.
#include <phi4flash/config/abi.hpp>

#include <cstddef>
#include <cstdint>

PHI4FLASH_BEGIN

/// What a split pattern can see of a code point. General categories, except white space: the property White_Space.
enum class char_class : std::uint8_t {{
    other,    ///< everything else, unassigned code points included
    upper,    ///< Lu, Lt
    lower,    ///< Ll
    letter,   ///< Lm, Lo: a letter without case
    mark,     ///< M
    number,   ///< N
    space,    ///< White_Space, except the two below
    newline,  ///< U+000A, U+000D
}};

namespace detail {{

/// First code point past the table.
inline constexpr char32_t class_limit = 0x{limit:X};

/// Block of {BLOCK} code points -> its row in class_rows.
PHI4FLASH_OWN_DATA inline constexpr std::uint8_t class_blocks[{len(index)}] = {{
{rows(index, 24, str)}
}};

/// Rows of {BLOCK // 16} words; 16 classes of 4 bits in each word, lowest first.
PHI4FLASH_OWN_DATA inline constexpr std::uint64_t class_rows[{len(words)}] = {{
{rows(words, 6, lambda w: f"0x{w:x}")}
}};

}}  // namespace detail

/// The class of a code point. Any value is allowed; beyond U+10FFFF it is `other`.
[[nodiscard]] constexpr char_class class_of(char32_t c) {{
    if (c >= detail::class_limit) return c >= 0xE0100 && c < 0xE01F0 ? char_class::mark : char_class::other;
    const std::size_t word = detail::class_blocks[c / {BLOCK}] * std::size_t{{{BLOCK // 16}}} + c % {BLOCK} / 16;
    return static_cast<char_class>(detail::class_rows[word] >> (c % 16 * 4) & 15);
}}

PHI4FLASH_END""")


if __name__ == "__main__":
    main()
