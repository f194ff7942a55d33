# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until matching entries are gone, or until enough entries match.

Only a read of the table shows whether the goal is reached. Events, deadlines and the rate of change determine when to
read it again. No list of the matching entries is kept between two reads.

As long as an entry that was read still matches, not all entries are gone. A few of the entries with the longest
remaining timeouts are therefore kept as witnesses. Reading one witness takes about ten microseconds, whether the table
has a hundred entries or a million. The table is read again only when too few witnesses match.

An event ends the pause, but its content is not read: the witnesses show the state, also if events were lost. In three
cases there is no event, so the witnesses are read without one:

- An entry expires. Its event is sent only when the kernel's garbage collection reaches it, so a witness is read at its
  deadline, which traffic may have moved.
- An entry was created while no process listened, with nf_conntrack_events=2. It never has an event, so a witness is
  read about twenty times a second.
- The match depends on timeouts, counters or ages, which change without an event.

There are no witnesses if many entries may stay, or if a number of entries has to come. The table is then read again
when the number of received events reaches the number of missing entries. If changes need not cause an event, it is
also read when half of the missing number is expected, at the rate between the last two reads.

If entries have to come, entries that end before a read finds them count as well: their events are read. An entry counts
as ended if its first event was received, it matched, and its last event was received before the read. The read does not
find it, so no entry counts twice. Lost events make the number smaller, never larger.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from ..client.dump.sample import EntrySample
from ..client.entry.entry import Entry, Identity, describe, identity, to_documents
from ..client.entry.labels import LabelMap
from ..client.errors import NAMED, KernelError, Overrun, PartialFailure, ResultUnknown, named
from ..client.events.subscription import CHECK, EVENTS_ON, Event, EventsOff, Subscription
from ..client.match.expression import MaskEquals, has_predicate, immutable_part
from ..client.match.match import Match
from ..client.netlink.socket import Closing, DumpInterrupted
from ..client.table import Table
from ..client.uapi import IPS_DYING

if TYPE_CHECKING:
    from ..client.entry.nested import Document

#: The minimum number of seconds between two reads of witnesses, or of the table.
SHORT = 0.02
#: The maximum number of seconds between two reads of witnesses that may stop matching without an event.
SILENT = 0.05
#: The maximum number of seconds between two reads of the table if entries may come and go without an event.
UNHEARD = 1.0
#: The reciprocal of the share of a CPU that reading witnesses may take.
SHARE = 20
#: Witnesses in reserve: the table is read again when they are used up.
RESERVE = 64
#: If this number of entries or more may stay, no witnesses are used: there would be too many.
FEW = 256
#: A read that takes this number of CPU seconds is followed by a rest of the same length. The rest grows with the square
#: of the CPU time, up to `LONGEST_REST` times the CPU time.
HEAVY = 0.2
LONGEST_REST = 3.0
#: Events discarded between two reads of witnesses. Those that are left end the next pause at once.
FORGOTTEN = 64
#: Events counted at a time.
COUNTED = 512
#: The maximum number of new entries whose events are followed. Entries beyond it count only if a read finds them.
FOLLOWED = 100_000
#: The number of attempts to read the table if a dump is interrupted or its answer is lost.
ATTEMPTS = 3


#: Entries whose last event was sent, and that the kernel is about to remove from the table.
_DYING = Match(MaskEquals("status", ((IPS_DYING, IPS_DYING),)))


class TimedOut(PartialFailure):
    """The timeout has passed, and there are still too many matching entries, or too few."""


class Goal(NamedTuple):
    """The condition to wait for: at most `number` entries match or, if `rising`, at least `number`."""

    number: int
    rising: bool = False

    def lacks(self, count: int) -> int:
        """Return the number of entries that have to go, or to come. It is 0 or negative if the goal is reached."""
        return self.number - count if self.rising else count - self.number

    @property
    def witnesses(self) -> int:
        """The number of matching entries that prove that the goal is not reached, 0 if no witnesses are used."""
        return 0 if self.rising or self.number >= FEW else self.number + 1


class Witness(NamedTuple):
    """An entry that matched, and the time on the monotonic clock when it expires if no packet arrives."""

    entry: Entry
    deadline: float


class Sight(NamedTuple):
    """The result of a read: the number of matching entries, the first of them, and witnesses by descending deadline.

    `began` and `ended` are times of the monotonic clock. `cost` is in CPU seconds, on a busy host much less than the
    time between them.
    """

    matching: int
    first: list[Entry]
    witnesses: list[Witness]
    began: float
    ended: float
    cost: float

    @property
    def rest(self) -> float:
        """Seconds to wait before the next read, to limit the load on the host."""
        return self.cost * min(LONGEST_REST, self.cost / HEAVY)


