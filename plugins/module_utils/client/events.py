# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens to entries and expectations, as the kernel tells it.

A `Subscription` gives the events of one namespace. The kernel drops events when the reader is too
slow; it says that it did, not which. A `Follower` therefore keeps what it knows of the entries that
match, and after an overrun reads the table and says what it missed.

Source: ctnetlink_conntrack_event in net/netfilter/nf_conntrack_netlink.c; nf_conntrack_events in
Documentation/networking/nf_conntrack-sysctl.rst.
"""

from __future__ import annotations

import errno
import select
from typing import Any, AsyncIterator, Callable, Iterable, Iterator, NamedTuple

from . import settings, uapi
from .bpf import ProgramTooLong, compile_filter
from .entry import Entry, Identity, identity
from .errors import ConntrackError, NotFound, Overrun, kernel_error
from .expectation import parse_expectation
from .match import EVERYTHING, Match
from .messages import parse_entry
from .netlink import Datagrams, Message, parse
from .table import Table

#: The groups that can be subscribed to; the kernel never sends updates of expectations.
GROUPS: dict[str, int] = {
    "new": uapi.NFNLGRP_CONNTRACK_NEW,
    "update": uapi.NFNLGRP_CONNTRACK_UPDATE,
    "destroy": uapi.NFNLGRP_CONNTRACK_DESTROY,
    "expectation_new": uapi.NFNLGRP_CONNTRACK_EXP_NEW,
    "expectation_destroy": uapi.NFNLGRP_CONNTRACK_EXP_DESTROY,
}

ENTRY_GROUPS = ("new", "update", "destroy")
#: Bytes of events that may wait for the reader.
RECEIVE_BUFFER = 8 << 20

#: Values of the sysctl nf_conntrack_events.
EVENTS_OFF = 0
EVENTS_AUTO = 2


class Event(NamedTuple):
    """One event.

    `kind` is a name of `GROUPS`; `entry` the entry or the expectation, as far as the kernel shows
    it (an update has what changed, a destroy neither helper nor labels). `missed` is True where no
    event told it, but the table after an overrun.
    """

    kind: str
    entry: Entry
    missed: bool = False


class EventsOff(ConntrackError):
    """The kernel sends no events in this namespace."""


class Subscription:
    """The events of the current namespace, of some groups, that match; close it after use.

    The kernel filters with a BPF program made from the match, as far as one can be made; what comes
    through is asked here. The match applies to entries, not to expectations. Raises `EventsOff`, and
    `NotPermitted` without CAP_NET_ADMIN.
    """

    def __init__(
        self,
        groups: Iterable[str] = ENTRY_GROUPS,
        match: Match = EVERYTHING,
        receive_buffer: int = RECEIVE_BUFFER,
        connect: Callable[..., Datagrams] = Datagrams,
    ) -> None:
        #: The sysctl nf_conntrack_events. With `EVENTS_AUTO` an entry that was created while
        #: nobody listened never has an event, nor do the expectations of such a master.
        self.mode = settings.read("events")
        if self.mode == EVENTS_OFF:
            raise EventsOff("the kernel sends no events here; set net.netfilter.nf_conntrack_events=1")
        self.overruns = 0
        self._match = match
        try:
            program = b"" if match is EVERYTHING else compile_filter(match.term)
        except ProgramTooLong:
            program = b""
        self._datagrams = connect(
            receive_buffer=receive_buffer, groups=[GROUPS[name] for name in groups], program=program
        )

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._datagrams.close()

    def fileno(self) -> int:
        """The file descriptor, readable when there are events: for poll and event loops."""
        return self._datagrams.fileno()

    def wait(self, timeout: float | None = None) -> bool:
        """Whether there are events to receive, after `timeout` seconds (None: as long as it takes)."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(None if timeout is None else max(0, int(timeout * 1000))))

    def receive(self) -> list[Event]:
        """The events of the next datagram, waiting for it; there may be none that match.

        Raises `Overrun` where events were lost, and counts it in `overruns`.
        """
        try:
            datagram = self._datagrams.receive()
        except OSError as error:
            if error.errno == errno.ETIMEDOUT:
                return []
            if error.errno == errno.ENOBUFS:
                self.overruns += 1
            raise kernel_error("receiving events", error.errno or errno.EIO) from error
        events = (parse_event(message) for _sequence, message in parse(datagram))
        return [event for event in events if event is not None and self._wanted(event)]

    def _wanted(self, event: Event) -> bool:
        return event.kind not in ENTRY_GROUPS or self._match(event.entry)

    def __iter__(self) -> Iterator[Event]:
        """Events for ever. Raises `Overrun` where some were lost; iterate again to go on."""
        while True:
            yield from self.receive()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """The same in asyncio's running event loop."""
        while True:
            await readable(self.fileno())
            for event in self.receive():
                yield event


