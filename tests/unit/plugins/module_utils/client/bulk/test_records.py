# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a record contains all values of an entry and that a restore reads each value unchanged."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client import uapi
from ansible_collections.netops.conntrack.plugins.module_utils.client.bulk import (
    columns,
    documents,
    records,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.bulk.columns import (
    Columns,
    ColumnTransform,
    RowTransform,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.tuple import default_reply
from ansible_collections.netops.conntrack.tests.profiles import examples, spread
from ansible_collections.netops.conntrack.tests.samples import SAMPLES
from ansible_collections.netops.conntrack.tests.unit.plugins.module_utils.client.bulk.test_documents import (
    VALUES,
    check,
    result,
)
from ansible_collections.netops.conntrack.tests.unit.support.strategies import live_entries

pytestmark = pytest.mark.portability

FEW = columns._FEW
TRANSLATED = uapi.IPS_SRC_NAT | uapi.IPS_DST_NAT


def row_of(mapping: Any) -> Any:
    return tuple(mapping), tuple(mapping.values())


def alike(mappings: Any) -> list[Any]:
    """Return rows that share the tuple of keys if the keys are equal, as in a dump and a snapshot."""
    shared: dict[Any, Any] = {}
    return [(shared.setdefault(tuple(one), tuple(one)), tuple(one.values())) for one in mappings]


def mappings(found: Columns) -> list[Any]:
    return [dict(zip(found, row)) for row in zip(*found.values())]


def recorded(entries: Any) -> list[Any]:
    return [one for found in records.records(alike(entries)) for one in mappings(found)]


def without_ids(entry: Any) -> Any:
    return {key: value for key, value in entry.items() if key not in ("id", "use")}


def varied(entry: Any) -> list[Any]:
    """Return the entry with different values for mark and id."""
    return [{**entry, "mark": mark, "id": mark} for mark in range(FEW)]


# entries to records


@given(live_entries())
@examples(200)
def test_record_preserves_the_entry(entry: Any) -> None:
    """The comparison uses the document that a user sees."""
    (one,) = recorded([entry])
    document = records.document_of(row_of(one))
    if "reply" not in document or "source" not in document["reply"]:
        shown = to_document(default_reply(entry))
        shown.pop("protocol")
        document["reply"] = {**shown["reply"], **document.get("reply", {})}
    assert document == without_ids(to_document(entry))


@given(live_entries())
@examples(150)
def test_grouped_records_equal_single_records(entry: Any) -> None:
    entries = varied({"id": 0, "use": 2, **entry})
    assert recorded(entries) == [recorded([one])[0] for one in entries]


@given(st.lists(live_entries(), max_size=5))
@examples(50)
def test_every_entry_is_recorded(entries: Any) -> None:
    everything = [one for entry in entries for one in varied(entry)]
    assert sorted_records(recorded(everything)) == sorted_records(recorded([one])[0] for one in everything)


def sorted_records(found: Any) -> list[str]:
    """Return the records in a fixed order."""
    return sorted(repr(sorted(one.items())) for one in found)


def test_unknown_attribute_is_kept() -> None:
    """The reader returns unknown attributes in a mapping of their own or as keys."""
    entry = from_document({**dict(SAMPLES)["ipv4-udp"].declared, "timeout": 5})
    for unknown in ({"extra": {"99": b"\x01", "98.1": b"\x02"}}, {"extra.99": b"\x01", "extra.98.1": b"\x02"}):
        (one,) = recorded([{**entry, **unknown}])
        assert one["extra"] == {"99": "01", "98.1": "02"}


def test_reply_is_omitted_only_if_it_is_the_default_reply() -> None:
    plain = from_document({**dict(SAMPLES)["ipv4-udp"].declared, "timeout": 5, "status": ["confirmed"]})
    other = {**plain, "reply.source": b"\x01\x02\x03\x04"}
    claimed = {**plain, "status": uapi.IPS_CONFIRMED | uapi.IPS_SRC_NAT}
    has = ["reply.source" in one for some in (varied(plain), varied(other), varied(claimed)) for one in recorded(some)]
    assert has == [False] * FEW + [True] * 2 * FEW


@pytest.mark.parametrize(("name", "sample"), SAMPLES, ids=[name for name, _sample in SAMPLES])
def test_entries_of_every_kind_are_recorded_and_read_in_groups(name: str, sample: Any) -> None:
    """Without groups, the results are correct but slow, so the test counts the grouped entries."""
    entry = {**from_document(sample.gathered()), "id": 5, "use": 1}
    entry = {key: value for key, value in entry.items() if not key.startswith("nat.")}
    entries = varied({**default_reply(entry), **entry})
    together = sum(len(places) for places, _columns in records._RECORDING.groups(alike(entries)))
    without_ports = entry["status"] & TRANSLATED and "original.source_port" not in entry
    assert together == (0 if without_ports else FEW)
    rows = alike(recorded(entries))
    assert check(records.creations(), rows) == check(records.entries(), rows) == FEW


# records to entries


@given(live_entries())
@examples(150)
def test_record_and_document_declare_the_same_entry(entry: Any) -> None:
    (one,) = recorded([entry])
    row = row_of(one)
    whole = {**default_reply(entry), **without_ids(entry)}
    expected = result(from_document, without_ids(to_document(whole)))
    assert result(records.entries().scalar, row) == expected
    if entry.get("timeout") != 0 and not isinstance(expected, str):
        assert result(records.creations().scalar, row) == result(
            documents.CREATION.scalar, pinned(without_read_only(expected))
        )


def pinned(entry: Any) -> Any:
    """Set the source NAT of a NATed entry to its address and port, because the kernel could choose another port."""
    if any(key.startswith("nat.") for key in entry):
        port = entry.get("reply.destination_port", entry.get("reply.icmp_id"))
        source_nat = {"nat.source.address_min": entry["reply.destination"], "nat.source.port_min": port}
        for key, value in source_nat.items():
            if value is not None and key not in entry:
                entry = {**entry, key: value, key.replace("_min", "_max"): value}
    return entry


def without_read_only(entry: Any) -> Any:
    read_only = ("counters.", "timestamps.", "security_context", "extra")
    return {key: value for key, value in entry.items() if not key.startswith(read_only)}


def works() -> list[RowTransform]:
    return [records.entries(), records.declarations(), records.creations()]


@given(live_entries())
@examples(100)
def test_grouped_records_are_read_as_single_records(entry: Any) -> None:
    rows = alike(recorded(varied(entry)))
    for work in works():
        check(work, rows)


BASES = [one for name, sample in SAMPLES if name.startswith("ipv4") for one in recorded([
    {**default_reply(from_document(sample.gathered())), **from_document(sample.gathered())}
])]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BASES)))
def test_deviating_value_is_never_overlooked(number: int) -> None:
    """Try values at each place, after valid rows. In a short run, each base tries a share of the values."""
    base = BASES[number]
    usual = [result(work.scalar, row_of(base)) for work in works()]
    for key in base:
        for value in spread(VALUES, number):
            rows = alike([base] * FEW + [{**base, key: value}])
            for work, as_usual in zip(works(), usual):
                for places, of in work.groups(rows):
                    for place, row in zip(places, zip(*of.values())):
                        alone = as_usual if place < FEW else result(work.scalar, rows[place])
                        assert dict(zip(of, row)) == alone, f"{value!r} in {key}"


