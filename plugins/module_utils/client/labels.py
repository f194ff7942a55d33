# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names for the 128 label bits of a connection, as connlabel.conf gives them.

Source: the file format of xt_connlabel and libnetfilter_conntrack: a bit number and a name to a
line, `#` starts a comment.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping

from .errors import InvalidValue
from .values import LABEL_BITS, as_list, parse_integer

#: Where libnetfilter_conntrack and nftables look.
DEFAULT_PATHS = ("/etc/xtables/connlabel.conf", "/etc/connlabel.conf")


class LabelMap:
    """Label names to bits and back; without names, bits are their own names."""

    def __init__(self, bits: Mapping[str, int] | None = None, source: str = "") -> None:
        self.bits: dict[str, int] = dict(bits or {})
        self.names: dict[int, str] = {}
        for name, bit in self.bits.items():
            self.names.setdefault(bit, name)
        self.source = source

    @classmethod
    def read(cls, path: str | None = None) -> LabelMap:
        """The map in the file at `path`, or in the first default file that exists, or none."""
        if path is not None:
            try:
                with open(path, encoding="utf-8", errors="surrogateescape") as lines:
                    return cls.parse(lines, path)
            except OSError as error:
                raise InvalidValue("label_map", f"{path}: {error.strerror}") from None
        for default in DEFAULT_PATHS:
            try:
                with open(default, encoding="utf-8", errors="surrogateescape") as lines:
                    return cls.parse(lines, default)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise InvalidValue("label_map", f"{default}: {error.strerror}") from None
        return cls()

    @classmethod
    def parse(cls, lines: Iterable[str], source: str) -> LabelMap:
        """The map in the lines of a connlabel.conf; `InvalidValue` names a line that is none."""
        bits: dict[str, int] = {}
        for number, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if len(words) != 2:
                raise InvalidValue("label_map", f"{source} line {number}: write a bit number and a name")
            try:
                bits[words[1]] = parse_integer(words[0], "", 0, LABEL_BITS - 1)
            except InvalidValue as fault:
                raise InvalidValue("label_map", f"{source} line {number}: {fault.problem}") from None
        return cls(bits, source)

    def to_bits(self, raw: Any, key: str) -> list[int]:
        """Bit numbers for a list of names and numbers; `InvalidValue` for an unknown name."""
        return [self._bit(item, key) for item in as_list(raw)]

    def _bit(self, item: Any, key: str) -> int:
        if isinstance(item, str) and item in self.bits:
            return self.bits[item]
        try:
            return parse_integer(item, key, 0, LABEL_BITS - 1)
        except InvalidValue:
            known = ", ".join(self.bits) if self.bits else "none, there is no connlabel.conf"
            raise InvalidValue(
                key,
                f"{item!r} is no label; write a bit number from 0 to {LABEL_BITS - 1} or a name "
                f"from {self.source or 'connlabel.conf'} (known: {known})",
            ) from None

    def to_names(self, bits: Iterable[int]) -> list[Any]:
        """A name for each bit that has one, else the bit number."""
        return [self.names.get(bit, bit) for bit in bits]
