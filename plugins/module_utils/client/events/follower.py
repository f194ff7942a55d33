# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Follow a table by its events, and read it again after an overrun, so that no change is missed.

Source: net/netfilter/nf_conntrack_ecache.c, Documentation/networking/nf_conntrack-sysctl.rst.
"""

from __future__ import annotations

import math
import time
from typing import AsyncIterator, Callable, Iterator, NamedTuple

from ..entry.entry import Entry, Identity, identity
from ..errors import NotFound, Overrun
from ..match.expression import immutable_part, is_time_dependent
from ..match.match import EVERYTHING, Match
from ..netlink.socket import NetlinkTransport
from ..table import Table
from .subscription import CHECK, EVENTS_AUTO, RECEIVE_BUFFER, Event, Subscription

#: Reading the table may take one part in so many of the time.
_SHARE = 20
#: Entries read between two turns of other tasks.
_STRIDE = 512
#: What distinguishes an update from the packets of an entry: not its timeout, nor its counters.
_TELLING = ("status", "tcp.state", "sctp.state", "dccp.state", "mark", "labels", "helper")
#: What an event of a living entry always contains if the entry has it.
_ALWAYS_TOLD = ("mark", "helper")


class Resync(NamedTuple):
    """The numbers of entries that a reading of the table found new, changed and gone without an event.

    `overrun` is True if events were lost, and False if the kernel sent none.
    """

    new: int
    update: int
    destroy: int
    overrun: bool = True


class Follower:
    """The entries that match, from now on, and every event that changes them.

    It subscribes before it reads the table, so that no change is missed. `entries` has the matching entries by
    identity, and is updated while the follower is iterated. An entry that matches after an update is reported as new,
    and one that no longer matches as destroyed, both with `by_update`.

    After an overrun the follower reads the table again. It yields a `Resync`, then an event with `missed` for each
    difference.

    `unannounced` has the entries of the first reading that had no event since. With nf_conntrack_events=2, entries
    created without a subscriber never have events; nor have entries created while it was 0. The table is read every
    `check` seconds, for at most a twentieth of the time, as long as there are such entries, as long as entries without
    events could begin to match, or if the match depends on timeouts, counters or ages. Differences are reported as
    after an overrun. With `check=None`, only `resync` reads the table.

    A follower belongs to one network namespace, as a `Table` does, and to one reader.
    """

    def __init__(
        self,
        match: Match = EVERYTHING,
        receive_buffer: int = RECEIVE_BUFFER,
        check: float | None = CHECK,
        connect: Callable[..., NetlinkTransport] = NetlinkTransport,
        table: Callable[[], Table] = Table,
    ) -> None:
        # An update says only what changed, and may make an entry match or cease to: what has to come
        # through is whatever may come to match in its life.
        enduring = immutable_part(match.term)
        self.subscription = Subscription(match=Match(enduring), receive_buffer=receive_buffer, connect=connect)
        self.entries: dict[Identity, Entry] = {}
        self._match = match
        self._match_can_change = enduring != match.term
        self._drifts = is_time_dependent(match.term)
        self._others = False  # entries that do not match yet, and may come to in silence
        self._lost = False
        self._check = check
        self._read_at = 0.0
        self._took = 0.0
        try:
            self._table = table()
            try:
                for _step in self._read(self.entries, set()):
                    pass
            except BaseException:
                self._table.close()
                raise
        except BaseException:
            self.subscription.close()
            raise
        self.unannounced: set[Identity] = set(self.entries)

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the subscription and the table. Iterations end."""
        self.subscription.close()
        self._table.close()

    def receive(self, timeout: float | None = None) -> list[Event | Resync]:
        """Return the next changes, from events or from a reading of the table; the list may be empty.

        Waits for at most `timeout` seconds.
        """
        told: list[Event | Resync] = []
        if self.subscription.wait(self._patience(timeout)) and not self._look(late=True):
            told = self._take()
        if not told and self._look():
            told = self._resync()
        return told

    def __iter__(self) -> Iterator[Event | Resync]:
        """All that comes, until it is closed."""
        while not self.subscription.closed:
            yield from self.receive()

    async def __aiter__(self) -> AsyncIterator[Event | Resync]:
        """The same in asyncio's running event loop; other tasks go on also while the table is read."""
        import asyncio

        while not self.subscription.closed:
            told: list[Event | Resync] = []
            if await self.subscription.ready(self._patience(None)) and not self._look(late=True):
                told = self._take()
            if not told and self._look() and not self.subscription.closed:
                found: dict[Identity, Entry] = {}
                living: set[Identity] = set()
                for _step in self._read(found, living):
                    await asyncio.sleep(0)
                told = self._differences(found, living)
            for each in told:
                yield each

    # when to look at the table

    def _due(self) -> float:
        """When the table is to be read next, by the monotonic clock."""
        if self._lost:
            return 0.0
        if self._check is None or not (self.unannounced or self._others or self._drifts):
            return math.inf
        return self._read_at + max(self._check, _SHARE * self._took)

    def _look(self, late: bool = False) -> bool:
        """Whether the table is to be read now; if `late`, even before the events that wait."""
        return time.monotonic() >= self._due() + (self._took + (self._check or 0) if late and not self._lost else 0)

    def _patience(self, timeout: float | None) -> float | None:
        left = min(self._due() - time.monotonic(), math.inf if timeout is None else timeout)
        return None if left == math.inf else max(0.0, left)

    def resync(self) -> list[Event | Resync]:
        """Read the table and tell what differs from what was known; at least a `Resync`."""
        return self._resync() or [Resync(0, 0, 0, False)]

    def _resync(self) -> list[Event | Resync]:
        found: dict[Identity, Entry] = {}
        living: set[Identity] = set()
        for _step in self._read(found, living):
            pass
        return self._differences(found, living)

    def _read(self, found: dict[Identity, Entry], living: set[Identity]) -> Iterator[None]:
        """Read what matches into `found`, and what is known and does not match any more into `living`.

        Pauses now and then.
        """
        started = time.monotonic()
        self._others = False
        for number, entry in enumerate(self._table.dump()):
            if self._match(entry):
                found[identity(entry)] = entry
            elif self._match_can_change and self.subscription.wants(Event("update", entry)):
                self._others = self.subscription.mode == EVENTS_AUTO
                key = identity(entry)
                if key in self.entries:
                    living.add(key)
            if number % _STRIDE == _STRIDE - 1:
                yield
        self._read_at = time.monotonic()
        self._took = self._read_at - started

    def _differences(self, found: dict[Identity, Entry], living: set[Identity]) -> list[Event | Resync]:
        overrun, self._lost = self._lost, False
        before, self.entries = self.entries, found
        events: list[Event] = []
        for key, entry in found.items():
            known = before.get(key)
            if known is not None and not _same(known, entry):
                events.append(Event("destroy", known, True))
                known = None
            if known is None:
                events.append(Event("new", entry, True))
                # What came while no event was lost came in silence, and may go in silence.
                (self.unannounced.discard if overrun else self.unannounced.add)(key)
            elif _changed(known, entry):
                events.append(Event("update", entry, True))
        events += [Event("destroy", entry, True, key in living) for key, entry in before.items() if key not in found]
        self.unannounced.intersection_update(found)
        if not events and not overrun:
            return []
        kinds = [event.kind for event in events]
        return [Resync(kinds.count("new"), kinds.count("update"), kinds.count("destroy"), overrun), *events]

    # what events change

    def _take(self) -> list[Event | Resync]:
        """What the next datagram changes; nothing where events were lost."""
        try:
            events = self.subscription.receive()
        except Overrun:
            self._lost = True
            return []
        return [told for event in events for told in self._apply(event)]

    def _apply(self, event: Event) -> Iterator[Event]:
        entry = event.entry
        key = identity(entry)
        known = self.entries.get(key)
        self.unannounced.discard(key)
        if known is not None and not _same(known, entry):
            if event.kind != "new":
                return  # of one that was there before the one that the table showed
            del self.entries[key]
            yield Event("destroy", known, True)
            known = None
        if event.kind == "destroy":
            if known is not None:
                del self.entries[key]
                yield event._replace(entry={**known, **entry})
            return
        whole = self._merged(event, known)
        if whole is None:
            return
        if not self._match(whole):
            if known is not None:
                del self.entries[key]
                yield Event("destroy", whole, by_update=True, port_id=event.port_id)
            return
        self.entries[key] = whole
        if known is None:
            yield Event("new", whole, by_update=event.kind == "update", port_id=event.port_id)
        elif event.kind == "update" or _changed(known, whole):
            yield Event("update", whole, port_id=event.port_id)

    def _merged(self, event: Event, known: Entry | None) -> Entry | None:
        """The whole entry after the event, None where it is gone already."""
        entry = event.entry
        if event.kind == "new" and known is None and not self._match.needs:
            return entry
        rest = known
        if known is None or ("labels" in known and "labels" not in entry):
            # What no event has told yet; nor does one tell that the last label went.
            rest = self._whole(entry) or known
        if rest is None:
            return None
        return {**{name: value for name, value in rest.items() if name not in _ALWAYS_TOLD}, **entry}

    def _whole(self, entry: Entry) -> Entry | None:
        try:
            return self._table.get(entry)
        except NotFound:
            return None  # its destruction is on the way


def _same(one: Entry, other: Entry) -> bool:
    """Whether two of one identity are one entry, as far as can be told."""
    return one.get("id") == other.get("id")


def _changed(one: Entry, other: Entry) -> bool:
    return any((one.get(name) or 0) != (other.get(name) or 0) for name in _TELLING)
