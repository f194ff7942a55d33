# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generate the documents for rules in small batches.

The kernel is read only when the caller requests the next batch. Until then, events wait in the receive buffer. If the
buffer is full, the kernel drops events and reports the overrun, and a document passes this on to the rules. A flood of
events therefore needs no more memory than the buffer.
"""

from __future__ import annotations

import contextlib
import functools
import math
import select
import time
from collections.abc import Generator, Iterator

from ...module_utils._operations.snat_ports import snat_ports
from ...module_utils.client.entry.nested import Document
from ...module_utils.client.errors import Unavailable
from ...module_utils.client.events.subscription import Event
from ...module_utils.client.host import namespace, sysctl
from ...module_utils.client.match.match import EVERYTHING
from ...module_utils.client.reevaluate.changes import subscribed
from ...module_utils.client.table import Table
from .aggregate import Tally
from .changes import ChangeWindow
from .namespaces import Places
from .options import Changes, Options
from .payloads import document_of
from .snat_port_threshold import SnatPortUsage
from .streams import FollowerStream, Stream, StreamItem, SubscriptionStream
from .usage_threshold import TableUsage

#: Maximum number of documents in a batch.
BATCH = 64
#: Maximum number of uses of SNAT ports to compare with the threshold, those with the highest use.
_USES = 1000
#: Maximum number of seconds to wait in poll(2). A follower reads the table from time to time.
_PATIENCE = 1.0
#: Maximum number of sources in an event about SNAT ports.
_SOURCES = 10


def watch(options: Options, wake: int) -> Generator[list[Document], None, None]:
    """Generate batches of documents endlessly. Batches may be empty.

    Moves the thread that requests the first batch permanently into the namespace of the options. With several, the
    thread moves between them. Returns a batch early if the file descriptor `wake` becomes readable.
    """
    poll = select.poll()
    poll.register(wake, select.POLLIN)

    def listen(descriptor: int) -> None:
        poll.register(descriptor, select.POLLIN)

    with contextlib.ExitStack() as opened:
        changes = fill = ports = places = None
        streams: list[Stream] = []
        if options.several:
            places = Places(options.netns or (), functools.partial(_open_checked, options), listen, poll.unregister)
            opened.callback(places.close)
        else:
            if isinstance(options.netns, str):
                namespace.enter_named(options.netns, "run ansible-rulebook as root")
            sysctl.check_recorded(options.match.needs, "match")
            changes = _open_changes(options.changes, options.receive_buffer, opened) if options.changes else None
            streams = _open(options, opened)
            if options.threshold is not None:
                fill = TableUsage(options.threshold, functools.partial(_usage, opened.enter_context(Table())))
            if options.snat_ports is not None:
                measure = functools.partial(_snat_ports, opened.enter_context(Table()), options)
                ports = SnatPortUsage(options.snat_ports, measure)
        tally = Tally(options.aggregate) if options.aggregate else None
        clocks = [each for each in (tally, fill, ports, changes) if each is not None]
        of_changes = changes.filenos() if changes is not None else ()
        for descriptor in (*(stream.fileno() for stream in streams), *of_changes):
            listen(descriptor)
        ready: set[int] | None = None
        all_due = 0.0
        while True:
            batch: list[Document] = []
            if places is not None:
                batch += [_problem(netns, problem) for netns, problem in places.search()]
            if time.monotonic() >= all_due:
                ready, all_due = None, time.monotonic() + _PATIENCE
            for about, item in _items(streams) if places is None else _items_of(places, ready):
                if tally is not None and isinstance(item, Event) and item.kind in options.entry_groups:
                    tally.add(item, time.monotonic())
                    continue
                batch.append({**document_of(item, options.labels), **about})
                if len(batch) == BATCH:
                    yield batch
                    batch = []
            for clock in clocks:
                batch += clock.take(time.monotonic())
            yield batch
            due = min((clock.due for clock in clocks), default=math.inf)
            patience = min(_PATIENCE, max(0.0, due - time.monotonic()))
            ready = {descriptor for descriptor, _events in poll.poll(math.ceil(patience * 1000))}


def _items(streams: list[Stream]) -> Iterator[tuple[Document, StreamItem]]:
    """Yield the available events of one namespace, each without a key of its document."""
    for stream in streams:
        for item in stream.take():
            yield {}, item


def _items_of(places: Places, ready: set[int] | None) -> Iterator[tuple[Document, StreamItem]]:
    """Yield the available events of several namespaces, each with the key `netns` of its document."""
    for place in places.visited(ready):
        for _nothing, item in _items(place.streams):
            yield {"netns": place.netns}, item


def _problem(netns: str, problem: str) -> Document:
    return {"type": "namespace_error", "netns": netns, "msg": problem}


def _open_checked(options: Options, opened: contextlib.ExitStack) -> list[Stream]:
    """Open the sources of events of the namespace that the thread is in, if it records what the match needs."""
    sysctl.check_recorded(options.match.needs, "match")
    return _open(options, opened)


def _open(options: Options, opened: contextlib.ExitStack) -> list[Stream]:
    """Open the sources of events, which `opened` closes."""
    streams: list[Stream] = []

    def add(stream: Stream) -> None:
        opened.callback(stream.close)
        streams.append(stream)

    if options.entry_groups and options.resync:
        add(FollowerStream(options.entry_groups, options.match, options.receive_buffer, options.existing))
    elif options.entry_groups:
        add(SubscriptionStream(options.entry_groups, options.match, options.receive_buffer))
    if options.expectation_groups:
        add(SubscriptionStream(options.expectation_groups, EVERYTHING, options.receive_buffer))
    return streams


def _open_changes(changes: Changes, receive_buffer: int, opened: contextlib.ExitStack) -> ChangeWindow:
    """Subscribe to changes, until `opened` ends it."""
    try:
        return ChangeWindow(changes, opened.enter_context(subscribed(changes.kinds, receive_buffer)))
    except Unavailable as error:
        raise error.with_hint(f"{error.hint}, or leave ruleset out of changes.kinds") from error


def _snat_ports(table: Table, options: Options) -> list[Document]:
    """The highest uses of SNAT ports by matching flows."""
    return snat_ports(table, options.match, _USES, sources=_SOURCES)


def _usage(table: Table) -> tuple[int, int | None]:
    """The number of entries of a table and its maximum."""
    found = table.statistics()
    # Netlink returns the maximum since Linux 4.18
    return found["entries"], found.get("max_entries", sysctl.read("max"))
