# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until what matches is gone, or is there.

Only the table itself says that it is so: events, deadlines and the rate of change say when to look. Between two
looks no list of what matches is kept. While an entry that was seen to match still does, not all are gone: of the
entries that have most time left, a few are kept as witnesses, and it is they that are asked, which costs some ten
microseconds each, be there a hundred entries or a million. Only when they no longer match is the table read again.

An event wakes who waits, and is not read: the witnesses know, and when events are lost, they know as well. For
three things there is no event, so the witnesses are asked without one. An entry that expires is announced when
the kernel's garbage collection meets it: a witness is asked at its deadline, which traffic may have moved. An
entry that was created while nobody listened, with nf_conntrack_events=2, never has an event: a witness is asked
some twenty times a second. And for a time, timeouts, counters and ages are what a match may ask for.

Where witnesses cannot tell, because many may stay or because a number has to come, the table is read again when
as many events were heard as there are entries lacking, and where no event need come, when the rate between
the last two looks says that half of what is lacking is done.

If entries have to come, those that end before a look finds them count as well: their events are read. An entry counts
as ended if its first event was received, it matched, and its last event was received before the look. The look does not
find it, so no entry counts twice; and lost events make the number smaller, never larger.
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
from ..client.match.expression import MaskEquals, immutable_part, is_time_dependent
from ..client.match.match import Match
from ..client.netlink.socket import DumpInterrupted
from ..client.table import Table
from ..client.uapi import IPS_DYING

if TYPE_CHECKING:
    from ..client.entry.nested import Document

#: Seconds between two questions to witnesses, or between two looks, at the least.
SHORT = 0.02
#: Seconds between two questions at the most, where witnesses may cease to match without an event.
SILENT = 0.05
#: Seconds between two looks at the most, where entries may come and go without an event.
UNHEARD = 1.0
#: Witnesses may be asked for one part in so many of a processor's time.
SHARE = 20
#: Witnesses in reserve: the table is read again when they are used up.
RESERVE = 64
#: Where more entries than this may stay, they would have to have too many witnesses.
FEW = 256
#: A look that takes so many seconds of a processor is followed by as long a rest; a longer one by a longer rest, up to
#: `LONGEST_REST` times as long, and a shorter one by next to none.
HEAVY = 0.2
LONGEST_REST = 3.0
#: Events thrown away between two questions: those that are left wake again, and wait for nothing.
FORGOTTEN = 64
#: Events counted at a time.
COUNTED = 512
#: The maximum number of new entries whose events are followed. Those beyond it count only if a look finds them.
FOLLOWED = 100_000
#: Looks that may go wrong, one after the other, for what may go well the next time.
ATTEMPTS = 3


#: Entries whose last event was sent, and that the kernel is about to take out of the table.
_DYING = Match(MaskEquals("status", ((IPS_DYING, IPS_DYING),)))


class TimedOut(PartialFailure):
    """The time is up, and there are still too many, or too few."""


class Goal(NamedTuple):
    """No more than `number` entries match or, if `rising`, no fewer."""

    number: int
    rising: bool = False

    def lacks(self, count: int) -> int:
        """How many have to go, or to come; not above 0 where the goal is reached."""
        return self.number - count if self.rising else count - self.number

    @property
    def witnesses(self) -> int:
        """How many that match prove that the goal is not reached; 0 where they are too many to be asked."""
        return 0 if self.rising or self.number >= FEW else self.number + 1


class Witness(NamedTuple):
    """An entry that matched, and when it expires, by the monotonic clock, if no packet comes."""

    entry: Entry
    deadline: float


class Sight(NamedTuple):
    """What a look at the table shows: how many match, the first of them, and witnesses, the most lasting before
    the others. It began and ended at these times of the monotonic clock, and took so many seconds of a processor: on
    a busy host, that is much less."""

    matching: int
    first: list[Entry]
    witnesses: list[Witness]
    began: float
    ended: float
    cost: float

    @property
    def rest(self) -> float:
        """How long to leave the table alone after it, for a host has other things to do."""
        return self.cost * min(LONGEST_REST, self.cost / HEAVY)


class Listener:
    """Hears that something happens to what may match; nothing where the kernel sends no events.

    If entries have to come (`rising`), it also reads the events, and counts the entries that come, match, and end.
    """

    def __init__(
        self, match: Match, subscribe: Callable[..., Subscription] = Subscription, rising: bool = False
    ) -> None:
        self._match = match
        #: Events do not show what changes without one.
        self.reads = rising and not match.needs and not is_time_dependent(match.term)
        #: New entries: what events show of those that have not matched yet, and whether they have matched.
        self._came: dict[tuple[Identity, Any], tuple[Entry, bool]] = {}
        #: The number of entries that came, matched, and ended.
        self.ended = 0
        self._subscription: Subscription | None = None
        with contextlib.suppress(EventsOff):
            self._subscription = subscribe(match=Match(immutable_part(match.term)))
        #: Whether everything but an expiry is told, as far as is known. With nf_conntrack_events=1 it is not told of
        #: entries from before that was set.
        self.complete = (
            self._subscription is not None
            and self._subscription.mode == EVENTS_ON
            and not is_time_dependent(match.term)
        )

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._subscription is not None:
            self._subscription.close()

    def listen(self, until: float) -> bool:
        """Whether something is heard before that time."""
        if self._subscription is None:
            sleep(until)
            return False
        return self._subscription.wait(until - time.monotonic())

    def skip(self, most: int) -> float:
        """Forget up to so many events that were heard; how many, more than any number where some were lost."""
        if self._subscription is None:
            return 0
        try:
            return self._read(self._subscription, most) if self.reads else self._subscription.skip(most)
        except Overrun:
            self._came.clear()
            return math.inf

    def catch_up(self) -> None:
        """Read the events that wait, if they are read."""
        if self.reads:
            self.skip(COUNTED)

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
            # An update shows only what changed
            before, matched = known or ({}, False)
            entry = {} if matched else {**before, **event.entry}
            matched = matched or self._match(entry)
            self._came[key] = ({} if matched else entry, matched)


