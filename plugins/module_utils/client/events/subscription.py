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
from ..netlink.socket import Closing, NetlinkTransport

if TYPE_CHECKING:
    import asyncio

#: The groups that a subscription can have. The kernel never sends updates of expectations.
GROUPS: dict[str, int] = {
    "new": uapi.NFNLGRP_CONNTRACK_NEW,
    "update": uapi.NFNLGRP_CONNTRACK_UPDATE,
    "destroy": uapi.NFNLGRP_CONNTRACK_DESTROY,
    "expectation_new": uapi.NFNLGRP_CONNTRACK_EXP_NEW,
    "expectation_destroy": uapi.NFNLGRP_CONNTRACK_EXP_DESTROY,
}

ENTRY_GROUPS = ("new", "update", "destroy")
#: Default size in bytes of the receive buffer. An event takes about 1 KiB of it.
RECEIVE_BUFFER = 8 << 20
#: Default seconds between two readings of a table whose entries may change without events.
CHECK = 10.0

#: Values of the sysctl nf_conntrack_events.
EVENTS_OFF = 0
EVENTS_ON = 1
EVENTS_AUTO = 2


class Event(NamedTuple):
    """One event.

    `kind` is a name of `GROUPS`. `entry` is the entry or the expectation as a flat mapping, with the keys that the
    kernel sends: an update has what changed, a destroy neither helper nor labels. `missed` is True if the table showed
    the change, and no event. `by_update` is True if an update made an existing entry match or no longer match.
    `port_id` is the netlink port id of the process that requested the change, which is usually its process id; it is 0
    if packets or the kernel made the change.
    """

    kind: str
    entry: Entry
    missed: bool = False
    by_update: bool = False
    port_id: int = 0


class EventsOff(ConntrackError):
    """The kernel sends no events in this namespace: nf_conntrack_events is 0."""


