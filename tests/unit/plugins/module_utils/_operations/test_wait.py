# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a wait ends soon after the table reaches the goal, with or without events, and with few dumps."""

from __future__ import annotations

import errno
import heapq
import itertools
from typing import Any, Callable, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils._operations import wait as subject
from ansible_collections.netops.conntrack.plugins.module_utils._operations.wait import Goal, TimedOut, wait
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import (
    NotPermitted,
    Overrun,
    ResultUnknown,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.subscription import Event, EventsOff
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import (
    EVERYTHING,
    Match,
    parse_match,
)
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support.fake_kernel import (
    GET,
    TCP,
    Connection,
    Ends,
    Fault,
    Kernel,
    Zone,
)

Document = Dict[str, Any]

DUMP = 0x300
ESTABLISHED, TIME_WAIT = 3, 7
OPEN = parse_match({"state": "established"})
NONE_LEFT = Goal(0)
KEYS = {"changed", "elapsed", "initial", "remaining", "ended", "reached", "timed_out", "entries"}
#: Values of nf_conntrack_events: off, on, and only for entries created while a listener exists.
MODES = OFF, ON, AUTO = 0, 1, 2
#: In these tests, the number of remaining entries up to which the wait queries each one.
FEW = 32
#: The delay that is guaranteed for 20,000 flows, and the duration of a dump of that table, both in seconds.
LIMIT, DUMP_SECONDS = 0.2, 0.05


class Timely(Kernel):
    """A kernel whose entries expire only when time passes, so that a request need not check each deadline."""

    def pass_time(self, seconds: float) -> None:
        if seconds:
            super().pass_time(seconds)


class World:
    """A table, its planned changes, and a clock that advances only during a wait or a request.

    With `with_events`, each change sends an event, except with `OFF`. `dump_seconds` is the duration of a dump,
    `query_seconds` that of a query for one entry.
    """

    def __init__(
        self,
        flows: int = 0,
        mode: int = ON,
        with_events: bool = True,
        dump_seconds: float = DUMP_SECONDS,
        query_seconds: float = 0.0,
    ) -> None:
        self.kernel = Timely()
        self.kernel.connections = [flow(port) for port in range(flows)]
        self.kernel.respond = self._serve  # type: ignore[method-assign]
        self.mode = mode
        self.with_events = with_events and mode != OFF
        self.now = 0.0
        self.dump_seconds = dump_seconds
        self.query_seconds = query_seconds
        self.dump_times: list[float] = []
        self.queries = 0
        self.subscription: Subscription | None = None
        self._order = itertools.count()
        self._plan: list[tuple[float, int, Callable[[], None]]] = []

    # planned changes

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._plan, (when, next(self._order), what))

    def _notify(self) -> None:
        if self.with_events and self.subscription is not None:
            self.subscription.waiting += 1

    def delete(self, when: float, there: Connection) -> None:
        self.at(when, lambda: (self.kernel.drop(there), self._notify())[1])

    def change(self, when: float, there: Connection, **values: Any) -> None:
        self.at(when, lambda: ([setattr(there, *value) for value in values.items()], self._notify())[1])

    def clear(self, when: float) -> None:
        self.at(when, lambda: (self.kernel.connections.clear(), self._notify())[1])

    def create(self, when: float, there: Connection) -> None:
        self.at(when, lambda: (self.kernel.connections.append(there), self._notify())[1])

    # time

    def monotonic(self) -> float:
        return self.now

    def process_time(self) -> float:
        return len(self.dump_times) * self.dump_seconds + self.queries * self.query_seconds

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self._advance(self.now + seconds, lambda: False)

    def wait(self, seconds: float) -> bool:
        """Advance the clock until an event arrives."""
        observed = self.subscription
        assert observed is not None
        self._advance(self.now + max(0.0, seconds), lambda: bool(observed.waiting))
        return bool(observed.waiting)

    def _advance(self, until: float, enough: Callable[[], bool]) -> None:
        while not enough():
            if not self._plan or self._plan[0][0] > until:
                self._set(until)
                return
            when, _number, what = heapq.heappop(self._plan)
            self._set(when)
            what()

    def _set(self, when: float) -> None:
        self.kernel.pass_time(max(0.0, when - self.now))
        self.now = max(self.now, when)

    def _serve(self, request: Any) -> Any:
        """Answer with the state of the table at the beginning of the dump."""
        answers = list(Kernel.respond(self.kernel, request))
        if request.type == GET and request.flags & DUMP == DUMP:
            self.dump_times.append(self.now)
            self.sleep(self.dump_seconds)
        elif request.type == GET:
            self.queries += 1
            self.sleep(self.query_seconds)
        return answers

    # subscriptions

    def subscribe(self, match: Match) -> Any:
        if self.mode == OFF:
            raise EventsOff("off")
        assert not self.dump_times, "changes between the dump and the subscription would be missed"
        self.subscription = Subscription(self)
        return self.subscription


