# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a connlabel.conf, which names the bits of labels, as libnetfilter_conntrack does.

Source: __labelmap_new in src/conntrack/labels.c of libnetfilter_conntrack.
"""

from __future__ import annotations

import re
from typing import Iterable

from .. import input_file

#: No such file has more bytes.
_LARGEST = 1 << 24
#: The library reads bits up to 1023; the kernel has fewer.
_HIGHEST_BIT = 1023
#: A number as strtoul reads it with base 0, and the rest of the line.
_LINE = r"[ \f\r\t\v]*([+-]?)(?:0[xX]([0-9a-fA-F]+)|0([0-7]*)|([1-9][0-9]*))(.*)"
#: The names that libnetfilter_conntrack accepts. nftables accepts others as well.
_NAME = r"[a-zA-Z0-9 -]+"
_BLANKS = " \f\r\t\v"


def read_names(path: str) -> dict[str, int]:
    """Return the bit of each name in the file at `path`. Raises `OSError`."""
    return parse_names(_lines(path))


def parse_names(lines: Iterable[str]) -> dict[str, int]:
    """Return the bit of each name, also of bits that the kernel does not have.

    The first definition of a name counts, and the first of a bit. Names that only nftables accepts are added last,
    so that they do not change the others. Unusable lines are skipped.
    """
    bits: dict[str, int] = {}
    named: set[int] = set()
    own: list[tuple[int, str]] = []
    for bit, rest in _numbered(lines):
        name = rest.strip(_BLANKS)
        if not re.fullmatch(_NAME, name):
            own.append((bit, rest))
        elif name not in bits and bit not in named:
            bits[name] = bit
            named.add(bit)
    for bit, rest in own:
        name = rest.partition("#")[0].strip()
        if rest[:1] in _BLANKS and name and name.isprintable() and name not in bits and bit not in named:
            bits[name] = bit
            named.add(bit)
    return bits


def _lines(path: str) -> list[str]:
    """Read the lines of a file. Bytes that are not UTF-8 are escaped, as in `caf\\xe9`: Ansible returns no others."""
    with input_file.binary(path) as file:
        content = input_file.content(file, _LARGEST)
    return content.decode("utf-8", "backslashreplace").split("\n")


def _numbered(lines: Iterable[str]) -> Iterable[tuple[int, str]]:
    """Yield the bit and the rest of each line that begins with a bit."""
    for line in lines:
        found = re.match(_LINE, line)
        if found is None:
            continue
        sign, hexadecimal, octal, decimal, rest = found.groups()
        digits = hexadecimal or octal or decimal or "0"
        base = 16 if hexadecimal else 8 if octal else 10
        if len(digits) <= 32:  # leading zeros aside, 4 are enough
            bit = int(digits, base)
            if bit <= _HIGHEST_BIT and not (bit and sign == "-"):
                yield bit, rest
