# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A wait on the running kernel ends soon after the last flow is gone, for every cause and every kind of events."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._operations.wait import Goal, TimedOut, wait
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import Entry
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.subscription import Subscription
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import Match, parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import clock, features, samples
from tests.lab import Gateway, Namespace

pytestmark = pytest.mark.oldest_and_newest_kernel

Document = dict[str, Any]

FLOWS = 20_000
#: Values of nf_conntrack_events.
MODES = [pytest.param(0, marks=pytest.mark.thorough), 1, pytest.param(2, marks=pytest.mark.thorough)]
#: The promised delay in seconds, and the number of turns. One turn must keep it, because the machine has other load.
LIMIT, TURNS = 0.2, 4
#: With a longer delay while this process runs, a turn has waited for something other than the last flow.
HANGING = 10.0
#: The largest factor by which other processes slow down this one that a turn allows for.
SLOWEST = 5.0
#: A test doubles a timeout that is too short for this machine, up to this number of seconds.
LONGEST = 100
MODULE = "ansible_collections.netops.conntrack.plugins.modules.conntrack_wait"
#: Run the module as on OpenWrt, where ctypes is a separate package.
WITHOUT_CTYPES = f"""
import runpy, sys
sys.modules["ctypes"] = None
runpy.run_module("{MODULE}", run_name="__main__", alter_sys=True)
"""
OPEN = {"state": "established", "mark": 1}

_declared = samples.flow("ipv4", "tcp", 1, 443, mark=1, tcp={**samples.IDLE_TCP, "state": "established"}, timeout=600)
FLOW = creation(from_document(_declared))


def flows(count: int = FLOWS, **more: Any) -> Iterator[Entry]:
    """Yield established connections with different ports."""
    for number in range(count):
        source, destination = number % 60_000 + 1, 443 + number // 60_000
        ends = {
            "original.source_port": source,
            "reply.destination_port": source,
            "original.destination_port": destination,
            "reply.source_port": destination,
        }
        yield {**FLOW, **ends, **more}


def keys(entries: Iterator[Entry], **more: Any) -> Iterator[Entry]:
    for entry in entries:
        yield {**{key: entry[key] for key in entry if key.startswith(("family", "original."))}, **more}


def delete_all() -> float:
    """Delete all flows, and return the time. The functions below run in another process as well."""
    with Table() as table:
        assert not any(table.delete_all(keys(flows())))
    return time.monotonic()


def change_all(**changes: Any) -> float:
    with Table() as table:
        assert not any(table.update_all(keys(flows(), **changes)))
    return time.monotonic()


def delete_slowly(seconds: float) -> float:
    with Table() as table:
        every = list(keys(flows()))
        for start in range(0, FLOWS, 100):
            time.sleep(seconds / (FLOWS / 100))
            assert not any(table.delete_all(iter(every[start : start + 100])))
    return time.monotonic()


WAYS: dict[str, Callable[[], float]] = {
    "deleted": delete_all,
    "closed": functools.partial(change_all, **{"tcp.state": 7}),
    "marked": functools.partial(change_all, mark=2),
    "deleted-slowly": functools.partial(delete_slowly, 2.0),
}


def set_event_mode(namespace: Namespace, mode: int) -> None:
    if mode == 2:
        features.needs("events_on_demand")
    namespace.sysctl("nf_conntrack_events", mode)


def fill(namespace: Namespace, **more: Any) -> float:
    """Create the flows, and return the factor by which other processes slow down this one."""
    started, used = time.monotonic(), time.process_time()
    with namespace.entered(), Table() as table:
        assert not any(table.create_all(flows(**more)))
    return min(SLOWEST, max(1.0, (time.monotonic() - started) / (time.process_time() - used)))


def wait_for(match: Any = None, goal: Goal | None = None, timeout: float = clock.HUNG, **options: Any) -> Document:
    found = match if isinstance(match, Match) else parse_match(match or OPEN)
    with Table() as table:
        return wait(table, found, goal or Goal(0), timeout, 100, LabelMap(), **options)


