# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The document of an entry: the nested dictionary that modules, snapshots and events have, and that users write.

It has the keys of an entry (see entry.py) as nested dictionaries, addresses and names as strings, labels and status
bits as lists, and times in ISO 8601. The protocol stands once at the top::

    {"family": "ipv4", "protocol": "tcp", "original": {"source": "10.0.0.1", "source_port": 4000, …}, "reply": {…},
     "tcp": {"state": "established"}, "status": ["seen_reply", "assured"], "timeout": 600, "mark": 5}

The documentation of the module `conntrack_entry` describes each key.
"""

from __future__ import annotations

from typing import Any, Mapping

from ..codec import types
from ..codec.attributes import ENTRY
from ..codec.types import PROTOCOL
from ..errors import InvalidValue
from .entry import Entry, check_family, has_reply_alone
from .labels import NO_LABELS, LabelMap
from .nat import NAT_ENDS, Translation, nat_status_bits, requested_ends, requested_ranges, translations
from .nested import (
    Document,
    address_keys,
    check_mapping,
    check_tuple,
    declared_keys,
    no_such_key,
    present_family,
    put,
    read,
    read_extra,
    resolve_family,
    tree,
)
from .tuple import protocol_keys, reversed_tuple, tuple_of, with_tuple
from .zone import check_zones

#: Rows of the table that a document shows in another way.
_ELSEWHERE = frozenset(
    {"original.protocol", "reply.protocol", "mark", "labels"}
    | {row.key for row in ENTRY if row.key.startswith("nat.") or row.key.endswith("_mask")}
)

#: The original tuple without its zone.
_ORIGINAL = frozenset(row.key for row in ENTRY if row.key.startswith("original.")) - {"original.zone"}

_TREE = tree(row for row in ENTRY if row.key not in _ELSEWHERE)
_TOP = ("family", "protocol", *_TREE, "nat", "mark", "labels", "extra")


def from_document(document: Mapping[str, Any], labels: LabelMap = NO_LABELS, absent: bool = False) -> Entry:
    """Convert the document of an entry to the entry. A key that is None counts as absent.

    The result has family and protocol and a complete original tuple. It has a reply tuple only if the document has one.
    Read-only keys are converted and have no effect in requests. If the entry must be `absent`, the document may have a
    reply tuple alone; the result then has no original tuple.

    Raises `InvalidValue` with the path of the first fault, such as `original.source_port`.
    """
    given = declared_keys(document, _TOP)
    entry: Entry = {}
    for key, branch in _TREE.items():
        if key in given:
            read(branch, given[key], key, entry)
    if "mark" in given:
        entry["mark"], mask = types.parse_masked(given["mark"], "mark")
        if mask != 0xFFFFFFFF:
            entry["mark_mask"] = mask
    if "labels" in given:
        entry["labels"] = types.LABELS.parse(labels.to_bits(given["labels"], "labels"), "labels")
    if "nat" in given:
        _read_nat(given["nat"], entry)
    if "extra" in given:
        entry["extra"] = read_extra(given["extra"])
    _complete_protocol(given, entry)
    reply_alone = absent and has_reply_alone(entry)
    _complete_tuples(entry, reply_alone)
    entry["family"] = resolve_family(given, entry, _ADDRESSES, "original.source")
    check_family(entry["original.protocol"], entry["family"])
    check_zones(entry)
    if reply_alone:
        return {key: value for key, value in entry.items() if key not in _ORIGINAL}
    _check_translation(entry)
    return entry


def _read_nat(raw: Any, entry: Entry) -> None:
    check_mapping(raw, "nat")
    for end, what in raw.items():
        if end not in ("source", "destination"):
            raise no_such_key("nat", end, ("source", "destination"))
        if what is None:
            continue
        key = f"nat.{end}"
        check_mapping(what, key)
        given = {name: value for name, value in what.items() if value is not None}
        for name in given:
            if name not in ("address", "port"):
                raise no_such_key(key, name, ("address", "port"))
        if not given:
            raise InvalidValue(key, "specifies nothing; write an address, a port or both")
        if "address" in given:
            low, high = types.parse_address_range(given["address"], f"{key}.address")
            entry[f"{key}.address_min"], entry[f"{key}.address_max"] = low, high
        if "port" in given:
            first, last = types.parse_integer_range(given["port"], f"{key}.port", 0, 0xFFFF)
            entry[f"{key}.port_min"], entry[f"{key}.port_max"] = first, last


def _complete_protocol(given: Mapping[str, Any], entry: Entry) -> None:
    if "protocol" not in given:
        raise InvalidValue("protocol", "is missing; write a name such as tcp, or a number")
    protocol = PROTOCOL.parse(given["protocol"], "protocol")
    for name in ("tcp", "sctp", "dccp"):
        if name in given and protocol != types.PROTOCOLS[name]:
            raise InvalidValue(name, f"the protocol is {PROTOCOL.present(protocol)}; leave {name} out")
    for direction in ("original", "reply"):
        if tuple_of(entry, direction):
            entry[f"{direction}.protocol"] = protocol
    if "master" in given and "master.protocol" not in entry:
        entry["master.protocol"] = protocol


def _complete_tuples(entry: Entry, reply_alone: bool = False) -> None:
    """Derive the original tuple from the reply if it is missing, and check that every tuple is complete."""
    if not tuple_of(entry, "original"):
        if not tuple_of(entry, "reply"):
            raise InvalidValue("original", "is missing; write the source and destination")
        if not reply_alone and (requested_ends(entry) or nat_status_bits(entry)):
            raise InvalidValue(
                "original",
                "is missing; with NAT, it cannot be derived from reply, write both",
            )
        check_tuple(entry, "reply")
        original = _reversed_at("reply", entry)
        entry.update(with_tuple("original", original))
    for direction in ("original", "reply", "master"):
        if tuple_of(entry, direction):
            check_tuple(entry, direction)
    _reversed_at("original", entry)


def _reversed_at(direction: str, entry: Entry) -> dict[str, Any]:
    try:
        return reversed_tuple(tuple_of(entry, direction))
    except InvalidValue as fault:
        raise fault.under(direction) from None


_ADDRESSES = address_keys(ENTRY)


def _check_translation(entry: Entry) -> None:
    """Raise `InvalidValue` if `reply` has another translation than `nat` requests, or `status` one that neither has."""
    asked = requested_ends(entry)
    for end in asked:
        key = f"nat.{end}.port"
        if f"{key}_min" in entry and not protocol_keys(entry["original.protocol"]):
            name = PROTOCOL.present(entry["original.protocol"])
            raise InvalidValue(key, f"protocol {name} has no ports; leave it out")
    if "reply.source" not in entry:
        if nat_status_bits(entry) and not asked:
            raise InvalidValue(
                "reply",
                "is missing: by its status the entry has NAT, but neither nat nor reply has the new address; write nat",
            )
        return
    if not asked:
        if nat_status_bits(entry):
            for end, found in translations(entry).items():
                _request_translation(entry, end, found)
        return
    plain = reversed_tuple(tuple_of(entry, "original"))
    for end, answered_by, _bit in NAT_ENDS:
        shown, was = entry[f"reply.{answered_by}"], plain[answered_by]
        low = entry.get(f"nat.{end}.address_min", was)
        high = entry.get(f"nat.{end}.address_max", was)
        if shown != was and not low <= shown <= high:
            raise InvalidValue(
                f"reply.{answered_by}",
                f"{types.present_address(shown)} is neither {types.present_address(was)}, the address without NAT, nor "
                f"an address of nat.{end}; leave reply out",
            )
        port = f"{answered_by}_port"
        if port not in plain or f"nat.{end}.port_min" not in entry:
            continue  # without a requested port, the kernel may have found another one free
        first, last = entry[f"nat.{end}.port_min"], entry[f"nat.{end}.port_max"]
        if entry[f"reply.{port}"] != plain[port] and not first <= entry[f"reply.{port}"] <= last:
            raise InvalidValue(
                f"reply.{port}",
                f"{entry[f'reply.{port}']} is neither {plain[port]}, the port without NAT, nor a port of nat.{end}; "
                "leave reply out",
            )


def _request_translation(entry: Entry, end: str, found: Translation) -> None:
    """Request the translation that status and reply show."""
    key = f"nat.{end}"
    if found.address is not None:
        entry[f"{key}.address_min"] = entry[f"{key}.address_max"] = found.address
    if found.port is not None:
        entry[f"{key}.port_min"] = entry[f"{key}.port_max"] = found.port


def to_document(entry: Mapping[str, Any], labels: LabelMap = NO_LABELS) -> Document:
    """Convert an entry to its document. Numbers without a name stay numbers."""
    document: Document = {}
    if "family" in entry:
        document["family"] = present_family(entry["family"])
    protocol = entry.get("original.protocol", entry.get("reply.protocol"))
    if protocol is not None:
        document["protocol"] = PROTOCOL.present(protocol)
    for row in ENTRY:
        if row.key in entry and row.key not in _ELSEWHERE:
            put(document, row.key, row.kind.present(entry[row.key]))
    if not document.get("zone", True):
        del document["zone"]
    if "synproxy" in document and not any(document["synproxy"].values()):
        del document["synproxy"]
    if "mark" in entry:
        mask = entry.get("mark_mask")
        document["mark"] = entry["mark"] if mask is None else f"{entry['mark']:#x}/{mask:#x}"
    if entry.get("labels"):
        document["labels"] = labels.to_names(types.LABELS.present(entry["labels"]))
    nat = present_translation(entry)
    if nat:
        document["nat"] = nat
    if entry.get("extra"):
        document["extra"] = {path: data.hex() for path, data in entry["extra"].items()}
    return document


def present_translation(entry: Mapping[str, Any]) -> Document:
    """Return `nat` of a document: as requested, or else the NAT in force."""
    nat: Document = {}
    for end in requested_ends(entry):
        addresses, ports = requested_ranges(entry, end)
        requested: Document = {}
        if addresses is not None:
            low, high = map(types.present_address, addresses)
            requested["address"] = low if low == high else f"{low}-{high}"
        if ports is not None:
            first, last = ports
            requested["port"] = first if first == last else f"{first}-{last}"
        nat[end] = requested
    if nat:
        return nat
    for end, found in translations(entry).items():
        nat[end] = {}
        if found.address is not None:
            nat[end]["address"] = types.present_address(found.address)
        if found.port is not None:
            nat[end]["port"] = found.port
    return nat


def as_declaration(entry: Mapping[str, Any]) -> Entry:
    """Convert an entry that was read to an entry for a request that creates it again, with its NAT as a request."""
    return from_document(to_document(entry))
