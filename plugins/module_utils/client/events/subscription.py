# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Events of entries and expectations.

A `Subscription` yields the events of one network namespace. The kernel drops events when the reader is too slow, and
reports that it did, but not which. With nf_conntrack_events=2, the default since Linux 5.19, an entry that was created
without any subscriber never has an event. A `Follower` (follower.py) reads the table again in both cases.

Source: ctnetlink_conntrack_event in net/netfilter/nf_conntrack_netlink.c; nf_conntrack_events in
Documentation/networking/nf_conntrack-sysctl.rst.
"""

from __future__ import annotations

import errno
import math
import select
from typing import TYPE_CHECKING, AsyncIterator, Callable, Iterable, Iterator, NamedTuple

from .. import uapi
from ..ctnetlink.messages import parse_entry
from ..entry.entry import Entry
from ..errors import ConntrackError, InvalidValue, KernelError, kernel_error
from ..host import sysctl
from ..match.bpf import ProgramTooLong, compile_filter
from ..match.expression import And, Term
from ..match.match import EVERYTHING, Match
from ..netlink.message import Message, parse
from ..netlink.socket import NetlinkTransport

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
#: Seconds between two readings of a table whose entries may change without an event.
CHECK = 10.0

#: Values of the sysctl nf_conntrack_events.
EVENTS_OFF = 0
EVENTS_ON = 1
EVENTS_AUTO = 2


class Event(NamedTuple):
    """One event.

    `kind` is a name of `GROUPS`; `entry` the entry or the expectation, as far as the kernel shows
    it (an update has what changed, a destroy neither helper nor labels). `missed` is True where no
    event told it, but a look at the table. `by_update` is True where an entry came to match, or
    ceased to, and did not itself begin or end. `port_id` is the netlink port id of the process that
    requested the change; this is usually its process id. It is 0 if packets or the kernel made the change.
    """

    kind: str
    entry: Entry
    missed: bool = False
    by_update: bool = False
    port_id: int = 0


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

    Several tasks of one event loop may read one subscription: each event goes to one of them. Each loop needs a
    subscription of its own.
    """

    def __init__(
        self,
        groups: Iterable[str] = ENTRY_GROUPS,
        match: Match = EVERYTHING,
        receive_buffer: int = RECEIVE_BUFFER,
        connect: Callable[..., NetlinkTransport] = NetlinkTransport,
    ) -> None:
        groups = tuple(groups)
        _check_groups(groups, match)
        #: The sysctl nf_conntrack_events. With `EVENTS_AUTO` an entry that was created while
        #: nobody listened never has an event, nor do the expectations of such a master.
        self.mode = sysctl.read("events")
        if self.mode == EVENTS_OFF:
            raise EventsOff("the kernel sends no events here; set net.netfilter.nf_conntrack_events=1")
        #: How often events were lost.
        self.overruns = 0
        self.closed = False
        self._match = match
        self._waiting: list[asyncio.Future[None]] = []
        program = _program(match.term)

        def listen(program: bytes) -> NetlinkTransport:
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
        was closed, the answer is False before its time. Raises `ConntrackError` while tasks of another loop wait.
        """
        import asyncio

        if self.closed:
            return False
        if self.wait(0):
            await asyncio.sleep(0)  # others have their turn also when events never cease
            return self._now()
        loop = asyncio.get_running_loop()
        if any(other.get_loop() is not loop for other in self._waiting):
            raise ConntrackError("another event loop reads this subscription; open one for each event loop")
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
    if isinstance(term, And) and not term.terms:
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
        kind = "new" if message.flags & uapi.NLM_F_CREATE else "update"
        return Event(kind, parse_entry(message), port_id=message.port)
    if message.type == uapi.IPCTNL_MSG_CT_DELETE:
        return Event("destroy", parse_entry(message), port_id=message.port)
    if message.type in _EXPECTATION_EVENTS:
        from ..expectation.expectation import parse_expectation

        return Event(_EXPECTATION_EVENTS[message.type], parse_expectation(message), port_id=message.port)
    return None