@contextlib.contextmanager
def in_another_process(namespace: Namespace, work: Callable[[], float]) -> Iterator[list[float]]:
    """Begin the work in another process when this one has read the table and sleeps in the block.

    After the block, the list contains the answer.
    """
    answers: list[float] = []

    def start() -> None:
        clock.wait_until_asleep(os.getpid())
        time.sleep(0.5)  # the pauses between its reads become longer
        answers.append(namespace.call(work))

    thread = threading.Thread(target=start)
    thread.start()
    try:
        yield answers
    finally:
        thread.join()


class Turn(NamedTuple):
    """The times at which the last flow was gone and at which the wait ended, by the monotonic clock.

    The other process may read the clock after the wait has received its last change.
    """

    gone: float
    ended: float
    slowness: float = 1.0

    def late(self, standstills: clock.Standstills) -> float:
        """Return the seconds between the two in which this process did not stand still."""
        if self.ended < self.gone:
            return -standstills.running(self.ended, self.gone)
        return standstills.running(self.gone, self.ended)


def soon(turn: Callable[[], Turn]) -> None:
    """Check that a wait ends in time in at least one of several turns."""
    late = []
    with clock.Standstills() as standstills:
        for _turn in range(TURNS):
            done = turn()
            late.append(done.late(standstills) / done.slowness)
            assert -HANGING / 2 < late[-1] < HANGING, late
            if late[-1] < LIMIT:
                return
    pytest.fail(f"late by {late} seconds")


@pytest.fixture
def standstills() -> Iterator[clock.Standstills]:
    with clock.Standstills() as watched:
        yield watched


@pytest.mark.running_kernel_only
class TestDelay:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("mode", MODES)
    def test_wait_ends_when_no_flow_remains(self, namespace: Namespace, mode: int, way: str) -> None:
        """20,000 flows that existed before the subscription. With 0 and 2, the kernel sends no events about them."""
        set_event_mode(namespace, mode)

        def turn() -> Turn:
            namespace.conntrack("-F")
            slowness = fill(namespace)
            with in_another_process(namespace, WAYS[way]) as gone, namespace.entered():
                done = wait_for()
                ended = time.monotonic()
            assert (done["initial"], done["remaining"], done["reached"]) == (FLOWS, 0, True)
            return Turn(gone[0], ended, slowness)

        soon(turn)

    @pytest.mark.parametrize("mode", MODES)
    def test_wait_ends_when_the_last_flow_has_expired(self, namespace: Namespace, mode: int) -> None:
        """The kernel sends this event when its garbage collection finds the entry, minutes later."""
        set_event_mode(namespace, mode)

        lasting = 2

        def turn() -> Turn:
            nonlocal lasting
            while True:
                namespace.conntrack("-F")
                slowness = fill(namespace, timeout=lasting)
                expired = time.monotonic() + lasting
                with namespace.entered():
                    done = wait_for()
                    ended = time.monotonic()
                if done["initial"] == FLOWS:
                    break
                lasting *= 2  # some expired before the wait had read the table
                assert lasting < LONGEST
            assert done["remaining"] == 0
            return Turn(expired - 0.01, ended, slowness)  # the kernel counts in ticks of up to ten milliseconds

        soon(turn)

    def test_entries_created_before_events_were_on(self, namespace: Namespace, standstills: clock.Standstills) -> None:
        """The kernel sends no events about these entries either, although the setting is on."""
        set_event_mode(namespace, 0)
        fill(namespace)
        set_event_mode(namespace, 1)
        with in_another_process(namespace, functools.partial(delete_slowly, 1.0)) as gone, namespace.entered():
            wait_for()
            ended = time.monotonic()
        assert Turn(gone[0], ended).late(standstills) < HANGING

    def test_smallest_receive_buffer(self, namespace: Namespace, standstills: clock.Standstills) -> None:
        """The wait must also end if events are lost."""
        fill(namespace)
        subscriptions: list[Subscription] = []

        def subscribe(**options: Any) -> Subscription:
            subscriptions.append(Subscription(receive_buffer=1, **options))
            return subscriptions[0]

        with in_another_process(namespace, delete_all) as gone, namespace.entered():
            done = wait_for(subscribe=subscribe)
            ended = time.monotonic()
        assert done["remaining"] == 0
        assert subscriptions[0].overruns > 0
        assert subscriptions[0].closed
        assert Turn(gone[0], ended).late(standstills) < HANGING