class Subscription:
    """The part of a subscription that the wait uses: whether events have arrived, and whether some were lost."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.mode = world.mode
        self.waiting = 0
        #: The events, if a test needs more than their number.
        self.events: list[Event] = []
        self.overrun = False
        self.closed = False

    def wait(self, timeout: float) -> bool:
        return self.world.wait(timeout)

    def receive(self) -> list[Event]:
        self.skip(1)
        return [self.events.pop(0)] if self.events else []

    def skip(self, most: int) -> int:
        skipped = min(most, self.waiting)
        self.waiting -= skipped
        if self.overrun and skipped:
            self.overrun, self.waiting = False, 0
            raise Overrun("receiving events", errno.ENOBUFS)
        return skipped

    def close(self) -> None:
        self.closed = True


def flow(port: int, seconds: float = 10_000, state: int = ESTABLISHED, mark: int = 1) -> Connection:
    ends = Ends(b"\n\0\0\1", b"\n\0\0\2", TCP, (port, 80))
    there = Connection(2, ends, ends.inverted(), Zone(), seconds)
    there.id, there.state, there.mark = port, state, mark
    return there


def run(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    match: Match = OPEN,
    goal: Goal = NONE_LEFT,
    timeout: float = 3600,
    **options: Any,
) -> Document:
    """Run the module once. A failure returns its result, with the message under `msg`."""
    monkeypatch.setattr(subject, "time", world)
    options = {"report_limit": 100, **options}
    try:
        with world.kernel.table() as table:
            result = wait(table, match, goal, timeout, labels=LabelMap(), subscribe=world.subscribe, **options)
    except TimedOut as failed:
        result = {"msg": str(failed), **failed.result}
    assert set(result) - {"msg"} == KEYS
    assert result["elapsed"] == pytest.approx(world.now, abs=0.001)
    assert result["changed"] is False
    assert result["timed_out"] == ("msg" in result)
    assert world.subscription is None or world.subscription.closed
    return result


# delay

CAUSES = {
    "deleted": lambda world, there, when: world.delete(when, there),
    "closed": lambda world, there, when: world.change(when, there, state=TIME_WAIT),
    "marked": lambda world, there, when: world.change(when, there, mark=0),
    "expired": lambda world, there, when: setattr(there, "deadline", when),
}
OPEN_AND_MARKED = parse_match({"state": "established", "mark": 1})


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize(("mode", "with_events"), [(OFF, False), (ON, True), (AUTO, False), (AUTO, True)])
@pytest.mark.parametrize("last", [0.01, 0.07, 1.003, 30.5, 70.77])
def test_wait_ends_soon_after_the_last_entry_ends(
    monkeypatch: pytest.MonkeyPatch, cause: str, mode: int, with_events: bool, last: float
) -> None:
    """This includes flows without events, which are usual on a host with the default settings."""
    world = World(100, mode, with_events)
    for number, there in enumerate(world.kernel.connections, 1):
        CAUSES[cause](world, there, last * number / 100)
    done = run(world, monkeypatch, OPEN_AND_MARKED)
    assert (done["reached"], done["remaining"], done["entries"]) == (True, 0, [])
    assert last < world.now < last + LIMIT


@examples(80)
@given(st.data())
def test_wait_ends_when_the_goal_is_reached_and_not_before(data: Any) -> None:
    """Flows appear, change, return and disappear in any order, with or without events."""
    mode = data.draw(st.sampled_from(MODES))
    with_events = data.draw(st.booleans()) if mode == AUTO else True
    number = data.draw(st.sampled_from([0, 0, 1, 3, 40]))
    flows = data.draw(st.sampled_from([0, 1, 5, 80]))
    world = World(flows, mode, with_events, dump_seconds=data.draw(st.sampled_from([0.0005, 0.01, DUMP_SECONDS])))
    moments = st.integers(0, 5000).map(lambda thousandth: thousandth / 1000)
    for there in list(world.kernel.connections):
        cause = data.draw(st.sampled_from([*CAUSES, "closed and opened", "stays"]))
        if cause == "closed and opened":
            first, second = sorted((data.draw(moments), data.draw(moments)))
            world.change(first, there, state=TIME_WAIT)
            world.change(second, there, state=ESTABLISHED)
        elif cause != "stays":
            CAUSES[cause](world, there, data.draw(moments))
    for port in range(1000, 1000 + data.draw(st.integers(0, 5))):
        world.create(data.draw(moments), flow(port))
    seen: list[tuple[float, int]] = []

    def counted() -> None:
        seen.append((world.now, sum(holds(there) for there in world.kernel.connections)))

    for thousandth in range(0, 9000, 5):
        world.at(thousandth / 1000, counted)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(subject, "FEW", FEW)
        done = run(world, monkeypatch, OPEN_AND_MARKED, Goal(number), timeout=8)
    at_the_end = sum(holds(there) for there in world.kernel.connections)
    assert done["reached"] == (done["remaining"] <= number)
    if not done["reached"]:
        assert world.now >= 8
        assert at_the_end > number
    late = LIMIT if number < FEW else subject.UNHEARD + LIMIT
    lasting = list(itertools.takewhile(lambda each: each[1] <= number, reversed(seen)))
    assert not lasting or world.now - lasting[-1][0] < late, "the wait ended long after the goal was reached"


def holds(there: Connection) -> bool:
    return there.state == ESTABLISHED and there.mark == 1


def test_wait_ends_only_after_a_dump_confirms_the_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1)
    world.delete(5, world.kernel.connections[0])
    other = flow(9)
    world.create(4.999, other)  # the end of the entry that the wait observes proves nothing
    world.delete(7, other)
    run(world, monkeypatch)
    last = world.kernel.requests[-1]
    assert (last.type, last.flags & DUMP) == (GET, DUMP)
    assert world.dump_times[-1] >= 7
    assert not world.kernel.connections


def test_entry_that_ends_during_the_first_dump_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dump included the entry, and its event is the only evidence of its end."""
    world = World(1)
    world.delete(DUMP_SECONDS / 2, world.kernel.connections[0])
    done = run(world, monkeypatch)
    assert done["initial"] == 1
    assert world.now < DUMP_SECONDS / 2 + LIMIT


