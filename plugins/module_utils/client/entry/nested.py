# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents: nested dictionaries of strings, numbers, booleans and lists, and their conversion by attribute tables."""

from __future__ import annotations

from typing import Any, Collection, Dict, Iterable, Mapping, Union

from ..codec import types
from ..codec.attributes import Attribute
from ..codec.codec import Values
from ..codec.types import AF_INET, FAMILIES, PROTOCOL
from ..errors import InvalidValue, quoted
from .entry import UNTRACKED
from .tuple import protocol_keys, tuple_of

Document = Dict[str, Any]
Tree = Dict[str, Union[Attribute, "Tree"]]

_FAMILY_NAMES = {number: name for name, number in FAMILIES.items()}


def tree(rows: Iterable[Attribute]) -> Tree:
    """Return the rows of a table as a tree of the steps of their keys."""
    root: Tree = {}
    for row in rows:
        *steps, last = row.key.split(".")
        branch: Any = root
        for step in steps:
            branch = branch.setdefault(step, {})
        branch.setdefault(last, row)
    return root


def declared_keys(document: Any, known: Collection[str]) -> Document:
    """Return the keys of a document that are not None. Raises `InvalidValue` for a key that is not `known`."""
    check_mapping(document, "")
    given = {key: value for key, value in document.items() if value is not None}
    for key in given:
        if key not in known:
            raise no_such_key("", key, known)
    return given


def _in_tuple(name: str) -> tuple[str, ...]:
    """Return the keys of a match, of an entry and of an expectation for a key of the original tuple."""
    return name, f"original.{name}", f"tuple.{name}"


#: Words of conntrack(8), iptables and nftables, and their keys here, of which a message names the first that exists.
_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("src saddr ip_saddr ip6_saddr orig_src ctorigsrc src_ip", _in_tuple("source")),
    ("dst daddr ip_daddr ip6_daddr orig_dst ctorigdst dst_ip", _in_tuple("destination")),
    ("reply_src reply_saddr ctreplsrc", ("reply_source", "reply.source")),
    ("reply_dst reply_daddr ctrepldst", ("reply_destination", "reply.destination")),
    ("sport src_port orig_port_src ctorigsrcport tcp_sport udp_sport th_sport", _in_tuple("source_port")),
    ("dport dst_port orig_port_dst ctorigdstport tcp_dport udp_dport th_dport", _in_tuple("destination_port")),
    ("reply_port_src reply_sport ctreplsrcport", ("reply_source_port", "reply.source_port")),
    ("reply_port_dst reply_dport ctrepldstport", ("reply_destination_port", "reply.destination_port")),
    ("proto prot protonum l4proto ctproto ip_protocol nexthdr", ("protocol", "tuple.protocol")),
    ("l3proto l3protonum nfproto ip_version", ("family",)),
    ("connmark ctmark ct_mark fwmark nfmark", ("mark",)),
    ("ctzone ct_zone", ("zone",)),
    ("orig_zone", ("original_zone", "original.zone")),
    ("label connlabel ctlabel ct_label", ("labels",)),
    ("state ctstate ct_state tcp_state", ("state", "tcp.state")),
    ("ctstatus ct_status", ("status",)),
    ("timeout expires expiration ctexpire ct_expiration", ("timeout", "timeout_below or timeout_above")),
    ("bytes ct_bytes connbytes", ("bytes_below or bytes_above",)),
    ("packets ct_packets", ("packets_below or packets_above",)),
    ("age delta_time", ("age_below or age_above",)),
    ("any_nat", ("nat: any",)),
    ("snat src_nat", ("nat: source", "nat.source")),
    ("dnat dst_nat", ("nat: destination", "nat.destination")),
    ("ct_helper", ("helper",)),
    ("type", ("icmp_type", "original.icmp_type")),
    ("code", ("icmp_code", "original.icmp_code")),
    ("srckey", ("source_key", "original.source_key")),
    ("dstkey", ("destination_key", "original.destination_key")),
    ("secctx", ("security_context",)),
)
_SYSCTL = "nf_conntrack_"
#: Characters of an unknown key that a message quotes.
_LONGEST = 80


