# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents of expectations: nested dictionaries with addresses and names as strings."""

from __future__ import annotations

from typing import Any, Mapping

from ..codec.types import PROTOCOL
from ..entry.entry import UNTRACKED, check_family
from ..entry.nested import (
    Document,
    address_keys,
    check_tuple,
    declared_keys,
    present_family,
    put,
    read,
    read_extra,
    resolve_family,
    tree,
)
from ..entry.tuple import protocol_keys, tuple_of
from ..errors import InvalidValue
from .attributes import DIRECTIONS, EXPECTATION, OF_SOURCE, Expectation, full_mask, is_zero

_TREE = tree(EXPECTATION)
_TOP = ("family", *_TREE, "extra")
_ADDRESSES = address_keys(EXPECTATION)


def from_document(document: Mapping[str, Any]) -> Expectation:
    """Convert the document of an expectation to the expectation. A key that is None counts as absent.

    A document has the same keys as nested dictionaries, with addresses and names as strings: `{"tuple": {"protocol":
    "tcp", "destination": "192.0.2.1", "destination_port": 2000}, "master": {…}}`. The result has a family and a
    complete tuple, with 0 for a source that was left out. Read-only keys are converted and have no effect in requests.
    Raises `InvalidValue` with the path of the first fault.
    """
    given = declared_keys(document, _TOP)
    expectation: Expectation = {}
    for key, branch in _TREE.items():
        if key in given:
            read(branch, given[key], key, expectation)
    if "extra" in given:
        expectation["extra"] = read_extra(given["extra"])
    for key, cure in (
        ("tuple.protocol", "a name such as tcp, or a number"),
        ("tuple.destination", "where the connection is expected to go"),
    ):
        if key not in expectation:
            raise InvalidValue(key, f"is missing; write {cure}")
    expectation["family"] = resolve_family(given, expectation, _ADDRESSES, "tuple.destination")
    _complete_tuple(expectation)
    _complete_mask(expectation)
    if tuple_of(expectation, "master"):
        expectation.setdefault("master.protocol", expectation["tuple.protocol"])
        check_tuple(expectation, "master")
        check_family(expectation["master.protocol"], expectation["family"])
    if "nat" in given:
        _complete_nat(expectation)
    return expectation


def _complete_tuple(expectation: Expectation) -> None:
    protocol = expectation["tuple.protocol"]
    expectation.setdefault("tuple.source", bytes(len(expectation["tuple.destination"])))
    named = protocol_keys(protocol)
    if protocol not in UNTRACKED or any(f"tuple.{name}" in expectation for name in named):
        for name in named:
            if name in OF_SOURCE:
                expectation.setdefault(f"tuple.{name}", 0)
    check_tuple(expectation, "tuple")
    check_family(protocol, expectation["family"])


def _complete_mask(expectation: Expectation) -> None:
    there = tuple_of(expectation, "tuple")
    for name, value in tuple_of(expectation, "mask").items():
        key = f"mask.{name}"
        if name not in there:
            raise InvalidValue(key, f"the tuple has no {name}; leave it out")
        if name == "protocol" and value != there[name]:
            raise InvalidValue(key, f"it is {PROTOCOL.present(there[name])} in the tuple; leave it out")
        if name not in (*OF_SOURCE, "protocol") and value != full_mask(name, value):
            raise InvalidValue(key, "the kernel compares it in full; only the source can have a mask, leave it out")


def _complete_nat(expectation: Expectation) -> None:
    there = tuple_of(expectation, "nat.tuple")
    if "nat.direction" not in expectation:
        raise InvalidValue("nat.direction", f"is missing; write {' or '.join(DIRECTIONS)}")
    if expectation["nat.direction"] not in DIRECTIONS.values():
        raise InvalidValue("nat.direction", f"is neither; write {' or '.join(DIRECTIONS)}")
    # The kernel stores no protocol for it, and reports that of the master
    protocol = expectation["master.protocol" if "master.protocol" in expectation else "tuple.protocol"]
    if there.get("protocol", protocol) != protocol:
        raise InvalidValue(
            "nat.tuple.protocol", f"it is the protocol of the master, {PROTOCOL.present(protocol)}; leave it out"
        )
    named = [name for name in protocol_keys(protocol) if name in OF_SOURCE]
    for name, value in there.items():
        if name in ("protocol", "source", *named):
            continue
        if name not in ("destination", *protocol_keys(protocol)) or not is_zero(value):
            cure = ", ".join(("source", *named))
            raise InvalidValue(f"nat.tuple.{name}", f"the kernel keeps none; write {cure}")
    if all(is_zero(there.get(name, 0)) for name in ("source", *named)):
        raise InvalidValue("nat.tuple", f"specifies nothing; write {', '.join(('source', *named))} or some of them")


def to_document(expectation: Mapping[str, Any]) -> Document:
    """Convert an expectation to its document."""
    document: Document = {}
    if "family" in expectation:
        document["family"] = present_family(expectation["family"])
    for row in EXPECTATION:
        if row.key not in expectation:
            continue
        value, name = expectation[row.key], row.key.rpartition(".")[2]
        if row.key == "zone" and not value:
            continue
        if row.key.startswith("nat.tuple.") and name.startswith("destination") and is_zero(value):
            continue  # without a meaning there, and always 0
        put(document, row.key, row.kind.present(value))
    if expectation.get("extra"):
        document["extra"] = {path: data.hex() for path, data in expectation["extra"].items()}
    return document