def test_overrun_ends_the_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1)

    def overrun() -> None:
        world.kernel.connections.clear()
        assert world.subscription is not None
        world.subscription.overrun, world.subscription.waiting = True, 1

    world.at(100, overrun)
    run(world, monkeypatch)
    assert world.now < 100 + LIMIT


def test_entries_without_events_are_detected_although_events_are_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """These entries have no events either.

    After one has ended without an event, the wait no longer relies on events.
    """
    world = World(200, ON, with_events=False)
    for number, there in enumerate(world.kernel.connections, 1):
        world.delete(number, there)
    run(world, monkeypatch)
    assert 200 < world.now < 200 + LIMIT


# cost


def test_wait_sleeps_while_the_table_does_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait of an hour dumps the table twice, regardless of its size."""
    world = World(1000)
    world.clear(3500)
    run(world, monkeypatch)
    assert len(world.dump_times) == 2
    assert world.queries < 3600 / subject.CHECK + 100


@pytest.mark.parametrize("mode", [OFF, AUTO])
def test_without_events_one_entry_is_queried_instead_of_all(monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    world = World(500, mode, with_events=False)
    world.clear(200)
    run(world, monkeypatch)
    assert len(world.dump_times) == 2
    assert world.queries < 200 / subject.SILENT + 200
    assert world.now < 200 + LIMIT


def test_table_that_empties_gradually_is_dumped_only_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1000)
    order = list(world.kernel.connections)
    for number, there in enumerate(order):
        world.delete(1 + (number * 619 % 1000) / 10, there)  # in a scattered order
    run(world, monkeypatch)
    assert len(world.dump_times) < 4


def test_flood_of_events_does_not_cause_a_query_per_event(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(2)
    stays = world.kernel.connections[0]
    for number in range(20_000):
        world.change(number / 1000, world.kernel.connections[1], mark=number)
    world.delete(20, stays)
    world.delete(20, world.kernel.connections[1])
    run(world, monkeypatch)
    assert world.queries < 2 * 20 / subject.SHORT + 50
    assert len(world.dump_times) == 2


def test_slow_queries_are_sent_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait must not add load to a host that is busy with connections."""
    world = World(2, query_seconds=0.01)
    for number in range(20_000):
        world.change(number / 1000, world.kernel.connections[1], mark=number)
    world.clear(20)
    run(world, monkeypatch)
    assert world.queries * world.query_seconds < 20 / subject.SHARE + 5 * world.query_seconds