def sleep(until: float) -> None:
    """Sleep until that time, if it is not over."""
    seconds = until - time.monotonic()
    if seconds > 0:
        time.sleep(seconds)


class Waiting:
    """The looks at the table, and the time between them."""

    def __init__(self, table: Table, match: Match, goal: Goal, report_limit: int, listener: Listener) -> None:
        self._table = table
        self._match = match.but_not(_DYING) if listener.reads else match
        self._goal = goal
        self._report_limit = report_limit
        self._listener = listener
        self._pace = SHORT
        self._before: Sight | None = None

    def lacks(self, sight: Sight) -> int:
        """How many have to go, or to come, after that look."""
        return self._goal.lacks(sight.matching + self._listener.ended)

    def look(self) -> Sight:
        """Read the table."""
        self._listener.catch_up()
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
        """Do nothing until another look may show something else, or the time is up."""
        if sight.witnesses:
            self._watch(sight.witnesses, until)
        else:
            self._reckon(sight, until)
        sleep(min(until, sight.ended + sight.rest))
        self._before = sight

    # with witnesses

    def _watch(self, witnesses: list[Witness], until: float) -> None:
        """Until there are no longer as many witnesses as keep the goal from being reached."""
        needed = self._goal.witnesses
        asked, gap, pause = time.monotonic(), SHORT, SHORT
        while True:
            # Up to then, there are enough of them, unless an event says otherwise.
            alarm = min(witnesses[needed - 1].deadline, asked + pause)
            self._listener.listen(min(until, max(alarm, asked + gap)))
            sleep(min(until, asked + gap))
            asked = time.monotonic()
            if asked >= until:
                return
            heard = self._listener.skip(FORGOTTEN) > 0
            before = time.process_time()
            there = self._ask(witnesses, needed, heard)
            if len(there) < needed:
                return
            gap = max(SHORT, SHARE * (time.process_time() - before))
            longest = CHECK if self._listener.complete else SILENT
            pause = min(2 * pause, longest) if len(there) == len(witnesses) else SHORT
            witnesses = there

    def _ask(self, witnesses: list[Witness], needed: int, heard: bool) -> list[Witness]:
        """Those that still match, of as many as it takes to have enough, and those that were not asked.

        One that could not be asked is a witness no longer.
        """
        asked_at = time.monotonic()
        there: list[Witness] = []
        unasked = list(witnesses)
        while unasked and len(there) < needed:
            count = needed - len(there)
            asked, unasked = unasked[:count], unasked[count:]
            for witness, found in zip(asked, self._table.find_by_tuples(witness.entry for witness in asked)):
                if not isinstance(found, KernelError) and self._is(witness, found):
                    there.append(_witness(found, asked_at))
                elif not heard and witness.deadline > asked_at and not self._listener.listen(asked_at):
                    self._listener.complete = False  # it has gone before its time, and nothing told
        return sorted(there + unasked, key=lambda witness: -witness.deadline)

    def _is(self, witness: Witness, found: Entry) -> bool:
        """Whether what was found is the witness, and not who has its tuple as an answer, and still matches."""
        return identity(found) == identity(witness.entry) and self._match(found)

    # without

    def _reckon(self, sight: Sight, until: float) -> None:
        """Until as much may have changed as is lacking."""
        lacking: float = self.lacks(sight)
        due = min(until, sight.ended + self._spacing(sight))
        while lacking > 0 and self._listener.listen(due):
            counted = self._listener.skip(COUNTED)
            lacking -= counted
            if lacking > 0 and counted < COUNTED:
                sleep(min(due, time.monotonic() + SHORT))

    def _spacing(self, sight: Sight) -> float:
        """Seconds to the next look if no event tells anything."""
        if self._listener.complete and self._goal.rising:  # what is there may expire without an event
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
    # The kernel shows whole seconds, without the fraction; one that is offloaded has no timeout and may go any time.
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
    """Wait for the goal and return what was seen, in the form of a module's result.

    In check mode, only look. Raises `TimedOut` after `timeout` seconds, and always after a look.
    """
    began = time.monotonic()
    until = began if check_mode else began + timeout
    with Listener(match, subscribe, goal.rising) as listener:  # before the first look, to miss nothing
        waiting = Waiting(table, match, goal, report_limit, listener)
        sight = first = waiting.look()
        while waiting.lacks(sight) > 0 and time.monotonic() < until:
            waiting.pause(sight, until)
            sight = waiting.look()
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
