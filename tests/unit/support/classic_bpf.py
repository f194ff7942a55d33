# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Model classic BPF as a netlink socket's filter: the programs that the kernel refuses, and the messages that pass.

Source: bpf_check_classic, chk_code_allowed and bpf_skb_get_nlattr in net/core/filter.c; nla_find and
nla_ok in lib/nlattr.c and include/net/netlink.h.
"""

from __future__ import annotations

import struct
import sys
from typing import NamedTuple

LONGEST = 4096
WORD = 0xFFFFFFFF
NLATTR, NLATTR_NEST = 0xFFFFF00C, 0xFFFFF010
SIZES = {0x00: 4, 0x08: 2, 0x10: 1}

LD_IMM, LDX_IMM, AND, TAX, RET = 0x00, 0x01, 0x54, 0x07, 0x06
LD_ABS = {0x20, 0x28, 0x30}
LD_IND = {0x40, 0x48, 0x50}
JA = 0x05
CONDITIONS = {0x15, 0x25, 0x35}
KNOWN = {LD_IMM, LDX_IMM, AND, TAX, RET, JA, *LD_ABS, *LD_IND, *CONDITIONS}


class Instruction(NamedTuple):
    code: int
    on_true: int
    on_false: int
    operand: int


def disassemble(program: bytes) -> list[Instruction]:
    return [Instruction(*fields) for fields in struct.iter_unpack("=HBBI", program)]


def check(program: bytes) -> None:
    """Check a program as a kernel does before it accepts the program."""
    assert len(program) % 8 == 0
    code = disassemble(program)
    assert 0 < len(code) <= LONGEST
    for position, (operation, on_true, on_false, operand) in enumerate(code):
        assert operation in KNOWN, f"{operation:#x} is an operation that this test does not know"
        if operation == JA:
            assert operand < len(code) - position - 1, "a jump out of the program"
        if operation in CONDITIONS:
            assert position + on_true + 1 < len(code), "a jump out of the program"
            assert position + on_false + 1 < len(code), "a jump out of the program"
        if operation in LD_ABS and operand >= 0xFFFFF000:
            assert operation == 0x20, "ancillary data are loaded as words"
            assert operand in (NLATTR, NLATTR_NEST)
    assert code[-1].code == RET


def run(program: bytes, message: bytes) -> bool:
    """Return whether a message, from its netlink header on, passes the filter."""
    code = disassemble(program)
    a = x = position = 0
    while True:
        operation, on_true, on_false, operand = code[position]
        position += 1
        if operation == RET:
            return operand != 0
        if operation == JA:
            position += operand
        elif operation in CONDITIONS:
            holds = {0x15: a == operand, 0x25: a > operand, 0x35: a >= operand}[operation]
            position += on_true if holds else on_false
        elif operation == LD_IMM:
            a = operand
        elif operation == LDX_IMM:
            x = operand
        elif operation == AND:
            a &= operand
        elif operation == TAX:
            x = a
        elif operand == NLATTR:
            a = find(message, a, len(message), x) if a <= len(message) - 4 else 0
        elif operand == NLATTR_NEST:
            a = find_nested(message, a, x)
        else:
            at = operand + (x if operation in LD_IND else 0) & WORD
            size = SIZES[operation & 0x18]
            if at + size > len(message):
                return False  # the kernel ends a program that reads beyond the message
            a = int.from_bytes(message[at : at + size], "big")


def find(message: bytes, start: int, end: int, number: int) -> int:
    """Return the offset of the attribute, or 0."""
    while end - start >= 4:
        length, there = struct.unpack_from("=HH", message, start)
        if not 4 <= length <= end - start:
            return 0
        if there & 0x3FFF == number:
            return start
        start += length + 3 & ~3
    return 0


def find_nested(message: bytes, nest: int, number: int) -> int:
    if nest > len(message) - 4:
        return 0
    length = int.from_bytes(message[nest : nest + 2], sys.byteorder)
    return find(message, nest + 4, nest + length, number) if length <= len(message) - nest else 0