def test_large_table_has_a_pause_between_two_dumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dump is outdated as soon as it ends, but a gateway must not spend its time on dumps."""
    world = World(1, dump_seconds=2.5)
    numbers = itertools.count(2)

    def renew() -> None:
        world.kernel.connections[:] = [flow(next(numbers))]
        world._notify()

    for step in range(1, 4000):
        world.at(step / 10, renew)
    done = run(world, monkeypatch, timeout=300)
    assert done["timed_out"]
    assert len(world.dump_times) * 2.5 < 300 / 3


# goals


def test_entry_and_its_successor_are_not_both_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dump takes time, so it contained both entries; the original tuple of one is the reply tuple of the other."""
    world = World(1)
    there = world.kernel.connections[0]
    turned = Connection(2, *there.tuples[::-1], Zone(), 10_000)
    turned.id, turned.state = 99, ESTABLISHED
    world.kernel.connections.append(turned)
    world.delete(DUMP_SECONDS / 2, there)
    done = run(world, monkeypatch, goal=Goal(1))
    assert (done["initial"], done["remaining"], done["reached"]) == (2, 1, True)
    assert world.now < DUMP_SECONDS + LIMIT


def test_wait_continues_if_traffic_extends_the_timeout_of_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel sends no event when a packet extends the timeout of an entry."""
    world = World(2)
    for there in world.kernel.connections:
        there.deadline = 30
    stays = world.kernel.connections[0]
    for step in range(1, 10):
        world.at(20.0 * step, lambda step=step: setattr(stays, "deadline", 20.0 * step + 30.4))  # type: ignore[misc]
    done = run(world, monkeypatch)
    assert done["reached"]
    assert 210.4 < world.now < 210.4 + LIMIT
    assert world.queries < 600, "the new deadline of an active flow applies"


def test_match_result_can_change_with_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(3)
    for there in world.kernel.connections:
        there.deadline = 100.5
    run(world, monkeypatch, parse_match({"timeout_above": 60}))
    assert 39.5 < world.now < 39.5 + LIMIT


@pytest.mark.parametrize("mode", MODES)
def test_entry_created_during_the_wait_is_included(monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    world = World(1, mode)
    world.delete(10, world.kernel.connections[0])
    late = flow(77)
    world.create(5, late)
    world.delete(20, late)
    done = run(world, monkeypatch)
    assert 20 < world.now < 20 + LIMIT
    assert done["initial"] == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [1, FEW - 1, FEW])
def test_max_count_allows_entries_to_remain(monkeypatch: pytest.MonkeyPatch, mode: int, number: int) -> None:
    """If too many entries remain for a query of each one, the wait can take a second longer."""
    monkeypatch.setattr(subject, "FEW", FEW)
    leaving = 40
    world = World(number + leaving, mode)
    for step, there in enumerate(list(world.kernel.connections[::-1][:leaving]), 1):
        world.delete(step * 0.5, there)
    done = run(world, monkeypatch, goal=Goal(number), report_limit=3)
    assert (done["initial"], done["remaining"], len(done["entries"])) == (number + leaving, number, min(3, number))
    assert leaving / 2 < world.now < leaving / 2 + (LIMIT if number < FEW else subject.UNHEARD + LIMIT)
    assert len(world.dump_times) < (10 if number < FEW else leaving)


@pytest.mark.parametrize(("mode", "late"), [(ON, LIMIT), (AUTO, LIMIT), (OFF, subject.UNHEARD + LIMIT)])
def test_min_count_waits_for_new_entries(monkeypatch: pytest.MonkeyPatch, mode: int, late: float) -> None:
    world = World(0, mode)
    for port in range(10):
        world.create(10 + port, flow(port))
    done = run(world, monkeypatch, goal=Goal(5, rising=True))
    assert (done["initial"], done["remaining"], done["reached"]) == (0, 5, True)
    assert sorted(entry["original"]["source_port"] for entry in done["entries"]) == list(range(5))
    assert 14 <= world.now < 14 + late


def test_min_count_reads_the_table_after_an_overrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lost events can be as many as the missing entries."""
    world = World()

    def overrun() -> None:
        world.kernel.connections[:] = map(flow, range(1000))
        assert world.subscription is not None
        world.subscription.overrun, world.subscription.waiting = True, 3

    world.at(100, overrun)
    run(world, monkeypatch, goal=Goal(1000, rising=True))
    assert world.now < 100 + LIMIT


