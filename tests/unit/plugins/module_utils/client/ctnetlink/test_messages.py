# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the messages, because a deletion without a tuple flushes the whole table."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.ctnetlink import messages, requests
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import Message
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import corpus, wire
from ansible_collections.netops.conntrack.tests.unit.support.strategies import live_entries, raw_entries

Build = Callable[[Any], Message]

SINGLE_ENTRY_REQUESTS: dict[str, Build] = {
    "create": requests.CREATE.message,
    "put": requests.PUT.message,
    "update": requests.UPDATE.message,
    "get": requests.GET.message,
    "get and zero": requests.ZERO.message,
    "delete": requests.DELETE.message,
}
each_request = pytest.mark.parametrize("build", SINGLE_ENTRY_REQUESTS.values(), ids=list(SINGLE_ENTRY_REQUESTS))

TUPLE, REPLY, ZONE, ID, LABELS_MASK, MARK_MASK = 1, 2, 18, 12, 23, 21


def sent(message: Message) -> dict[int, Any]:
    return wire.tree(message.payload[4:])


@each_request
def test_every_request_for_an_entry_contains_its_tuple(build: Build) -> None:
    @given(raw_entries())
    @examples(60)
    def check(entry: Any) -> None:
        entry = {key: value for key, value in entry.items() if not key.endswith((".state", ".role"))}
        if "original.source" not in entry:
            with pytest.raises(InvalidValue, match="^original: "):
                build(entry)
            return
        message = build(entry)
        there = sent(message)[TUPLE]
        assert {1, 3} & set(there[1]), "the source address"
        assert there[2][1] == bytes([entry["original.protocol"]])
        assert message.payload[:2] == bytes([entry["family"], 1])

    check()


@each_request
@pytest.mark.parametrize(
    "entry",
    [
        {"family": 2},
        {"family": 2, "zone": 5, "id": 7, "mark": 1, "status": 2},
        {"family": 2, "reply.source": b"\1\2\3\4", "reply.protocol": 17},
        {"family": 2, "original.protocol": 17, "original.source_port": 1},
        {"family": 2, "original.source": b"\1\2\3\4"},
        {"family": 0, "original.zone": 5},
    ],
)
def test_an_entry_without_an_original_tuple_is_refused(build: Build, entry: Any) -> None:
    with pytest.raises(InvalidValue, match="whole table") as caught:
        build(entry)
    assert caught.value.key == "original"


@pytest.mark.parametrize(
    "build",
    [
        *SINGLE_ENTRY_REQUESTS.values(),
        lambda _: messages.dump(),
        lambda _: messages.dump(2, zero=True),
        lambda _: messages.DUMP_DYING,
        lambda _: messages.DUMP_UNCONFIRMED,
        lambda _: messages.STATISTICS,
        lambda _: messages.DUMP_STATISTICS_PER_CPU,
    ],
)
def test_the_version_is_always_one(build: Build) -> None:
    """With version 0, the kernel ignores the family of a flush."""
    message = build(messages.parse_entry(Message(0x100, 0, corpus.ANSWERS[0].data)))
    assert message.payload[1] == 1
    assert message.payload[2:4] == b"\0\0"


@given(live_entries(), st.integers(0, 0xFFFFFFFF))
@examples(60)
def test_deletion_contains_zone_and_id(entry: Any, number: int) -> None:
    entry["id"] = number
    message = requests.DELETE.message(entry)
    attributes = sent(message)
    assert message.type == 0x0102
    assert set(attributes) <= {TUPLE, ZONE, ID}
    assert attributes[ID] == number.to_bytes(4, "big")
    assert attributes.get(ZONE) == (entry["zone"].to_bytes(2, "big") if "zone" in entry else None)
    if "original.zone" in entry:
        assert attributes[TUPLE][3] == entry["original.zone"].to_bytes(2, "big")


@pytest.mark.parametrize("sample", corpus.ANSWERS, ids=lambda sample: sample.name)
def test_received_entry_can_be_requested_again(sample: corpus.Sample) -> None:
    entry = messages.parse_entry(Message(0x100, 0, sample.data))
    received = wire.tree(sample.data[4:])
    key = {number: received[number] for number in (TUPLE, ZONE) if number in received}
    assert sent(requests.GET.message(entry)) == key
    assert sent(requests.DELETE.message(entry)) == {**key, ID: received[ID]}


def test_update_never_contains_a_partial_reply_tuple() -> None:
    """The kernel refuses such a key with EINVAL; only the zone of a reply direction belongs to a key."""
    (sample,) = [sample for sample in corpus.ANSWERS if sample.name == "udp_ipv6_reply_zone"]
    entry = messages.parse_entry(Message(0x100, 0, sample.data))
    for build in (requests.UPDATE.message, requests.GET.message, requests.DELETE.message):
        assert REPLY not in sent(build(entry))
    assert sent(requests.CREATE.message(entry))[REPLY][3] == b"\0\x09"


UDP = from_document(
    {
        "protocol": "udp",
        "original": {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": 1, "destination_port": 2},
        "mark": "0x1/0xf",
        "nat": {"source": {"address": "10.9.9.9"}},
        "helper": "ftp",
        "counters": {"original": {"packets": 1}},
        "id": 5,
    }
)


def test_types_and_flags() -> None:
    found = {name: (build(UDP).type, build(UDP).flags) for name, build in SINGLE_ENTRY_REQUESTS.items()}
    assert found == {
        "create": (0x0100, 0x600),
        "put": (0x0100, 0x400),
        "update": (0x0100, 0),
        "get": (0x0101, 0),
        "get and zero": (0x0103, 0),
        "delete": (0x0102, 0),
    }
    assert messages.dump(10).type == 0x0101
    assert messages.dump(10).payload == b"\x0a\1\0\0"
    assert messages.dump(zero=True).type == 0x0103


def test_masked_mark_keeps_the_other_bits_of_an_existing_entry() -> None:
    assert MARK_MASK not in sent(requests.CREATE.message(creation(UDP)))
    assert sent(requests.PUT.message(creation(UDP)))[MARK_MASK] == b"\0\0\0\x0f"
    assert sent(requests.UPDATE.message(UDP))[MARK_MASK] == b"\0\0\0\x0f"


def test_update_omits_attributes_that_the_kernel_refuses_or_ignores() -> None:
    assert not {2, 6, 9, 12, 13, 14} & set(sent(requests.UPDATE.message({**UDP, "master.source": b"\1\2\3\4"})))


def test_reading_a_message() -> None:
    message = Message(0x100, 0, b"\x0a\0\1\2" + wire.attribute((8,), b"\0\0\0\5"))
    assert messages.parse_entry(message) == {"family": 10, "mark": 5}
    assert messages.resource(message) == 0x0102


@pytest.mark.parametrize(
    ("key", "value"), [("tcp.state", 10), ("sctp.state", 10), ("dccp.state", 10), ("dccp.role", 2)]
)
def test_state_without_a_name_is_not_sent(key: str, value: int) -> None:
    """Linux 5.10 accepts any number and uses it as an index into its tables at the next packet of the connection."""
    entry = {"family": 2, "original.source": bytes(4), "original.protocol": 6, key: value}
    with pytest.raises(InvalidValue, match=f"^{key}: {value} is not a state to set"):
        requests.UPDATE.message(entry)
    assert requests.UPDATE.message({**entry, key: value - 1})
