# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A wait on the running kernel ends soon after the last flow has gone, whichever way, whatever is told of it."""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client import shape
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry import Entry, creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.events import Subscription
from ansible_collections.netops.conntrack.plugins.module_utils.client.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.match import Match, parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.plugins.module_utils.wait import Goal, TimedOut, wait
from tests import features, samples
from tests.lab import Gateway, Namespace

Document = dict[str, Any]

FLOWS = 20_000
#: What is promised, in seconds. Others use this machine, too: it counts if one of so many turns keeps to it.
LIMIT, TURNS = 0.2, 3
#: No turn may take so long: it would have waited for something else than for the last flow.
HANGING = 2.0
MODULE = "ansible_collections.netops.conntrack.plugins.modules.conntrack_wait"
OPEN = {"state": "established", "mark": 1}

_declared = samples.flow("ipv4", "tcp", 1, 443, mark=1, tcp={**samples.IDLE_TCP, "state": "established"}, timeout=600)
FLOW = creation(shape.parse(_declared))


def flows(count: int = FLOWS, **more: Any) -> Iterator[Entry]:
    """Open connections that differ in their ports."""
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
    """Everything below is done in another process, and returns when the last flow had gone."""
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
            assert not any(table.delete_all(iter(every[start : start + 100])))
            time.sleep(seconds / (FLOWS / 100))
    return time.monotonic()


WAYS: dict[str, Callable[[], float]] = {
    "deleted": delete_all,
    "closed": functools.partial(change_all, **{"tcp.state": 7}),
    "marked": functools.partial(change_all, mark=2),
    "deleted-slowly": functools.partial(delete_slowly, 2.0),
}


def mode_of(namespace: Namespace, mode: int) -> None:
    if mode == 2:
        features.needs("events_on_demand")
    namespace.sysctl("nf_conntrack_events", mode)


def fill(namespace: Namespace, **more: Any) -> None:
    with namespace.entered(), Table() as table:
        assert not any(table.create_all(flows(**more)))


def await_(match: Any = None, goal: Goal | None = None, timeout: float = 30.0, **options: Any) -> Document:
    found = match if isinstance(match, Match) else parse_match(match or OPEN)
    with Table() as table:
        return wait(table, found, goal or Goal(0), timeout, 100, LabelMap(), **options)


@contextlib.contextmanager
def elsewhere(namespace: Namespace, after: float, work: Callable[[], float]) -> Iterator[list[float]]:
    """The work is begun in another process after so many seconds; its answer is there after the block."""
    answers: list[float] = []

    def start() -> None:
        time.sleep(after)
        answers.append(namespace.call(work))

    thread = threading.Thread(target=start)
    thread.start()
    try:
        yield answers
    finally:
        thread.join()


def soon(turn: Callable[[], float]) -> None:
    """Whether what takes so many seconds is done in time, at least in one of some turns."""
    late = []
    for _turn in range(TURNS):
        late.append(turn())
        assert -0.001 < late[-1] < HANGING, late
        if late[-1] < LIMIT:
            return
    pytest.fail(f"late by {late} seconds")


class TestHowSoon:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("mode", [0, 1, 2])
    def test_after_the_last_has_gone(self, namespace: Namespace, mode: int, way: str) -> None:
        """20,000 flows from before anybody listened; with 0 and 2 nothing tells of them."""
        mode_of(namespace, mode)

        def turn() -> float:
            namespace.conntrack("-F")
            fill(namespace)
            with elsewhere(namespace, 0.5, WAYS[way]) as gone, namespace.entered():
                done = await_()
                ended = time.monotonic()
            assert (done["initial"], done["remaining"], done["reached"]) == (FLOWS, 0, True)
            return ended - gone[0]

        soon(turn)

    @pytest.mark.parametrize("mode", [0, 1, 2])
    def test_after_the_last_has_expired(self, namespace: Namespace, mode: int) -> None:
        """The kernel tells of that when its garbage collection comes by, minutes later."""
        mode_of(namespace, mode)

        def turn() -> float:
            namespace.conntrack("-F")
            fill(namespace, timeout=2)
            expired = time.monotonic() + 2
            with namespace.entered():
                done = await_()
                ended = time.monotonic()
            assert (done["initial"], done["remaining"]) == (FLOWS, 0)
            return ended - expired + 0.01  # the kernel counts in ticks of up to ten milliseconds

        soon(turn)

    def test_events_from_before_they_were_on(self, namespace: Namespace) -> None:
        """Of these nothing is told either, though the setting says that it is."""
        mode_of(namespace, 0)
        fill(namespace)
        mode_of(namespace, 1)
        with elsewhere(namespace, 0.5, functools.partial(delete_slowly, 1.0)) as gone, namespace.entered():
            await_()
            ended = time.monotonic()
        assert ended - gone[0] < HANGING

    def test_a_buffer_that_holds_next_to_nothing(self, namespace: Namespace) -> None:
        """What is lost need not be known."""
        fill(namespace)
        subscriptions: list[Subscription] = []

        def subscribe(**options: Any) -> Subscription:
            subscriptions.append(Subscription(receive_buffer=1, **options))
            return subscriptions[0]

        with elsewhere(namespace, 0.5, delete_all) as gone, namespace.entered():
            done = await_(subscribe=subscribe)
            ended = time.monotonic()
        assert done["remaining"] == 0
        assert subscriptions[0].overruns > 0
        assert subscriptions[0].closed
        assert ended - gone[0] < HANGING