def no_such_key(parent: str, name: Any, known: Collection[str]) -> InvalidValue:
    """Return the error for a key that does not exist below `parent`, with the key to write instead, or all keys."""
    text = name if isinstance(name, str) and name.isprintable() else quoted(name)
    path = f"{parent}.{text[:_LONGEST]}" if parent else text[:_LONGEST]
    word = text.lower().strip().lstrip("-").replace("-", "_").replace(" ", "_").rpartition(_SYSCTL)[2]
    meant = [key for words, keys in _WORDS if word in words.split() for key in keys]
    for key in (word, *meant):
        if key.replace(":", ".").replace(" ", ".").partition(".")[0] in known:
            return InvalidValue(path, f"no such key; write {key}")
    from difflib import get_close_matches

    close = get_close_matches(word, known, 1)
    if close:
        return InvalidValue(path, f"no such key (did you mean {close[0]}?)")
    return InvalidValue(path, f"no such key; write one of {', '.join(sorted(known))}")


def check_mapping(raw: Any, key: str) -> None:
    """Raise `InvalidValue` if the value under `key` is not a dictionary."""
    if not isinstance(raw, Mapping):
        raise InvalidValue(key, f"{quoted(raw)} is not a dictionary; write keys and values")


def read(branch: Attribute | Tree, raw: Any, key: str, into: Values) -> None:
    """Parse the value under `key` into flat values. Raises `InvalidValue` with the path of the first fault."""
    if isinstance(branch, Attribute):
        into[key] = branch.kind.parse(raw, key)
        return
    check_mapping(raw, key)
    for name, value in raw.items():
        if name not in branch:
            raise no_such_key(key, name, branch)
        if value is not None:
            read(branch[name], value, f"{key}.{name}", into)


def read_extra(raw: Any) -> dict[str, bytes]:
    """Convert `extra` of a document, unknown attributes in hexadecimal, to bytes. Raises `InvalidValue`."""
    check_mapping(raw, "extra")
    extra: dict[str, bytes] = {}
    for key, text in raw.items():
        path = key if isinstance(key, str) else quoted(key)
        try:
            extra[path] = bytes.fromhex(text)
        except (TypeError, ValueError):
            problem = f"{quoted(text)} is not hexadecimal; write two digits per byte"
            raise InvalidValue(f"extra.{path}", problem) from None
    return extra


def present_family(family: int) -> Any:
    """Return the name of a family (`ipv4`, `ipv6`), or its number if it has none."""
    return _FAMILY_NAMES.get(family, family)


def put(document: Document, key: str, value: Any) -> None:
    """Set the value under a path such as `tcp.state`."""
    *steps, last = key.split(".")
    for step in steps:
        document = document.setdefault(step, {})
    document[last] = value


def likewise(document: Mapping[str, Any], pattern: Mapping[str, Any]) -> Document:
    """Return the part of `document` that has the keys of `pattern`."""
    part: Document = {}
    for key, value in pattern.items():
        if key in document:
            below = document[key]
            part[key] = likewise(below, value) if isinstance(value, Mapping) else below
    return part


def check_tuple(thing: Mapping[str, Any], direction: str) -> None:
    """Raise `InvalidValue` if a tuple lacks an end or a key of its protocol, or has a key that its protocol lacks."""
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
    """Return the keys of a table that hold addresses."""
    return tuple(row.key for row in rows if isinstance(row.kind, types.Address) and row.family == AF_INET)


def resolve_family(given: Mapping[str, Any], thing: Mapping[str, Any], addresses: Iterable[str], first: str) -> int:
    """Return the declared family, or that of the address `first`. Raises `InvalidValue` if other addresses differ."""
    family = types.family_of(thing[first])
    if "family" in given:
        family = types.parse_name(given["family"], "family", FAMILIES, 255, "family")
        if family not in FAMILIES.values():
            raise InvalidValue("family", f"{quoted(given['family'])} is not a family; write ipv4 or ipv6")
    wanted = "IPv4" if family == AF_INET else "IPv6"
    said = "family" if "family" in given else first
    for key in addresses:
        if key in thing and types.family_of(thing[key]) != family:
            shown = key.replace("address_min", "address").replace("address_max", "address")
            raise InvalidValue(
                shown,
                f"{types.present_address(thing[key])} is not of {wanted} as {said} is; "
                "write all addresses in one family",
            )
    return family
