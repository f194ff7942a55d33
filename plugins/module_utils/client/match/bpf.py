# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compile a match to a classic BPF program, so that the kernel drops events that do not match.

The program never drops an event that matches. Conditions that it cannot evaluate (helpers, labels, counters, ages)
count as met, and under `except` as not met. The reader evaluates the match itself for the events that pass.

Source: Documentation/networking/filter.rst; SKF_AD_NLATTR in include/uapi/linux/filter.h.
"""

from __future__ import annotations

import struct
import sys
from typing import Any, Iterable, NamedTuple

from .. import uapi
from ..codec.attributes import ENTRY, Attribute, Path
from ..codec.types import Address, Integer
from ..errors import ConntrackError
from .expression import And, InRanges, MaskEquals, Not, Or, Term

_LD_IMM, _LDX_IMM = 0x00, 0x01
_LD_ABS_W, _LD_ABS_B = 0x20, 0x30
_LD_IND = {"B": 0x50, "H": 0x48, "I": 0x40}
_JA, _JEQ, _JGT, _JGE = 0x05, 0x15, 0x25, 0x35
_AND, _TAX, _RET = 0x54, 0x07, 0x06

_AD_OFF = 0xFFFFF000
_AD_NLATTR = _AD_OFF + 12
_AD_NLATTR_NEST = _AD_OFF + 16

_SUBSYSTEM = 5 if sys.byteorder == "little" else 4

_LONGEST = 4096  # BPF_MAXINSNS
_NEAR = 254  # a conditional jump has eight bits, and one may have to jump over another's helper
_INSTRUCTION = struct.Struct("=HBBI")

_ROWS: dict[str, list[Attribute]] = {}
for _row in ENTRY:
    _ROWS.setdefault(_row.key, []).append(_row)
#: The protocols that have a use of their own for an attribute that others have, too.
_RESTRICTED: dict[Path, frozenset[int]] = {}
for _row in ENTRY:
    if _row.protocol is not None and sum(other.path == _row.path for other in ENTRY) > 1:
        _RESTRICTED[_row.path] = _RESTRICTED.get(_row.path, frozenset()) | {_row.protocol}
_PROTOCOLS = {row.path[0]: row for row in ENTRY if row.key.endswith(".protocol")}


class ProgramTooLong(ConntrackError):
    """The program of a match is longer than the kernel accepts. The match can still be evaluated for each event."""


class _Label:
    """A place in the program. `left` is the number of instructions from there to the end."""

    left = -1


class _Instruction(NamedTuple):
    """One instruction; a jump goes to `true`, a conditional one to `true` or `false`."""

    code: int
    operand: int = 0
    true: _Label | None = None
    false: _Label | None = None


def compile_filter(term: Term) -> bytes:
    """Return the program as an array of struct sock_filter. Raises `ProgramTooLong`."""
    program = _Program()
    accept, reject = _Label(), _Label()
    program.emit(_LD_ABS_B, _SUBSYSTEM)
    program.unless(_JEQ, uapi.NFNL_SUBSYS_CTNETLINK, accept)  # expectations pass
    program.test(term, accept, reject, True)
    program.place(accept)
    program.emit(_RET, 0xFFFFFFFF)
    program.place(reject)
    program.emit(_RET, 0)
    return program.assemble()


class _Program:
    """Instructions and the labels between them. Every jump is forward, as the kernel requires."""

    def __init__(self) -> None:
        self._items: list[_Instruction | _Label] = []

    def emit(self, code: int, operand: int = 0) -> None:
        self._items.append(_Instruction(code, operand))

    def branch(self, code: int, operand: int, true: _Label, false: _Label) -> None:
        """Compare what is loaded, and go one way or the other."""
        self._items.append(_Instruction(code, operand, true, false))

    def when(self, code: int, operand: int, label: _Label) -> None:
        """Compare what is loaded, and go to the label if it holds."""
        on = _Label()
        self.branch(code, operand, label, on)
        self.place(on)

    def unless(self, code: int, operand: int, label: _Label) -> None:
        """Compare what is loaded, and go to the label if it does not hold."""
        on = _Label()
        self.branch(code, operand, on, label)
        self.place(on)

    def jump(self, label: _Label) -> None:
        self._items.append(_Instruction(_JA, 0, label))

    def place(self, label: _Label) -> None:
        self._items.append(label)

    def assemble(self) -> bytes:
        """Assemble backwards, so that the distance to each label is known."""
        code: list[bytes] = []
        bridges: dict[int, int] = {}
        onward: _Label | None = None  # the target of the next instruction, if that is a jump
        for index in range(len(self._items) - 1, -1, -1):
            item = self._items[index]
            if isinstance(item, _Label):
                item.left = len(code) if onward is None else onward.left
            elif item.code == _JA and item.true is not None:
                # Jumps to a jump go to its target. The jump is needed only if the instruction before continues there.
                if self._runs_on(index) and item.true.left != len(code):
                    code.append(_INSTRUCTION.pack(_JA, 0, 0, len(code) - item.true.left))
                onward = item.true
            else:
                onward = None
                self._assemble(item, code, bridges)
        if len(code) > _LONGEST:
            raise ProgramTooLong(f"{len(code)} instructions, the kernel accepts {_LONGEST}")
        return b"".join(reversed(code))

    def _runs_on(self, index: int) -> bool:
        """Whether the instruction before this one goes on to it, without a jump."""
        while index:
            index -= 1
            before = self._items[index]
            if isinstance(before, _Instruction):
                return before.true is None and before.code != _RET
        return True

    @staticmethod
    def _assemble(item: _Instruction, code: list[bytes], bridges: dict[int, int]) -> None:
        """Put an instruction before the others; `bridges` are the last jumps that reach far, by their targets."""
        if item.true is None or item.false is None:
            code.append(_INSTRUCTION.pack(item.code, 0, 0, item.operand))
            return
        targets = []
        for label in (item.true, item.false):
            near = label.left
            if len(code) - near > _NEAR:
                near = bridges.get(label.left, near)
            if len(code) - near > _NEAR:
                code.append(_INSTRUCTION.pack(_JA, 0, 0, len(code) - label.left))
                near = bridges[label.left] = len(code)
            targets.append(near)
        on_true, on_false = (len(code) - left for left in targets)
        code.append(_INSTRUCTION.pack(item.code, on_true, on_false, item.operand))

    # terms

    def test(self, term: Term, true: _Label, false: _Label, if_unknown: bool) -> None:
        """Go to `true` if the term holds, or if `if_unknown` is True and the program cannot evaluate the term."""
        if isinstance(term, Not):
            self.test(term.term, false, true, not if_unknown)
        elif isinstance(term, (And, Or)):
            self._join(term, true, false, if_unknown)
        elif isinstance(term, InRanges) and all(_readable(key, address=True) for key in term.keys):
            self._in_ranges(term, true, false)
        elif isinstance(term, MaskEquals) and _readable(term.key, address=False):
            self._mask_equals(term, true, false)
        else:
            self.jump(true if if_unknown else false)

    def _join(self, term: And | Or, true: _Label, false: _Label, if_unknown: bool) -> None:
        every = isinstance(term, And)
        for part in term.terms:
            on = _Label()
            self.test(part, on if every else true, false if every else on, if_unknown)
            self.place(on)
        self.jump(true if every else false)

    def _in_ranges(self, term: InRanges, true: _Label, false: _Label) -> None:
        for key in term.keys:
            done = _Label()
            if key == "family":
                self.emit(_LD_ABS_B, uapi.NLMSG_HDRLEN)
                self._ranges(term.ranges, true, done)
            else:
                for row in _ROWS[key]:
                    other = _Label()
                    if isinstance(row.kind, Address):
                        self._addresses(row, term.ranges, true, done, other)
                    else:
                        self._find(row, other)
                        self.emit(_LD_IND[row.kind.format[0]], 4)
                        self._ranges(term.ranges, true, done)
                    self.place(other)
            if term.absent is not None and any(low <= term.absent <= high for low, high in term.ranges):
                self.jump(true)
            self.place(done)
        self.jump(false)

    def _mask_equals(self, term: MaskEquals, true: _Label, false: _Label) -> None:
        (row,) = _ROWS[term.key]
        missing = _Label()
        self._find(row, missing)
        for value, mask in term.values:
            self.emit(_LD_IND[row.kind.format[0]], 4)
            if mask != 0xFFFFFFFF:
                self.emit(_AND, mask)
            self.when(_JEQ, value, true)
        self.jump(false)
        self.place(missing)
        self.jump(true if any(value == 0 for value, _mask in term.values) else false)

    # values

    def _find(self, row: Attribute, missing: _Label) -> None:
        """Let X be where the attribute of `row` starts; its value is 4 bytes on."""
        self._guard(row, missing)
        self._seek(row.path, missing)

    def _guard(self, row: Attribute, missing: _Label) -> None:
        """Check the protocol if several protocols use one number for different things."""
        others = _RESTRICTED.get(row.path)
        if not others:
            return
        self._seek(_PROTOCOLS[row.path[0]].path, missing)
        self.emit(_LD_IND["B"], 4)
        if row.protocol is not None:
            self.unless(_JEQ, row.protocol, missing)
            return
        for other in sorted(others):
            self.when(_JEQ, other, missing)

    def _seek(self, path: Path, missing: _Label) -> None:
        self.emit(_LD_IMM, uapi.NFNL_HDRLEN)
        for depth, number in enumerate(path):
            self.emit(_LDX_IMM, number)
            self.emit(_LD_ABS_W, _AD_NLATTR_NEST if depth else _AD_NLATTR)
            self.when(_JEQ, 0, missing)
        self.emit(_TAX)

    def _ranges(self, ranges: Iterable[tuple[int, int]], true: _Label, false: _Label) -> None:
        """Compare the number in A with each range."""
        for low, high in ranges:
            if low == high:
                self.when(_JEQ, low, true)
            else:
                other = _Label()
                self.unless(_JGE, low, other)
                self.branch(_JGT, high, other, true)
                self.place(other)
        self.jump(false)

    def _addresses(
        self, row: Attribute, ranges: Iterable[tuple[bytes, bytes]], true: _Label, false: _Label, missing: _Label
    ) -> None:
        """Compare the address of `row` with each range of its family, word by word."""
        size = int(row.kind.format[:-1])
        ranges = [(low, high) for low, high in ranges if len(low) == size]
        if not ranges:
            return
        self._find(row, missing)
        for low, high in ranges:
            other = _Label()
            self._address(_words(low), _words(high), true, other)
            self.place(other)
        self.jump(false)

    def _address(self, low: list[int], high: list[int], true: _Label, false: _Label) -> None:
        last = len(low) - 1
        at = 0
        while low[at] == high[at]:
            on = true if at == last else _Label()
            self._load_word(at)
            self.branch(_JEQ, low[at], on, false)
            if at == last:
                return
            self.place(on)
            at += 1
        if not any(low[at + 1 :]) and all(word == 0xFFFFFFFF for word in high[at + 1 :]):  # for example a CIDR block
            self._load_word(at)
            self.unless(_JGE, low[at], false)
            self.branch(_JGT, high[at], false, true)
            return
        enough = _Label()
        self._bound(low, at, enough, false, above=True)
        self.place(enough)
        self._bound(high, at, true, false, above=False)

    def _bound(self, bound: list[int], start: int, true: _Label, false: _Label, above: bool) -> None:
        """The words from `start` are at least `bound` (`above`), or at most."""
        for at in range(start, len(bound)):
            unequal, equal = _Label(), _Label()
            self._load_word(at)
            self.branch(_JEQ, bound[at], equal, unequal)
            self.place(unequal)
            self.branch(_JGT, bound[at], true if above else false, false if above else true)
            self.place(equal)
        self.jump(true)

    def _load_word(self, at: int) -> None:
        self.emit(_LD_IND["I"], 4 + 4 * at)


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