class TestGoals:
    def test_real_connection_is_closed(self, gateway_lab: Gateway, standstills: clock.Standstills) -> None:
        """After the connection is closed, its entry remains in the table for minutes."""
        match = {"protocol": "tcp", "state": "established"}
        with gateway_lab.client1.tcp(gateway_lab.SERVER, gateway_lab.PORT) as flow:
            closed: list[float] = []

            def close() -> None:
                clock.wait_until_asleep(os.getpid())
                flow.close()
                closed.append(time.monotonic())

            closing = threading.Thread(target=close)
            closing.start()
            with gateway_lab.gateway.entered():
                done = wait_for(match)
                ended = time.monotonic()
            closing.join()
        assert (done["initial"], done["remaining"]) == (1, 0)
        assert done["elapsed"] > clock.QUIET
        assert Turn(closed[0], ended).late(standstills) < HANGING
        assert [f["state"] for f in gateway_lab.gateway.table() if f["protocol"] == "tcp"] != ["established"]

    def test_packets_extend_the_timeout(self, namespace: Namespace, standstills: clock.Standstills) -> None:
        """The kernel sends no event about a new timeout, so a wait that uses the first deadline would end too early."""
        lasting = 2

        def extend() -> float:
            began = time.monotonic()
            with Table() as other:
                return -1.0 if any(other.update_all(keys(flows(1), timeout=lasting + 1))) else began

        while True:
            with namespace.entered(), Table() as table:
                table.create({**FLOW, "timeout": lasting})
                with in_another_process(namespace, extend) as extended:
                    wait_for()
                    ended = time.monotonic()
            if extended[0] > 0:
                break
            lasting *= 2  # it expired before it was extended
            assert lasting < LONGEST
        assert ended - extended[0] > lasting + 0.9
        assert Turn(extended[0] + lasting + 1, ended).late(standstills) < HANGING

    @pytest.mark.parametrize("mode", [0, 1, 2])
    def test_new_flows(self, namespace: Namespace, mode: int, standstills: clock.Standstills) -> None:
        set_event_mode(namespace, mode)

        def create_flows() -> float:
            with Table() as table:
                assert not any(table.create_all(flows(10)))
            return time.monotonic()

        with in_another_process(namespace, create_flows) as created_at, namespace.entered():
            done = wait_for(goal=Goal(10, rising=True))
            ended = time.monotonic()
        assert (done["initial"], done["remaining"]) == (0, 10)
        assert sorted(entry["original"]["source_port"] for entry in done["entries"]) == list(range(1, 11))
        assert Turn(created_at[0], ended).late(standstills) < HANGING

    @pytest.mark.parametrize("mode", [1, 2])
    def test_flow_that_ends_immediately_is_counted(
        self, namespace: Namespace, mode: int, standstills: clock.Standstills
    ) -> None:
        """The flow lasts less than a millisecond. Flows that do not match are not counted."""
        set_event_mode(namespace, mode)

        def create_flows() -> float:
            with Table() as table:
                table.create({**FLOW, "original.source_port": 7, "reply.destination_port": 7, "mark": 2})
                table.delete(next(keys(iter([{**FLOW, "original.source_port": 7}]))))
                for entry in flows(2):
                    table.create(entry)
                    table.delete(next(keys(iter([entry]))))
            return time.monotonic()

        with in_another_process(namespace, create_flows) as created_at, namespace.entered():
            done = wait_for(goal=Goal(2, rising=True))
            ended = time.monotonic()
        assert (done["initial"], done["remaining"], done["ended"], done["reached"]) == (0, 0, 2, True)
        assert Turn(created_at[0], ended).late(standstills) < HANGING
        with namespace.entered(), pytest.raises(TimedOut, match="0 entries match, min_count needs 1 more") as up:
            wait_for(goal=Goal(1, rising=True), timeout=0.3)
        assert up.value.result["ended"] == 0

    def test_table_is_counted_if_events_are_lost_or_off(self, namespace: Namespace) -> None:
        """The first event of each entry arrives, the others are lost, and new entries with the same tuples follow."""

        def subscribe(**options: Any) -> Subscription:
            return Subscription(receive_buffer=1, **options)

        def flood() -> float:
            with Table() as table:
                assert not any(table.create_all(flows(500)))
                assert not any(table.delete_all(keys(flows(500))))
                assert not any(table.create_all(flows(3)))
            return time.monotonic()

        began = time.monotonic()
        namespace.call(flood)
        enough = 1 + 3 * (time.monotonic() - began)
        while True:
            namespace.conntrack("-F")
            with in_another_process(namespace, flood) as flooded, namespace.entered():
                with pytest.raises(TimedOut) as up:
                    wait_for(goal=Goal(504, rising=True), timeout=enough, subscribe=subscribe)
                ended = time.monotonic()
            if flooded[0] < ended - clock.QUIET:
                break
            enough *= 2  # the timeout ended before the flood
            assert enough < LONGEST
        assert up.value.result["remaining"] == 3 == namespace.count()
        assert up.value.result["ended"] < 500
        namespace.conntrack("-F")
        set_event_mode(namespace, 0)
        with in_another_process(namespace, flood), namespace.entered():
            done = wait_for(goal=Goal(3, rising=True))
        assert done["ended"] == 0

    @pytest.mark.running_kernel_only
    @pytest.mark.parametrize("stay", [10, 1000])
    def test_some_flows_may_remain(self, namespace: Namespace, stay: int, standstills: clock.Standstills) -> None:
        fill(namespace)

        def delete_most() -> float:
            with Table() as table:
                leaving = list(keys(flows()))[stay:]
                assert not any(table.delete_all(iter(leaving)))
            return time.monotonic()

        with in_another_process(namespace, delete_most) as gone, namespace.entered():
            done = wait_for(goal=Goal(stay))
            ended = time.monotonic()
        assert done["remaining"] == stay == namespace.count()
        assert Turn(gone[0], ended).late(standstills) < HANGING

    def test_timeout_of_the_wait(self, namespace: Namespace, standstills: clock.Standstills) -> None:
        with namespace.entered(), Table() as table:
            began = time.monotonic()
            assert not any(table.create_all(flows(5)))
            with pytest.raises(TimedOut, match="The time is up and 5 entries match, more than max_count 0: tcp ") as up:
                wait_for(timeout=0.3)
        elapsed = up.value.result["elapsed"]
        assert elapsed >= 0.3
        assert elapsed - standstills.seconds(began, time.monotonic()) < 0.3 + HANGING
        assert len(up.value.result["entries"]) == 5


