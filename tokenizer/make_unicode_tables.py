#!/usr/bin/env python3
"""Writes unicode_data.cc: the character classes that pre-tokenizers test.

Tokenizers were trained, and are run elsewhere, with particular versions of
Unicode, so each class is taken from its own version:

  letter, number   general categories L and N of Unicode 16.0
  white space      the property White_Space
  punctuation      ASCII punctuation and general category P of Unicode 8.0
  digit            general category N of Unicode 17.0
  word             what \\w matches in Rust's regex crate (Unicode 16.0)
  normalizing      NFC of Unicode 9.0 may change it, or text before it

Usage (any folder that `pip install --target` filled will do):
  make_unicode_tables.py --unicode16=DIR  # unicodedata2 16.0.0
                         --unicode17=DIR  # unicodedata2 17.0.0
                         --regex=DIR      # regex 2025.9.18
                         --ages=FILE      # DerivedAge.txt, 15.0 or later
                         > unicode_data.cc
"""

import argparse
import importlib
import sys

LETTER, NUMBER, SPACE, PUNCTUATION, DIGIT, WORD, NORMALIZING = (
    1 << bit for bit in range(7))

# General category P in Unicode 8.0, something else since 11.0 and 12.0.
FORMER_PUNCTUATION = {0x111C9, 0x166D}

WHITE_SPACE = {
    *range(0x9, 0xE), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028,
    0x2029, 0x202F, 0x205F, 0x3000
}


def load(folder, module):
    sys.path.insert(0, folder)
    sys.modules.pop(module, None)
    loaded = importlib.import_module(module)
    sys.path.pop(0)
    return loaded


def read_ages(path):
    """Returns the version that assigned each code point."""
    ages = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            line = line.split("#")[0].strip()
            if not line:
                continue
            span, version = (part.strip() for part in line.split(";"))
            first, last = (span.split("..") * 2)[:2]
            for code in range(int(first, 16), int(last, 16) + 1):
                ages[code] = tuple(int(part) for part in version.split("."))
    return ages


def second_halves(ucd):
    """Code points that NFC may join to the one before them."""
    found = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}  # Hangul
    for code in range(0x110000):
        parts = ucd.decomposition(chr(code)).split()
        if len(parts) != 2 or parts[0].startswith("<"):
            continue
        pair = "".join(chr(int(part, 16)) for part in parts)
        if ucd.normalize("NFC", pair) == chr(code):
            found.add(int(parts[1], 16))
    return found


def classify(ucd16, ucd17, regex, ages):
    word = regex.compile(r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d]")
    seconds = second_halves(ucd16)
    flags = bytearray(0x110000)
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            continue
        char = chr(code)
        category = ucd16.category(char)[0]
        age = ages.get(code, (99, 0))
        value = 0
        value |= LETTER if category == "L" else 0
        value |= NUMBER if category == "N" else 0
        value |= SPACE if code in WHITE_SPACE else 0
        if (category == "P" and age <= (8, 0)) or code in FORMER_PUNCTUATION:
            value |= PUNCTUATION
        if 0x21 <= code <= 0x7E and not char.isalnum():
            value |= PUNCTUATION
        value |= DIGIT if ucd17.category(char)[0] == "N" else 0
        value |= WORD if word.match(char) else 0
        if age <= (9, 0) and (ucd16.combining(char) or code in seconds or
                              ucd16.normalize("NFC", char) != char):
            value |= NORMALIZING
        flags[code] = value
    return flags


HEADER = """\
// Written by make_unicode_tables.py; do not edit.
// clang-format off

#include "tokenizer/unicode_data.h"

namespace nibble {

const uint32_t kUnicodeRuns[] = {
"""

FOOTER = """\
};

const int kUnicodeRunCount = sizeof(kUnicodeRuns) / sizeof(kUnicodeRuns[0]);

}  // namespace nibble
"""


def write(flags):
    items = []
    start = 0
    for code in range(1, 0x110001):
        if code == 0x110000 or flags[code] != flags[start]:
            items.append("%d," % ((code - start) << 8 | flags[start]))
            start = code
    sys.stdout.write(HEADER)
    line = "   "
    for item in items:
        if len(line) + 1 + len(item) > 80:
            sys.stdout.write(line + "\n")
            line = "   "
        line += " " + item
    sys.stdout.write(line + "\n" + FOOTER)


def main():
    parser = argparse.ArgumentParser()
    for name in ("unicode16", "unicode17", "regex", "ages"):
        parser.add_argument("--" + name, required=True)
    args = parser.parse_args()
    ucd16 = load(args.unicode16, "unicodedata2")
    ucd17 = load(args.unicode17, "unicodedata2")
    assert (ucd16.unidata_version, ucd17.unidata_version) == ("16.0.0",
                                                              "17.0.0")
    write(classify(ucd16, ucd17, load(args.regex, "regex"),
                   read_ages(args.ages)))


if __name__ == "__main__":
    main()
