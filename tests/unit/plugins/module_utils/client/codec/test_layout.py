# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a layout reads the same values as the general decoder; an error would affect each entry of a dump."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.attributes import ENTRY
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import ENTRIES
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.layout import LayoutCache, MessageLayout
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.sample import EntrySample
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.scan import (
    DumpDecoder,
    Entries,
    VisitorGroup,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.summary import Summary
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.top import Top
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import MalformedMessage
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import corpus, wire
from ansible_collections.netops.conntrack.tests.unit.support.strategies import (
    live_entries,
    odd_messages,
    of_kind,
    raw_entries,
)


def message(payload: bytes, flags: int = 2, sequence: int = 7) -> bytes:
    return wire.framed(0x0100, flags, sequence, payload)


def encoded(entry: Any) -> bytes:
    """Encode an entry as the kernel sends it, without the parts that only requests contain."""
    return message(struct.pack(">BBH", entry["family"], 0, 0) + ENTRIES.encode(entry))


def generally(data: bytes) -> Any:
    return {"family": data[16], **ENTRIES.decode(data, 20)}


def learned(data: bytes) -> MessageLayout:
    layout = LayoutCache(ENTRIES).of(data)
    assert layout is not None
    return layout


def is_of(data: bytes, layout: MessageLayout) -> bool:
    return int.from_bytes(data, "big") & layout.mask == layout.value and len(data) == layout.size


@pytest.mark.parametrize("sample", corpus.ANSWERS, ids=lambda sample: sample.name)
def test_kernel_messages_are_read_as_by_the_general_decoder(sample: corpus.Sample) -> None:
    data = message(sample.data)
    layout = learned(data)
    assert layout.entry(data) == generally(data)
    assert dict(zip(layout.keys, next(layout.rows(data)))) == {
        key: value for key, value in generally(data).items() if key != "extra"
    }


@examples(100)
@given(st.one_of(raw_entries(), live_entries()))
def test_any_entry_is_read_as_by_the_general_decoder(entry: Any) -> None:
    data = encoded(entry)
    assert learned(data).entry(data) == generally(data)


@examples(100)
@given(raw_entries(), st.data())
def test_layout_reads_other_messages_with_the_same_keys(entry: Any, data: Any) -> None:
    """The layout is derived from the first message; the second contains another entry with the same keys."""
    layout = learned(encoded(entry))
    rows = {row.key: row for nest in [ENTRIES.decode_each(encoded(entry), 20, layout.size)] for row in
            (leaf.row for leaf in nest) if row is not None}  # fmt: skip
    other = {
        key: value if key == "family" or key.endswith((".protocol", "helper", "security_context")) else
        data.draw(of_kind(rows[key].kind)) for key, value in entry.items()
    }  # fmt: skip
    second = encoded(other)
    assert is_of(second, layout)
    assert layout.entry(second) == generally(second)


@examples(100)
@given(st.one_of(raw_entries(), live_entries()), st.one_of(raw_entries(), live_entries()))
def test_layout_rejects_messages_that_it_would_decode_incorrectly(entry: Any, other: Any) -> None:
    layout, data = learned(encoded(entry)), encoded(other)
    if is_of(data, layout):
        assert layout.entry(data) == generally(data)


@examples(150)
@given(raw_entries(), st.data())
def test_any_change_of_a_message_is_detected(entry: Any, data: Any) -> None:
    """After a change of any byte, the layout must reject the message or read the same values as the general decoder."""
    first = encoded(entry)
    layout = learned(first)
    second = bytearray(first)
    for place in data.draw(st.lists(st.integers(0, len(first) - 1), min_size=1, max_size=3)):
        second[place] = data.draw(st.integers(0, 255))
    if is_of(bytes(second), layout):
        assert layout.entry(bytes(second)) == generally(bytes(second))


def test_messages_without_a_layout_are_read_by_the_general_decoder() -> None:
    layouts = LayoutCache(ENTRIES)
    broken = message(b"\2\0\0\0" + wire.attribute((0x8001,), struct.pack("=HH", 40, 1)))
    assert layouts.of(broken) is None
    assert layouts.decode(broken) == {"family": 2, "extra": {"1": struct.pack("=HH", 40, 1)}}
    with pytest.raises(MalformedMessage):
        layouts.of(message(b"\2\0\0\0" + struct.pack("=HH", 40, 1)))


def test_unknown_attributes_are_kept() -> None:
    data = message(b"\2\0\0\0" + wire.attribute((77,), b"new") + wire.attribute((8,), b"\0\0\0\5"))
    assert learned(data).entry(data) == {"family": 2, "mark": 5, "extra": {"77": b"new"}}


def test_longer_attribute_is_read_in_full() -> None:
    data = message(b"\2\0\0\0" + wire.attribute((8,), b"\1\0\0\0\0\0\0\5"))
    assert learned(data).entry(data) == generally(data) == {"family": 2, "mark": (1 << 56) + 5}


def test_flags_and_sequence_number_are_not_part_of_a_layout() -> None:
    layout = learned(message(corpus.ANSWERS[0].data))
    assert is_of(message(corpus.ANSWERS[0].data, flags=0x22, sequence=99), layout)


def test_padding_is_not_part_of_a_layout() -> None:
    """Otherwise each message of a kernel that does not clear the padding would need a new layout."""
    data = message(b"\2\0\0\0" + wire.attribute((4, 1, 1), b"\3"))
    assert data.endswith(b"\3\0\0\0")
    assert is_of(data[:-2] + b"\7\7", learned(data))


def test_message_of_an_interrupted_dump_matches_no_layout() -> None:
    assert not is_of(message(corpus.ANSWERS[0].data, flags=0x12), learned(message(corpus.ANSWERS[0].data)))


def test_a_layout_keeps_one_mask_for_groups_of_every_size() -> None:
    """A mask for each size would take 128 times the memory."""
    data = encoded(generally(corpus.ANSWERS[0].data))
    layout = learned(data)
    for count in range(1, layout.most_messages + 1):
        assert layout.difference(data * count) is None
        assert layout.difference(data * (count - 1) + bytes([data[0] ^ 1]) + data[1:]) == 0
    kept = [value for value in vars(layout).values() if isinstance(value, (int, tuple, list, dict))]
    bits = sum(number.bit_length() for value in kept for number in _numbers_in(value))
    assert bits <= (2 * layout.most_messages + 3) * layout.size * 8


def _numbers_in(value: Any) -> list[int]:
    """Return the numbers in a value, also in containers in it."""
    if isinstance(value, int):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [number for one in value for number in _numbers_in(one)] if isinstance(value, (tuple, list)) else []


def test_number_of_layouts_is_limited() -> None:
    layouts = LayoutCache(ENTRIES)
    layouts.most = 3
    made = [message(b"\2\0\0\0" + wire.attribute((number,), b"\0\0\0\1")) for number in (50, 51, 52, 53)]
    assert [layouts.of(data) is not None for data in (*made, *made)] == [True, True, True, False] * 2
    assert layouts.decode(made[3]) == {"family": 2, "extra": {"53": b"\0\0\0\1"}}


def test_part_reads_the_requested_columns() -> None:
    data = message(corpus.ANSWERS[0].data)
    keys, read = learned(data).part(["mark", "original.source", "status", "helper", "original.protocol", "unknown"])
    assert keys == ("original.source", "status", "mark")
    assert [dict(zip(keys, row)) for row in read(data * 2)] == [{key: generally(data)[key] for key in keys}] * 2


@examples(200)
@given(odd_messages(), st.data())
def test_part_reads_the_same_values_as_the_general_decoder(payload: bytes, data: Any) -> None:
    """An attribute can have another size than today, or appear twice."""
    whole = generally(message(payload))
    wanted = data.draw(st.sets(st.sampled_from(sorted({row.key for row in ENTRY}))))
    layout = learned(message(payload))
    keys, read = layout.part(wanted)
    assert len(set(keys)) == len(keys)
    assert set(keys) | set(layout.constants) & wanted == set(whole) & wanted
    assert [dict(zip(keys, row)) for row in read(message(payload) * 2)] == [{key: whole[key] for key in keys}] * 2


@examples(100)
@given(st.lists(odd_messages(), max_size=4))
def test_visitors_have_the_same_result_with_and_without_layouts(payloads: list[bytes]) -> None:
    def visitors() -> list[Any]:
        return [Summary(), Top(), EntrySample(10, 10), Entries()]

    def found(visitors: list[Any]) -> list[Any]:
        summary, top, census, entries = visitors
        collected = map(wire.unordered, (census.first, census.longest, entries.found))
        return [summary.as_document(9), top.as_document(9), census.count, *collected]

    scanned, general = visitors(), visitors()
    messages = list(map(message, payloads))
    DumpDecoder(VisitorGroup(scanned), layouts=LayoutCache(ENTRIES)).feed(b"".join(messages))
    for data in messages:
        for visitor in general:
            visitor.add(generally(data))
    assert found(scanned) == found(general)
