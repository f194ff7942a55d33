# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens to entries and expectations, as the kernel tells it.

A `Subscription` gives the events of one namespace. The kernel drops events when the reader is too
slow; it says that it did, not which. And with nf_conntrack_events=2, the default since Linux 5.19,
it never has an event for an entry that was created while nobody listened. A `Follower` therefore
keeps what it knows of the entries that match, reads the table after an overrun and, now and then,
as long as entries may change in silence, and says what it missed.

Source: ctnetlink_conntrack_event in net/netfilter/nf_conntrack_netlink.c; nf_conntrack_events in
Documentation/networking/nf_conntrack-sysctl.rst.
"""

from __future__ import annotations

import errno
import math
import select
import time
from typing import TYPE_CHECKING, AsyncIterator, Callable, Iterable, Iterator, NamedTuple

from . import settings, uapi
from .bpf import ProgramTooLong, compile_filter
from .entry import Entry, Identity, identity
from .errors import ConntrackError, InvalidValue, KernelError, NotFound, Overrun, kernel_error
from .match import EVERYTHING, Match
from .messages import parse_entry
from .netlink import Datagrams, Message, parse
from .table import Table
from .term import ALWAYS, Either, Every, Masked, Not, Term, Within

if TYPE_CHECKING:
    import asyncio

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
#: Seconds between two looks at a table whose entries may change in silence.
CHECK = 10.0

#: Values of the sysctl nf_conntrack_events.
EVENTS_OFF = 0
EVENTS_ON = 1
EVENTS_AUTO = 2

#: A look at the table may take one part in so many of the time.
_SHARE = 20
#: Entries read between two turns of other tasks.
_STRIDE = 512


class Event(NamedTuple):
    """One event.

    `kind` is a name of `GROUPS`; `entry` the entry or the expectation, as far as the kernel shows
    it (an update has what changed, a destroy neither helper nor labels). `missed` is True where no
    event told it, but a look at the table. `by_update` is True where an entry came to match, or
    ceased to, and did not itself begin or end.
    """

    kind: str
    entry: Entry
    missed: bool = False
    by_update: bool = False


class EventsOff(ConntrackError):
    """The kernel sends no events in this namespace."""


class Subscription:
    """The events of the current namespace, of some groups, that match; close it after use.

    The match is asked about what an event shows of an entry, which is not all: tuples, zone,
    status, id and a mark other than 0 always; the timeout and the helper not in a destroy; the state
    and labels where they changed, the state also in a destroy; the master in a new; counters and
    timestamps in a destroy only. Use a `Follower` to match whole entries. Expectations are not asked about.

    The kernel filters with a BPF program made from the match, as far as one can be made; what comes
    through is asked here. Raises `EventsOff`, and `NotPermitted` without CAP_NET_ADMIN.

    Several tasks or loops may read one subscription: each event goes to one of them.
    """

    def __init__(
        self,
        groups: Iterable[str] = ENTRY_GROUPS,
        match: Match = EVERYTHING,
        receive_buffer: int = RECEIVE_BUFFER,
        connect: Callable[..., Datagrams] = Datagrams,
    ) -> None:
        groups = tuple(groups)
        _check_groups(groups, match)
        #: The sysctl nf_conntrack_events. With `EVENTS_AUTO` an entry that was created while
        #: nobody listened never has an event, nor do the expectations of such a master.
        self.mode = settings.read("events")
        if self.mode == EVENTS_OFF:
            raise EventsOff("the kernel sends no events here; set net.netfilter.nf_conntrack_events=1")
        #: How often events were lost.
        self.overruns = 0
        self.closed = False
        self._match = match
        self._waiting: list[asyncio.Future[None]] = []
        program = _program(match.term)

        def listen(program: bytes) -> Datagrams:
            numbers = [GROUPS[name] for name in groups]
            return connect(receive_buffer=receive_buffer, groups=numbers, program=program)

        #: Whether the kernel filters.
        self.filtered = bool(program)
        try:
            self._datagrams = listen(program)
        except KernelError:
            if not program:
                raise
            # A long program may be beyond net.core.optmem_max: it would only have spared work.
            self._datagrams = listen(b"")
            self.filtered = False

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; whoever iterates comes to the end, too."""
        if self._waiting:
            self._waiting[0].get_loop().remove_reader(self.fileno())
        self.closed = True
        self._wake()
        self._datagrams.close()

    def fileno(self) -> int:
        """The file descriptor, readable when there are events: for poll and event loops."""
        return self._datagrams.fileno()

    @property
    def receive_buffer(self) -> int:
        """The size that the receive buffer really has, in bytes as the kernel counts them.

        That is twice what was asked for: the kernel's own records (about 1 KiB an event) count,
        too. Outside the initial user namespace it is limited by net.core.rmem_max.
        """
        return self._datagrams.receive_buffer

    def wait(self, timeout: float | None = None) -> bool:
        """Whether there are events to receive, after `timeout` seconds (None: as long as it takes)."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(None if timeout is None else max(0, math.ceil(timeout * 1000))))

    async def ready(self, timeout: float | None = None) -> bool:
        """What `wait` says, in asyncio's running event loop: other tasks go on meanwhile.

        Any number of tasks of one loop may wait; where another one was faster, or the subscription
        was closed, the answer is False before its time.
        """
        import asyncio

        if self.closed:
            return False
        if self.wait(0):
            await asyncio.sleep(0)  # others have their turn also when events never cease
            return self._now()
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        descriptor = self.fileno()
        if not self._waiting:
            loop.add_reader(descriptor, self._wake)
        self._waiting.append(ready)
        alarm = None if timeout is None else loop.call_later(timeout, _settle, ready)
        try:
            await ready
        finally:
            if alarm is not None:
                alarm.cancel()
            self._waiting.remove(ready)
            if not self._waiting and not self.closed:
                loop.remove_reader(descriptor)
        return self._now()

    def _now(self) -> bool:
        return not self.closed and self.wait(0)

    def _wake(self) -> None:
        for ready in self._waiting:
            _settle(ready)

    def receive(self) -> list[Event]:
        """The events of the next datagram, waiting for it some seconds; there may be none that match.

        Raises `Overrun` where events were lost, and counts it in `overruns`.
        """
        events = (parse_event(message) for _sequence, message in parse(self._datagram()))
        return [event for event in events if event is not None and self.wants(event)]

    def skip(self, most: int) -> int:
        """Throw away events that wait, up to so many of them, unread; gives how many. Raises `Overrun`, too."""
        number = 0
        while number < most and self.wait(0):
            self._datagram()
            number += 1
        return number

    def _datagram(self) -> bytes:
        """The next datagram, an empty one where none came."""
        try:
            return self._datagrams.receive()
        except OSError as error:
            if error.errno == errno.ETIMEDOUT:
                return b""
            if error.errno == errno.ENOBUFS:
                self.overruns += 1
            raise kernel_error("receiving events", error.errno or errno.EIO) from error

    def wants(self, event: Event) -> bool:
        """Whether the match holds for what the event shows; it does for expectations."""
        return event.kind not in ENTRY_GROUPS or self._match(event.entry)

    def __iter__(self) -> Iterator[Event]:
        """Events until it is closed. Raises `Overrun` where some were lost; iterate again to go on."""
        while not self.closed:
            yield from self.receive()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """The same in asyncio's running event loop."""
        while not self.closed:
            if await self.ready():
                for event in self.receive():
                    yield event


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _check_groups(groups: tuple[str, ...], match: Match) -> None:
    for name in groups or ("",):
        if name not in GROUPS:
            raise InvalidValue("groups", f"{name!r} is no group; write one or more of {', '.join(GROUPS)}")
    if match.needs and {"new", "update"} & set(groups):
        raise InvalidValue(
            "match",
            "counters and timestamps are shown by destroy events only; subscribe to these alone, "
            "or use a Follower, which reads whole entries",
        )