class Listener(Closing):
    """Receives the events of entries that may match. It receives nothing if the kernel sends no events.

    If entries have to come (`rising`), it also reads the events, and counts the entries that come, match, and end.
    """

    def __init__(
        self, match: Match, subscribe: Callable[..., Subscription] = Subscription, rising: bool = False
    ) -> None:
        self._match = match
        is_time_dependent = has_predicate(match.term)
        #: Whether events are read. They do not show keys that change without an event.
        self.reads = rising and not match.needs and not is_time_dependent
        #: New entries by identity and id: their keys from events until they match, and whether they have matched.
        self._came: dict[tuple[Identity, Any], tuple[Entry, bool]] = {}
        #: The number of entries that came, matched, and ended.
        self.ended = 0
        self._subscription: Subscription | None = None
        with contextlib.suppress(EventsOff):
            self._subscription = subscribe(match=Match(immutable_part(match.term)))
        #: Whether all changes except expiry are known to cause an event. With nf_conntrack_events=1, entries from
        #: before it was set have no events.
        subscribed = self._subscription is not None and self._subscription.mode == EVENTS_ON
        self.complete = subscribed and not is_time_dependent

    def close(self) -> None:
        if self._subscription is not None:
            self._subscription.close()

    def listen(self, until: float) -> bool:
        """Wait for an event until that time. Return whether one was received."""
        if self._subscription is None:
            sleep(until)
            return False
        return self._subscription.wait(until - time.monotonic())

    def skip(self, most: int) -> float:
        """Remove up to `most` received events. Return their number, infinity if events were lost."""
        if self._subscription is None:
            return 0
        try:
            return self._read(self._subscription, most) if self.reads else self._subscription.skip(most)
        except Overrun:
            self._came.clear()
            return math.inf

    def _read(self, subscription: Subscription, most: int) -> int:
        number = 0
        while number < most and subscription.wait(0):
            for event in subscription.receive():
                self._note(event)
            number += 1
        return number

    def _note(self, event: Event) -> None:
        key = (identity(event.entry), event.entry.get("id"))
        known = self._came.pop(key, None)
        if event.kind == "destroy":
            self.ended += known is not None and known[1]
        elif known is not None or (event.kind == "new" and len(self._came) < FOLLOWED):
            # An update event contains only the changed keys
            before, matched = known or ({}, False)
            entry = {} if matched else {**before, **event.entry}
            matched = matched or self._match(entry)
            self._came[key] = ({} if matched else entry, matched)


def sleep(until: float) -> None:
    """Sleep until that time on the monotonic clock. Return at once if it has passed."""
    seconds = until - time.monotonic()
    if seconds > 0:
        time.sleep(seconds)


