# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines that `conntrack -L -o save` prints and `conntrack -R` loads: a command to each entry.

What `-R` insists on and an entry does not say is written as creating it would have it. Source: the
output of conntrack(8) 1.4.7, and the entries that it makes of its own lines.
"""

from __future__ import annotations

import shlex
import socket
import sys
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple

from .. import uapi, values
from ..entry import DEFAULT_TIMEOUT, OFFLOADED, Entry, tuple_of, turned, with_tuple
from ..errors import InvalidValue
from ..labels import LabelMap
from .common import (
    ENDS,
    KINDS,
    STATES,
    Show,
    Unreadable,
    as_listed,
    checked,
    port_key,
    read_labels,
    read_state,
    state_of,
    word,
)

#: Status bits that a line names. `expected` is left out: the kernel takes it only with a master.
_STATUS = {
    "SEEN_REPLY": uapi.IPS_SEEN_REPLY,
    "ASSURED": uapi.IPS_ASSURED,
    "FIXED_TIMEOUT": uapi.IPS_FIXED_TIMEOUT,
}
_READ_STATUS = {"UNSET": 0, **{name.upper(): bit for name, bit in values.STATUS_BITS.items()}}

_COMMANDS = frozenset({"-A", "--add", "-I", "--create", "-U", "--update", "-D", "--delete"})


class _Option(NamedTuple):
    """An option, the key it stands for, other ways to write it, and its value if an entry has none."""

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
_DCCP = (_Option("--role", "dccp.role", (), values.DCCP_ROLES["client"]),)
_ZONES = (
    _Option("-w", "zone", ("--zone",)),
    _Option("--orig-zone", "original.zone"),
    _Option("--reply-zone", "reply.zone"),
)

#: What an entry of a protocol has besides its ports: state, then these.
_OF_PROTOCOL: dict[int, tuple[_Option, ...]] = {
    uapi.IPPROTO_ICMP: _ICMP,
    uapi.IPPROTO_ICMPV6: _ICMPV6,
    uapi.IPPROTO_GRE: _KEYS,
    **dict.fromkeys(values.PORT_PROTOCOLS, _PORTS),
}
_AFTER_STATE: dict[int, tuple[_Option, ...]] = {uapi.IPPROTO_SCTP: _SCTP, uapi.IPPROTO_DCCP: _DCCP}

_PASSED_OVER = "nothing in an entry"
#: What an option stands for, by every way to write it: a key of an entry, or something to be worked out.
_TARGETS: dict[str, str] = {
    name: option.key
    for option in (*_ADDRESSES, *_PORTS, *_KEYS, *_ICMP, *_ICMPV6, *_SCTP, *_DCCP, *_ZONES)
    for name in (option.name, *option.aliases)
}
_TARGETS.update(
    {
        **dict.fromkeys(("-t", "--timeout"), "timeout"),
        **dict.fromkeys(("-m", "--mark"), "mark"),
        **dict.fromkeys(("-u", "--status"), "status"),
        **dict.fromkeys(("-p", "--protonum"), "protocol"),
        **dict.fromkeys(("-l", "--label", "--label-add"), "labels"),
        **dict.fromkeys(("-n", "--src-nat"), "source-nat"),
        **dict.fromkeys(("-g", "--dst-nat"), "destination-nat"),
        **dict.fromkeys(("-f", "--family", "-c", "--secmark", "-i", "--id"), _PASSED_OVER),
        "--state": "state",
    }
)


def write(entries: Iterable[Mapping[str, Any]], show: Show, labels: LabelMap, now: float) -> str:
    """One line for each entry, with its labels if `show` asks for them."""
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
        names = map(str, labels.to_names(values.LABELS.present(entry["labels"])))
        yield "--label-add " + ",".join(word({"labels": name}, "labels") for name in names)
    yield from _addresses(entry)
    name = values.PROTOCOL.present(protocol)
    yield f"-p {name}"
    yield from (_shown(option, entry) for option in _OF_PROTOCOL.get(protocol, ()))
    if protocol in STATES:
        offloaded = entry.get("status", 0) & OFFLOADED
        yield "--state " + (state_of(entry) or ("ESTABLISHED" if offloaded and name != "dccp" else "NONE"))
    yield from (_shown(option, entry) for option in _AFTER_STATE.get(protocol, ()))


def _shown(option: _Option, entry: Entry) -> str:
    value = KINDS[option.key].present(entry.get(option.key, option.default))
    return f"{option.name} {_swapped(value) if option in _SCTP else value}"


def _swapped(tag: int) -> int:
    """A verification tag as the program writes and reads it: its bytes as the machine's order has them."""
    return int.from_bytes(tag.to_bytes(4, "big"), sys.byteorder)


def _addresses(entry: Entry) -> Iterator[str]:
    """The addresses, a translated one of the reply under `-n` or `-g`.

    The program takes the port of a translation from the reply, unless both ends are translated,
    or the port alone: then it must be told. Of an ICMP id it tells nothing.
    """
    plain = with_tuple("reply", turned(tuple_of(entry, "original")))
    told: dict[str, tuple[str, str | None]] = {}
    for name, (_end, answered_by, bit) in zip(("-n", "-g"), ENDS):
        key, port = f"reply.{answered_by}", port_key(entry, "reply", answered_by)
        moved = port if port and entry.get(port) != plain.get(port) else None
        if entry.get("status", 0) & bit and (moved or entry[key] != plain[key]):
            told[key] = name, moved
    for option in _ADDRESSES:
        key, address = option.key, values.present_address(entry[option.key])
        name, port = told.get(key, (option.name, None))
        if port and (len(told) == len(ENDS) or entry[key] == plain[key] or port.endswith("icmp_id")):
            address = f"[{address}]:{entry[port]}" if ":" in address else f"{address}:{entry[port]}"
        yield f"{name} {address}"


