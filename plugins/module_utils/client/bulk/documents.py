# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Convert many documents to entries and complete them, column by column.

The results equal those of `document.from_document` and `entry.creation`. These convert the first item of each group,
which covers everything that depends on the keys, the protocol and the family. This file converts the values of the
rest.
"""

from __future__ import annotations

import socket
from itertools import chain, repeat
from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, Sequence

from .. import uapi
from ..codec import types
from ..codec.attributes import ENTRY
from ..entry.creation import DEFAULT_TIMEOUT, STATE_NAMES, TCP_FLAGS, assumed_flags, check_states, creation, sent_status
from ..entry.document import from_document
from ..entry.entry import Entry
from ..entry.labels import NO_LABELS, LabelMap
from ..entry.nat import NAT_ENDS, NAT_STATUS
from ..entry.tuple import answered_type, reversed_tuple, tuple_of, with_tuple
from ..entry.zone import ZONE_KEYS
from .columns import Columns, ColumnTransform, NotVectorizable

#: Keys of a document that have two rows in the attribute table, a lower and an upper bound.
_BOUNDED: dict[str, types.AttributeType] = {
    "nat.source.address": types.IPV4_ADDRESS,
    "nat.source.port": types.U16,
    "nat.destination.address": types.IPV4_ADDRESS,
    "nat.destination.port": types.U16,
}
_KINDS = {**{row.key: row.kind for row in ENTRY}, **_BOUNDED}


def parse_all(
    documents: Iterable[Mapping[str, Any]], labels: LabelMap = NO_LABELS, absent: bool = False
) -> Iterator[Entry]:
    """Yield `document.from_document` of each. Raises `InvalidValue` for the first fault, after the items before it."""
    return parse_transform(labels, absent).each(documents)


def parse_transform(labels: LabelMap = NO_LABELS, absent: bool = False) -> ColumnTransform:
    """Return the conversion of documents to entries."""
    return ColumnTransform(
        lambda document: from_document(document, labels, absent), lambda found: _parsed(found, labels), _group_by, True
    )


def completion_transform(labels: LabelMap = NO_LABELS) -> ColumnTransform:
    """From documents to what `entry.creation` makes of them: what `requests.request_batches` sends."""
    return ColumnTransform(
        lambda document: creation(from_document(document, labels)),
        lambda found: _created(_parsed(found, labels)),
        _group_by,
        True,
    )


def _group_by(documents: Columns) -> list[Sequence[Any]]:
    is_ipv6 = [":" in source for source in documents["original.source"]]
    return [
        is_ipv6,
        *(documents[key] for key in ("protocol", "family", "master.protocol", "helper") if key in documents),
    ]


def _parsed(documents: Columns, labels: LabelMap) -> Columns:
    first = from_document(documents[""][0], labels)
    entries: Columns = {}
    for path, column in documents.items():
        if column[0] is None or path in ("", "family") or path.endswith("protocol"):
            continue
        column = _read(path, column, first["family"], labels)
        entries.update({f"{path}_min": column, f"{path}_max": column} if path in _BOUNDED else {path: column})
    for key in first:
        if key == "family" or key.endswith(".protocol"):
            entries[key] = [first[key]] * len(documents[""])
    _check(entries)
    return _checked_against(first, entries)


def _read(path: str, column: list[Any], family: int, labels: LabelMap) -> list[Any]:
    """Parse values of one type."""
    kind, of = _KINDS[path], type(column[0])

    def read(raw: Any) -> Any:
        return kind.parse(labels.to_bits(raw, path) if path == "labels" else raw, path)

    if of is list:
        lists = list(map(tuple, column))
        # Equal lists with only strings are the same. True and 1.0 are equal to 1
        distinct = set(map(type, chain.from_iterable(set(lists))))
        if distinct <= {str} or set(map(type, chain.from_iterable(lists))) <= {str, int}:
            return _each(lists, read)
    if of is str and isinstance(kind, types.Address):
        return list(map(socket.inet_pton, repeat(family), column))
    if of is int and isinstance(kind, types.Integer) and not isinstance(kind, types.Flags):
        if min(column) < kind.lowest or max(column) > kind.highest:
            raise NotVectorizable(path)
        return column
    if of is not str:
        raise NotVectorizable(path)
    return _each(column, read)


def _check(entries: Columns) -> None:
    """Raise `NotVectorizable` if `from_document` might reject or change one of the entries."""
    if sum(key in entries for key in ZONE_KEYS) > 1:
        raise NotVectorizable("zone")
    plain = default_replies(entries)
    if not any(key.startswith("nat.") for key in entries):
        if any(status & NAT_STATUS for status in set(entries.get("status", ()))):
            raise NotVectorizable("status")
    elif "reply.source" in entries:
        for end, answered_by, _bit in NAT_ENDS:
            for shown, asked in (
                (f"reply.{answered_by}", f"nat.{end}.address_min"),
                (f"reply.{answered_by}_port", f"nat.{end}.port_min"),
            ):
                if shown.endswith("_port") and not (shown in plain and asked in entries):
                    continue  # without a requested port, the kernel may have found another one free
                if entries[shown] not in (plain[shown], entries.get(asked)):
                    raise NotVectorizable(shown)


def _created(entries: Columns) -> Columns:
    first = creation({key: column[0] for key, column in entries.items()})
    plain = default_replies(entries)
    translated = any(key.startswith("nat.") for key in entries)
    requests = {**entries, **plain} if translated else {**plain, **entries}
    requests.setdefault("timeout", [DEFAULT_TIMEOUT] * len(plain["reply.source"]))
    if 0 in requests["timeout"]:
        raise NotVectorizable("timeout")
    if "status" in requests:
        requests["status"] = _each(requests["status"], sent_status)
    if "helper" not in first:
        requests.pop("helper", None)
    if first["original.protocol"] == uapi.IPPROTO_TCP:
        states = requests.get("tcp.state") or [0] * len(plain["reply.source"])
        for key in TCP_FLAGS:
            if key not in requests:
                requests[key] = _each(states, assumed_flags)
    check_states({key: max(requests[key]) for key in STATE_NAMES if key in requests})
    return _checked_against(first, requests)


#: Completes entries, as `entry.creation` does.
CREATION = ColumnTransform(
    creation, _created, lambda entries: [entries[key] for key in ("original.protocol", "helper") if key in entries]
)


def default_replies(entries: Columns) -> Columns:
    """Return `tuple.default_reply` of each."""
    original = tuple_of(entries, "original")
    icmp_types = original.pop("icmp_type", None)
    reply = reversed_tuple(original)
    if icmp_types is not None:
        protocol = original["protocol"][0]
        reply["icmp_type"] = _each(icmp_types, lambda icmp_type: answered_type(protocol, icmp_type))
        if None in reply["icmp_type"]:
            raise NotVectorizable("icmp_type")
    return with_tuple("reply", reply)


def _checked_against(first: Entry, entries: Columns) -> Columns:
    """Return the entries if the first one equals `first`. Raises `NotVectorizable`."""
    if {key: column[0] for key, column in entries.items()} != first:
        raise NotVectorizable("first")
    return entries


def _each(column: Iterable[Any], work: Callable[[Any], Any]) -> list[Any]:
    """Return `work` of each value, computed once for equal values."""
    return list(map(_Memo(work).__getitem__, column))


class _Memo(Dict[Any, Any]):
    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work

    def __missing__(self, key: Any) -> Any:
        value = self[key] = self._work(key)
        return value