class Waiting:
    """The reads of the table and the pauses between them."""

    def __init__(self, table: Table, match: Match, goal: Goal, report_limit: int, listener: Listener) -> None:
        self._table = table
        self._match = match.but_not(_DYING) if listener.reads else match
        self._goal = goal
        self._report_limit = report_limit
        self._listener = listener
        self._pace = SHORT
        self._before: Sight | None = None

    def lacks(self, sight: Sight) -> int:
        """Return the number of entries that have to go, or to come, after a read."""
        return self._goal.lacks(sight.matching + self._listener.ended)

    def read_table(self) -> Sight:
        """Read the table. An interrupted dump or a lost answer is retried, up to `ATTEMPTS` reads."""
        if self._listener.reads:
            self._listener.skip(COUNTED)
        for attempt in range(1, ATTEMPTS + 1):
            needed = self._goal.witnesses
            sample = EntrySample(max(self._report_limit, NAMED), needed and needed + RESERVE)
            began, before = time.monotonic(), time.process_time()
            try:
                self._table.scan(sample, self._match.where)
                break
            except (DumpInterrupted, ResultUnknown):
                if attempt == ATTEMPTS:
                    raise
        witnesses = [_witness(entry, began) for entry in sample.longest]
        cost = time.process_time() - before
        return Sight(sample.count, sample.first, witnesses, began, time.monotonic(), cost)

    def pause(self, sight: Sight, until: float) -> None:
        """Wait until another read can show a different result, or until the time is up."""
        if sight.witnesses:
            self._watch(sight.witnesses, until)
        else:
            self._reckon(sight, until)
        sleep(min(until, sight.ended + sight.rest))
        self._before = sight

    # with witnesses

    def _watch(self, witnesses: list[Witness], until: float) -> None:
        """Wait until fewer witnesses match than prove that the goal is not reached."""
        needed = self._goal.witnesses
        asked, gap, pause = time.monotonic(), SHORT, SHORT
        while True:
            # Until then there are enough witnesses, unless there is an event.
            alarm = min(witnesses[needed - 1].deadline, asked + pause)
            self._listener.listen(min(until, max(alarm, asked + gap)))
            sleep(min(until, asked + gap))
            asked = time.monotonic()
            if asked >= until:
                return
            received_events = self._listener.skip(FORGOTTEN) > 0
            before = time.process_time()
            there = self._ask(witnesses, needed, received_events)
            if len(there) < needed:
                return
            gap = max(SHORT, SHARE * (time.process_time() - before))
            longest = CHECK if self._listener.complete else SILENT
            pause = min(2 * pause, longest) if len(there) == len(witnesses) else SHORT
            witnesses = there

    def _ask(self, witnesses: list[Witness], needed: int, received_events: bool) -> list[Witness]:
        """Read witnesses until `needed` of them match. Return the matching ones and those that were not read.

        A witness that cannot be read is dropped.
        """
        asked_at = time.monotonic()
        there: list[Witness] = []
        unasked = list(witnesses)
        while unasked and len(there) < needed:
            count = needed - len(there)
            asked, unasked = unasked[:count], unasked[count:]
            for witness, found in zip(asked, self._table.find_by_tuples(witness.entry for witness in asked)):
                if (
                    not isinstance(found, KernelError)
                    and identity(found) == identity(witness.entry)  # and not an entry with this tuple as its reply
                    and self._match(found)
                ):
                    there.append(_witness(found, asked_at))
                elif not received_events and witness.deadline > asked_at and not self._listener.listen(asked_at):
                    self._listener.complete = False  # it ended before its deadline, without an event
        return sorted(there + unasked, key=lambda witness: -witness.deadline)

    # without witnesses

    def _reckon(self, sight: Sight, until: float) -> None:
        """Wait until the missing number of entries may have come or gone."""
        lacking: float = self.lacks(sight)
        due = min(until, sight.ended + self._spacing(sight))
        while lacking > 0 and self._listener.listen(due):
            counted = self._listener.skip(COUNTED)
            lacking -= counted
            if lacking > 0 and counted < COUNTED:
                sleep(min(due, time.monotonic() + SHORT))

    def _spacing(self, sight: Sight) -> float:
        """Return the seconds to the next read if there is no event."""
        if self._listener.complete and self._goal.rising:  # new entries have an event, only expiry may lack one
            return CHECK
        lacking = self.lacks(sight)
        done = self.lacks(self._before) - lacking if self._before else 0
        if self._before and done > 0:
            self._pace = (sight.began - self._before.began) * lacking / done / 2
        else:
            self._pace *= 2
        self._pace = min(max(self._pace, SHORT), UNHEARD)
        return self._pace


def _witness(entry: Entry, read_at: float) -> Witness:
    # The kernel rounds down to whole seconds. An offloaded entry has no timeout and can end at any time.
    return Witness(entry, read_at + entry.get("timeout", 0))


def wait(
    table: Table,
    match: Match,
    goal: Goal,
    timeout: float,
    report_limit: int,
    labels: LabelMap,
    check_mode: bool = False,
    subscribe: Callable[..., Subscription] = Subscription,
) -> Document:
    """Wait for the goal and return the module's result.

    In check mode, read the table once and do not wait. Raises `TimedOut` if the goal is not reached after `timeout`
    seconds. The table is always read at least once, and after the last pause.
    """
    began = time.monotonic()
    until = began if check_mode else began + timeout
    with Listener(match, subscribe, goal.rising) as listener:  # before the first read, to receive all events
        waiting = Waiting(table, match, goal, report_limit, listener)
        sight = first = waiting.read_table()
        while waiting.lacks(sight) > 0 and time.monotonic() < until:
            waiting.pause(sight, until)
            sight = waiting.read_table()
    lacking = waiting.lacks(sight)
    reached = lacking <= 0
    timed_out = not reached and not check_mode
    result = {
        "changed": False,
        "elapsed": round(time.monotonic() - began, 3),
        "initial": first.matching,
        "remaining": sight.matching,
        "ended": listener.ended,
        "reached": reached,
        "timed_out": timed_out,
        "entries": to_documents(sight.first[:report_limit], labels),
    }
    if timed_out:
        raise TimedOut(_sentence(sight, goal, lacking), result)
    return result


def _sentence(sight: Sight, goal: Goal, lacking: int) -> str:
    names = [describe(entry) for entry in sight.first[:NAMED]]
    verb = "entry matches" if sight.matching == 1 else "entries match"
    wanted = f"min_count needs {lacking} more" if goal.rising else f"more than max_count {goal.number}"
    return f"The time is up and {sight.matching} {verb}, {wanted}{named(names, sight.matching)}"
