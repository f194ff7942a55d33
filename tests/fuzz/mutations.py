# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hypothesis strategies for mutated inputs: changed, cut, inserted, repeated and spliced bytes."""

from __future__ import annotations

from hypothesis import strategies as st

#: Bytes with a meaning in one of the kinds of input.
_WORDS = (
    *(b"\0", b"\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x04\0\1\0", b"\x04\0\1\x80", b"\x10\0\0\0"),
    *(b"\x1b", b"\xed\xb2\x80", b"\xc3", b"\xd9\xa3", b"\n", b" ", b"=", b"-", b'"', b"'", b"9" * 30, b"-1", b"1e999"),
    *(b"[", b"{", b"]", b"}", b",", b":", b"<", b">", b"/", b"&", b"*a", b"&a ", b"!!int ", b"null", b"true", b"NaN"),
    *(b"<flow>", b"</flow>", b"<meta>", b"src=::1", b"[UNREPLIED]", b"labels=", b"--", b"ff", b"[" * 1200),
)


@st.composite
def mutated(draw: st.DrawFn, inputs: list[bytes]) -> bytes:
    """Return one of the inputs with up to four mutations."""
    data = draw(st.sampled_from(inputs))
    for _time in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from([1, 2, 4, 8, 40, 200]))
        end = min(start + length, len(data))
        how = draw(st.sampled_from(["flip", "set", "cut", "insert", "repeat", "splice", "end"]))
        if how == "flip" and start < len(data):
            data = data[:start] + bytes([data[start] ^ 1 << draw(st.integers(0, 7))]) + data[start + 1 :]
        elif how == "set":
            data = data[:start] + draw(st.binary(min_size=end - start, max_size=end - start)) + data[end:]
        elif how == "cut":
            data = data[:start] + data[end:]
        elif how == "insert":
            data = data[:start] + draw(st.sampled_from(_WORDS)) + data[start:]
        elif how == "repeat":
            data = data[:end] + data[start:end] * draw(st.integers(1, 3)) + data[end:]
        elif how == "splice":
            other = draw(st.sampled_from(inputs))
            data = data[:start] + other[draw(st.integers(0, len(other))) :]
        else:
            data = data[:start]
    return data
