# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines that `conntrack -L` and `-E` print, and those of /proc/net/nf_conntrack.

Source: the output of conntrack(8) 1.4.7 with libnetfilter_conntrack 1.0.9.
"""

from __future__ import annotations

import re
import time
from typing import Any, Iterable, Iterator, Mapping

from .. import uapi
from ..codec import types
from ..entry.entry import Entry
from ..entry.labels import LabelMap
from ..entry.tuple import protocol_keys
from ..errors import InvalidValue
from .common import (
    BILLION,
    COUNTERS,
    KINDS,
    TIMES,
    TUPLE,
    TUPLE_WORDS,
    Show,
    Unknown,
    as_listed,
    checked,
    match_head,
    printable,
    protocol_name,
    read_labels,
    read_lines,
    read_state,
    state_of,
    word,
)

#: Words of an entry, at any place.
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
#: Words without a key in an entry: a number that is no longer used, an age without its time, and the timeouts of GRE in
#: the list of the kernel.
_PASSED_OVER = frozenset({"secmark", "delta-time", "timeout", "stream_timeout"})

#: The first of these that is set is shown.
_FLAGS = {
    "[HW_OFFLOAD]": uapi.IPS_HW_OFFLOAD,
    "[OFFLOAD]": uapi.IPS_OFFLOAD,
    "[ASSURED]": uapi.IPS_ASSURED,
}
_UNREPLIED = "[UNREPLIED]"


def write(entries: Iterable[Mapping[str, Any]], show: Show, labels: LabelMap, now: float) -> str:
    """Return one line for each entry. `now` is the UNIX time for ages (`delta-time`)."""
    return "".join(" ".join(_shown(as_listed(entry), show, labels, now)) + "\n" for entry in entries)


def _shown(entry: Entry, show: Show, labels: LabelMap, now: float) -> Iterator[str]:
    protocol, status = entry["original.protocol"], entry.get("status", 0)
    if show.extended:
        family = "ipv4" if entry["family"] == types.AF_INET else "ipv6"
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
        names = "labels=" + ",".join(map(str, labels.to_names(types.LABELS.present(entry["labels"]))))
        if not names.isprintable() or _AFTER_LABELS.search(names):
            raise InvalidValue("labels", f"{printable(names)!r} cannot be read again; write the entries as json")
        yield names


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


_CORE = r"""
    (?: \[ (?P<seconds>[0-9]{1,20}) \. (?P<microseconds>[0-9]{1,6}) \s* \] \s+ )?
    (?: \[ (?: NEW | UPDATE | DESTROY ) \] \s+ )?
    (?: (?P<family>ipv4|ipv6) \s+ [0-9]+ \s+ )?
    [a-z][a-z0-9-]* \s+ (?P<protocol>[0-9]+) (?! \S )
    (?: \s+ (?P<timeout>[0-9]+) (?! \S ) )?
    (?: \s+ (?P<state> [A-Z][A-Z_0-9]* | 0x[0-9a-f]+ ) (?! \S ) )?
"""
_HEAD = re.compile(r"\s*" + _CORE, re.VERBOSE)
#: The same behind what another program has put before it: a clock, the head of a syslog line.
_INSIDE = re.compile(r"(?<! \S )" + _CORE + r"(?= \s+ src= )", re.VERBOSE)
_WORD = re.compile(r"\[[^\]\[]*\](?!\S)|\S+")
#: Where labels end, whose names may have blanks: before a word of another kind.
_AFTER_LABELS = re.compile(r"\s(?:\[|[^\s=,]+=)")
_MOMENT = re.compile(
    r"\[(start|stop)=[A-Z][a-z]{2} ([A-Z][a-z]{2}) +([0-9]{1,2}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([0-9]{4})\]"
)
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_LIST = "conntrack -L"


def read(text: str, labels: LabelMap, unknown: Unknown) -> list[Entry]:
    """The entries of all lines; `Unreadable` names the first line that is none.

    The time of an event is kept as `timestamps.event`, its type is not.
    """
    return read_lines(text, lambda line: checked(_line(line, labels, unknown)), unknown)


def _line(line: str, labels: LabelMap, unknown: Unknown) -> Entry:
    entry: Entry = {}
    head = match_head(line, (_HEAD, _INSIDE), "a protocol's name and number", _LIST, entry, unknown)
    protocol = types.parse_integer(head["protocol"], "protocol", 0, 255)
    entry["original.protocol"] = protocol
    if head["seconds"] is not None:
        entry["timestamps.event"] = int(head["seconds"]) * BILLION + int(head["microseconds"]) * 1000
    if head["timeout"] is not None:
        entry["timeout"] = KINDS["timeout"].parse(head["timeout"], "timeout")
    if head["state"] is not None:
        entry.update(read_state(head["state"], protocol))

    status, direction = uapi.IPS_SEEN_REPLY, ""
    for text in _words(line, head.end()):
        if text == "[USERSPACE]":
            break  # what follows names the program that did it
        if text == _UNREPLIED:
            status &= ~uapi.IPS_SEEN_REPLY
        elif text in _FLAGS:
            status |= _FLAGS[text]
        elif text.startswith(("[start=", "[stop=")):
            _put(entry, *_moment(text))
        else:
            name, _equals, value = text.partition("=")
            if name == "src":
                direction = "reply" if direction else "original"
            _assign(entry, name, value, direction, labels, unknown)
    entry["status"] = status
    if head["family"] not in (None, "ipv4" if len(entry.get("original.source", b"")) == 4 else "ipv6"):
        raise InvalidValue("family", f"the addresses are not of {head['family']}")
    return entry


def _words(line: str, start: int) -> list[str]:
    """Return the words of a line from `start`, all labels as one word."""
    at = line.find(" labels=", start)
    if at < 0:
        return _WORD.findall(line, start)
    following = _AFTER_LABELS.search(line, at + 1)
    end = len(line) if following is None else following.start()
    return [*_WORD.findall(line, start, at), line[at + 1 : end].rstrip(), *_WORD.findall(line, end)]


def _assign(entry: Entry, name: str, text: str, direction: str, labels: LabelMap, unknown: Unknown) -> None:
    """Read a word of a line. `id` is that of ICMP in a tuple with a code, and otherwise that of the entry."""
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
        unknown.word(entry, name, text, _LIST)


def _has_id(entry: Entry, direction: str) -> bool:
    return f"{direction}.icmp_code" not in entry or f"{direction}.icmp_id" in entry


def _moment(text: str) -> tuple[str, int]:
    """Parse a local time as ctime(3) writes it, to its key and nanoseconds."""
    match = _MOMENT.fullmatch(text)
    if match is None or match[2] not in _MONTHS:
        raise InvalidValue("", f"{text} is not a word of {_LIST}")
    day, hour, minute, second, year = map(int, match.groups()[2:])
    try:
        seconds = time.mktime((year, _MONTHS.index(match[2]) + 1, day, hour, minute, second, 0, 0, -1))
    except (OverflowError, ValueError):
        seconds = -1
    return f"timestamps.{match[1]}", KINDS["timestamps.start"].parse(int(seconds) * BILLION, match[1])


def _put(entry: Entry, key: str, value: Any) -> None:
    if key in entry:
        raise InvalidValue(key, "is given twice; write it once")
    entry[key] = value