def read(text: str, labels: LabelMap) -> list[Entry]:
    """The entries of all commands; `Unreadable` names the first line that is none.

    Of the lines of `-E -o save`, what happened is not kept.
    """
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#") or line.startswith("conntrack v"):
            continue
        try:
            entries.append(checked(_line(line, labels)))
        except InvalidValue as fault:
            raise Unreadable(f"line {number}", str(fault)) from None
    return entries


def _line(line: str, labels: LabelMap) -> Entry:
    given = _given(line)
    if "protocol" not in given:
        raise InvalidValue("-p", "is missing; write the protocol's name or number")
    option, raw = given.pop("protocol")
    protocol = _protocol(raw, option)
    entry: Entry = {"original.protocol": protocol}
    for target, (option, raw) in given.items():
        read_as = _READERS.get(target)
        if read_as is not None:
            entry.update(read_as(raw, option, protocol, labels))
        elif target in KINDS:
            value = KINDS[target].parse(raw, option)
            entry[target] = _swapped(value) if target.endswith("_vtag") else value
    if given.get("state", ("", ""))[1] == "(null)":
        entry = {key: value for key, value in entry.items() if not key.startswith("sctp.")}
    return _with_reply(entry, given)


def _given(line: str) -> dict[str, tuple[str, str]]:
    """(option, value) by what the option stands for."""
    try:
        words = shlex.split(line.partition(" [USERSPACE] ")[0])  # behind it is which program did it
    except ValueError as fault:
        raise InvalidValue("", f"{fault}; close the quotation mark") from None
    if words[:1] == ["conntrack"]:
        del words[0]
    if not words or words[0] not in _COMMANDS:
        raise InvalidValue("", "is no line of conntrack -o save; it begins with -A, -I, -U or -D")
    given: dict[str, tuple[str, str]] = {}
    rest = iter(words[1:])
    for option in rest:
        name, equals, raw = option.partition("=")
        target = _TARGETS.get(name)
        if target is None:
            raise InvalidValue("", f"{name!r} is no option of conntrack -A")
        if target in given and target != _PASSED_OVER:
            raise InvalidValue(name, "comes twice")
        value: str | None = raw if equals else next(rest, None)
        if value is None:
            raise InvalidValue(name, "has no value; write one behind it")
        given[target] = name, value
    return given


def _protocol(raw: str, option: str) -> int:
    try:
        return values.PROTOCOL.parse(raw, option)
    except InvalidValue:
        try:
            return socket.getprotobyname(raw)
        except (OSError, ValueError):  # no such name, or none at all
            pass
        raise


def _read_status(raw: str, option: str, protocol: int, labels: LabelMap) -> Entry:
    status = 0
    for name in raw.upper().split(","):
        if name not in _READ_STATUS:
            raise InvalidValue(option, f"{name!r} is no status; write {values.listing(_READ_STATUS)}")
        status |= _READ_STATUS[name]
    return {"status": status}


def _read_mark(raw: str, option: str, protocol: int, labels: LabelMap) -> Entry:
    return {"mark": values.parse_masked(raw, option)[0]}


def _read_labels(raw: str, option: str, protocol: int, labels: LabelMap) -> Entry:
    return read_labels(raw.split(","), option, labels)


def _read_state(raw: str, option: str, protocol: int, labels: LabelMap) -> Entry:
    if raw == "(null)":  # what the program writes for an SCTP state that it has no name for
        return {}
    return read_state(raw, protocol)


_READERS: dict[str, Callable[[str, str, int, LabelMap], Entry]] = {
    "status": _read_status,
    "mark": _read_mark,
    "labels": _read_labels,
    "state": _read_state,
}


def _with_reply(entry: Entry, given: Mapping[str, tuple[str, str]]) -> Entry:
    """The entry with both directions: what was said of them, and of the rest what follows from it."""
    if "original.source" not in entry and "reply.source" in entry:
        reply = {"protocol": entry["original.protocol"], **tuple_of(entry, "reply")}
        entry.update(with_tuple("original", turned(reply)))
    entry = {**with_tuple("reply", turned(tuple_of(entry, "original"))), **entry}
    for end, answered_by, bit in ENDS:
        if f"{end}-nat" not in given:
            continue
        option, raw = given[f"{end}-nat"]
        address, port = _address_and_port(raw)
        entry[f"reply.{answered_by}"] = values.parse_address(address, option)
        key = port_key(entry, "reply", answered_by)
        if port:
            if key is None:
                raise InvalidValue(option, f"the protocol has no ports; leave :{port} out")
            entry[key] = KINDS[key].parse(port, option)
        entry["status"] = entry.get("status", 0) | bit
    return entry


def _address_and_port(raw: str) -> tuple[str, str]:
    """The parts of `a`, `a:p` or `[a]:p`, p empty if there is none."""
    if raw.startswith("["):
        address, _bracket, port = raw[1:].partition("]")
        return address, port.lstrip(":")
    address, _colon, port = raw.partition(":")
    return (raw, "") if ":" in port else (address, port)