def test_expiry_without_events_counts_towards_max_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their expiry sends no event, although the kernel sends events for all other changes."""
    monkeypatch.setattr(subject, "FEW", FEW)
    world = World(FEW + 10)
    for there in world.kernel.connections[:10]:
        there.deadline = 25.5
    run(world, monkeypatch, goal=Goal(FEW))
    assert 25.5 <= world.now < 25.5 + subject.UNHEARD + LIMIT


def test_many_new_entries_do_not_cause_a_dump_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait reads the table only after as many events as entries are missing."""
    world = World()
    for port in range(2000):
        world.create(port / 100, flow(port))
    run(world, monkeypatch, goal=Goal(2000, rising=True))
    assert world.now < 19.99 + LIMIT
    assert len(world.dump_times) < 5


def test_entry_that_matches_without_an_event_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1, AUTO, with_events=False)
    world.kernel.connections[0].state = 1
    world.change(50, world.kernel.connections[0], state=ESTABLISHED)
    run(world, monkeypatch, goal=Goal(1, rising=True))
    assert 50 < world.now < 50 + subject.UNHEARD + LIMIT


def event(kind: str, port: int, state: int | None = ESTABLISHED) -> Event:
    """Return the part of an event that the wait reads; an event contains a state only if the state has changed."""
    entry = {"family": 2, "original.protocol": TCP, "original.source_port": port, "id": port}
    return Event(kind, {**entry, **({} if state is None else {"tcp.state": state})})


def announce(world: World, when: float, *events: Event) -> None:
    def deliver() -> None:
        assert world.subscription is not None
        world.subscription.events += events
        world.subscription.waiting += len(events)

    world.at(when, deliver)


