# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Overruns: the kernel drops events when the receive buffer is full, and reports that it did, but not which.

`netlink/socket.py` receives the report (ENOBUFS), `Subscription` raises it as `errors.Overrun`, and a `Follower` then
reads the table. This file has what the follower needs for that: when to read, and how the table differs from the
entries that were known. A follower reads the table in the same way while it has entries that never have events.

Source: netlink_overrun in net/netlink/af_netlink.c.
"""

from __future__ import annotations

import math
import time
from typing import Collection, Mapping, NamedTuple

from ..entry.entry import Entry, Identity
from .subscription import Event

#: Reading the table takes at most this fraction (1/N) of the time.
_SHARE = 20
#: The keys that distinguish an update from the packets of a connection, which change its timeout and counters.
_UPDATED = ("status", "tcp.state", "sctp.state", "dccp.state", "mark", "labels", "helper")


class Resync(NamedTuple):
    """The numbers of entries that a reading of the table found new, changed and gone without an event.

    `overrun` is True if events were lost, and False if the kernel sent none.
    """

    new: int
    update: int
    destroy: int
    overrun: bool = True


class ResyncSchedule:
    """When to read the table: at once after an overrun, otherwise every `check` seconds (None: never).

    The second applies only while entries may change without events (`unannounced`). Times are those of the monotonic
    clock, in seconds.
    """

    def __init__(self, check: float | None) -> None:
        #: Whether events were lost since the table was read.
        self.overrun = False
        self._check = check
        self._read_at = self._duration = 0.0

    def is_due(self, unannounced: bool, before_events: bool = False) -> bool:
        """Whether to read the table now. With `before_events`, only if that cannot wait for events to be received."""
        grace = self._duration + (self._check or 0) if before_events and not self.overrun else 0
        return time.monotonic() >= self._due(unannounced) + grace

    def wait_time(self, unannounced: bool, timeout: float | None) -> float | None:
        """Return the seconds until the table must be read, and at most `timeout`. None means no limit."""
        left = min(self._due(unannounced) - time.monotonic(), math.inf if timeout is None else timeout)
        return None if left == math.inf else max(0.0, left)

    def read_since(self, started: float) -> None:
        """Record that the table was read from `started` until now."""
        self._read_at = time.monotonic()
        self._duration = self._read_at - started

    def _due(self, unannounced: bool) -> float:
        if self.overrun:
            return 0.0
        if self._check is None or not unannounced:
            return math.inf
        return self._read_at + max(self._check, _SHARE * self._duration)


def missed_events(
    known: Mapping[Identity, Entry], found: Mapping[Identity, Entry], alive: Collection[Identity]
) -> list[Event]:
    """Return an event with `missed` for each difference between the entries known before and those in the table.

    `alive` has the known entries that are in the table and no longer match: their `destroy` has `by_update`.
    """
    events: list[Event] = []
    for key, entry in found.items():
        before = known.get(key)
        if before is not None and not is_same_entry(before, entry):
            events.append(Event("destroy", before, True))
            before = None
        if before is None:
            events.append(Event("new", entry, True))
        elif is_updated(before, entry):
            events.append(Event("update", entry, True))
    return events + [Event("destroy", entry, True, key in alive) for key, entry in known.items() if key not in found]


def is_same_entry(one: Entry, other: Entry) -> bool:
    """Whether two entries with the same identity are one entry, as far as their ids show."""
    return one.get("id") == other.get("id")


def is_updated(one: Entry, other: Entry) -> bool:
    """Whether an entry differs in a key for which the kernel sends update events."""
    return any((one.get(name) or 0) != (other.get(name) or 0) for name in _UPDATED)
