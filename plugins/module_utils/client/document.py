# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documents of all things have in common: nested keys on one side, the rows of a table on the other."""

from __future__ import annotations

from typing import Any, Collection, Dict, Iterable, Mapping, Union

from . import values
from .attributes import Attribute
from .codec import Values
from .entry import UNTRACKED, protocol_keys, tuple_of
from .errors import InvalidValue
from .values import AF_INET, FAMILIES, PROTOCOL

Document = Dict[str, Any]
Tree = Dict[str, Union[Attribute, "Tree"]]

_FAMILY_NAMES = {number: name for name, number in FAMILIES.items()}


def tree(rows: Iterable[Attribute]) -> Tree:
    """The rows by the steps of their keys; rows that share a key have one kind for a user."""
    root: Tree = {}
    for row in rows:
        *steps, last = row.key.split(".")
        branch: Any = root
        for step in steps:
            branch = branch.setdefault(step, {})
        branch.setdefault(last, row)
    return root


def declared_keys(document: Any, known: Collection[str]) -> Document:
    """The keys of a document that are not None; `InvalidValue` for one that is not `known`."""
    check_mapping(document, "")
    given = {key: value for key, value in document.items() if value is not None}
    for key in given:
        if key not in known:
            raise InvalidValue(str(key), f"no such key; write one of {', '.join(sorted(known))}")
    return given


def check_mapping(raw: Any, key: str) -> None:
    if not isinstance(raw, Mapping):
        raise InvalidValue(key, f"{raw!r} is no dictionary; write keys and values")


def read(branch: Attribute | Tree, raw: Any, key: str, into: Values) -> None:
    """Take over what a document has under `key`, each value by the kind of its row."""
    if isinstance(branch, Attribute):
        into[key] = branch.kind.parse(raw, key)
        return
    check_mapping(raw, key)
    for name, value in raw.items():
        if name not in branch:
            raise InvalidValue(f"{key}.{name}", f"no such key; write one of {', '.join(sorted(branch))}")
        if value is not None:
            read(branch[name], value, f"{key}.{name}", into)


def read_extra(raw: Any) -> dict[str, bytes]:
    """Attributes that this version does not know, from hexadecimal."""
    check_mapping(raw, "extra")
    extra: dict[str, bytes] = {}
    for path, text in raw.items():
        try:
            extra[str(path)] = bytes.fromhex(text)
        except (TypeError, ValueError):
            raise InvalidValue(f"extra.{path}", f"{text!r} is not hexadecimal; write two digits per byte") from None
    return extra


def present_family(family: int) -> Any:
    """The name of a family, or its number if it has none."""
    return _FAMILY_NAMES.get(family, family)


def put(document: Document, key: str, value: Any) -> None:
    """Set what is under a path such as `tcp.state`."""
    *steps, last = key.split(".")
    for step in steps:
        document = document.setdefault(step, {})
    document[last] = value


def likewise(document: Mapping[str, Any], pattern: Mapping[str, Any]) -> Document:
    """The part of `document` that has the keys of `pattern`."""
    part: Document = {}
    for key, value in pattern.items():
        if key in document:
            below = document[key]
            part[key] = likewise(below, value) if isinstance(value, Mapping) else below
    return part


def check_tuple(thing: Mapping[str, Any], direction: str) -> None:
    """`InvalidValue` unless a tuple has both ends and just what its protocol asks for."""
    there = tuple_of(thing, direction)
    protocol = there["protocol"]
    name = PROTOCOL.present(protocol)
    wanted = protocol_keys(protocol)
    if protocol in UNTRACKED and not any(key in there for key in wanted):
        wanted = ()
    for key in there:
        if key not in ("source", "destination", "protocol", *wanted):
            cure = f"write {', '.join(wanted)}" if wanted else "leave it out"
            raise InvalidValue(f"{direction}.{key}", f"protocol {name} has no {key}; {cure}")
    for key in ("source", "destination", *wanted):
        if key not in there:
            raise InvalidValue(f"{direction}.{key}", f"is missing; write it, protocol {name} needs it")


def address_keys(rows: Iterable[Attribute]) -> tuple[str, ...]:
    """The keys of a table that hold addresses."""
    return tuple(row.key for row in rows if isinstance(row.kind, values.Address) and row.family == AF_INET)


def settle_family(given: Mapping[str, Any], thing: Mapping[str, Any], addresses: Iterable[str], first: str) -> int:
    """The family that is declared, or is that of the address `first`; all the others must be of it."""
    family = values.family_of(thing[first])
    if "family" in given:
        family = values.parse_name(given["family"], "family", FAMILIES, 255, "family")
        if family not in FAMILIES.values():
            raise InvalidValue("family", f"{given['family']!r} is no family; write ipv4 or ipv6")
    wanted = "IPv4" if family == AF_INET else "IPv6"
    said = "family" if "family" in given else first
    for key in addresses:
        if key in thing and values.family_of(thing[key]) != family:
            shown = key.replace("address_min", "address").replace("address_max", "address")
            raise InvalidValue(
                shown,
                f"{values.present_address(thing[key])} is not of {wanted} as {said} is; "
                "write all addresses in one family",
            )
    return family