def test_entry_that_begins_and_ends_between_two_dumps_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1)
    announce(world, 10, event("new", 8), event("update", 8, None), event("destroy", 8, None))
    world.create(20, flow(9))
    done = run(world, monkeypatch, goal=Goal(3, rising=True))
    assert (done["initial"], done["remaining"], done["ended"], done["reached"]) == (1, 2, 1, True)
    assert 20 <= world.now < 20 + LIMIT


def test_only_entries_that_matched_at_some_time_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    announce(world, 1, event("new", 8, 1), event("update", 8), event("destroy", 8, None))
    announce(world, 2, event("new", 9), event("update", 9, TIME_WAIT), event("destroy", 9, None))
    announce(world, 3, event("new", 10, 1), event("update", 10, None), event("destroy", 10, None))
    announce(world, 4, event("update", 11), event("destroy", 11, None))  # this entry is older than the wait
    announce(world, 5, event("destroy", 12, None))
    done = run(world, monkeypatch, goal=Goal(5, rising=True), timeout=30)
    assert (done["ended"], done["remaining"], done["reached"]) == (2, 0, False)
    assert done["msg"] == "The time is up and 0 entries match, min_count needs 3 more"


def test_lost_events_never_make_a_count_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    def overrun() -> None:
        assert world.subscription is not None
        world.subscription.overrun = True
        world.subscription.waiting = 1

    announce(world, 10, event("new", 8))
    world.at(20, overrun)  # entry 8 ends, and another entry 8 appears that does not match
    announce(world, 30, event("update", 8, 1), event("destroy", 8, None))
    done = run(world, monkeypatch, goal=Goal(1, rising=True), timeout=60)
    assert (done["ended"], done["reached"]) == (0, False)


def test_no_entry_counts_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry can end during the dump, or its last event can precede its removal from the table."""
    world = World()
    there, dying = flow(5), flow(6)
    world.create(10, there)
    announce(world, 10, event("new", 5))
    announce(world, 10 + DUMP_SECONDS / 2, event("destroy", 5, None))
    world.at(10 + DUMP_SECONDS / 2, lambda: world.kernel.drop(there))
    dying.status |= 0x200
    world.create(30, dying)
    announce(world, 30, event("new", 6), event("destroy", 6, None))
    done = run(world, monkeypatch, goal=Goal(3, rising=True), timeout=40)
    assert (done["ended"], done["remaining"], done["reached"]) == (2, 0, False)


def test_match_on_the_timeout_is_not_evaluated_for_events(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    announce(world, 10, event("new", 8), event("destroy", 8))
    done = run(world, monkeypatch, parse_match({"timeout_below": 50}), Goal(1, rising=True), timeout=20)
    assert (done["ended"], done["reached"]) == (0, False)


def test_number_of_followed_entries_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "FOLLOWED", 2)
    world = World()
    announce(world, 10, *(event(kind, port) for kind in ("new", "destroy") for port in range(5)))
    done = run(world, monkeypatch, goal=Goal(3, rising=True), timeout=20)
    assert (done["ended"], done["reached"]) == (2, False)


def test_goal_that_is_already_reached_needs_one_dump(monkeypatch: pytest.MonkeyPatch) -> None:
    for goal in (Goal(0), Goal(0, rising=True)):
        world = World()
        assert run(world, monkeypatch, goal=goal)["reached"]
        assert len(world.dump_times) == 1


# goals that are not reached


def test_timeout_reports_the_remaining_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(20)
    world.delete(29.99, world.kernel.connections[0])
    done = run(world, monkeypatch, timeout=30, report_limit=7)
    assert done["msg"] == (
        "The time is up and 19 entries match, more than max_count 0: tcp 10.0.0.1:1 -> 10.0.0.2:80, "
        "tcp 10.0.0.1:2 -> 10.0.0.2:80, tcp 10.0.0.1:3 -> 10.0.0.2:80, 16 more"
    )
    assert (done["initial"], done["remaining"], done["reached"], len(done["entries"])) == (20, 19, False, 7)
    assert 30 <= world.now < 30 + LIMIT


def test_timeout_reports_the_number_of_missing_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(World(1), monkeypatch, timeout=1, goal=Goal(2, rising=True), report_limit=0)
    assert done["msg"] == ("The time is up and 1 entry matches, min_count needs 1 more: tcp 10.0.0.1:0 -> 10.0.0.2:80")
    assert done["entries"] == []
    assert run(World(), monkeypatch, timeout=1, goal=Goal(2, rising=True))["msg"] == (
        "The time is up and 0 entries match, min_count needs 2 more"
    )


def test_table_is_read_once_more_at_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not a failure if the goal was reached at the last moment without an event."""
    world = World(1, ON, with_events=False)
    world.delete(29.999, world.kernel.connections[0])
    assert run(world, monkeypatch, timeout=30)["reached"]


