# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels: 128 bits of an entry, and the names that connlabel.conf gives them.

Source: __labelmap_new in src/conntrack/labels.c of libnetfilter_conntrack.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping

from .. import input_file
from ..codec.types import LABEL_BITS, as_list, parse_integer
from ..errors import InvalidValue, quoted

#: Where libnetfilter_conntrack and nftables look.
DEFAULT_PATHS = ("/etc/xtables/connlabel.conf", "/etc/connlabel.conf")
#: No such file has more bytes.
_LARGEST = 1 << 24

#: The library reads bits up to 1023; the kernel has `LABEL_BITS`.
_HIGHEST_BIT = 1023
#: A number as strtoul reads it with base 0, and the rest of the line.
_LINE = r"[ \f\r\t\v]*([+-]?)(?:0[xX]([0-9a-fA-F]+)|0([0-7]*)|([1-9][0-9]*))(.*)"
#: The names that libnetfilter_conntrack accepts. nftables accepts others as well.
_NAME = r"[a-zA-Z0-9 -]+"
_BLANKS = " \f\r\t\v"


class LabelMap:
    """Names of label bits. A bit without a name is shown as its number, from 0 to 127.

    `bits` maps names to bits, and `names` bits to names. `source` is the path of the file. `fault` is the reason why
    that file could not be read; it is part of the error about an unknown name.
    """

    def __init__(self, bits: Mapping[str, int] | None = None, source: str = "", fault: str = "") -> None:
        self.bits: dict[str, int] = dict(bits or {})
        self.names: dict[int, str] = {}
        for name, bit in self.bits.items():
            self.names.setdefault(bit, name)
        self.source = source
        self.fault = fault
        #: Names that the file gives to bits which the kernel does not have.
        self.beyond: dict[str, int] = {}

    @classmethod
    def read(cls, path: str | None = None) -> LabelMap:
        """Read the file at `path`, or by default the first of `DEFAULT_PATHS` that exists.

        Raises `InvalidValue` if the file at `path` cannot be read. A default file that cannot be read becomes `fault`.
        """
        if path is not None:
            try:
                return cls.parse(_lines(path), path)
            except OSError as error:
                raise InvalidValue("label_map", f"{path}: {error.strerror}") from None
        for default in DEFAULT_PATHS:
            try:
                return cls.parse(_lines(default), default)
            except FileNotFoundError:
                continue
            except OSError as error:
                return cls(source=default, fault=str(error.strerror))
        return cls()

    @classmethod
    def parse(cls, lines: Iterable[str], source: str) -> LabelMap:
        """Read the lines of a connlabel.conf as libnetfilter_conntrack does. `source` is the name for messages.

        The first definition of a name counts, and the first of a bit. Names that only nftables accepts are added last,
        so that they do not change the others. Unusable lines are skipped.
        """
        import re  # only needed if there is a file

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
        labels = cls({name: bit for name, bit in bits.items() if bit < LABEL_BITS}, source)
        labels.beyond = {name: bit for name, bit in bits.items() if bit >= LABEL_BITS}
        return labels

    def to_bits(self, raw: Any, key: str) -> list[int]:
        """Convert names and numbers, or a single one, to bit numbers. Raises `InvalidValue` for an unknown name."""
        return [self._bit(item, key) for item in as_list(raw)]

    def _bit(self, item: Any, key: str) -> int:
        if isinstance(item, str) and item in self.bits:
            return self.bits[item]
        try:
            return parse_integer(item, key, 0, LABEL_BITS - 1)
        except InvalidValue:
            raise InvalidValue(key, self._why_unknown(item)) from None

    def _why_unknown(self, item: Any) -> str:
        cure = f"write a bit number from 0 to {LABEL_BITS - 1}"
        if isinstance(item, str) and item in self.beyond:
            return (
                f"{quoted(item)} is bit {self.beyond[item]} in {self.source}, but the kernel has bits 0 to "
                f"{LABEL_BITS - 1} only; change the file, or {cure}"
            )
        if self.fault:
            return f"{quoted(item)} is not known, because {self.source} could not be read ({self.fault}); {cure}"
        known = ", ".join(self.bits) if self.bits else "none, there is no connlabel.conf"
        return f"{quoted(item)} is no label; {cure} or a name from {self.source or 'connlabel.conf'} (known: {known})"

    def to_names(self, bits: Iterable[int]) -> list[Any]:
        """Convert bit numbers to names. A bit without a name stays a number."""
        return [self.names.get(bit, bit) for bit in bits]


def _lines(path: str) -> list[str]:
    """Read the lines of a file. Bytes that are not UTF-8 are escaped, as in `caf\\xe9`: Ansible returns no others."""
    with input_file.binary(path) as file:
        content = input_file.content(file, _LARGEST)
    return content.decode("utf-8", "backslashreplace").split("\n")


def _numbered(lines: Iterable[str]) -> Iterable[tuple[int, str]]:
    """Yield the bit and the rest of each line that begins with a bit."""
    import re

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


#: No names: labels are numbers.
NO_LABELS = LabelMap()
