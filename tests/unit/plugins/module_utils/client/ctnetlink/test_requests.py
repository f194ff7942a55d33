# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a request from a template equals the encoder's request byte for byte, whatever else its batch contains."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.bulk import columns, documents
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec import types
from ansible_collections.netops.conntrack.plugins.module_utils.client.ctnetlink import requests
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import RequestBatch, frame
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import BATCH_SIZE
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.samples import SAMPLES
from ansible_collections.netops.conntrack.tests.unit.support.strategies import raw_entries

REQUESTS = {name.lower(): getattr(requests, name) for name in ("CREATE", "PUT", "UPDATE", "GET", "ZERO", "DELETE")}
every_request = pytest.mark.parametrize("request_of", REQUESTS.values(), ids=list(REQUESTS))

UDP = from_document(
    {
        "protocol": "udp",
        "original": {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": 1, "destination_port": 2},
    }
)
FIRST = 0xF0F1F2


def from_first(count: int) -> int:
    return FIRST


WRONG: list[tuple[str, Any]] = [
    ("original.source", bytes(16)), ("original.source", "abcd"), ("original.source_port", 65536),
    ("original.source_port", None), ("original.source_port", 1.5), ("original.protocol", 256), ("family", 300),
    ("mark", -1), ("mark", "7"), ("labels", 1.0), ("labels", 1 << 200), ("labels", -1), ("helper", 5),
    ("helper", "s" * 40), ("tcp.state", 10), ("tcp.original.flags", 256), ("timeout", 1 << 32), ("zone", [1]),
]  # fmt: skip


def outcome(build: Any, *arguments: Any) -> Any:
    """Return the request, or the complete error."""
    try:
        return build(*arguments)
    except Exception as error:
        return type(error), str(error)


def framed(request: requests.Request, entries: list[Any], size: int = BATCH_SIZE) -> list[RequestBatch]:
    """Return the expected batches without the code that makes batches."""
    batches = []
    for start in range(0, len(entries), size):
        some = entries[start : start + size]
        frames = b"".join(
            frame(request.encoded(entry), FIRST + start + place, 4 if place == len(some) - 1 else 0)
            for place, entry in enumerate(some)
        )
        batches.append(RequestBatch(frames, FIRST + start, len(some)))
    return batches


def same(request: requests.Request, entries: list[Any], size: int = BATCH_SIZE) -> None:
    expected = outcome(framed, request, entries, size)
    assert outcome(lambda: list(requests.request_batches(entries, request, from_first, size))) == expected


@every_request
def test_template_and_encoder_build_the_same_request(request_of: requests.Request) -> None:
    @given(st.lists(raw_entries(), min_size=1, max_size=4), st.integers(1, 7), st.data())
    @examples(100)
    def check(entries: Any, size: int, draws: Any) -> None:
        things = []
        for entry in entries:
            entry = {**UDP, **entry} if draws.draw(st.booleans()) else entry
            for _unused in range(columns._FEW):
                keys = draws.draw(st.sampled_from([{}, {"mark": 7}, {"zone": 1}]))
                things.append({**entry, **keys})
        same(request_of, things, size)
        for entry in things[:: columns._FEW]:
            assert outcome(request_of.message, entry) == outcome(request_of.encoded, entry)

    check()


@every_request
@pytest.mark.parametrize(("key", "value"), WRONG)
def test_invalid_value_has_the_same_error_in_a_batch(request_of: requests.Request, key: str, value: Any) -> None:
    """The request must also be refused in a batch of valid requests with the same layout."""
    good = {**UDP, "mark": 1, "labels": 1, "helper": "ftp", "tcp.state": 3, "tcp.original.flags": 1, "timeout": 1}
    good["zone"] = 1
    bad = {**good, key: value}
    assert outcome(request_of.message, bad) == outcome(request_of.encoded, bad)
    same(request_of, [good] * 5 + [bad] + [good] * 5)
    same(request_of, [bad] * 5)


@every_request
def test_request_without_the_original_tuple_is_refused(request_of: requests.Request) -> None:
    """Such a deletion would flush the table."""
    for key in ("original.source", "original.protocol"):
        entry = {name: value for name, value in UDP.items() if name != key}
        for entries in ([entry], [entry] * 9, [UDP] * 4 + [entry] * 5):
            with pytest.raises(InvalidValue, match="whole table"):
                list(requests.request_batches(entries, request_of, from_first))


def test_batches_before_an_invalid_entry_are_complete() -> None:
    batches = requests.request_batches([UDP] * 20 + [{**UDP, "mark": -1}], requests.CREATE, from_first, 8)
    assert [next(batches).count, next(batches).count] == [8, 8]
    with pytest.raises(Exception, match="format|out of range"):
        next(batches)


@pytest.mark.parametrize("document", [sample.declared for _name, sample in SAMPLES], ids=[name for name, _s in SAMPLES])
def test_declarations_and_their_entries_send_the_same_requests(document: Any) -> None:
    entry = creation(from_document(document))
    expected = framed(requests.CREATE, [entry] * 9, 4)
    assert (
        list(requests.request_batches([document] * 9, requests.CREATE, from_first, 4, documents.completion_transform()))
        == expected
    )
    assert list(requests.request_batches([entry] * 9, requests.CREATE, from_first, 4)) == expected


def test_entries_of_mixed_kinds_keep_their_order() -> None:
    entries = [creation(from_document(sample.declared)) for _name, sample in SAMPLES] * columns._FEW
    for request in REQUESTS.values():
        same(request, entries)


def test_batches_are_numbered_on_demand() -> None:
    reserved = []

    def numbers(count: int) -> int:
        reserved.append(count)
        return 1 + sum(reserved[:-1])

    count = columns.BATCH + 5
    batches = requests.request_batches(iter([UDP] * count), requests.DELETE, numbers)
    assert reserved == [], "no entry is read before the first batch is requested"
    first = next(batches)
    assert (first.first, first.count, reserved) == (1, BATCH_SIZE, [columns.BATCH])
    rest = list(batches)
    assert rest[-1][1:] == (columns.BATCH + 1, 5)
    assert reserved == [columns.BATCH, 5]
    numbered = [number for batch in [first, *rest] for number in range(batch.first, batch.first + batch.count)]
    assert numbered == list(range(1, count + 1))
    assert list(requests.request_batches([], requests.DELETE, numbers)) == []


def test_number_of_templates_is_limited() -> None:
    request = requests.Request(0x100, 0, requests.CREATE.keys)
    for number in range(requests._MOST_TEMPLATES + 3):
        entry = {**UDP, "helper": f"sip-{number}"}
        assert request.message(entry) == request.encoded(entry)
    assert len(request._templates) <= requests._MOST_TEMPLATES


def test_entries_of_every_kind_have_a_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without templates, the requests are correct but slow, so the test refuses the other way."""

    def refuse(*_unused: Any) -> Any:
        raise AssertionError("without a template")

    monkeypatch.setattr(requests.Request, "encoded", refuse)
    for _name, sample in SAMPLES:
        entry = creation(from_document({**sample.declared, "labels": [5]}))
        list(requests.request_batches([entry] * 4, requests.CREATE, from_first))
        requests.CREATE.message(entry)


def test_every_kind_of_value_has_a_place_in_a_template() -> None:
    """A new kind must have a fixed size unless it is a text, and its value 0 must show its constant bytes."""
    for row in requests.ENTRY:
        if row.kind.format and not isinstance(row.kind, types.Address):
            assert len(row.kind.encode(0)) == requests.struct.calcsize(">" + row.kind.format)
