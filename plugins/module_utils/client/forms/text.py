# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines that `conntrack -L` and `-E` print, and /proc/net/nf_conntrack with them.

Source: the output of conntrack(8) 1.4.7 with libnetfilter_conntrack 1.0.9.
"""

from __future__ import annotations

import re
import time
from typing import Any, Iterable, Iterator, Mapping

from .. import uapi, values
from ..entry import Entry, protocol_keys
from ..errors import InvalidValue
from ..labels import LabelMap
from .common import (
    BILLION,
    COUNTERS,
    KINDS,
    TIMES,
    TUPLE,
    TUPLE_WORDS,
    Show,
    Unreadable,
    as_listed,
    checked,
    protocol_name,
    read_labels,
    read_state,
    state_of,
    word,
)

#: Words of an entry, wherever they stand.
_ENTRY = {
    "zone-orig": "original.zone",
    "zone-reply": "reply.zone",
    "mark": "mark",
    "secctx": "security_context",
    "zone": "zone",
    "helper": "helper",
    "use": "use",
    "id": "id",
}
#: Words without a place in an entry: a number nobody sets any more, an age without its moment, and what
#: the kernel's own list has of GRE.
_PASSED_OVER = frozenset({"secmark", "delta-time", "timeout", "stream_timeout"})

#: The first of these that is set is shown.
_FLAGS = {
    "[HW_OFFLOAD]": uapi.IPS_HW_OFFLOAD,
    "[OFFLOAD]": uapi.IPS_OFFLOAD,
    "[ASSURED]": uapi.IPS_ASSURED,
}
_UNREPLIED = "[UNREPLIED]"


def write(entries: Iterable[Mapping[str, Any]], show: Show, labels: LabelMap, now: float) -> str:
    """One line for each entry. `now`, in seconds, is when the ages (`delta-time`) are taken."""
    return "".join(" ".join(_words(as_listed(entry), show, labels, now)) + "\n" for entry in entries)


def _words(entry: Entry, show: Show, labels: LabelMap, now: float) -> Iterator[str]:
    protocol, status = entry["original.protocol"], entry.get("status", 0)
    if show.extended:
        family = "ipv4" if entry["family"] == values.AF_INET else "ipv6"
        yield f"{family:<8} {entry['family']}"
    yield f"{protocol_name(protocol):<8} {protocol}"
    if "timeout" in entry:
        yield str(entry["timeout"])
    state = state_of(entry)
    if state is not None:
        yield state
    yield from _direction(entry, "original", "zone-orig")
    if not status & uapi.IPS_SEEN_REPLY:
        yield _UNREPLIED
    yield from _direction(entry, "reply", "zone-reply")
    yield from [flag for flag, bit in _FLAGS.items() if status & bit][:1]
    if "mark" in entry:
        yield f"mark={entry['mark']}"
    if entry.get("security_context"):
        yield f"secctx={word(entry, 'security_context')}"
    if entry.get("zone"):
        yield f"zone={entry['zone']}"
    yield from _moments(entry, show.ktimestamp, now)
    if entry.get("helper"):
        yield f"helper={word(entry, 'helper')}"
    if "use" in entry:
        yield f"use={entry['use']}"
    if show.id and "id" in entry:
        yield f"id={entry['id']}"
    if show.labels and entry.get("labels"):
        yield "labels=" + ",".join(map(str, labels.to_names(values.LABELS.present(entry["labels"]))))


def _direction(entry: Entry, direction: str, zone: str) -> Iterator[str]:
    for name in ("source", "destination", *protocol_keys(entry["original.protocol"])):
        text, shown = TUPLE_WORDS[name]
        yield f"{text}={shown(entry.get(f'{direction}.{name}', 0))}"
    if entry.get(f"{direction}.zone"):
        yield f"{zone}={entry[f'{direction}.zone']}"
    counters = [entry.get(f"counters.{direction}.{name}") for name in COUNTERS]
    if None not in counters:
        yield from (f"{name}={value}" for name, value in zip(COUNTERS, counters))


def _moments(entry: Entry, at: bool, now: float) -> Iterator[str]:
    start, stop = entry.get("timestamps.start"), entry.get("timestamps.stop")
    if start is not None:
        until = stop // BILLION if stop else int(now)
        yield f"delta-time={until - start // BILLION}"
    for name, moment in zip(TIMES, (start, stop)):
        if at and moment is not None:
            yield f"[{name}={time.ctime(moment // BILLION)}]"


_HEAD = re.compile(
    r"""
    \s* (?: \[ (?P<seconds>[0-9]+) \. (?P<microseconds>[0-9]{1,6}) \s* \] \s+ )?
    (?: \[ (?: NEW | UPDATE | DESTROY ) \] \s+ )?
    (?: (?P<family>ipv4|ipv6) \s+ [0-9]+ \s+ )?
    [a-z][a-z0-9-]* \s+ (?P<protocol>[0-9]+) (?! \S )
    (?: \s+ (?P<timeout>[0-9]+) (?! \S ) )?
    (?: \s+ (?P<state> [A-Z][A-Z_0-9]* | 0x[0-9a-f]+ ) (?! \S ) )?
    """,
    re.VERBOSE,
)
_WORD = re.compile(r"\[[^\]]*\](?!\S)|\S+")
_MOMENT = re.compile(
    r"\[(start|stop)=[A-Z][a-z]{2} ([A-Z][a-z]{2}) +([0-9]{1,2}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([0-9]{4})\]"
)
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
#: What the program says of its work, on its standard error.
_REMARK = re.compile(r"conntrack v[0-9.]+ \(conntrack-tools\): |NOTICE: |nfct_labelmap_new: ")


def read(text: str, labels: LabelMap) -> list[Entry]:
    """The entries of all lines; `Unreadable` names the first line that is none.

    Of the lines of `-E`, when it was said is kept as `timestamps.event`, what happened is not.
    """
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or _REMARK.match(line):
            continue
        try:
            entries.append(checked(_line(line, labels)))
        except InvalidValue as fault:
            raise Unreadable(f"line {number}", str(fault)) from None
    return entries


def _line(line: str, labels: LabelMap) -> Entry:
    head = _HEAD.match(line)
    if head is None:
        raise InvalidValue("", "is no line of conntrack -L; it begins with a protocol's name and number")
    protocol = values.parse_integer(head["protocol"], "protocol", 0, 255)
    entry: Entry = {"original.protocol": protocol}
    if head["seconds"] is not None:
        entry["timestamps.event"] = int(head["seconds"]) * BILLION + int(head["microseconds"]) * 1000
    if head["timeout"] is not None:
        entry["timeout"] = KINDS["timeout"].parse(head["timeout"], "timeout")
    if head["state"] is not None:
        entry.update(read_state(head["state"], protocol))

    status, direction = uapi.IPS_SEEN_REPLY, ""
    for text in _WORD.findall(line, head.end()):
        if text == "[USERSPACE]":
            break  # what follows names the program that did it
        if text == _UNREPLIED:
            status &= ~uapi.IPS_SEEN_REPLY
        elif text in _FLAGS:
            status |= _FLAGS[text]
        elif text.startswith("["):
            _put(entry, *_moment(text))
        else:
            name, _equals, value = text.partition("=")
            if name == "src":
                direction = "reply" if direction else "original"
            _assign(entry, name, value, direction, labels)
    entry["status"] = status
    if head["family"] not in (None, "ipv4" if len(entry.get("original.source", b"")) == 4 else "ipv6"):
        raise InvalidValue("family", f"the addresses are not of {head['family']}")
    return entry


def _assign(entry: Entry, name: str, text: str, direction: str, labels: LabelMap) -> None:
    """One word of a line. `id` is ICMP's in a tuple that has a code, else the entry's."""
    if name == "labels":
        if text:  # without "=" if none of them has a name
            _put(entry, "labels", read_labels(text.split(","), "labels", labels)["labels"])
    elif direction and name in COUNTERS:
        key = f"counters.{direction}.{name}"
        _put(entry, key, KINDS[key].parse(text, name))
    elif direction and name in TUPLE and not (name == "id" and _has_id(entry, direction)):
        key = f"{direction}.{TUPLE[name][0]}"
        _put(entry, key, KINDS[key].parse(text, name))
    elif name in _ENTRY:
        _put(entry, _ENTRY[name], KINDS[_ENTRY[name]].parse(text, name))
    elif name not in _PASSED_OVER:
        raise InvalidValue("", f"{name!r} is no word of conntrack -L")


def _has_id(entry: Entry, direction: str) -> bool:
    return f"{direction}.icmp_code" not in entry or f"{direction}.icmp_id" in entry


def _moment(text: str) -> tuple[str, int]:
    """(key, nanoseconds) of a moment in local time, as ctime(3) writes it."""
    match = _MOMENT.fullmatch(text)
    if match is None or match[2] not in _MONTHS:
        raise InvalidValue("", f"{text} is no word of conntrack -L")
    day, hour, minute, second, year = map(int, match.groups()[2:])
    try:
        seconds = time.mktime((year, _MONTHS.index(match[2]) + 1, day, hour, minute, second, 0, 0, -1))
    except (OverflowError, ValueError):
        seconds = -1
    return f"timestamps.{match[1]}", KINDS["timestamps.start"].parse(int(seconds) * BILLION, match[1])


def _put(entry: Entry, key: str, value: Any) -> None:
    if key in entry:
        raise InvalidValue(key, "comes twice")
    entry[key] = value
