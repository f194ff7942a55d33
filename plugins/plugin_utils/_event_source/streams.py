# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources of events: a follower, which keeps a copy of the matching entries, and a subscription, which keeps none.

Both return the available events and never wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ...module_utils.client.errors import Overrun
from ...module_utils.client.events.follower import Follower
from ...module_utils.client.events.overrun import Resync
from ...module_utils.client.events.subscription import ENTRY_GROUPS, Event, Subscription
from ...module_utils.client.match.match import Match

#: Maximum number of datagrams to read before the caller checks the time again. Each has one event.
_STRIDE = 64


class EventLoss(NamedTuple):
    """A loss of events of a table, `conntrack` or `expect`. `overruns` is the number of losses so far.

    `resync` has the result of reading the table again; None if it was not read.
    """

    table: str
    overruns: int
    resync: Resync | None = None


StreamItem = Event | EventLoss


class Stream:
    """A source of events. Close it after use."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def fileno(self) -> int:
        """The file descriptor, readable when events are available."""
        return self._subscription.fileno()

    def take(self) -> list[StreamItem]:
        """The available events."""
        raise NotImplementedError

    def close(self) -> None:
        self._subscription.close()


class FollowerStream(Stream):
    """Events of entries that match completely, and after an overrun the changes that the table shows."""

    def __init__(self, groups: Iterable[str], match: Match, receive_buffer: int, existing: bool) -> None:
        self._groups = frozenset(groups)
        self._follower = Follower(match, receive_buffer)
        self._existing = existing
        super().__init__(self._follower.subscription)

    def close(self) -> None:
        self._follower.close()

    def take(self) -> list[StreamItem]:
        if self._existing:
            self._existing = False
            return [Event("new", entry, missed=True) for entry in self._follower.entries.values()]
        items: list[StreamItem] = []
        for _datagram in range(_STRIDE):
            for each in self._follower.receive(0):
                if isinstance(each, Event):
                    if each.kind in self._groups:
                        items.append(each)
                elif each.overrun:  # otherwise, it only found changes without events, and no event was lost
                    items.append(EventLoss("conntrack", self._subscription.overruns, each))
            if not self._subscription.wait(0):
                break
        return items


class SubscriptionStream(Stream):
    """Events of entries or expectations, as received from the kernel."""

    def __init__(self, groups: Iterable[str], match: Match, receive_buffer: int) -> None:
        groups = tuple(groups)
        self._table = "conntrack" if groups[0] in ENTRY_GROUPS else "expect"
        super().__init__(Subscription(groups, match, receive_buffer))

    def take(self) -> list[StreamItem]:
        items: list[StreamItem] = []
        for _datagram in range(_STRIDE):
            if not self._subscription.wait(0):
                break
            try:
                items += self._subscription.receive()
            except Overrun:
                items.append(EventLoss(self._table, self._subscription.overruns))
        return items