async def readable(descriptor: int) -> None:
    """Let other tasks run until the descriptor can be read."""
    import asyncio

    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _settle(ready: Any) -> None:
    if not ready.done():
        ready.set_result(None)


def parse_event(message: Message) -> Event | None:
    """The event in a message, None in one that is none."""
    if message.type == uapi.IPCTNL_MSG_CT_NEW:
        return Event("new" if message.flags & uapi.NLM_F_CREATE else "update", parse_entry(message))
    if message.type == uapi.IPCTNL_MSG_CT_DELETE:
        return Event("destroy", parse_entry(message))
    if message.type == uapi.IPCTNL_MSG_EXP_NEW:
        return Event("expectation_new", parse_expectation(message))
    if message.type == uapi.IPCTNL_MSG_EXP_DELETE:
        return Event("expectation_destroy", parse_expectation(message))
    return None


class Resync(NamedTuple):
    """What an overrun hid: how many entries appeared, changed and vanished unseen."""

    new: int
    update: int
    destroy: int


class Follower:
    """The entries that match, from now on, and every event that changes them.

    Subscribes first and reads the table then, so that nothing falls between. `entries` are the
    entries by identity, kept up to date as the follower is iterated. After an overrun the table is
    read again: first comes a `Resync`, then an event for everything that it tells, with `missed`.
    """

    def __init__(self, match: Match = EVERYTHING, receive_buffer: int = RECEIVE_BUFFER) -> None:
        # An update says only what changed, and may make an entry match or cease to: all are needed.
        self.subscription = Subscription(receive_buffer=receive_buffer)
        self._match = match
        try:
            self._table = Table()
            self.entries: dict[Identity, Entry] = self._read()
        except BaseException:
            self.subscription.close()
            raise

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self.subscription.close()
        self._table.close()

    def _read(self) -> dict[Identity, Entry]:
        return {identity(entry): entry for entry in self._table.dump() if self._match(entry)}

    def receive(self) -> list[Event | Resync]:
        """What the next datagram changes, or after an overrun, what the table tells."""
        try:
            events = self.subscription.receive()
        except Overrun:
            return self.resync()
        told: list[Event | Resync] = []
        for event in events:
            known = self._apply(event)
            if known is not None:
                told.append(known)
        return told

    def __iter__(self) -> Iterator[Event | Resync]:
        while True:
            yield from self.receive()

    def _apply(self, event: Event) -> Event | None:
        key = identity(event.entry)
        known = self.entries.get(key)
        if event.kind == "destroy":
            if known is None:
                return None
            del self.entries[key]
            return event._replace(entry={**known, **event.entry})
        entry = event.entry
        if event.kind == "update":
            # It says what changed; the rest is known, or asked for.
            rest = known if known is not None else self._whole(entry)
            if rest is None:
                return None
            entry = {**rest, **entry}
        if not self._match(entry):
            if known is None:
                return None
            del self.entries[key]
            return Event("destroy", entry)
        self.entries[key] = entry
        if known is None:
            return Event("new", entry)
        return Event("update" if event.kind == "update" else "new", entry)

    def _whole(self, entry: Entry) -> Entry | None:
        try:
            return self._table.get(entry)
        except NotFound:
            return None  # its destruction is on the way

    def resync(self) -> list[Event | Resync]:
        """Read the table and tell what differs from what was known."""
        before, self.entries = self.entries, self._read()
        events: list[Event] = []
        for key, entry in self.entries.items():
            known = before.get(key)
            if known is None:
                events.append(Event("new", entry, True))
            elif known.get("id") != entry.get("id"):
                events += [Event("destroy", known, True), Event("new", entry, True)]
            elif any(entry.get(name) != known.get(name) for name in _LASTING):
                events.append(Event("update", entry, True))
        events += [Event("destroy", entry, True) for key, entry in before.items() if key not in self.entries]
        kinds = [event.kind for event in events]
        return [Resync(kinds.count("new"), kinds.count("update"), kinds.count("destroy")), *events]


#: What an update tells, apart from what changes with every packet.
_LASTING = ("status", "tcp.state", "sctp.state", "dccp.state", "mark", "labels", "helper")
