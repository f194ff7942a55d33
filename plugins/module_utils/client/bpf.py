# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A match as a classic BPF program, so that the kernel drops events nobody asked for.

The program never drops an event that matches. What it cannot tell from a message (a service's
helper, bytes, ages) it takes for a match, and under `except` for none; the reader asks the match
itself about what comes through.

Source: Documentation/networking/filter.rst; SKF_AD_NLATTR in include/uapi/linux/filter.h.
"""

from __future__ import annotations

import struct
import sys
from typing import Any, Iterable, NamedTuple

from . import uapi
from .attributes import ENTRY, Attribute, Path
from .errors import ConntrackError
from .term import Either, Every, Masked, Not, Term, Within
from .values import Address, Integer

_LD_IMM, _LDX_IMM = 0x00, 0x01
_LD_ABS_W, _LD_ABS_B = 0x20, 0x30
_LD_IND = {"B": 0x50, "H": 0x48, "I": 0x40}
_JA, _JEQ, _JGT, _JGE = 0x05, 0x15, 0x25, 0x35
_AND, _TAX, _RET = 0x54, 0x07, 0x06

_AD_OFF = 0xFFFFF000
_AD_NLATTR = _AD_OFF + 12
_AD_NLATTR_NEST = _AD_OFF + 16

_ATTRIBUTES = 20  # behind the headers of netlink (16 bytes) and netfilter (4)
_FAMILY = 16
_SUBSYSTEM = 5 if sys.byteorder == "little" else 4

_LONGEST = 4096
_INSTRUCTION = struct.Struct("=HBBI")

_ROWS: dict[str, list[Attribute]] = {}
for _row in ENTRY:
    _ROWS.setdefault(_row.key, []).append(_row)
_RESTRICTED: dict[Path, frozenset[int]] = {}
for _row in ENTRY:
    if _row.protocol is not None:
        _RESTRICTED[_row.path] = _RESTRICTED.get(_row.path, frozenset()) | {_row.protocol}
_PROTOCOLS = {row.path[0]: row for row in ENTRY if row.key.endswith(".protocol")}


class ProgramTooLong(ConntrackError):
    """The match makes a program longer than the kernel takes: filter what arrives instead."""


class _Label:
    """A place in the program, known once it is passed."""

    position = -1


class _Instruction(NamedTuple):
    code: int
    operand: int
    true: _Label | None = None
    false: _Label | None = None


def compile_filter(term: Term) -> bytes:
    """The program, as an array of struct sock_filter. Raises `ProgramTooLong`."""
    program = _Program()
    accept, reject, ours = _Label(), _Label(), _Label()
    program.load_byte(_SUBSYSTEM)
    program.branch(_JEQ, uapi.NFNL_SUBSYS_CTNETLINK, ours, accept)  # expectations pass
    program.place(ours)
    program.test(term, accept, reject, True)
    program.place(accept)
    program.emit(_RET, 0xFFFFFFFF)
    program.place(reject)
    program.emit(_RET, 0)
    return program.assemble()


class _Program:
    def __init__(self) -> None:
        self._instructions: list[_Instruction] = []

    def emit(self, code: int, operand: int = 0) -> None:
        self._instructions.append(_Instruction(code, operand))

    def branch(self, code: int, operand: int, true: _Label, false: _Label) -> None:
        """A conditional jump; its own offsets have eight bits, so it jumps to jumps that have 32."""
        self.emit(code, operand)
        self._instructions.append(_Instruction(_JA, 0, true))
        self._instructions.append(_Instruction(_JA, 0, false))

    def place(self, label: _Label) -> None:
        label.position = len(self._instructions)

    def assemble(self) -> bytes:
        if len(self._instructions) > _LONGEST:
            raise ProgramTooLong(f"{len(self._instructions)} instructions, the kernel takes {_LONGEST}")
        code = []
        for position, instruction in enumerate(self._instructions):
            operand, on_false = instruction.operand, 0
            if instruction.true is not None:
                operand = instruction.true.position - position - 1
            elif instruction.code in (_JEQ, _JGT, _JGE):
                on_false = 1
            code.append(_INSTRUCTION.pack(instruction.code, 0, on_false, operand))
        return b"".join(code)

    # terms

    def test(self, term: Term, true: _Label, false: _Label, generous: bool) -> None:
        """Go to `true` if the term holds; where that cannot be told, if `generous`."""
        if isinstance(term, Not):
            self.test(term.term, false, true, not generous)
        elif isinstance(term, (Every, Either)):
            self._join(term, true, false, generous)
        elif isinstance(term, Within) and all(_readable(key, address=True) for key in term.keys):
            self._within(term, true, false)
        elif isinstance(term, Masked) and _readable(term.key, address=False):
            self._masked(term, true, false)
        else:
            self._instructions.append(_Instruction(_JA, 0, true if generous else false))

    def _join(self, term: Every | Either, true: _Label, false: _Label, generous: bool) -> None:
        every = isinstance(term, Every)
        for part in term.terms:
            on = _Label()
            self.test(part, on if every else true, false if every else on, generous)
            self.place(on)
        self._instructions.append(_Instruction(_JA, 0, true if every else false))

    def _within(self, term: Within, true: _Label, false: _Label) -> None:
        for key in term.keys:
            absent, done = _Label(), _Label()
            if key == "family":
                self.load_byte(_FAMILY)
                self._ranges(term.ranges, true, done)
            else:
                for row in _ROWS[key]:
                    other = _Label()
                    self._find(row, other)
                    if isinstance(row.kind, Address):
                        self._addresses(row, term.ranges, true, done)
                    else:
                        self.emit(_LD_IND[row.kind.format[0]], 4)
                        self._ranges(term.ranges, true, done)
                    self.place(other)
            self.place(absent)
            if term.absent is not None and any(low <= term.absent <= high for low, high in term.ranges):
                self._instructions.append(_Instruction(_JA, 0, true))
            self.place(done)
        self._instructions.append(_Instruction(_JA, 0, false))

    def _masked(self, term: Masked, true: _Label, false: _Label) -> None:
        absent = any(value == 0 for value, mask in term.values)
        (row,) = _ROWS[term.key]
        for value, mask in term.values:
            missing, other = _Label(), _Label()
            self._find(row, missing)
            self.emit(_LD_IND[row.kind.format[0]], 4)
            self.emit(_AND, mask & 0xFFFFFFFF)
            self.branch(_JEQ, value, true, other)
            self.place(missing)
            self._instructions.append(_Instruction(_JA, 0, true if absent else false))
            self.place(other)
        self._instructions.append(_Instruction(_JA, 0, false))

    # values

    def load_byte(self, offset: int) -> None:
        self.emit(_LD_ABS_B, offset)

    def _find(self, row: Attribute, missing: _Label) -> None:
        """Let X be where the attribute of `row` starts; its value is 4 bytes on."""
        self._guard(row, missing)
        self._seek(row.path, missing)

    def _guard(self, row: Attribute, missing: _Label) -> None:
        """Where protocols use one number for different things, the protocol has to be looked at."""
        others = _RESTRICTED.get(row.path, frozenset())
        if row.protocol is None and not others:
            return
        self._seek(_PROTOCOLS[row.path[0]].path, missing)
        self.emit(_LD_IND["B"], 4)
        if row.protocol is not None:
            on = _Label()
            self.branch(_JEQ, row.protocol, on, missing)
            self.place(on)
            return
        for other in sorted(others):
            on = _Label()
            self.branch(_JEQ, other, missing, on)
            self.place(on)

    def _seek(self, path: Path, missing: _Label) -> None:
        self.emit(_LD_IMM, _ATTRIBUTES)
        for depth, number in enumerate(path):
            found = _Label()
            self.emit(_LDX_IMM, number)
            self.emit(_LD_ABS_W, _AD_NLATTR_NEST if depth else _AD_NLATTR)
            self.branch(_JEQ, 0, missing, found)
            self.place(found)
        self.emit(_TAX)

    def _ranges(self, ranges: Iterable[tuple[int, int]], true: _Label, false: _Label) -> None:
        """The number in A against each range."""
        for low, high in ranges:
            other = _Label()
            if low == high:
                self.branch(_JEQ, low, true, other)
            else:
                enough = _Label()
                self.branch(_JGE, low, enough, other)
                self.place(enough)
                self.branch(_JGT, high, other, true)
            self.place(other)
        self._instructions.append(_Instruction(_JA, 0, false))

    def _addresses(self, row: Attribute, ranges: Iterable[tuple[bytes, bytes]], true: _Label, false: _Label) -> None:
        """The address at X against each range of its family, word by word."""
        size = int(row.kind.format[:-1])
        for low, high in ranges:
            if len(low) != size:
                continue
            other, enough = _Label(), _Label()
            self._compare(_words(low), 0, enough, other, above=True)
            self.place(enough)
            self._compare(_words(high), 0xFFFFFFFF, true, other, above=False)
            self.place(other)
        self._instructions.append(_Instruction(_JA, 0, false))

    def _compare(self, bound: list[int], open_end: int, true: _Label, false: _Label, above: bool) -> None:
        """At least `bound` (`above`), or at most; words at its end that are `open_end` bound nothing."""
        while bound and bound[-1] == open_end:
            bound = bound[:-1]
        for index, word in enumerate(bound):
            unequal, equal = _Label(), _Label()
            self.emit(_LD_IND["I"], 4 + 4 * index)
            self.branch(_JEQ, word, equal, unequal)
            self.place(unequal)
            self.branch(_JGT, word, true if above else false, false if above else true)
            self.place(equal)
        self._instructions.append(_Instruction(_JA, 0, true))


def _words(address: bytes) -> list[int]:
    return [int.from_bytes(address[at : at + 4], "big") for at in range(0, len(address), 4)]


def _readable(key: str, address: bool) -> bool:
    """Whether a program can load the attribute's value: a number of up to 32 bits, or an address."""
    if key == "family":
        return address
    kinds: list[Any] = [row.kind for row in _ROWS[key]]
    return all(
        (isinstance(kind, Integer) and kind.format in _LD_IND) or (address and isinstance(kind, Address))
        for kind in kinds
    )
