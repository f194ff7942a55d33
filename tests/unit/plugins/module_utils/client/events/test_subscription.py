# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test without a kernel that events are classified, that lost events are counted and that a follower misses nothing."""

from __future__ import annotations

import asyncio
import errno
import os
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import ENTRIES
from ansible_collections.netops.conntrack.plugins.module_utils.client.ctnetlink.messages import nfgenmsg
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import Entry, Identity, identity
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import (
    ConntrackError,
    InvalidValue,
    NotPermitted,
    Overrun,
    kernel_error,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.events import subscription as events
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.follower import Follower
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.overrun import Resync
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.subscription import (
    Event,
    EventsOff,
    Subscription,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import sysctl
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import (
    EVERYTHING,
    Match,
    parse_match,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import NetlinkTransport
from ansible_collections.netops.conntrack.tests.unit.support import classic_bpf, wire
from ansible_collections.netops.conntrack.tests.unit.support.fake_socket import FakeKernel, FakeMulticast

NEW, UPDATE, DESTROY = (0x0100, 0x600), (0x0100, 0), (0x0102, 0)
EXPECTATION_NEW, EXPECTATION_DESTROY = (0x0200, 0x600), (0x0202, 0)
#: The keys that an update contains in addition to the changed ones.
SHOWN = ("original.", "reply.", "zone", "id", "status", "timeout", "helper")


class FakeEvents(FakeMulticast):
    """The kernel's end of a subscription."""

    def emit(self, what: tuple[int, int], entry: Entry) -> None:
        self.put(wire.framed(*what, 0, payload(entry)))


class Scene:
    """A fake kernel with a table and its events."""

    def __init__(self, *entries: Entry) -> None:
        self.kernel = FakeKernel(*map(payload, entries))
        self.steps: list[str] = []

    def connect(self, **options: Any) -> NetlinkTransport:
        self.steps.append("subscribe")
        self.events = FakeEvents(**options)
        return self.events

    def table(self) -> Any:
        self.steps.append("open the table")
        return self.kernel.table()

    def follower(self, match: Match = EVERYTHING, **options: Any) -> Follower:
        # The follower reads the table only if a test requests it, even if the machine is stalled
        return Follower(match, connect=self.connect, table=self.table, **{"check": 3600.0, **options})

    def set_table(self, *entries: Entry) -> None:
        self.kernel.entries[:] = map(payload, entries)


def payload(entry: Entry) -> bytes:
    return nfgenmsg(entry["family"]) + ENTRIES.encode(entry)


def flow(port: int = 53, mark: int = 0, number: int = 1, **more: Any) -> Entry:
    entry = from_document(
        {
            "protocol": "udp",
            "original": {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": 1, "destination_port": port},
            "reply": {"source": "10.0.0.2", "destination": "10.0.0.1", "source_port": port, "destination_port": 1},
            "timeout": 30,
        }
    )
    return {**entry, "status": 8, "mark": mark, "id": number, **more}


def shown(entry: Entry, **changed: Any) -> Entry:
    """Return the part of an entry that an update contains."""
    there = {key: value for key, value in entry.items() if key.startswith(SHOWN) or key == "family"}
    return {**there, **({"mark": entry["mark"]} if entry.get("mark") else {}), **changed}


def marked(mark: int) -> Match:
    return parse_match({"mark": mark})


def drain(follower: Follower) -> list[Any]:
    """Return all events that the follower has now."""
    received: list[Any] = []
    while True:
        waiting = follower.subscription.wait(0)
        received += follower.receive(0)
        if not waiting:
            return received


def kinds(received: Iterable[Any]) -> list[str]:
    return [each.kind for each in received if isinstance(each, Event)]


@pytest.fixture(autouse=True)
def mode(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Return a function that sets nf_conntrack_events, which is 1 at first."""

    def set_mode(value: int | None) -> None:
        monkeypatch.setattr(sysctl, "read", lambda name: value)

    set_mode(1)
    return set_mode


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def subscription(scene: Scene) -> Iterator[Subscription]:
    with Subscription(events.GROUPS, connect=scene.connect) as subscription:
        yield subscription


class TestKinds:
    @pytest.mark.parametrize(
        ("what", "kind"),
        [(NEW, "new"), ((0x0100, 0x400), "new"), (UPDATE, "update"), (DESTROY, "destroy")],
    )
    def test_of_entries(self, scene: Scene, subscription: Subscription, what: Any, kind: str) -> None:
        scene.events.emit(what, flow(mark=3))
        assert subscription.receive() == [Event(kind, flow(mark=3))]

    @pytest.mark.parametrize(
        ("what", "kind"),
        [(EXPECTATION_NEW, "expectation_new"), (EXPECTATION_DESTROY, "expectation_destroy")],
    )
    def test_of_expectations(self, scene: Scene, subscription: Subscription, what: Any, kind: str) -> None:
        attributes = wire.attribute((4,), struct.pack(">I", 300)) + wire.attribute((6,), b"ftp\0")
        scene.events.put(wire.framed(*what, 0, nfgenmsg(2) + attributes))
        (event,) = subscription.receive()
        assert event.kind == kind
        assert event.entry == {"family": 2, "timeout": 300, "helper": "ftp"}

    def test_entries_and_expectations_in_one_datagram(self, scene: Scene, subscription: Subscription) -> None:
        parts = [(NEW, payload(flow())), (EXPECTATION_NEW, nfgenmsg(2)), (DESTROY, payload(flow()))]
        scene.events.put(b"".join(wire.framed(*what, 0, data) for what, data in parts))
        assert kinds(subscription.receive()) == ["new", "expectation_new", "destroy"]

    def test_other_messages_are_ignored(self, scene: Scene, subscription: Subscription) -> None:
        scene.events.put(wire.framed(0x0900, 0, 0, bytes(4)) + wire.framed(0x0005, 0, 0, b""))
        assert subscription.receive() == []

    def test_wait_ends_without_an_event(self, subscription: Subscription) -> None:
        assert not subscription.wait(0.001)
        assert subscription.receive() == []


class TestSubscription:
    def test_subscribes_to_its_groups(self, scene: Scene) -> None:
        with Subscription(["destroy", "expectation_new"], receive_buffer=12345, connect=scene.connect) as subscription:
            assert scene.events.options["groups"] == [3, 4]
            assert subscription.receive_buffer == 24690
            assert not subscription.filtered

    @pytest.mark.parametrize("groups", [["never"], [], "new"])
    def test_invalid_groups_are_refused(self, scene: Scene, groups: Any) -> None:
        with pytest.raises(InvalidValue, match="groups: .* is not a group; write one or more of new, update, destroy"):
            Subscription(groups, connect=scene.connect)

    def test_off(self, scene: Scene, mode: Any) -> None:
        mode(0)
        with pytest.raises(EventsOff, match="nf_conntrack_events=1"):
            Subscription(connect=scene.connect)
        assert scene.steps == []

    @pytest.mark.parametrize("value", [1, 2, None])
    def test_mode(self, scene: Scene, mode: Any, value: int | None) -> None:
        mode(value)
        with Subscription(connect=scene.connect) as subscription:
            assert subscription.mode == value

    def test_kernel_and_client_filter_events(self, scene: Scene) -> None:
        """The subscription must not rely on the kernel's filter."""
        with Subscription(match=marked(1), connect=scene.connect) as subscription:
            assert subscription.filtered
            program = scene.events.options["program"]
            for mark in (1, 2):
                scene.events.emit(NEW, flow(mark=mark))
                assert classic_bpf.run(program, scene.events.waiting[-1]) is (mark == 1)
            assert subscription.receive() == [Event("new", flow(mark=1))]
            assert subscription.receive() == []

    def test_match_with_too_long_a_program_is_filtered_by_the_client(self, scene: Scene) -> None:
        match = parse_match({"destination_port": list(range(5000))})
        with Subscription(match=match, connect=scene.connect) as subscription:
            assert not subscription.filtered
            scene.events.emit(NEW, flow(53))
            scene.events.emit(NEW, flow(5353))
            assert [*subscription.receive(), *subscription.receive()] == [Event("new", flow(53))]

    def test_refused_program_is_replaced_by_the_filter_of_the_client(self, scene: Scene) -> None:
        """A kernel before 6.7 limits a program to about 2,000 instructions."""

        def connect(**options: Any) -> NetlinkTransport:
            if options["program"]:
                raise kernel_error("subscribing to events", errno.ENOMEM)
            return scene.connect(**options)

        with Subscription(match=marked(1), connect=connect) as subscription:
            assert not subscription.filtered
            scene.events.emit(NEW, flow(mark=2))
            assert subscription.receive() == []

    @pytest.mark.parametrize("match", [EVERYTHING, marked(1)])
    def test_not_permitted(self, match: Match) -> None:
        def connect(**options: Any) -> NetlinkTransport:
            raise kernel_error("subscribing to events", errno.EPERM)

        with pytest.raises(NotPermitted):
            Subscription(match=match, connect=connect)

    @pytest.mark.parametrize("key", ["bytes_above", "packets_below", "age_above"])
    def test_match_on_counters_requires_destroy_events(self, scene: Scene, key: str) -> None:
        match = parse_match({key: 5})
        with pytest.raises(InvalidValue, match="destroy events only"):
            Subscription(match=match, connect=scene.connect)
        with Subscription(["destroy", "expectation_new"], match, connect=scene.connect):
            pass

    def test_overrun(self, scene: Scene, subscription: Subscription) -> None:
        for count in (1, 2):
            scene.events.emit(NEW, flow())
            scene.events.overrun()
            with pytest.raises(Overrun):
                next(iter(subscription))
            assert subscription.overruns == count
        scene.events.emit(DESTROY, flow())
        assert next(iter(subscription)).kind == "destroy"

    def test_skipped_events_are_counted_and_the_others_remain(self, scene: Scene, subscription: Subscription) -> None:
        assert subscription.skip(3) == 0
        for number in range(5):
            scene.events.emit(NEW, flow(number))
        assert [subscription.skip(3), subscription.wait(0), subscription.skip(3), subscription.wait(0)] == [3, 1, 2, 0]
        scene.events.overrun()
        with pytest.raises(Overrun):
            subscription.skip(3)
        assert subscription.overruns == 1

    def test_iteration_ends_if_the_subscription_is_closed(self, scene: Scene, subscription: Subscription) -> None:
        for number in range(3):
            scene.events.emit(NEW, flow(number))
        seen = []
        for event in subscription:
            seen.append(event)
            if len(seen) == 3:
                subscription.close()
        assert len(seen) == 3


class TestAsyncio:
    def run(self, test: Any) -> None:
        asyncio.run(asyncio.wait_for(test, 300))

    def test_waiting_and_later_events_are_received(self, scene: Scene, subscription: Subscription) -> None:
        async def test() -> None:
            loop = asyncio.get_running_loop()
            scene.events.emit(NEW, flow())
            loop.call_later(0.01, scene.events.emit, UPDATE, flow())
            loop.call_later(0.02, scene.events.emit, DESTROY, flow())
            seen = []
            async for event in subscription:
                seen.append(event.kind)
                if event.kind == "destroy":
                    break
            assert seen == ["new", "update", "destroy"]

        self.run(test())

    def test_cancelled(self, scene: Scene, subscription: Subscription) -> None:
        """A cancelled task leaves nothing behind, and the next task continues."""

        async def test() -> None:
            async def read() -> Event:
                async for event in subscription:
                    return event
                raise AssertionError

            task = asyncio.ensure_future(read())
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            loop = asyncio.get_running_loop()
            assert not loop.remove_reader(subscription.fileno())
            loop.call_later(0.01, scene.events.emit, NEW, flow())
            assert (await read()).kind == "new"
            assert not loop.remove_reader(subscription.fileno())

        self.run(test())

    def test_several_tasks(self, scene: Scene, subscription: Subscription) -> None:
        """Each event goes to one task, and a cancelled task does not stop the others."""

        async def test() -> None:
            seen: list[int] = []

            async def read() -> None:
                async for event in subscription:
                    seen.append(event.entry["original.destination_port"])
                    await asyncio.sleep(0)

            tasks = [asyncio.ensure_future(read()) for _task in range(5)]
            await asyncio.sleep(0.01)
            for port in range(50):
                scene.events.emit(NEW, flow(port))
            await asyncio.sleep(0.02)
            tasks[0].cancel()
            tasks[1].cancel()
            await asyncio.sleep(0.01)
            for port in range(50, 100):
                scene.events.emit(NEW, flow(port))
            while len(seen) < 100:
                await asyncio.sleep(0.001)
            assert sorted(seen) == list(range(100))
            subscription.close()
            await asyncio.gather(*tasks[2:])  # closing the subscription ends the tasks

        self.run(test())

    def test_other_tasks_continue_during_a_flood_of_events(self, scene: Scene, subscription: Subscription) -> None:
        async def test() -> None:
            for _number in range(200):
                scene.events.emit(NEW, flow())
            count = 0

            async def other() -> None:
                nonlocal count
                while True:
                    count += 1
                    await asyncio.sleep(0)

            task = asyncio.ensure_future(other())
            seen = 0
            async for _event in subscription:
                seen += 1
                if seen == 200:
                    break
            assert count >= 100
            task.cancel()

        self.run(test())

    def test_overrun(self, scene: Scene, subscription: Subscription) -> None:
        async def test() -> None:
            scene.events.overrun()
            with pytest.raises(Overrun):
                await subscription.__aiter__().__anext__()
            scene.events.emit(NEW, flow())
            async for event in subscription:
                assert event.kind == "new"
                break

        self.run(test())

    def test_ready_ends_at_the_timeout_or_on_close(self, subscription: Subscription) -> None:
        async def test() -> None:
            assert not await subscription.ready(0.01)
            subscription.close()
            assert not await subscription.ready()

        self.run(test())

    def test_second_event_loop_is_refused(self, scene: Scene, subscription: Subscription) -> None:
        async def test() -> None:
            first = asyncio.ensure_future(subscription.ready(120))
            await asyncio.sleep(0)
            with ThreadPoolExecutor() as thread:
                other = thread.submit(asyncio.run, subscription.ready(120))
                with pytest.raises(ConntrackError, match="^another event loop reads this subscription"):
                    other.result()
            scene.events.emit(NEW, flow())
            assert await first

        self.run(test())

    def test_follower(self, scene: Scene) -> None:
        scene.set_table(*(flow(port) for port in range(3)))

        async def test() -> None:
            with scene.follower() as follower:
                scene.events.emit(NEW, flow(7))
                asyncio.get_running_loop().call_later(0.01, scene.set_table, flow(1), flow(7), flow(8))
                asyncio.get_running_loop().call_later(0.01, scene.events.overrun)
                received = []
                async for each in follower:
                    received.append(each)
                    if len(received) == 5:
                        follower.close()
                assert received[1] == Resync(1, 0, 2)
                assert kinds(received) == ["new", "new", "destroy", "destroy"]

        self.run(test())

    def test_follower_reads_a_table_without_events(self, scene: Scene) -> None:
        scene.set_table(flow(1), flow(2))

        async def test() -> None:
            with scene.follower(check=0.01) as follower:
                scene.set_table(flow(2))
                async for each in follower:
                    assert each == Resync(0, 0, 1, False)
                    break

        self.run(test())


class TestFollower:
    def test_subscribes_before_it_reads(self, scene: Scene) -> None:
        scene.set_table(flow())
        with scene.follower() as follower:
            assert scene.steps == ["subscribe", "open the table"]
            assert list(follower.entries.values()) == [flow()]

    def test_known_entries_are_not_reported_again(self, scene: Scene) -> None:
        scene.set_table(flow(1), flow(2, mark=3))
        with scene.follower() as follower:
            scene.events.emit(NEW, flow(1))
            scene.events.emit(NEW, flow(2))
            received = drain(follower)
            assert kinds(received) == ["update"]
            scene.events.emit(DESTROY, flow(1))
            assert kinds(drain(follower)) == ["destroy"]

    def test_an_update_is_merged(self, scene: Scene) -> None:
        known = {**flow(mark=3, helper="ftp", status=0x208A), "counters.original.bytes": 1}
        scene.set_table(known)
        with scene.follower() as follower:
            scene.events.emit(UPDATE, shown(known, timeout=99))
            assert drain(follower) == [Event("update", {**known, "timeout": 99})]

    def test_update_without_mark_and_helper_removes_them(self, scene: Scene) -> None:
        known = flow(mark=3, helper="ftp")
        scene.set_table(known)
        with scene.follower() as follower:
            scene.events.emit(UPDATE, shown({**flow(), "status": 10}))
            (event,) = drain(follower)
            assert event.entry == {
                key: value for key, value in {**known, "status": 10}.items() if key not in ("mark", "helper")
            }

    def test_removal_of_the_last_label_is_detected(self, scene: Scene) -> None:
        """The kernel sends no event for the removal of the last label."""
        scene.set_table(flow(labels=3))
        with scene.follower(parse_match({"labels": [0]})) as follower:
            scene.set_table(flow())
            scene.events.emit(UPDATE, shown(flow()))
            assert kinds(drain(follower)) == ["destroy"]
            assert not follower.entries

    def test_a_destroy_is_merged(self, scene: Scene) -> None:
        known = flow(mark=3, helper="ftp", labels=1)
        scene.set_table(known)
        with scene.follower() as follower:
            scene.set_table()
            last = {**shown(flow()), "status": 0x208, "counters.original.packets": 7}
            scene.events.emit(DESTROY, last)
            assert drain(follower) == [Event("destroy", {**known, **last})]
            assert not follower.entries

    def test_update_can_begin_and_end_a_match(self, scene: Scene) -> None:
        scene.set_table(flow())
        with scene.follower(marked(1)) as follower:
            assert not follower.entries
            scene.set_table(flow(mark=1))
            scene.events.emit(UPDATE, shown(flow(mark=1)))
            assert drain(follower) == [Event("new", flow(mark=1), by_update=True)]
            scene.set_table(flow(mark=2))
            scene.events.emit(UPDATE, shown(flow(mark=2)))
            assert drain(follower) == [Event("destroy", flow(mark=2), by_update=True)]
            scene.events.emit(DESTROY, flow(mark=2))
            assert drain(follower) == []

    def test_update_of_an_ended_entry_is_ignored(self, scene: Scene) -> None:
        with scene.follower(marked(1)) as follower:
            scene.events.emit(UPDATE, shown(flow(mark=1)))
            scene.events.emit(DESTROY, flow(mark=1))
            assert drain(follower) == []

    def test_successor_ends_the_previous_entry(self, scene: Scene) -> None:
        scene.set_table(flow(number=1))
        with scene.follower() as follower:
            scene.set_table(flow(number=2))
            scene.events.emit(NEW, flow(number=2))  # the first entry ended without an event
            assert drain(follower) == [Event("destroy", flow(number=1), True), Event("new", flow(number=2))]
            scene.events.emit(DESTROY, flow(number=1))  # its event arrives too late
            scene.events.emit(UPDATE, flow(number=1))
            assert drain(follower) == []
            assert list(follower.entries.values()) == [flow(number=2)]
            scene.set_table(flow(number=3))
            scene.events.overrun()
            assert drain(follower) == [
                Resync(1, 0, 1),
                Event("destroy", flow(number=2), True),
                Event("new", flow(number=3), True),
            ]

    def test_resync(self, scene: Scene) -> None:
        scene.set_table(flow(1), flow(2), flow(3, mark=1), flow(4))
        with scene.follower() as follower:
            scene.set_table(flow(1), flow(2, mark=5), flow(4, timeout=1), flow(6))
            scene.events.overrun()
            assert drain(follower) == [
                Resync(1, 1, 1),
                Event("update", flow(2, mark=5), True),
                Event("new", flow(6), True),
                Event("destroy", flow(3, mark=1), True),
            ]
            assert follower.subscription.overruns == 1
            scene.events.overrun()
            assert drain(follower) == [Resync(0, 0, 0)]
            assert follower.resync() == [Resync(0, 0, 0, False)]

    def test_entry_that_stopped_matching_during_an_overrun_is_reported(self, scene: Scene) -> None:
        scene.set_table(flow(1, mark=1), flow(2, mark=1))
        with scene.follower(marked(1)) as follower:
            scene.set_table(flow(1, mark=2))
            scene.events.overrun()
            assert drain(follower) == [
                Resync(0, 0, 2),
                Event("destroy", flow(1, mark=1), True, True),
                Event("destroy", flow(2, mark=1), True),
            ]

    def test_failed_dump_after_an_overrun_is_repeated(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """The lost events remain reported as lost until the table has been read."""
        scene.set_table(flow(1))
        with scene.follower() as follower:
            scene.set_table()
            scene.events.overrun()
            respond = scene.kernel.respond
            monkeypatch.setattr(scene.kernel, "respond", lambda request: [OSError(errno.ENOBUFS, "lost")])
            with pytest.raises(Overrun):
                follower.receive(0)
            monkeypatch.setattr(scene.kernel, "respond", respond)
            assert follower.receive(0)[0] == Resync(0, 0, 1)

    def test_kernel_filters_only_by_keys_that_never_change(self, scene: Scene) -> None:
        match = parse_match({"port": 53, "mark": 1, "except": {"destination": "10.0.0.9", "state": "established"}})
        with scene.follower(match):
            program = scene.events.options["program"]
            for port, passes in ((53, True), (54, False)):
                event = wire.framed(*UPDATE, 0, payload(shown(flow(port))))
                assert classic_bpf.run(program, event) is passes

    def test_match_on_counters_queries_new_entries(self, scene: Scene) -> None:
        """New events contain no counters, so the follower queries the entry."""
        counters = {f"counters.{way}.{what}": 100 for way in ("original", "reply") for what in ("bytes", "packets")}
        with scene.follower(parse_match({"bytes_above": 150})) as follower:
            scene.set_table({**flow(1), **counters})
            scene.events.emit(NEW, flow(1))
            scene.events.emit(NEW, flow(2))  # this entry has already ended
            assert drain(follower) == [Event("new", {**flow(1), **counters})]

    def test_failed_follower_closes_its_subscription(self, scene: Scene) -> None:
        def forbidden() -> Any:
            raise kernel_error("opening a netfilter netlink socket", errno.EPERM)

        with pytest.raises(NotPermitted):
            Follower(connect=scene.connect, table=forbidden)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(scene.events.fileno())


class TestSilence:
    """With nf_conntrack_events=2, entries from before the subscription have no events."""

    def test_entries_without_an_event_are_unannounced(self, scene: Scene) -> None:
        scene.set_table(flow(1), flow(2), flow(3))
        with scene.follower() as follower:
            scene.events.emit(UPDATE, shown(flow(1)))
            scene.events.emit(NEW, flow(4))
            scene.events.emit(DESTROY, flow(2))
            drain(follower)
            assert follower.unannounced == {identity(flow(3))}

    def test_entry_that_ended_without_an_event_is_found(self, scene: Scene) -> None:
        scene.set_table(flow(1), flow(2))
        with scene.follower(check=0.02) as follower:
            scene.set_table(flow(2, mark=1))
            started = time.monotonic()
            assert follower.receive() == [
                Resync(0, 1, 1, False),
                Event("update", flow(2, mark=1), True),
                Event("destroy", flow(1), True),
            ]
            assert time.monotonic() - started < 60
            assert follower.unannounced == {identity(flow(2))}
            assert follower.receive(0.001) == []

    def test_events_are_received_before_a_dump(self, scene: Scene) -> None:
        """A change with an event must not be reported as missed."""
        scene.set_table(flow(1), flow(2))
        with scene.follower(check=0.05) as follower:
            time.sleep(0.06)
            scene.set_table()
            scene.events.emit(DESTROY, flow(1))
            assert follower.receive() == [Event("destroy", flow(1))]
            assert follower.receive() == [Resync(0, 0, 1, False), Event("destroy", flow(2), True)]

    def test_continuous_events_do_not_prevent_a_dump(self, scene: Scene) -> None:
        scene.set_table(flow(1))
        with scene.follower(check=0.01) as follower:
            scene.set_table()
            until = time.monotonic() + 60
            while time.monotonic() < until:
                scene.events.emit(NEW, flow(9))
                scene.events.emit(DESTROY, flow(9))
                if Event("destroy", flow(1), True) in follower.receive():
                    return
            pytest.fail("the follower did not read the table")

    def test_no_dump_without_a_reason(self, scene: Scene, mode: Any) -> None:
        mode(2)
        with scene.follower(parse_match({"port": 53}), check=0.001) as follower:
            before = len(scene.kernel.requests)
            assert follower.receive(0.02) == []
            assert len(scene.kernel.requests) == before

    def test_no_dump_without_check(self, scene: Scene) -> None:
        scene.set_table(flow(1))
        with scene.follower(check=None) as follower:
            scene.set_table()
            assert follower.receive(0.02) == []
            assert follower.resync() == [Resync(0, 0, 1, False), Event("destroy", flow(1), True)]

    def test_entry_that_matches_without_an_event_is_found(self, scene: Scene, mode: Any) -> None:
        mode(2)
        scene.set_table(flow(1))
        with scene.follower(marked(1), check=0.01) as follower:
            assert not follower.unannounced
            scene.set_table(flow(1, mark=1))
            assert follower.receive() == [Resync(1, 0, 0, False), Event("new", flow(1, mark=1), True)]
            assert follower.unannounced == {identity(flow(1))}

    def test_match_on_the_timeout_is_checked_regularly(self, scene: Scene) -> None:
        with scene.follower(parse_match({"timeout_below": 10}), check=0.01) as follower:
            scene.set_table(flow(1))
            scene.events.emit(NEW, flow(1))
            assert follower.receive() == []
            scene.set_table(flow(1, timeout=5))
            assert kinds(follower.receive()) == ["new"]


PORTS = st.integers(1, 4)
MARKS = st.integers(0, 2)
CHANGES = st.one_of(
    st.tuples(st.sampled_from(["put", "put", "put in silence", "delete", "delete in silence"]), PORTS, MARKS),
    st.tuples(st.sampled_from(["overrun", "read", "read", "look"]), st.just(0), st.just(0)),
)


class Consumer:
    """The table as a consumer of the follower's events sees it."""

    def __init__(self, entries: dict[Identity, Entry]) -> None:
        self.mirrored = dict(entries)

    def apply(self, received: list[Any]) -> None:
        for index, each in enumerate(received):
            if isinstance(each, Resync):
                missed = kinds(event for event in received[index + 1 :] if event.missed)
                assert each[:3] == (missed.count("new"), missed.count("update"), missed.count("destroy"))
                continue
            key = identity(each.entry)
            if each.kind == "new":
                assert key not in self.mirrored
                self.mirrored[key] = each.entry
            elif each.kind == "update":
                assert key in self.mirrored
                self.mirrored[key] = each.entry
            else:
                del self.mirrored[key]


@given(
    st.sampled_from([EVERYTHING, marked(1), parse_match({"port": [1, 2], "except": {"mark": 2}})]),
    st.dictionaries(PORTS, MARKS),
    st.lists(CHANGES, max_size=30),
)
def test_follower_and_consumer_have_the_entries_of_the_table(match: Match, start: dict[int, int], changes: Any) -> None:
    """After a dump of the table, the follower and its consumer have the same entries, also after lost events."""
    numbers = iter(range(1000))
    there = {port: flow(port, mark, next(numbers)) for port, mark in start.items()}
    scene = Scene(*there.values())
    settings_read, sysctl.read = sysctl.read, lambda name: 2  # type: ignore[assignment]
    try:
        follower = scene.follower(match, check=None)
    finally:
        sysctl.read = settings_read
    with follower:
        consumer = Consumer(follower.entries)
        exact = True  # whether each change since then had an event

        def emit(what: tuple[int, int], entry: Entry) -> None:
            datagram = wire.framed(*what, 0, payload(entry))
            program = scene.events.options["program"]
            if not program or classic_bpf.run(program, datagram):
                scene.events.put(datagram)

        for change, port, mark in changes:
            if change.startswith("put"):
                what = UPDATE if port in there else NEW
                entry = flow(port, mark, there[port]["id"] if port in there else next(numbers))
                there[port] = entry
                scene.set_table(*there.values())
                if change == "put":
                    emit(what, entry if what == NEW else shown(entry, mark=mark))
            elif change.startswith("delete"):
                if port in there:
                    entry = there.pop(port)
                    scene.set_table(*there.values())
                    if change == "delete":
                        emit(DESTROY, shown(entry))
            elif change == "overrun":
                scene.events.overrun()
                received = drain(follower)
                consumer.apply(received)
                assert any(isinstance(each, Resync) and each.overrun for each in received)
                exact = True
            elif change == "look":
                consumer.apply(drain(follower))
                consumer.apply(follower.resync())
                exact = True
            else:
                consumer.apply(drain(follower))
            exact = exact and not change.endswith("in silence")
            if exact and change in ("overrun", "look", "read"):
                wanted = {identity(entry): entry["mark"] for entry in there.values() if match(entry)}
                assert {key: entry.get("mark", 0) for key, entry in follower.entries.items()} == wanted
            assert consumer.mirrored == follower.entries or change.startswith(("put", "delete"))
        consumer.apply(drain(follower))
        consumer.apply(follower.resync())
        wanted = {identity(entry): entry["mark"] for entry in there.values() if match(entry)}
        assert {key: entry.get("mark", 0) for key, entry in follower.entries.items()} == wanted
        assert set(consumer.mirrored) == set(wanted)