class TestModule:
    """Run the module as a target does, without an action plugin."""

    def start(
        self, namespace: Namespace, python: Sequence[str] = ("-m", MODULE), **arguments: Any
    ) -> subprocess.Popen[str]:
        process = namespace.start([sys.executable, *python], stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": {"match": OPEN, **arguments}}))
        process.stdin.close()
        return process

    @pytest.mark.parametrize(
        "python",
        [
            pytest.param(("-m", MODULE), id="plain"),
            pytest.param(("-c", WITHOUT_CTYPES), id="without ctypes", marks=pytest.mark.running_kernel_only),
        ],
    )
    def test_module_waits_and_returns(self, namespace: Namespace, python: Sequence[str]) -> None:
        with namespace.entered(), Table() as table:
            table.create(FLOW)
        process = self.start(namespace, python, timeout=300)
        self.listening(namespace, process)
        namespace.conntrack("-F")
        assert process.stdout is not None
        done = json.loads(process.stdout.read())
        assert (done["initial"], done["remaining"], done["reached"], done["changed"]) == (1, 0, True, False)

    @pytest.mark.running_kernel_only
    def test_terminated_module_leaves_no_subscription(self, namespace: Namespace) -> None:
        with namespace.entered(), Table() as table:
            table.create(FLOW)
        process = self.start(namespace, timeout=clock.HUNG)
        self.listening(namespace, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=clock.HUNG / 2) == -signal.SIGTERM
        assert not namespace.subscriptions()

    def listening(self, namespace: Namespace, process: subprocess.Popen[str]) -> None:
        """Return when the module has subscribed and read the table, and sleeps."""
        namespace.wait_for_subscriber()
        clock.wait_until_asleep(process.pid)