def test_timeout_of_zero_is_restored_as_one_second() -> None:
    """The entry was saved immediately before it expired, and the kernel creates no entry with a timeout of 0."""
    base = {**BASES[0], "timeout": 0}
    rows = alike([base] * FEW + [{**base, "timeout": 9}])
    assert [entry["timeout"] for entry in records.creations().each(rows)] == [1] * FEW + [9]
    assert records.creations().scalar(rows[0])["timeout"] == 1
    assert records.entries().scalar(rows[0])["timeout"] == 0


def test_no_key_of_a_record_is_a_prefix_of_another() -> None:
    """A record with both keys could not be converted to a document."""
    for key in records.KEYS:
        assert not [other for other in records.KEYS if other.startswith(f"{key}.")]


def test_rows_with_different_types_are_not_grouped() -> None:
    """Otherwise a null would be read as a missing key, and True as a number."""
    work = RowTransform(dict, dict, lambda columns: [])
    for odd in (None, True, 1.0, "1"):
        assert not list(work.groups(alike([{"a": 1}] * FEW + [{"a": odd}])))
    assert isinstance(work, ColumnTransform)
    assert [group.places for group in work.groups(alike([{"a": 1}, {"b": 1}] * FEW))] == [[0, 2, 4, 6], [1, 3, 5, 7]]