class Subscription(Closing):
    """The events of some groups in the current network namespace that match. Close it after use.

    Iterate it with `for` or `async for`, or use `fileno` with another event loop. The match is evaluated for the keys
    that an event has, and these are not all:

    - always: tuples, zone, status, id, and a mark other than 0
    - in all but destroy events: timeout, helper
    - in destroy events only: counters, timestamps
    - protocol state: in destroy events, and if it changed
    - labels: if they changed
    - master: in new events

    A `Follower` matches complete entries. The match does not apply to expectations.

    The kernel filters with a BPF program that is compiled from the match; the match is then evaluated for each event
    that passes. Raises `EventsOff`, `NotPermitted` without CAP_NET_ADMIN, and `InvalidValue` for an unknown group or a
    match that needs counters or timestamps of other events than destroy.

    Several tasks of one event loop may read one subscription: each event goes to one of them. Each loop needs a
    subscription of its own.

    :param groups: names of `GROUPS`.
    :param receive_buffer: bytes of events that may wait for the reader. Without CAP_NET_ADMIN in the initial user
        namespace, net.core.rmem_max is the limit.
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
        #: The sysctl nf_conntrack_events. With `EVENTS_AUTO`, an entry that was created without any subscriber never
        #: has an event, and neither have the expectations of such a master.
        self.mode = sysctl.read("events")
        if self.mode == EVENTS_OFF:
            raise EventsOff("the kernel sends no events here; set net.netfilter.nf_conntrack_events=1")
        #: The number of overruns so far.
        self.overruns = 0
        self.closed = False
        self._match = match
        self._waiting: list[asyncio.Future[None]] = []
        program = _program(match.term)

        def listen(program: bytes) -> NetlinkTransport:
            numbers = [GROUPS[name] for name in groups]
            return connect(receive_buffer=receive_buffer, groups=numbers, program=program)

        #: Whether the kernel filters with a BPF program.
        self.filtered = bool(program)
        try:
            self._datagrams = listen(program)
        except KernelError:
            if not program:
                raise
            # A long program may exceed net.core.optmem_max; the match is then evaluated here for all events.
            self._datagrams = listen(b"")
            self.filtered = False

    def close(self) -> None:
        """Close the subscription. Iterations end."""
        if self._waiting:
            self._waiting[0].get_loop().remove_reader(self.fileno())
        self.closed = True
        self._wake()
        self._datagrams.close()

    def fileno(self) -> int:
        """Return the file descriptor for poll and event loops. It is readable if there are events."""
        return self._datagrams.fileno()

    @property
    def receive_buffer(self) -> int:
        """The actual size of the receive buffer, in bytes as the kernel counts them.

        That is twice the requested size, because the kernel counts its own records (about 1 KiB for each event), too.
        """
        return self._datagrams.receive_buffer

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for events for at most `timeout` seconds (None: no limit), and return whether there are any."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(None if timeout is None else max(0, math.ceil(timeout * 1000))))

    async def ready(self, timeout: float | None = None) -> bool:
        """Wait as `wait` does, in asyncio's running event loop.

        Several tasks of one loop may wait. Returns False early if another task took the events, or the subscription was
        closed. Raises `ConntrackError` while tasks of another loop wait.
        """
        import asyncio

        if self.closed:
            return False
        if self.wait(0):
            await asyncio.sleep(0)  # lets other tasks run while there are always events
            return self._now()
        loop = asyncio.get_running_loop()
        if any(other.get_loop() is not loop for other in self._waiting):
            raise ConntrackError("another event loop reads this subscription; open one for each event loop")
        ready: asyncio.Future[None] = loop.create_future()
        descriptor = self.fileno()
        if not self._waiting:
            loop.add_reader(descriptor, self._wake)
        self._waiting.append(ready)
        alarm = None if timeout is None else loop.call_later(timeout, _finish, ready)
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
            _finish(ready)

    def receive(self) -> list[Event]:
        """Return the matching events of the next datagram, for which it waits some seconds. The list may be empty.

        Raises `Overrun` if events were lost, and counts it in `overruns`.
        """
        events = (parse_event(message) for _sequence, message in parse(self._datagram()))
        return [event for event in events if event is not None and self.wants(event)]

    def skip(self, most: int) -> int:
        """Discard up to `most` datagrams of events that wait, and return their number. Raises `Overrun`, too."""
        number = 0
        while number < most and self.wait(0):
            self._datagram()
            number += 1
        return number

    def _datagram(self) -> bytes:
        """Receive the next datagram. It is empty if none came in time."""
        try:
            return self._datagrams.receive()
        except OSError as error:
            if error.errno == errno.ETIMEDOUT:
                return b""
            if error.errno == errno.ENOBUFS:
                self.overruns += 1
            raise kernel_error("receiving events", error.errno or errno.EIO) from error

    def wants(self, event: Event) -> bool:
        """Whether the match holds for the keys that an event has. It always holds for expectations."""
        return event.kind not in ENTRY_GROUPS or self._match(event.entry)

    def __iter__(self) -> Iterator[Event]:
        """Yield events until it is closed. Raises `Overrun` if events were lost; iterate again to continue."""
        while not self.closed:
            yield from self.receive()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield events in asyncio's running event loop, as `for` does."""
        while not self.closed:
            if await self.ready():
                for event in self.receive():
                    yield event


def _finish(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _check_groups(groups: tuple[str, ...], match: Match) -> None:
    for name in groups or ("",):
        if name not in GROUPS:
            raise InvalidValue("groups", f"{name!r} is not a group; write one or more of {', '.join(GROUPS)}")
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
    """Return the event in a message, or None if the message is another one."""
    if message.type == uapi.IPCTNL_MSG_CT_NEW:
        kind = "new" if message.flags & uapi.NLM_F_CREATE else "update"
        return Event(kind, parse_entry(message), port_id=message.port)
    if message.type == uapi.IPCTNL_MSG_CT_DELETE:
        return Event("destroy", parse_entry(message), port_id=message.port)
    if message.type in _EXPECTATION_EVENTS:
        from ..expectation.expectation import parse_expectation

        return Event(_EXPECTATION_EVENTS[message.type], parse_expectation(message), port_id=message.port)
    return None