def _program(term: Term) -> bytes:
    if isinstance(term, Every) and not term.terms:
        return b""
    try:
        return compile_filter(term)
    except ProgramTooLong:
        return b""


_EXPECTATION_EVENTS = {
    uapi.IPCTNL_MSG_EXP_NEW: "expectation_new",
    uapi.IPCTNL_MSG_EXP_DELETE: "expectation_destroy",
}


def parse_event(message: Message) -> Event | None:
    """The event in a message, None in one that is none."""
    if message.type == uapi.IPCTNL_MSG_CT_NEW:
        return Event("new" if message.flags & uapi.NLM_F_CREATE else "update", parse_entry(message))
    if message.type == uapi.IPCTNL_MSG_CT_DELETE:
        return Event("destroy", parse_entry(message))
    if message.type in _EXPECTATION_EVENTS:
        from .expectation import parse_expectation  # few ask for these

        return Event(_EXPECTATION_EVENTS[message.type], parse_expectation(message))
    return None


class Resync(NamedTuple):
    """What a look at the table shows: how many entries appeared, changed and vanished unseen.

    `overrun` tells whether events were lost, or whether these never had any.
    """

    new: int
    update: int
    destroy: int
    overrun: bool = True


class Follower:
    """The entries that match, from now on, and every event that changes them.

    Subscribes first and reads the table then, so that nothing falls between. `entries` are the
    entries by identity, kept up to date as the follower is iterated. An entry that an update makes
    match is a new one, one that ceases to is destroyed: both with `by_update`.

    After an overrun the table is read again: first comes a `Resync`, then an event for everything
    that it tells, with `missed`.

    `silent` are the entries of the first reading of which no event has been heard yet. With
    nf_conntrack_events=2 those that were created while nobody listened never have one; nor have
    those from a time when it was 0. As long as there are any, or with 2 others that could come to
    match, or the match asks for what changes without an event (timeouts, counters, ages), the table
    is read every `check` seconds, for at most a twentieth of the time, and what is found comes in
    the same way. None leaves that to whoever calls `resync`.

    Belongs into one network namespace, as a `Table` does, and to one reader.
    """

    def __init__(
        self,
        match: Match = EVERYTHING,
        receive_buffer: int = RECEIVE_BUFFER,
        check: float | None = CHECK,
        connect: Callable[..., Datagrams] = Datagrams,
        table: Callable[[], Table] = Table,
    ) -> None:
        # An update says only what changed, and may make an entry match or cease to: what has to come
        # through is whatever may come to match in its life.
        enduring = lasting(match.term)
        self.subscription = Subscription(match=Match(enduring), receive_buffer=receive_buffer, connect=connect)
        self.entries: dict[Identity, Entry] = {}
        self._match = match
        self._fickle = enduring != match.term
        self._drifts = drifts(match.term)
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
        self.silent: set[Identity] = set(self.entries)

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; whoever iterates comes to the end, too."""
        self.subscription.close()
        self._table.close()

    def receive(self, timeout: float | None = None) -> list[Event | Resync]:
        """What comes next: changes, nothing where no event told any, or what a look at the table shows.

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
        if self._check is None or not (self.silent or self._others or self._drifts):
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
            elif self._fickle and self.subscription.wants(Event("update", entry)):
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
                (self.silent.discard if overrun else self.silent.add)(key)
            elif _changed(known, entry):
                events.append(Event("update", entry, True))
        events += [Event("destroy", entry, True, key in living) for key, entry in before.items() if key not in found]
        self.silent.intersection_update(found)
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
        self.silent.discard(key)
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
                yield Event("destroy", whole, by_update=True)
            return
        self.entries[key] = whole
        if known is None:
            yield Event("new", whole, by_update=event.kind == "update")
        elif event.kind == "update" or _changed(known, whole):
            yield Event("update", whole)

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


