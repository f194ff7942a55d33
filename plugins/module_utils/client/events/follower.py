# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Follow a table by its events, and read it again after an overrun, so that no change is missed.

Source: net/netfilter/nf_conntrack_ecache.c, Documentation/networking/nf_conntrack-sysctl.rst.
"""

from __future__ import annotations

import contextlib
import time
from typing import AsyncIterator, Callable, Iterator

from ..entry.entry import Entry, Identity, identity
from ..errors import ConntrackError, NotFound, Overrun
from ..match.expression import has_predicate, immutable_part
from ..match.match import EVERYTHING, Match
from ..netlink.socket import Closing, NetlinkTransport
from ..table import Table
from .overrun import Resync, ResyncSchedule, is_same_entry, is_updated, missed_events
from .subscription import CHECK, EVENTS_AUTO, RECEIVE_BUFFER, Event, Subscription

#: Entries read between two turns of other tasks.
_STRIDE = 512
#: The keys that every event of an existing entry contains if the entry has them.
_ALWAYS_SENT = ("mark", "helper")


class Follower(Closing):
    """The matching entries, from now on, and every event that changes them. Close it after use.

    The follower subscribes before it reads the table, so that no change is missed. `entries` has the matching entries
    by identity, and is updated while the follower is iterated. An entry that matches after an update is reported as
    new, and one that no longer matches as destroyed, both with `by_update`.

    After an overrun the follower reads the table again. It yields a `Resync`, then an event with `missed` for each
    difference.

    `unannounced` has the entries of the first reading that had no event since. With nf_conntrack_events=2, entries
    created without a subscriber never have events; nor have entries created while it was 0. The table is read every
    `check` seconds, for at most a twentieth of the time, as long as there are such entries, as long as entries without
    events could begin to match, or if the match depends on timeouts, counters or ages. Differences are reported as
    after an overrun. With `check=None`, only `resync` reads the table.

    A follower belongs to one network namespace, as a `Table` does, and to one reader. Raises `EventsOff`, and
    `NotPermitted` without CAP_NET_ADMIN.

    :param receive_buffer: as for a `Subscription`, in bytes.
    :param check: seconds between two readings of the table, or None.
    """

    def __init__(
        self,
        match: Match = EVERYTHING,
        receive_buffer: int = RECEIVE_BUFFER,
        check: float | None = CHECK,
        connect: Callable[..., NetlinkTransport] = NetlinkTransport,
        table: Callable[[], Table] = Table,
    ) -> None:
        # An update contains only what changed, and may make an entry match or no longer match. The subscription
        # therefore receives the events of all entries that may ever match.
        enduring = immutable_part(match.term)
        self.subscription = Subscription(match=Match(enduring), receive_buffer=receive_buffer, connect=connect)
        self.entries: dict[Identity, Entry] = {}
        self._match = match
        self._match_can_change = enduring != match.term
        #: Whether the match depends on timeouts, counters or ages, which change without an event.
        self._is_time_dependent = has_predicate(match.term)
        #: Whether the table has entries that do not match, have no events, and may match later.
        self._others_may_match = False
        self._schedule = ResyncSchedule(check)
        with contextlib.ExitStack() as opened:
            opened.enter_context(self.subscription)
            self._table = opened.enter_context(table())
            for _step in self._read(self.entries, set()):
                pass
            opened.pop_all()
        self.unannounced: set[Identity] = set(self.entries)

    def close(self) -> None:
        """Close the subscription and the table. Iterations end."""
        self.subscription.close()
        self._table.close()

    def receive(self, timeout: float | None = None) -> list[Event | Resync]:
        """Return the next changes, from events or from a reading of the table; the list may be empty.

        Waits for at most `timeout` seconds.
        """
        changes: list[Event | Resync] = []
        if self.subscription.wait(self._wait_time(timeout)) and not self._must_read(before_events=True):
            changes = self._take()
        if not changes and self._must_read():
            changes = self._resync()
        return changes

    def __iter__(self) -> Iterator[Event | Resync]:
        """Yield changes until the follower is closed."""
        while not self.subscription.closed:
            yield from self.receive()

    async def __aiter__(self) -> AsyncIterator[Event | Resync]:
        """Yield changes in asyncio's running event loop. Other tasks also run while the table is read."""
        import asyncio

        while not self.subscription.closed:
            changes: list[Event | Resync] = []
            if await self.subscription.ready(self._wait_time(None)) and not self._must_read(before_events=True):
                changes = self._take()
            if not changes and self._must_read() and not self.subscription.closed:
                found: dict[Identity, Entry] = {}
                alive: set[Identity] = set()
                try:
                    for _step in self._read(found, alive):
                        await asyncio.sleep(0)
                except ConntrackError:
                    if self._is_closed():  # by another task, during the reading
                        return
                    raise
                changes = self._differences(found, alive)
            for change in changes:
                yield change

    def _is_closed(self) -> bool:
        return self.subscription.closed

    # reading the table

    def _may_change_silently(self) -> bool:
        return bool(self.unannounced or self._others_may_match or self._is_time_dependent)

    def _must_read(self, before_events: bool = False) -> bool:
        return self._schedule.is_due(self._may_change_silently(), before_events)

    def _wait_time(self, timeout: float | None) -> float | None:
        return self._schedule.wait_time(self._may_change_silently(), timeout)

    def resync(self) -> list[Event | Resync]:
        """Read the table, and return a `Resync` and an event for each difference from `entries`."""
        return self._resync() or [Resync(0, 0, 0, False)]

    def _resync(self) -> list[Event | Resync]:
        found: dict[Identity, Entry] = {}
        alive: set[Identity] = set()
        for _step in self._read(found, alive):
            pass
        return self._differences(found, alive)

    def _read(self, found: dict[Identity, Entry], alive: set[Identity]) -> Iterator[None]:
        """Read the matching entries into `found`, and the identities of known ones that no longer match into `alive`.

        Pauses now and then.
        """
        started = time.monotonic()
        self._others_may_match = False
        for number, entry in enumerate(self._table.dump()):
            if self._match(entry):
                found[identity(entry)] = entry
            elif self._match_can_change and self.subscription.wants(Event("update", entry)):
                self._others_may_match = self.subscription.mode == EVENTS_AUTO
                key = identity(entry)
                if key in self.entries:
                    alive.add(key)
            if number % _STRIDE == _STRIDE - 1:
                yield
        self._schedule.read_since(started)

    def _differences(self, found: dict[Identity, Entry], alive: set[Identity]) -> list[Event | Resync]:
        overrun, self._schedule.overrun = self._schedule.overrun, False
        events = missed_events(self.entries, found, alive)
        self.entries = found
        for event in events:
            if event.kind == "new":
                # An entry that appeared without an overrun has no events, and may also end without one
                (self.unannounced.discard if overrun else self.unannounced.add)(identity(event.entry))
        self.unannounced.intersection_update(found)
        if not events and not overrun:
            return []
        kinds = [event.kind for event in events]
        return [Resync(kinds.count("new"), kinds.count("update"), kinds.count("destroy"), overrun), *events]

    # applying events

    def _take(self) -> list[Event | Resync]:
        """Return the changes of the next datagram. After an overrun there are none."""
        try:
            events = self.subscription.receive()
        except Overrun:
            self._schedule.overrun = True
            return []
        return [change for event in events for change in self._apply(event)]

    def _apply(self, event: Event) -> Iterator[Event]:
        entry = event.entry
        key = identity(entry)
        known = self.entries.get(key)
        self.unannounced.discard(key)
        if known is not None and not is_same_entry(known, entry):
            if event.kind != "new":
                return  # of an entry that ended before the table was read
            del self.entries[key]
            yield Event("destroy", known, True)
            known = None
        if event.kind == "destroy":
            if known is not None:
                del self.entries[key]
                yield event._replace(entry={**known, **entry})
            return
        complete = self._merged(event, known)
        if complete is None:
            return
        if not self._match(complete):
            if known is not None:
                del self.entries[key]
                yield Event("destroy", complete, by_update=True, port_id=event.port_id)
            return
        self.entries[key] = complete
        if known is None:
            yield Event("new", complete, by_update=event.kind == "update", port_id=event.port_id)
        elif event.kind == "update" or is_updated(known, complete):
            yield Event("update", complete, port_id=event.port_id)

    def _merged(self, event: Event, known: Entry | None) -> Entry | None:
        """Return the complete entry after the event, None if it is already gone."""
        entry = event.entry
        if event.kind == "new" and known is None and not self._match.needs:
            return entry
        rest = known
        if known is None or ("labels" in known and "labels" not in entry):
            # Read what no event has contained yet. No event reports that the last label was removed.
            rest = self._get(entry) or known
        if rest is None:
            return None
        return {**{name: value for name, value in rest.items() if name not in _ALWAYS_SENT}, **entry}

    def _get(self, entry: Entry) -> Entry | None:
        try:
            return self._table.get(entry)
        except NotFound:
            return None  # its destroy event follows
