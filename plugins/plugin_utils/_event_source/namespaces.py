# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watch several network namespaces: one subscription in each.

One socket with NETLINK_LISTEN_ALL_NSID would receive only the events of namespaces that have an ID in its own
namespace. To give each an ID changes the host, and to read a table after lost events needs a socket in its namespace
anyway.

A socket keeps its namespace alive. The namespaces are therefore searched for again every few seconds, and one that has
lost its name and its processes is released.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from ...module_utils.client.errors import ConntrackError
from ...module_utils.client.host import namespace
from ...module_utils.client.host.namespaces import HostNamespace, cannot_enter, find, find_all, still_exists, visit
from .streams import Stream

#: The value of the option `netns` for all namespaces of the host.
ALL = "all"
#: Seconds between two searches for namespaces.
INTERVAL = 2.0
_OWN = "/proc/thread-self/ns/net"


class Place:
    """A watched namespace, in which the thread is when it is created. `open_streams` opens its streams."""

    def __init__(self, netns: str, open_streams: Callable[[contextlib.ExitStack], list[Stream]]) -> None:
        self.netns = netns
        with contextlib.ExitStack() as opened:
            self._file = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, self._file)
            self.streams = open_streams(opened)
            self._opened = opened.pop_all()

    def enter(self) -> None:
        """Move the thread into the namespace, because a stream may read its table."""
        namespace.enter_descriptor(self._file)

    def filenos(self) -> list[int]:
        """The file descriptors, readable when events are available."""
        return [stream.fileno() for stream in self.streams]

    def close(self) -> None:
        """Release the namespace."""
        self._opened.close()


class Places:
    """The watched namespaces: those of a list, or with `ALL` those of the host, also those that begin later.

    `begin` and `end` are called with the file descriptors of a namespace that begins or ends to be watched. Raises
    `ConntrackError` if a namespace cannot be watched at the start.
    """

    def __init__(
        self,
        wanted: str | Sequence[str],
        open_streams: Callable[[contextlib.ExitStack], list[Stream]],
        begin: Callable[[int], object],
        end: Callable[[int], object],
    ) -> None:
        self._open_streams, self._begin, self._end = open_streams, begin, end
        self._places: dict[tuple[int, int], Place] = {}
        #: Errors of namespaces that began later, so that each is reported once.
        self._failed: dict[tuple[int, int], str] = {}
        self._home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        self._listed = None if wanted == ALL else find(list(wanted))
        self._due = 0.0
        try:
            for netns, problem in self.search():
                raise ConntrackError(f"netns: {netns}: {problem}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release all namespaces."""
        for place in self._places.values():
            place.close()
        self._places.clear()
        os.close(self._home)

    def search(self) -> list[tuple[str, str]]:
        """Search for namespaces if it is time. Return the names and errors of those that cannot be watched."""
        if time.monotonic() < self._due:
            return []
        namespace.enter_descriptor(self._home)
        found, problems = self._found()
        identities = {one.identity for one in found}
        for identity in self._places.keys() - identities:
            place = self._places.pop(identity)
            for descriptor in place.filenos():
                self._end(descriptor)
            place.close()
        self._failed = {identity: name for identity, name in self._failed.items() if identity in identities}
        for one, error in visit(one for one in found if one.identity not in {**self._places, **self._failed}):
            try:
                if error is not None:
                    raise ConntrackError(cannot_enter(one.paths[0], error.strerror))
                place = self._places[one.identity] = Place(one.netns, self._open_streams)
            except (ConntrackError, OSError) as failure:  # OSError: too many open files
                self._failed[one.identity] = one.netns
                problems.append((one.netns, str(failure)))
                continue
            for descriptor in place.filenos():
                self._begin(descriptor)
        self._due = time.monotonic() + INTERVAL
        return problems

    def _found(self) -> tuple[list[HostNamespace], list[tuple[str, str]]]:
        if self._listed is not None:
            return [one for one in self._listed if still_exists(one)], []
        found, unreadable = find_all()
        if unreadable is not None and not self._due:
            return found, [(unreadable.path, str(unreadable))]
        return found, []

    def visited(self, ready: Collection[int] | None) -> Iterator[Place]:
        """Yield the namespaces with a descriptor in `ready` (None: all), while the thread is in each."""
        for place in list(self._places.values()):
            if ready is None or any(descriptor in ready for descriptor in place.filenos()):
                place.enter()
                yield place
