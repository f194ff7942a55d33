# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is declared for a whole gateway, and where such a declaration contradicts itself."""

from __future__ import annotations

import time
from typing import Iterator, Mapping, NamedTuple, Sequence

from ..client import uapi
from ..client.codec.codec import Values
from ..client.entry.entry import Entry, Identity, creation, describe
from ..client.entry.nat import requested_ranges
from ..client.entry.tuple import protocol_keys
from ..client.errors import InvalidValue
from ..client.match.match import Match
from .plan import desired_entry
from .reconciler import Plan, Policy


class DeclaredPolicy(NamedTuple):
    """A timeout policy, or the defaults of a protocol, and whether it is to be there."""

    values: Values
    state: str
    replace: bool


class DeclaredExpectation(NamedTuple):
    """An expectation, and how far to go where it is there already."""

    values: Values
    policy: Policy


class Declaration(NamedTuple):
    """The sections of a declaration; None is one that is not declared.

    `persist_in` is where the settings outlast the next boot, `policy` and `scope` are those of the entries.
    """

    settings: Mapping[str, int] | None = None
    persist_in: str | None = None
    policies: Sequence[DeclaredPolicy] | None = None
    absent: Sequence[Match] | None = None
    entries: Sequence[Entry] | None = None
    policy: Policy = Policy()
    scope: Match | None = None
    expectations: Sequence[DeclaredExpectation] | None = None


def contradictions(declaration: Declaration) -> Iterator[InvalidValue]:
    """What cannot be all at once: it would be changed back and forth by every run."""
    yield from _about_policies(declaration.policies or ())
    yield from _about_timeouts(declaration)
    yield from _about_expectations(declaration.expectations or ())
    yield from _about_absence(declaration)


def _about_policies(policies: Sequence[DeclaredPolicy]) -> Iterator[InvalidValue]:
    places: dict[str, int] = {}
    for place, (declared, _state, _replace) in enumerate(policies):
        if "name" in declared:
            first = places.setdefault(declared["name"], place)
            if first < place:
                yield InvalidValue(
                    f"timeout_policies[{place}].name", f"timeout_policies[{first}] has it, too; write it once"
                )


def _about_timeouts(declaration: Declaration) -> Iterator[InvalidValue]:
    """The defaults of protocols are settings, too, under other names."""
    said = {
        name: (f"settings.{name}", seconds)
        for name, seconds in (declaration.settings or {}).items()
        if name.startswith("timeouts.")
    }
    for place, (declared, _state, _replace) in enumerate(declaration.policies or ()):
        if "name" in declared:
            continue
        for key, seconds in declared.items():
            if not key.startswith("timeouts."):
                continue
            path = f"timeout_policies[{place}].{key}"
            other, before = said.setdefault(_setting_of(declared["protocol"], key), (path, seconds))
            if before != seconds:
                yield InvalidValue(path, f"{seconds} is the same setting as {other}, which is {before}; write it once")


#: The names of states whose setting is named otherwise, with what comes behind the protocol in its name.
_OTHERWISE = {"unreplied": "", "replied": "_stream", "timeout": "", "retrans": "_max_retrans"}


def _setting_of(protocol: int, key: str) -> str:
    """The name among the settings of a protocol's default timeout, as `timeouts.udp_stream`."""
    from ..client.timeout_policy import PROTOCOL

    name = "udp" if protocol == uapi.IPPROTO_UDPLITE else PROTOCOL.present(protocol)
    state = key.partition(".")[2]
    return f"timeouts.{name}{_OTHERWISE.get(state, f'_{state}')}"


def _about_expectations(expectations: Sequence[DeclaredExpectation]) -> Iterator[InvalidValue]:
    if len(expectations) < 2:
        return
    from ..client.expectation import expectation

    places: dict[Identity, int] = {}
    wanted = []
    for place, (declared, policy) in enumerate(expectations):
        first = places.setdefault(expectation.identity(declared), place)
        if first < place:
            yield InvalidValue(f"expectations[{place}]", f"is that of expectations[{first}]; write it once")
        elif policy.state == "present" and "master.source" in declared:
            wanted.append((place, expectation.creation(declared)))
    for at, (place, one) in enumerate(wanted):
        for other, before in wanted[:at]:
            if expectation.overlap(one, before):
                yield InvalidValue(
                    f"expectations[{place}]",
                    f"is for some of the same connections as expectations[{other}], and only one can be; leave one out",
                )


def _about_absence(declaration: Declaration) -> Iterator[InvalidValue]:
    for place, entry in enumerate(declaration.entries or () if declaration.absent else ()):
        try:
            made = as_created(entry)
        except InvalidValue:
            continue  # it cannot be created, and is only kept where it is
        for at, match in enumerate(declaration.absent or ()):
            if match(made):
                yield InvalidValue(
                    f"entries.declared[{place}]",
                    f"is to be there, and when it is created it matches absent[{at}]; narrow that, or leave it out: "
                    f"{describe(entry)}",
                )


def as_created(declared: Entry) -> Entry:
    """What an entry is right after it is created, with all that a match may ask and that can be known."""
    entry = creation(desired_entry(Plan("created", declared, None, [])))
    for end, bit, answered_by in (
        ("source", uapi.IPS_SRC_NAT, "destination"),
        ("destination", uapi.IPS_DST_NAT, "source"),
    ):
        addresses, ports = requested_ranges(declared, end)
        port = next((f"{end}_{name}" for name in ("port", "key") if f"{end}_{name}" in _named(declared)), "")
        for found, key in ((addresses, answered_by), (ports, port.replace(end, answered_by))):
            if found is None or not key:
                continue
            low, high = found
            if low != high:
                entry.pop(f"reply.{key}", None)  # one of them, by the kernel's choice
            elif entry.get(f"reply.{key}") != low:
                entry[f"reply.{key}"] = low
                entry["status"] = entry.get("status", 0) | bit
    entry["status"] = entry.get("status", 0) | uapi.IPS_CONFIRMED
    if "master.source" in entry:
        entry["status"] |= uapi.IPS_EXPECTED
    counters = (f"counters.{way}.{what}" for way in ("original", "reply") for what in ("packets", "bytes"))
    return {**entry, **dict.fromkeys(counters, 0), "timestamps.start": time.time_ns()}


def _named(declared: Entry) -> tuple[str, ...]:
    return protocol_keys(declared["original.protocol"])
