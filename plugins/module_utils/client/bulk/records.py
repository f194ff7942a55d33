# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records: the documents of entries with dotted keys, as snapshots have them.

A record has the keys (`original.source_port`) and the values of a document. Many entries have the same keys, so records
are written and read column by column. Records that are read go through all checks of a declaration.

A record has labels as bit numbers. It has no reply that equals the reversed original, and neither `id` nor `use`.
"""

from __future__ import annotations

import socket
from itertools import repeat
from operator import eq
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence, Tuple

from ..codec import types
from ..codec.attributes import ENTRY
from ..codec.types import PORT_PROTOCOLS, PROTOCOL, AttributeType
from ..entry.document import to_document
from ..entry.entry import Entry
from ..entry.nat import NAT_ENDS, NAT_STATUS
from ..entry.nested import Document, present_family, put
from ..entry.tuple import default_reply, tuple_of, with_tuple
from ..errors import InvalidValue
from .columns import Columns, ColumnTransform, NotVectorizable, RowTransform, batches
from .documents import completion_transform, default_replies, parse_transform

#: The keys of an entry, or of its document, and their values in the same order.
Record = Tuple[Tuple[str, ...], Sequence[Any]]

_SYNPROXY = tuple(row.key for row in ENTRY if row.key.startswith("synproxy."))
_NAT = tuple(f"nat.{end}.{what}" for end, _answered_by, _bit in NAT_ENDS for what in ("address", "port"))

#: Keys of a request for NAT, and the keys of the reply that show its result.
_PINNED = (
    ("nat.source.address", "reply.destination"),
    ("nat.source.port", "reply.destination_port"),
    ("nat.source.port", "reply.icmp_id"),
)

#: Keys that records do not have.
_LEFT_OUT = frozenset({"id", "use"})
#: Keys that have no effect when an entry is created.
_READ_ONLY = ("counters.", "timestamps.", "security_context", "extra")

#: The types of values that a document has under the same key as an entry, in its order.
_KINDS: dict[str, AttributeType] = {
    row.key: row.kind
    for row in ENTRY
    if not row.key.startswith("nat.")
    and not row.key.endswith("_mask")
    and row.key not in (*_LEFT_OUT, "original.protocol", "reply.protocol")
}
#: The keys that a record of an entry may have. None is the beginning of another.
KEYS = frozenset({"family", "protocol", *_KINDS, *_NAT, "extra"})


# from entries to records


def records(rows: Iterable[Record]) -> Iterator[Columns]:
    """Convert entries, as `Table.rows` yields them, to records. Yields columns of records with the same keys.

    Equal lists in them are mostly the same object. Reads some thousand entries ahead.
    """
    for batch in batches(rows):
        left = dict.fromkeys(range(len(batch)))
        for places, columns in _RECORDING.groups(batch):
            for place in places:
                del left[place]
            yield columns
        yield from in_columns(_record(batch[place]) for place in left)


def in_columns(several: Iterable[Mapping[str, Any]]) -> Iterator[Columns]:
    """Group records that are mappings to columns, by keys, family and protocol."""
    groups: dict[tuple[Any, ...], Columns] = {}
    for record in several:
        layout = (*record, record.get("family"), record.get("protocol"))
        columns = groups.setdefault(layout, {key: [] for key in record})
        for key, value in record.items():
            columns[key].append(value)
    yield from groups.values()


def flat(document: Mapping[str, Any], above: str = "") -> Document:
    """Return a document with dotted keys."""
    record: Document = {}
    for key, value in document.items():
        if isinstance(value, dict) and key != "extra":
            record.update(flat(value, f"{above}{key}."))
        else:
            record[above + key] = value
    return record


def _record(row: Record) -> Document:
    entry: Entry = {}
    for key, value in zip(*row):
        if key.startswith("extra."):
            entry.setdefault("extra", {})[key.partition(".")[2]] = value
        else:
            entry[key] = value
    if _is_plain(entry):
        entry = {key: value for key, value in entry.items() if not _is_of_reply(key)}
    return {key: value for key, value in flat(to_document(entry)).items() if key not in _LEFT_OUT}


def _is_of_reply(key: str) -> bool:
    return key.startswith("reply.") and key != "reply.zone"


def _is_plain(entry: Mapping[str, Any]) -> bool:
    """Whether the reply is the reversed original."""
    if entry.get("status", 0) & NAT_STATUS:
        return False
    try:
        return with_tuple("reply", tuple_of(entry, "reply")) == default_reply(entry)
    except InvalidValue:
        return False


def _group_by(columns: Columns) -> Iterator[Sequence[Any]]:
    status = columns.get("status", [0] * len(columns["original.source"]))
    yield [bits & NAT_STATUS for bits in status]
    plain = default_replies(columns)
    yield list(map(eq, zip(*plain.values()), zip(*[columns[key] for key in plain])))
    if _SYNPROXY[0] in columns:
        yield list(map(any, zip(*[columns[key] for key in _SYNPROXY])))


def _record_all(columns: Columns) -> Columns:
    """Return `_record` of each."""
    if any(0 in columns.get(key, ()) for key in ("zone", "labels")) or any(key.startswith("extra") for key in columns):
        raise NotVectorizable("absent")
    first = {key: column[0] for key, column in columns.items()}
    number, family, protocol = len(columns["original.source"]), first["family"], first["original.protocol"]
    shown: Columns = {"family": [present_family(family)] * number, "protocol": [PROTOCOL.present(protocol)] * number}
    plain, unproxied = _is_plain(first), not any(first.get(key) for key in _SYNPROXY)
    for key, kind in _KINDS.items():
        if key in columns and not (plain and _is_of_reply(key)) and not (unproxied and key in _SYNPROXY):
            shown[key] = _presented(columns[key], kind, family)
    for end, answered_by, bit in NAT_ENDS:
        if first.get("status", 0) & bit and "reply.source" in columns:
            if protocol not in PORT_PROTOCOLS:
                raise NotVectorizable("nat")  # an id or a key is shown only if NAT changed it
            shown[f"nat.{end}.address"] = shown[f"reply.{answered_by}"]
            shown[f"nat.{end}.port"] = shown[f"reply.{answered_by}_port"]
    return shown


def _presented(column: Sequence[Any], kind: AttributeType, family: int) -> list[Any]:
    if isinstance(kind, types.Address):
        return list(map(socket.inet_ntop, repeat(family), column))
    if kind.__class__ is types.Integer:  # its own, and no flags
        return list(column)
    return list(map({value: kind.present(value) for value in set(column)}.__getitem__, column))


_RECORDING = RowTransform(_record, _record_all, _group_by)


# from records to entries


def entries() -> RowTransform:
    """Return the conversion of records to entries."""
    return _reading(_with_reply(parse_transform()), dict)


def declarations() -> RowTransform:
    """Return the conversion of records to declared entries, without read-only keys and with a timeout of at least 1.

    Their NAT has single addresses and ports, except for the keys of GRE.
    """
    return _reading(_with_reply(parse_transform()), _declared)


def creations() -> RowTransform:
    """Return the conversion of records to complete entries (see `entry.creation`)."""
    return _reading(completion_transform(), _declared)


def document_of(row: Record) -> Document:
    """Return the document of a record."""
    document: Document = {}
    for key, value in zip(*row):
        put(document, key, value)
    return document


def _with_reply(work: ColumnTransform) -> ColumnTransform:
    """Return a conversion that also adds the reply that a record leaves out."""

    def scalar(document: Document) -> Entry:
        entry = work.scalar(document)
        return entry if any(key.startswith("nat.") for key in entry) else {**default_reply(entry), **entry}

    def columns(documents: Columns) -> Columns:
        done = work.columns(documents)
        return done if any(key.startswith("nat.") for key in done) else {**default_replies(done), **done}

    return work._replace(scalar=scalar, columns=columns)


def _reading(work: ColumnTransform, prepare: Callable[[Columns], Columns]) -> RowTransform:
    """Return a conversion of documents as a conversion of records."""

    def first(columns: Columns) -> Document:
        return document_of((tuple(columns), tuple(column[0] for column in columns.values())))

    def scalar(row: Record) -> dict[str, Any]:
        return work.scalar(first(prepare({key: [value] for key, value in zip(*row)})))

    def convert(columns: Columns) -> Columns:
        prepared = prepare(columns)
        return work.columns({"": [first(prepared)] * len(columns["original.source"]), **prepared})

    return RowTransform(scalar, convert, work.group_by)


def _declared(columns: Columns) -> Columns:
    kept = {key: column for key, column in columns.items() if not key.startswith(_READ_ONLY)}
    if 0 in kept.get("timeout", ()):
        kept["timeout"] = [seconds or 1 for seconds in kept["timeout"]]
    if any(key in kept for key in _NAT):
        # Where the source is left open, the kernel gives it another port if an entry is in the way
        for asked, shown in _PINNED:
            if asked not in kept and shown in kept:
                kept[asked] = kept[shown]
    return kept
