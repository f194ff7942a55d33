# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that the info module counts every match, sorts the entries that it shows and keeps no others in memory."""

from __future__ import annotations

from typing import Any, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils._operations.info import (
    TABLES,
    check_order,
    collect,
    sort_key,
)
from ansible_collections.netops.conntrack.plugins.module_utils._operations.resource import resource_of
from ansible_collections.netops.conntrack.plugins.module_utils.client.bulk.records import flat
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import sysctl
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import (
    EVERYTHING,
    Match,
    parse_match,
)
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support.declarations import FLOW, filled
from ansible_collections.netops.conntrack.tests.unit.support.strategies import live_entries

Entry = Any


def entry(**keys: Any) -> Entry:
    return {"family": 2, "original.protocol": 17, "original.source": b"\n\0\0\1", **keys}


def read(entries: Any, match: Match = EVERYTHING, **options: Any) -> Any:
    options = {"sort_by": None, "reverse": False, "limit": 1000, "labels": LabelMap(), **options}
    return collect(filter(match, entries), **options)


def ids(result: Any) -> list[int]:
    return [shown["id"] for shown in result["entries"]]


def numbered(values: list[Any], key: str) -> list[Entry]:
    known = [{} if value is None else {key: value} for value in values]
    return [entry(id=number, **keys) for number, keys in enumerate(known)]


@given(st.lists(st.one_of(st.none(), st.integers(0, 9))), st.booleans(), st.integers(0, 12))
def test_entries_without_the_sort_key_come_last(timeouts: list[int | None], reverse: bool, limit: int) -> None:
    entries = numbered(timeouts, "timeout")
    result = read(iter(entries), sort_by="timeout", reverse=reverse, limit=limit)
    known = sorted((e for e in entries if "timeout" in e), key=lambda e: e["timeout"], reverse=reverse)
    lacking = [e for e in entries if "timeout" not in e]
    assert ids(result) == [e["id"] for e in known + lacking][:limit]
    assert result["matched"] == len(entries)
    assert result["truncated"] == (len(entries) > limit)


@given(st.integers(0, 5), st.integers(0, 5))
def test_unsorted_entries_keep_the_order_of_the_kernel_and_are_all_counted(number: int, limit: int) -> None:
    result = read((entry(id=n) for n in range(number)), limit=limit)
    assert ids(result) == list(range(min(number, limit)))
    assert (result["matched"], result["truncated"]) == (number, number > limit)


def test_keys_that_are_omitted_if_zero_sort_as_zero() -> None:
    """Otherwise the entries of the default zone would come after the entries of all other zones."""
    for key, shown in (("zone", 3), ("mark", 3), ("labels", 2)):
        assert ids(read(numbered([shown, None], key), sort_by=key)) == [1, 0]
        assert ids(read(numbered([None, shown], key), sort_by=key, reverse=True)) == [1, 0]


def test_sort_by_bytes_uses_the_sum_of_both_directions() -> None:
    def counted(number: int, original: int, reply: int) -> Entry:
        return entry(id=number, **{"counters.original.bytes": original, "counters.reply.bytes": reply})

    entries = [counted(0, 10, 0), counted(1, 5, 6), entry(id=2), counted(3, 0, 9)]
    assert ids(read(entries, sort_by="bytes", reverse=True)) == [1, 0, 3, 2]
    assert ids(read(entries, sort_by="bytes")) == [3, 0, 1, 2]


@examples(60)
@given(live_entries())
def test_every_key_of_an_entry_is_a_sort_key(entry: Entry) -> None:
    shown = flat(to_document(entry))
    for key in shown.keys() - {"extra"}:
        assert sort_key(key)(entry) is not None


def test_sort_by_the_address_of_source_nat() -> None:
    def to(number: int, last: int) -> Entry:
        return entry(id=number, status=0x10, **{"reply.destination": bytes([10, 0, 0, last]), "reply.source": b"abcd"})

    entries = [to(0, 9), entry(id=1), to(2, 3)]
    assert ids(read(entries, sort_by="nat.source.address")) == [2, 0, 1]


@pytest.mark.parametrize(
    ("key", "need"),
    [
        ("bytes", "accounting"),
        ("packets", "accounting"),
        ("counters.reply.bytes", "accounting"),
        ("timestamps.start", "timestamps"),
        ("timeout", None),
        (None, None),
    ],
)
def test_sort_by_unrecorded_data_is_refused(key: str | None, need: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order would be arbitrary. The message is the same as for a match with bytes_above."""
    monkeypatch.setattr(sysctl, "read", lambda name: 1)
    check_order(key)
    monkeypatch.setattr(sysctl, "read", lambda name: 0)
    if need is None:
        check_order(key)
    else:
        with pytest.raises(InvalidValue, match=f"^sort_by: requires {need}, which is off; set net.netf"):
            check_order(key)


def test_unknown_sort_key_is_refused_before_settings_are_read() -> None:
    for key, table in (("counters.bytes", "conntrack"), ("bytes", "expect")):
        with pytest.raises(InvalidValue, match="is not a key to sort by"):
            check_order(key, resource_of(table))


def test_addresses_of_both_families_are_sorted_together() -> None:
    sources = [b"\xff" * 4, bytes(16), bytes(4)]
    entries = [entry(id=number, **{"original.source": source}) for number, source in enumerate(sources)]
    assert ids(read(entries, sort_by="original.source")) == [2, 0, 1]


def test_only_matching_entries_are_counted() -> None:
    entries = [entry(id=0), entry(id=1, **{"original.protocol": 6})]
    result = read(entries, parse_match({"protocol": "tcp"}))
    assert (ids(result), result["matched"], result["truncated"]) == ([1], 1, False)


def test_unknown_sort_key_is_refused_before_the_table_is_read() -> None:
    def never() -> Iterator[Entry]:
        pytest.fail("the table was read")
        yield entry()

    for key in ("colour", "mark_mask", "source", "nat.source.address_min", "nat.destination.port_max", "nat.source"):
        with pytest.raises(InvalidValue, match="is not a key to sort by; write one such as"):
            read(never(), sort_by=key, limit=0)


def test_labels_are_shown_by_name() -> None:
    assert read([entry(labels=0b110)], labels=LabelMap({"voip": 1}))["entries"][0]["labels"] == ["voip", 2]


def test_each_table_is_read_with_one_dump() -> None:
    kernel = filled([{"protocol": "tcp", "original": FLOW}])
    found = {}
    with kernel.table() as table:
        for name, entries in TABLES.items():
            found[name] = read(entries(table, EVERYTHING))["matched"]
    assert found == {"conntrack": 1, "expect": 0, "dying": 0, "unconfirmed": 0}
    assert [request.type for request in kernel.requests] == [0x0101, 0x0201, 0x0106, 0x0107]
    assert not kernel.writes
