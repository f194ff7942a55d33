# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where events come from: the follower, which knows the table, and the bare subscription, which knows nothing.

Either is asked for what there is now and never waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from ...module_utils.client.errors import Overrun
from ...module_utils.client.events.follower import Follower
from ...module_utils.client.events.overrun import Resync
from ...module_utils.client.events.subscription import ENTRY_GROUPS, Event, Subscription
from ...module_utils.client.match.match import Match

#: Datagrams read at a time, which have one event each: in between, there is the clock to be looked at.
_STRIDE = 64


class EventLoss(NamedTuple):
    """Events of a table, `conntrack` or `expect`, were lost, not for the first time, perhaps.

    `resync` says what a look at the table showed of them; None where nobody looked.
    """

    table: str
    overruns: int
    resync: Resync | None = None


StreamItem = Event | EventLoss


class Stream(Protocol):
    """Something that tells events."""

    def fileno(self) -> int:
        """The file descriptor, readable when there is something to take."""

    def take(self) -> list[StreamItem]:
        """What there is now."""

    def close(self) -> None:
        """End it."""


class FollowerStream:
    """The events of entries that match as a whole, and after an overrun what the table shows."""

    def __init__(self, groups: Iterable[str], match: Match, receive_buffer: int, existing: bool) -> None:
        self._groups = frozenset(groups)
        self._follower = Follower(match, receive_buffer)
        self._existing = existing

    def fileno(self) -> int:
        return self._follower.subscription.fileno()

    def close(self) -> None:
        self._follower.close()

    def take(self) -> list[StreamItem]:
        if self._existing:
            self._existing = False
            return [Event("new", entry, missed=True) for entry in self._follower.entries.values()]
        told: list[StreamItem] = []
        for _datagram in range(_STRIDE):
            for each in self._follower.receive(0):
                if isinstance(each, Event):
                    if each.kind in self._groups:
                        told.append(each)
                elif each.overrun:  # else it found what never has an event, and lost none
                    told.append(EventLoss("conntrack", self._follower.subscription.overruns, each))
            if not self._follower.subscription.wait(0):
                break
        return told


class SubscriptionStream:
    """The events as the kernel tells them, of entries or of expectations."""

    def __init__(self, groups: Iterable[str], match: Match, receive_buffer: int) -> None:
        groups = tuple(groups)
        self._table = "conntrack" if groups[0] in ENTRY_GROUPS else "expect"
        self._subscription = Subscription(groups, match, receive_buffer)

    def fileno(self) -> int:
        return self._subscription.fileno()

    def close(self) -> None:
        self._subscription.close()

    def take(self) -> list[StreamItem]:
        told: list[StreamItem] = []
        for _datagram in range(_STRIDE):
            if not self._subscription.wait(0):
                break
            try:
                told += self._subscription.receive()
            except Overrun:
                told.append(EventLoss(self._table, self._subscription.overruns))
        return told
