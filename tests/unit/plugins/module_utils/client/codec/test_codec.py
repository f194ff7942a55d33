# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the decoder, because a user sees each value as decoded and a restore loses each value that is dropped."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import ENTRIES
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import describe, identity
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import MalformedMessage
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import (
    attribute,
    attributes,
    nested,
)
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import corpus, wire
from ansible_collections.netops.conntrack.tests.unit.support.strategies import raw_entries

pytestmark = pytest.mark.portability

answers = pytest.mark.parametrize("sample", corpus.ANSWERS, ids=lambda sample: sample.name)


def decoded(payload: bytes) -> dict[str, Any]:
    return {"family": payload[0], **ENTRIES.decode(payload, 4)}


@answers
def test_kernel_messages_are_shown(sample: corpus.Sample) -> None:
    assert to_document(decoded(sample.data)) == sample.document


@answers
def test_kernel_messages_are_encoded_to_the_same_attributes(sample: corpus.Sample) -> None:
    encoded = wire.flat(wire.tree(ENTRIES.encode(decoded(sample.data))))
    received = wire.flat(wire.tree(sample.data[4:]))
    for path in ((4, 1, 4), (4, 1, 5)):
        if path in received:  # only requests use the mask that follows the TCP flags
            assert received[path][1:] == b"\0"
            received[path] = received[path][:1] + b"\xff"
    assert encoded == received


@answers
def test_no_attribute_is_lost(sample: corpus.Sample) -> None:
    keys = set(decoded(sample.data)) - {"family"}
    assert len(keys) == len(wire.flat(wire.tree(sample.data[4:])))


@given(raw_entries())
@examples(200)
def test_any_entry_is_encoded_and_decoded_without_loss(entry: Any) -> None:
    data = ENTRIES.encode(entry)
    assert {"family": entry["family"], **ENTRIES.decode(data)} == entry
    wire.tree(data)
    keys = sorted(entry)[::2]
    assert ENTRIES.encode(entry, keys) == ENTRIES.encode(
        {k: v for k, v in entry.items() if k in keys or k == "family" or k.endswith(".protocol")}, keys
    )


def exercise(entry: dict[str, Any]) -> None:
    """Call the functions that process every entry of a dump."""
    entry = {"family": 2, **entry}
    repr(to_document(entry))
    describe(entry)
    hash(identity(entry))
    for match in ({"address": "10.0.0.0/8"}, {"port": 1}, {"nat": "any"}, {"status_not": "dying"}, {"zone": 0}):
        parse_match(match)(entry)


@given(st.binary(max_size=200))
@examples(100)
def test_random_bytes_are_refused_or_shown(data: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        exercise(ENTRIES.decode(data))


@st.composite
def attribute_bytes(draw: Any, depth: int = 0) -> bytes:
    """Draw attributes of any number, nesting and length whose outer lengths are valid."""
    data = b""
    for _unused in range(draw(st.integers(0, 3))):
        number = draw(st.integers(0, 28 if depth == 0 else 10))
        if depth < 3 and draw(st.booleans()):
            data += nested(number, draw(attribute_bytes(depth + 1)))
        else:
            data += attribute(number, draw(st.binary(max_size=20)))
    return data


@given(attribute_bytes())
@examples(200)
def test_attributes_of_any_shape_are_shown(data: bytes) -> None:
    exercise(ENTRIES.decode(data))


@answers
def test_truncated_message_is_refused_or_shown(sample: corpus.Sample) -> None:
    data = sample.data[4:]
    whole = ENTRIES.decode(data)
    for end in range(len(data)):
        try:
            part = ENTRIES.decode(data[:end])
        except MalformedMessage:
            continue
        assert part.items() <= whole.items()


@given(st.sampled_from(corpus.ANSWERS), st.data())
@examples(150)
def test_flipped_bits_are_refused_or_shown(sample: corpus.Sample, draws: Any) -> None:
    data = bytearray(sample.data[4:])
    for place in draws.draw(st.lists(st.integers(0, len(data) - 1), max_size=4)):
        data[place] ^= draws.draw(st.integers(1, 255))
    with contextlib.suppress(MalformedMessage):
        exercise(ENTRIES.decode(bytes(data)))


def test_unknown_attributes_are_kept_with_their_path() -> None:
    data = (
        wire.attribute((99,), b"\1\2\3")
        + wire.attribute((4, 1, 9), b"\x2a")
        + wire.attribute((4, 7), b"")
        + wire.attribute((1, 2, 77), b"\0\0")
        + wire.attribute((8,), b"\0\0\0\5")
    )
    entry = ENTRIES.decode(data)
    assert entry == {"mark": 5, "extra": {"99": b"\1\2\3", "4.1.9": b"\x2a", "4.7": b"", "1.2.77": b"\0\0"}}
    assert to_document(entry)["extra"] == {"99": "010203", "4.1.9": "2a", "4.7": "", "1.2.77": "0000"}


def test_a_nest_that_cannot_be_read_is_kept_whole() -> None:
    broken = struct.pack("=HH", 99, 1) + b"\0\0\0\5"
    entry = ENTRIES.decode(wire.attribute((24,), broken) + wire.attribute((8,), b"\0\0\0\5"))
    assert entry == {"mark": 5, "extra": {"24": broken}}


def test_flags_of_the_attribute_type_are_not_part_of_its_number() -> None:
    assert ENTRIES.decode(struct.pack("=HH", 8, 8 | 0x4000) + b"\0\0\0\5") == {"mark": 5}
    assert ENTRIES.decode(wire.attribute((1,), wire.attribute((3,), b"\0\7"))) == {"original.zone": 7}


def test_a_length_beyond_the_end_is_malformed() -> None:
    for data in (struct.pack("=HH", 9, 8) + bytes(4), struct.pack("=HH", 3, 8), struct.pack("=HH", 0, 0)):
        with pytest.raises(MalformedMessage, match="claims"):
            list(attributes(data, 0, len(data)))
    assert list(attributes(b"\0\0\0", 0, 3)) == []


def test_a_part_of_a_larger_buffer() -> None:
    one = wire.attribute((8,), b"\0\0\0\5")
    assert ENTRIES.decode(b"junk" + one + b"junk", 4, 4 + len(one)) == {"mark": 5}


def test_padding_before_a_64_bit_number_is_ignored() -> None:
    """Kernels without cheap unaligned access send padding. After the status, it has the number of the status."""
    padded = (
        wire.attribute((3,), b"\0\0\0\x0e")
        + wire.attribute((9, 5), b"")
        + wire.attribute((9, 1), bytes(7) + b"\1")
        + wire.attribute((10, 5), b"")
        + wire.attribute((20, 3), b"")
        + wire.attribute((4, 2, 4), b"")
        + wire.attribute((3,), b"")
        + wire.attribute((27,), bytes(7) + b"\2")
    )
    assert ENTRIES.decode(padded) == {"status": 0x0E, "counters.original.packets": 1, "timestamps.event": 2}
    assert ENTRIES.decode(wire.attribute((9, 5), b"new")) == {"extra": {"9.5": b"new"}}
