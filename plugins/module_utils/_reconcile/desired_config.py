# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The declaration for a whole gateway, and the checks for contradictions in it."""

from __future__ import annotations

import time
from typing import Iterator, Mapping, NamedTuple, Sequence

from ..client import uapi
from ..client.codec.codec import Values
from ..client.entry.creation import creation
from ..client.entry.entry import Entry, Identity, describe
from ..client.entry.nat import NAT_ENDS, requested_ranges
from ..client.entry.tuple import protocol_keys
from ..client.errors import InvalidValue
from ..client.match.match import Match
from .plan import desired_entry
from .reconciler import Plan, Policy


class DeclaredPolicy(NamedTuple):
    """A timeout policy, or the defaults of a protocol, and whether it must exist."""

    values: Values
    state: str
    replace: bool


class DeclaredExpectation(NamedTuple):
    """An expectation, and what to do if it exists already."""

    values: Values
    policy: Policy


class Declaration(NamedTuple):
    """The sections of a declaration, None for a section that is not declared.

    `persist_in` is the directory in which the settings are stored for the next boot. `policy` and `scope` belong to the
    entries.
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
    """Yield the contradictions in a declaration, which every run would change back and forth."""
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
                    f"timeout_policies[{place}].name", f"timeout_policies[{first}] has the same name; write it once"
                )


def _about_timeouts(declaration: Declaration) -> Iterator[InvalidValue]:
    """Compare the default timeouts of protocols with the settings, where they have other names."""
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


#: States whose setting has another name, with the suffix that follows the protocol in that name.
_OTHERWISE = {"unreplied": "", "replied": "_stream", "timeout": "", "retrans": "_max_retrans"}


def _setting_of(protocol: int, key: str) -> str:
    """Return the name of the setting for a protocol's default timeout, such as `timeouts.udp_stream`."""
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
            yield InvalidValue(f"expectations[{place}]", f"is the same as expectations[{first}]; write it once")
        elif policy.state == "present" and "master.source" in declared:
            wanted.append((place, expectation.creation(declared)))
    for at, (place, one) in enumerate(wanted):
        for other, before in wanted[:at]:
            if expectation.overlap(one, before):
                yield InvalidValue(
                    f"expectations[{place}]",
                    f"applies to some of the same connections as expectations[{other}], and only one of them can "
                    "exist; leave one out",
                )


def _about_absence(declaration: Declaration) -> Iterator[InvalidValue]:
    for place, entry in enumerate(declaration.entries or () if declaration.absent else ()):
        try:
            made = as_created(entry)
        except InvalidValue:
            continue  # it cannot be created, but may exist already
        for at, match in enumerate(declaration.absent or ()):
            if match(made):
                yield InvalidValue(
                    f"entries.declared[{place}]",
                    f"must exist, but when it is created it matches absent[{at}]; narrow that, or leave it out: "
                    f"{describe(entry)}",
                )


def as_created(declared: Entry) -> Entry:
    """Return a declared entry as it is right after its creation, with all keys for a match that can be predicted.

    Raises `InvalidValue` if it cannot be created.
    """
    entry = creation(desired_entry(Plan("created", declared, None, [])))
    names = protocol_keys(declared["original.protocol"])
    for end, answered_by, bit in NAT_ENDS:
        addresses, ports = requested_ranges(declared, end)
        port = next((f"{end}_{name}" for name in ("port", "key") if f"{end}_{name}" in names), "")
        for found, key in ((addresses, answered_by), (ports, port.replace(end, answered_by))):
            if found is None or not key:
                continue
            low, high = found
            if low != high:
                entry.pop(f"reply.{key}", None)  # the kernel chooses one of them
            elif entry.get(f"reply.{key}") != low:
                entry[f"reply.{key}"] = low
                entry["status"] = entry.get("status", 0) | bit
    entry["status"] = entry.get("status", 0) | uapi.IPS_CONFIRMED
    if "master.source" in entry:
        entry["status"] |= uapi.IPS_EXPECTED
    counters = (f"counters.{way}.{what}" for way in ("original", "reply") for what in ("packets", "bytes"))
    return {**entry, **dict.fromkeys(counters, 0), "timestamps.start": time.time_ns()}