def test_timeout_of_zero_reads_the_table_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1)
    assert run(world, monkeypatch, timeout=0)["timed_out"]
    assert len(world.dump_times) == 1


@pytest.mark.parametrize("flows", [0, 3])
def test_check_mode_reports_the_current_state(monkeypatch: pytest.MonkeyPatch, flows: int) -> None:
    """Check mode neither waits nor fails, because the current entries do not predict the result of the real run."""
    world = World(flows)
    done = run(world, monkeypatch, check_mode=True)
    assert (done["reached"], done["remaining"], done["initial"]) == (flows == 0, flows, flows)
    assert len(world.dump_times) == 1


# errors


def test_failed_dump_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1)
    world.kernel.faults = {1: Fault(errno.ENOBUFS, lost=True), 3: Fault(errno.ETIMEDOUT, lost=True)}
    world.delete(5, world.kernel.connections[0])
    assert run(world, monkeypatch)["reached"]


def test_dump_attempts_are_limited_and_the_subscription_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1)
    world.kernel.faults = {number: Fault(errno.ENOBUFS, lost=True) for number in range(100)}
    with pytest.raises(ResultUnknown):
        run(world, monkeypatch)
    assert len(world.kernel.requests) <= 2 * subject.ATTEMPTS
    assert world.subscription is not None
    assert world.subscription.closed


def test_failed_query_is_followed_by_a_dump(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1)
    world.change(10, world.kernel.connections[0], mark=5)
    world.at(10, lambda: world.kernel.faults.update({len(world.kernel.requests): Fault(errno.ETIMEDOUT, lost=True)}))
    world.delete(20, world.kernel.connections[0])
    assert run(world, monkeypatch)["reached"]
    assert 20 < world.now < 20 + LIMIT


@pytest.mark.parametrize("error", [KeyboardInterrupt, NotPermitted])
def test_interrupted_wait_closes_all_sockets(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    world = World(1)

    def interrupt() -> None:
        raise error() if error is KeyboardInterrupt else NotPermitted("reading the table", errno.EPERM)

    world.at(10, interrupt)
    with pytest.raises(error):
        run(world, monkeypatch)
    assert world.subscription is not None
    assert world.subscription.closed
    assert all(datagrams.closed for datagrams in world.kernel.sockets)


# parts of the module


def test_wait_accepts_a_match_of_every_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(3)
    world.clear(1)
    assert run(world, monkeypatch, EVERYTHING)["initial"] == 3


@pytest.mark.parametrize(
    ("goal", "count", "lacks"),
    [(Goal(0), 3, 3), (Goal(3), 3, 0), (Goal(3, True), 1, 2), (Goal(3, True), 3, 0), (Goal(3, True), 9, -6)],
)
def test_goals(goal: Goal, count: int, lacks: int) -> None:
    assert goal.lacks(count) == lacks


def test_longer_dump_is_followed_by_a_longer_pause() -> None:
    costs = (0.01, 0.05, 0.1, 0.2, 1.0, 10.0)
    rests = [subject.Sight(0, [], [], 0.0, 0.0, cost).rest / cost for cost in costs]
    assert rests == pytest.approx([0.05, 0.25, 0.5, 1.0, 3.0, 3.0])