#: What tells an update from the packets of an entry: not its timeout, nor its counters.
_TELLING = ("status", "tcp.state", "sctp.state", "dccp.state", "mark", "labels", "helper")
#: What an event of an entry that lives has whenever the entry has it.
_ALWAYS_TOLD = ("mark", "helper")
#: What an entry begins with and keeps, and what every event shows.
_IMMUTABLE = ("family", "zone")
_TUPLES = ("original.", "reply.")


def _same(one: Entry, other: Entry) -> bool:
    """Whether two of one identity are one entry, as far as can be told."""
    return one.get("id") == other.get("id")


def _changed(one: Entry, other: Entry) -> bool:
    return any((one.get(name) or 0) != (other.get(name) or 0) for name in _TELLING)


def lasting(term: Term, generous: bool = True) -> Term:
    """What the term says of what never changes; the rest holds, or under a `Not` does not."""
    if isinstance(term, Not):
        return Not(lasting(term.term, not generous))
    if isinstance(term, Every):
        return Every(tuple(lasting(part, generous) for part in term.terms))
    if isinstance(term, Either):
        return Either(tuple(lasting(part, generous) for part in term.terms))
    keys = term.keys if isinstance(term, Within) else (term.key,) if isinstance(term, Masked) else ("",)
    if all(key in _IMMUTABLE or key.startswith(_TUPLES) for key in keys):
        return term
    return ALWAYS if generous else Either(())


def drifts(term: Term) -> bool:
    """Whether the term asks for what changes without an event."""
    if isinstance(term, Not):
        return drifts(term.term)
    if isinstance(term, (Every, Either)):
        return any(map(drifts, term.terms))
    return not isinstance(term, (Within, Masked))