class TestWhatIsWaitedFor:
    def test_a_real_connection_until_it_is_closed(self, gateway_lab: Gateway) -> None:
        """Closed, it stays in the table for minutes."""
        match = {"protocol": "tcp", "state": "established"}
        with gateway_lab.client1.tcp(gateway_lab.SERVER, gateway_lab.PORT) as flow:
            closing = threading.Timer(0.5, flow.close)
            closing.start()
            with gateway_lab.gateway.entered():
                done = await_(match)
            closing.join()
        assert (done["initial"], done["remaining"]) == (1, 0)
        assert 0.4 < done["elapsed"] < 0.5 + HANGING
        assert [f["state"] for f in gateway_lab.gateway.table() if f["protocol"] == "tcp"] != ["established"]

    def test_packets_move_the_deadline(self, namespace: Namespace) -> None:
        """Nothing tells of that; who believed the first deadline would say too early that it is over."""
        with namespace.entered(), Table() as table:
            table.create({**FLOW, "timeout": 1})

            def prolong() -> float:
                with Table() as other:
                    other.update(next(keys(flows(1), timeout=3)))
                return time.monotonic()

            with elsewhere(namespace, 0.5, prolong) as prolonged:
                await_()
                ended = time.monotonic()
        assert 2.9 < ended - prolonged[0] < 3 + HANGING

    @pytest.mark.parametrize("mode", [0, 1, 2])
    def test_flows_that_have_to_come(self, namespace: Namespace, mode: int) -> None:
        mode_of(namespace, mode)

        def come() -> float:
            with Table() as table:
                assert not any(table.create_all(flows(10)))
            return time.monotonic()

        with elsewhere(namespace, 0.5, come) as come_at, namespace.entered():
            done = await_(goal=Goal(10, rising=True))
            ended = time.monotonic()
        assert (done["initial"], done["remaining"]) == (0, 10)
        assert sorted(entry["original"]["source_port"] for entry in done["entries"]) == list(range(1, 11))
        assert ended - come_at[0] < HANGING

    @pytest.mark.parametrize("stay", [10, 1000])
    def test_some_may_stay(self, namespace: Namespace, stay: int) -> None:
        fill(namespace)

        def go() -> float:
            with Table() as table:
                leaving = list(keys(flows()))[stay:]
                assert not any(table.delete_all(iter(leaving)))
            return time.monotonic()

        with elsewhere(namespace, 0.3, go) as gone, namespace.entered():
            done = await_(goal=Goal(stay))
            ended = time.monotonic()
        assert done["remaining"] == stay == namespace.count()
        assert ended - gone[0] < HANGING

    def test_when_the_time_is_up(self, namespace: Namespace) -> None:
        with namespace.entered(), Table() as table:
            assert not any(table.create_all(flows(5)))
            with pytest.raises(TimedOut, match="The time is up and 5 entries match, more than max_count 0: tcp ") as up:
                await_(timeout=0.3)
        assert 0.3 <= up.value.result["elapsed"] < 0.3 + HANGING
        assert len(up.value.result["entries"]) == 5


class TestModule:
    """As a target runs it, without an action plugin."""

    def start(self, namespace: Namespace, **arguments: Any) -> subprocess.Popen[str]:
        process = namespace.start([sys.executable, "-m", MODULE], stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": {"match": OPEN, **arguments}}))
        process.stdin.close()
        return process

    def test_by_itself(self, namespace: Namespace) -> None:
        with namespace.entered(), Table() as table:
            table.create(FLOW)
        process = self.start(namespace, timeout=20)
        self.listening(namespace)
        namespace.conntrack("-F")
        assert process.stdout is not None
        done = json.loads(process.stdout.read())
        assert (done["initial"], done["remaining"], done["reached"], done["changed"]) == (1, 0, True, False)

    def test_nothing_of_it_stays_when_it_is_ended(self, namespace: Namespace) -> None:
        with namespace.entered(), Table() as table:
            table.create(FLOW)
        process = self.start(namespace, timeout=60)
        self.listening(namespace)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) == -signal.SIGTERM
        assert not self.sockets(namespace)

    def listening(self, namespace: Namespace) -> None:
        until = time.monotonic() + 10
        while not any(int(groups, 16) for groups in self.sockets(namespace)):
            assert time.monotonic() < until, "it does not listen"
            time.sleep(0.01)
        time.sleep(0.2)  # it looks at the table

    @staticmethod
    def sockets(namespace: Namespace) -> list[str]:
        """The groups of each netfilter socket but the kernel's own."""
        with namespace.entered():
            lines = Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]
        return [fields[3] for fields in map(str.split, lines) if fields[1] == "12" and fields[2] != "0"]
