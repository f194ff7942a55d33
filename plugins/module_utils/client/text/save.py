# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines that `conntrack -L -o save` prints and `conntrack -R` loads: a command for each entry.

If an entry lacks a value that `-R` requires, its default is written.

Source: the output of conntrack(8) 1.4.7, and the entries that it creates from its own lines.
"""

from __future__ import annotations

import socket
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple

from .. import uapi
from ..codec import types
from ..entry.creation import DEFAULT_TIMEOUT
from ..entry.entry import OFFLOADED, Entry
from ..entry.labels import LabelMap
from ..entry.nat import NAT_ENDS, port_key
from ..entry.tuple import default_reply, reversed_tuple, tuple_of, with_tuple
from ..errors import InvalidValue
from .commands import COMMAND, COMMON, UPDATE_OPTIONS, Given, from_octal, in_quotes, read_command, table_of
from .common import (
    KINDS,
    STATE_KEYS,
    NoEntry,
    Show,
    Unknown,
    as_listed,
    checked,
    printable,
    read_labels,
    read_lines,
    read_state,
    state_of,
)

#: Status bits that a line has. `expected` is left out: the kernel accepts it only with a master.
_STATUS = {
    "SEEN_REPLY": uapi.IPS_SEEN_REPLY,
    "ASSURED": uapi.IPS_ASSURED,
    "FIXED_TIMEOUT": uapi.IPS_FIXED_TIMEOUT,
}
_READ_STATUS = {"UNSET": 0, **{name.upper(): bit for name, bit in types.STATUS_BITS.items()}}


class _Option(NamedTuple):
    """An option, its key, its aliases, and its value if an entry has none."""

    name: str
    key: str
    aliases: tuple[str, ...] = ()
    default: Any = None


_ADDRESSES = (
    _Option("-s", "original.source", ("--src", "--orig-src")),
    _Option("-d", "original.destination", ("--dst", "--orig-dst")),
    _Option("-r", "reply.source", ("--reply-src",)),
    _Option("-q", "reply.destination", ("--reply-dst",)),
)
_PORTS = (
    _Option("--sport", "original.source_port", ("--orig-port-src",), 0),
    _Option("--dport", "original.destination_port", ("--orig-port-dst",), 0),
    _Option("--reply-port-src", "reply.source_port", (), 0),
    _Option("--reply-port-dst", "reply.destination_port", (), 0),
)
_KEYS = (
    _Option("--srckey", "original.source_key", ("--orig-key-src",), 0),
    _Option("--dstkey", "original.destination_key", ("--orig-key-dst",), 0),
    _Option("--reply-key-src", "reply.source_key", (), 0),
    _Option("--reply-key-dst", "reply.destination_key", (), 0),
)
_ICMP, _ICMPV6 = (
    tuple(_Option(f"--{prefix}-{name}", f"original.icmp_{name}", (), 0) for name in ("type", "code", "id"))
    for prefix in ("icmp", "icmpv6")
)
_SCTP = (
    _Option("--orig-vtag", "sctp.original_vtag", (), 0),
    _Option("--reply-vtag", "sctp.reply_vtag", (), 0),
)
_DCCP = (_Option("--role", "dccp.role", (), types.DCCP_ROLES["client"]),)
_ZONES = (
    _Option("-w", "zone", ("--zone",)),
    _Option("--orig-zone", "original.zone"),
    _Option("--reply-zone", "reply.zone"),
)

#: The options of a protocol besides addresses, before and after the state.
_OF_PROTOCOL: dict[int, tuple[_Option, ...]] = {
    uapi.IPPROTO_ICMP: _ICMP,
    uapi.IPPROTO_ICMPV6: _ICMPV6,
    uapi.IPPROTO_GRE: _KEYS,
    **dict.fromkeys(types.PORT_PROTOCOLS, _PORTS),
}
_AFTER_STATE: dict[int, tuple[_Option, ...]] = {uapi.IPPROTO_SCTP: _SCTP, uapi.IPPROTO_DCCP: _DCCP}

#: The meaning of each option: a key of an entry, or a word such as `state` for values that need more than parsing.
_TARGETS: dict[str, str] = {
    **COMMON,
    **{
        name: option.key
        for option in (*_ADDRESSES, *_PORTS, *_KEYS, *_ICMP, *_ICMPV6, *_SCTP, *_DCCP, *_ZONES)
        for name in (option.name, *option.aliases)
    },
    **dict.fromkeys(("-t", "--timeout"), "timeout"),
    **dict.fromkeys(("-m", "--mark"), "mark"),
    **dict.fromkeys(("-u", "--status"), "status"),
    **dict.fromkeys(("-p", "--protonum"), "protocol"),
    **dict.fromkeys(("-l", "--label", "--label-add"), "labels"),
    **dict.fromkeys(("-n", "--src-nat"), "source-nat"),
    **dict.fromkeys(("-g", "--dst-nat"), "destination-nat"),
    "--state": "state",
}
#: Options whose value may be left out. An option for NAT is then a condition, not a request.
_OPTIONAL = frozenset({COMMAND, "source-nat", "destination-nat"})
#: Numbers that the program reads as C does: a leading 0 means octal.
_OCTAL = frozenset({"mark", "protocol", *(option.key for option in (*_ZONES, *_KEYS, *_SCTP))})


def write(entries: Iterable[Mapping[str, Any]], show: Show, labels: LabelMap, now: float) -> str:
    """Return one line for each entry, with its labels if `show` has them."""
    lines = (" ".join(["-A", *_options(as_listed(entry), show, labels)]) for entry in entries)
    return "".join(line + "\n" for line in lines)


def _options(entry: Entry, show: Show, labels: LabelMap) -> Iterator[str]:
    protocol = entry["original.protocol"]
    yield f"-t {entry.get('timeout', DEFAULT_TIMEOUT)}"
    if "status" in entry:
        yield "-u " + (",".join(name for name, bit in _STATUS.items() if entry["status"] & bit) or "UNSET")
    if entry.get("mark"):
        yield f"-m {entry['mark']}"
    yield from (f"{option.name} {entry[option.key]}" for option in _ZONES if entry.get(option.key))
    if show.labels and entry.get("labels"):
        names = map(str, labels.to_names(types.LABELS.present(entry["labels"])))
        yield f"--label-add {in_quotes(','.join(names), 'labels')}"
    yield from _addresses(entry)
    name = types.PROTOCOL.present(protocol)
    yield f"-p {name}"
    yield from (_shown(option, entry) for option in _OF_PROTOCOL.get(protocol, ()))
    if protocol in STATE_KEYS:
        offloaded = entry.get("status", 0) & OFFLOADED
        yield "--state " + (state_of(entry) or ("ESTABLISHED" if offloaded and name != "dccp" else "NONE"))
    yield from (_shown(option, entry) for option in _AFTER_STATE.get(protocol, ()))


def _shown(option: _Option, entry: Entry) -> str:
    value = KINDS[option.key].present(entry.get(option.key, option.default))
    # The program writes and reads verification tags with their bytes in the order of the machine
    return f"{option.name} {socket.htonl(value) if option in _SCTP else value}"


def _addresses(entry: Entry) -> Iterator[str]:
    """Yield the options for addresses. NATed addresses of the reply are under `-n` and `-g`.

    The program takes the translated port from the reply. Only if both ends or the port alone are translated, or for an
    ICMP id, it must be written.
    """
    plain = default_reply(entry)
    moved_ends: dict[str, tuple[str, str | None]] = {}
    for name, (_end, answered_by, bit) in zip(("-n", "-g"), NAT_ENDS):
        key, port = f"reply.{answered_by}", port_key(entry, "reply", answered_by)
        moved = port if port and entry.get(port) != plain.get(port) else None
        if entry.get("status", 0) & bit and (moved or entry[key] != plain[key]):
            moved_ends[key] = name, moved
    for option in _ADDRESSES:
        key, address = option.key, types.present_address(entry[option.key])
        name, port = moved_ends.get(key, (option.name, None))
        if port and (len(moved_ends) == len(NAT_ENDS) or entry[key] == plain[key] or port.endswith("icmp_id")):
            address = f"[{address}]:{entry[port]}" if ":" in address else f"{address}:{entry[port]}"
        yield f"{name} {address}"


def read(text: str, labels: LabelMap, unknown: Unknown) -> list[Entry]:
    """Parse all commands. Raises `Unreadable` for the first line that does not create or update an entry."""
    return read_lines(text, lambda line: checked(_line(line, labels, unknown)), unknown)


def _line(line: str, labels: LabelMap, unknown: Unknown) -> Entry:
    entry: Entry = {}
    given = read_command(line, _TARGETS, _OPTIONAL, entry, unknown)
    if table_of(given) != "conntrack":
        raise NoEntry(given[COMMAND][0], f"the table is {table_of(given)}; put its lines into another file")
    if "protocol" not in given:
        raise InvalidValue("-p", "is missing; write the protocol's name or number")
    option, raw = given["protocol"]
    protocol = types.PROTOCOL.parse(from_octal(raw, option), option)
    entry["original.protocol"] = protocol
    for target, (option, raw) in given.items():
        raw = from_octal(raw, option) if target in _OCTAL else raw
        read_as = _READERS.get(target)
        if read_as is not None:
            entry.update(read_as(raw, option, protocol, labels))
        elif target in KINDS:
            value = KINDS[target].parse(raw, option)
            entry[target] = socket.ntohl(value) if target.endswith("_vtag") else value
    if given.get("state", ("", ""))[1] == "(null)":
        entry = {key: value for key, value in entry.items() if not key.startswith("sctp.")}
    if given[COMMAND][0] in UPDATE_OPTIONS:
        _check_update(given)
    return _with_reply(entry, given)


def _check_update(given: Given) -> None:
    """Raise `NoEntry` for `-U` without a complete entry: it changes all entries that match."""
    named = {target for target, (_option, raw) in given.items() if raw}
    if not {"original.source", "original.destination"} <= named or not all(
        {f"reply.{answered_by}", f"{end}-nat"} & named for end, answered_by, _bit in NAT_ENDS
    ):
        raise NoEntry("-U", "changes existing entries that match; use -A, or name all four addresses of the entry")
    if "/" in given.get("mark", ("", ""))[1]:
        raise NoEntry("-U", f"{printable(given['mark'][1])} changes some bits of the mark; write the whole mark")


def _read_status(raw: str, option: str, protocol: int, labels: LabelMap) -> Entry:
    status = 0
    for name in raw.upper().split(","):
        if name not in _READ_STATUS:
            raise InvalidValue(option, f"{name!r} is not a status; write {types.listing(_READ_STATUS)}")
        status |= _READ_STATUS[name]
    return {"status": status}


def _read_mark(raw: str, option: str, protocol: int, labels: LabelMap) -> Entry:
    """Read a mark without its mask, which the program ignores when it creates an entry."""
    value, slash, mask = raw.partition("/")
    if slash:
        types.parse_integer(mask, option, 0, 0xFFFFFFFF)
    return {"mark": types.parse_integer(value, option, 0, 0xFFFFFFFF)}


def _read_labels(raw: str, option: str, protocol: int, labels: LabelMap) -> Entry:
    return read_labels(raw.split(","), option, labels)


def _read_state(raw: str, option: str, protocol: int, labels: LabelMap) -> Entry:
    if raw == "(null)":  # the program has no name for this SCTP state
        return {}
    return read_state(raw, protocol)


_READERS: dict[str, Callable[[str, str, int, LabelMap], Entry]] = {
    "status": _read_status,
    "mark": _read_mark,
    "labels": _read_labels,
    "state": _read_state,
}


def _with_reply(entry: Entry, given: Mapping[str, tuple[str, str]]) -> Entry:
    """Complete both tuples of an entry, with defaults for options that the line lacks."""
    if "original.source" not in entry and "reply.source" in entry:
        reply = {"protocol": entry["original.protocol"], **tuple_of(entry, "reply")}
        entry.update(with_tuple("original", reversed_tuple(reply)))
    entry = {**default_reply(entry), **entry}
    for end, answered_by, bit in NAT_ENDS:
        option, raw = given.get(f"{end}-nat", ("", ""))
        if not raw:
            continue
        address, port = _address_and_port(raw, option)
        entry[f"reply.{answered_by}"] = types.parse_address(address, option)
        key = port_key(entry, "reply", answered_by)
        if port:
            if key is None:
                raise InvalidValue(option, f"the protocol has no ports; leave :{port} out")
            entry[key] = KINDS[key].parse(port, option)
        entry["status"] = entry.get("status", 0) | bit
    return entry


def _address_and_port(raw: str, option: str) -> tuple[str, str]:
    """Split `a`, `a:p` or `[a]:p` into address and port, which may be empty. Brackets require a port."""
    if raw.startswith("["):
        address, bracket, port = raw[1:].partition("]")
        if not bracket or not port.startswith(":") or port == ":":
            without = f"{address} or [{address}]:PORT"
            raise InvalidValue(option, f"{raw!r} has brackets and no port; write {without}")
        return address, port[1:]
    address, colon, port = raw.partition(":")
    if ":" in port:
        return raw, ""
    if colon and not port:
        raise InvalidValue(option, f"{raw!r} has no port after the colon; write {address} or {address}:PORT")
    return address, port
