# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels: 128 bits of an entry, and the names that connlabel.conf gives them."""

from __future__ import annotations

import os
from typing import Any, Iterable, Mapping

from ..codec.types import LABEL_BITS, as_list, parse_integer
from ..errors import InvalidValue, quoted

#: Where libnetfilter_conntrack and nftables look.
DEFAULT_PATHS = ("/etc/xtables/connlabel.conf", "/etc/connlabel.conf")


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
        for candidate in DEFAULT_PATHS if path is None else (path,):
            try:
                if path is None:
                    os.stat(candidate)  # most hosts have no such file, and do not need what reads it
                from .label_file import read_names

                return cls._of(read_names(candidate), candidate)
            except OSError as error:
                if path is not None:
                    raise InvalidValue("label_map", f"{path}: {error.strerror}") from None
                if not isinstance(error, FileNotFoundError):
                    return cls(source=candidate, fault=str(error.strerror))
        return cls()

    @classmethod
    def parse(cls, lines: Iterable[str], source: str) -> LabelMap:
        """Read the lines of a connlabel.conf as libnetfilter_conntrack does. `source` is the name for messages."""
        from .label_file import parse_names

        return cls._of(parse_names(lines), source)

    @classmethod
    def _of(cls, bits: Mapping[str, int], source: str) -> LabelMap:
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
        return (
            f"{quoted(item)} is not a label; {cure} or a name from {self.source or 'connlabel.conf'} (known: {known})"
        )

    def to_names(self, bits: Iterable[int]) -> list[Any]:
        """Convert bit numbers to names. A bit without a name stays a number."""
        return [self.names.get(bit, bit) for bit in bits]


#: No names: labels are numbers.
NO_LABELS = LabelMap()
