# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the event source on the running kernel as ansible-rulebook does, without rules behind it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import runpy
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import Entry
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import clock, features, samples
from tests.lab import Namespace
from tests.lab.table import from_program

SOURCE = Path(__file__).parents[2] / "extensions/eda/plugins/event_source/conntrack.py"
FLOOD = 50_000
NFNLGRP_NFTABLES = 7
#: Timeout in seconds for events that must arrive.
SOON = 300.0
#: Maximum number of attempts of a test whose windows may end while the machine stands still.
TURNS = 8


def udp(port: int, destination: int = 53, **more: Any) -> Entry:
    return creation(from_document(samples.flow("ipv4", "udp", port, destination, **{"timeout": 600, **more})))


def flood(namespace: Namespace, count: int = FLOOD, every: int = 500) -> None:
    """Create entries; the port of one in `every` is 53."""
    plain = udp(1, 54)
    entries = (
        {
            **plain,
            "original.source_port": number,
            "reply.destination_port": number,
            "original.destination_port": 54 if number % every else 53,
            "reply.source_port": 54 if number % every else 53,
        }
        for number in range(count)
    )
    with namespace.entered(), Table() as table:
        assert not any(table.create_all(entries))


def create(namespace: Namespace, *entries: Entry) -> None:
    with namespace.entered(), Table() as table:
        for entry in entries:
            table.create(entry)


def delete(namespace: Namespace, *entries: Entry) -> None:
    with namespace.entered(), Table() as table:
        for entry in entries:
            table.delete(entry)


def is_to(port: int, event: dict[str, Any]) -> bool:
    return event["type"] == "new" and event["entry"]["original"]["destination_port"] == port


class Rules:
    """Take events one after another from a queue with room for one event, as rules do."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(1)
        self.taken: list[dict[str, Any]] = []

    async def take(self, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Return the events once there are enough, and the events that arrive right after that."""
        async with asyncio.timeout(SOON):
            while not enough(self.taken):
                self.taken.append(await self.queue.get())
        with contextlib.suppress(TimeoutError):
            while True:
                self.taken.append(await asyncio.wait_for(self.queue.get(), 0.3))
        return self.taken

    def count(self, kind: str) -> int:
        return sum(event["type"] == kind for event in self.taken)


@contextlib.asynccontextmanager
async def watching(namespace: Namespace, **args: Any) -> AsyncIterator[Rules]:
    """Run the source. It has subscribed and read the table, so it reports all later events."""
    rules = Rules()
    ready = threading.Event()
    unopened = [*args["netns"]] if isinstance(args.get("netns"), list) else [namespace.path]

    def open_streams(*arguments: Any) -> Any:
        streams = original(*arguments)
        unopened.pop()
        if not unopened:
            ready.set()
        return streams

    plugin = runpy.run_path(str(SOURCE))
    loop = plugin["library"]("plugin_utils._event_source.loop")
    original = loop._open
    with mock.patch.object(loop, "_open", open_streams):
        source = asyncio.create_task(plugin["main"](rules.queue, {"netns": namespace.path, **args}))
        async with asyncio.timeout(SOON):
            while not ready.is_set():
                await asyncio.sleep(0.01)
                assert not source.done(), source.exception()
    try:
        yield rules
    finally:
        source.cancel()
        started = time.monotonic()
        with contextlib.suppress(asyncio.CancelledError):
            await source
        assert time.monotonic() - started < 60
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("conntrack", "netlink"))]


def identity_of(document: dict[str, Any]) -> tuple[Any, ...]:
    """Return the values that identify an entry and that every reader shows."""
    ways = (tuple(sorted((k, v) for k, v in document[way].items() if k != "zone")) for way in ("original", "reply"))
    return document["protocol"], *ways, document.get("zone", 0), document.get("mark", 0)


class TestFlood:
    def test_only_matching_events_arrive(self, namespace: Namespace) -> None:
        async def scenario() -> list[dict[str, Any]]:
            async with watching(namespace, match={"protocol": "udp", "destination_port": 53}) as rules:
                await asyncio.to_thread(flood, namespace)
                return await rules.take(lambda taken: len(taken) >= FLOOD // 500)

        taken = asyncio.run(scenario())
        assert namespace.count() == FLOOD
        assert len(taken) == FLOOD // 500 == 100
        assert {(event["type"], event["entry"]["original"]["destination_port"]) for event in taken} == {("new", 53)}

    def test_lost_events_are_reported_and_replaced_from_the_table(self, namespace: Namespace) -> None:
        """Rules that process every event end with the same entries as the table, and receive an event for each loss."""

        async def scenario() -> Rules:
            async with watching(namespace, receive_buffer=1) as rules:
                await asyncio.to_thread(flood, namespace)
                await rules.take(lambda taken: len(taken) > FLOOD)
                await asyncio.to_thread(delete, namespace, *(udp(number, 54) for number in range(101, 111)))
                await rules.take(lambda taken: rules.count("destroy") == 10)
                return rules

        rules = asyncio.run(scenario())
        reconstructed = set()
        for event in rules.taken:
            if event["type"] == "new":
                reconstructed.add(identity_of(event["entry"]))
            elif event["type"] == "destroy":
                reconstructed.remove(identity_of(event["entry"]))
        assert reconstructed == set(map(identity_of, from_program(namespace.conntrack("-L", "-o", "extended,id"))))
        lost = [event for event in rules.taken if event["type"] == "overrun"]
        assert lost
        assert [event["overruns"] for event in lost] == list(range(1, len(lost) + 1))
        missed = [event for event in rules.taken if event["type"] == "new" and event["missed"]]
        assert len(missed) == sum(event["resync"]["new"] for event in lost) > 0

    def test_loss_is_reported_without_resync(self, namespace: Namespace) -> None:
        async def scenario() -> list[dict[str, Any]]:
            async with watching(namespace, receive_buffer=1, resync=False) as rules:
                await asyncio.to_thread(flood, namespace, 5000)
                await rules.take(lambda taken: rules.count("overrun") > 0)
                await asyncio.to_thread(create, namespace, udp(6000, 99))
                return await rules.take(lambda taken: any(is_to(99, event) for event in taken))

        taken = asyncio.run(scenario())
        assert len(taken) < 5000
        assert all("resync" not in event for event in taken)

    def test_busy_rules_use_no_memory(self, namespace: Namespace) -> None:
        """Actions may take minutes; in the meantime, events wait in the kernel, whose buffer is limited."""

        async def scenario() -> Rules:
            async with watching(namespace, resync=False, receive_buffer=100_000) as rules:
                for first in range(0, 10_000, 100):
                    create(namespace, *(udp(number) for number in range(first, first + 100)))
                    await asyncio.sleep(0.01)  # time for a source that would buffer events in memory
                await rules.take(lambda taken: rules.count("overrun") > 0)
                return rules

        assert asyncio.run(scenario()).count("new") < 2000


class TestReports:
    def test_life_cycle_of_an_entry(self, namespace: Namespace) -> None:
        async def scenario() -> list[dict[str, Any]]:
            async with watching(namespace) as rules:
                create(namespace, udp(1, mark=5))
                with namespace.entered(), Table() as table:
                    table.update({**udp(1), "mark": 7})
                delete(namespace, udp(1))
                return await rules.take(lambda taken: len(taken) == 3)

        taken = asyncio.run(scenario())
        assert [event["type"] for event in taken] == ["new", "update", "destroy"]
        assert [event["entry"]["mark"] for event in taken] == [5, 7, 7]
        assert all(event["entry"]["original"]["source_port"] == 1 for event in taken)
        assert not any(event["missed"] or event["by_update"] for event in taken)
        assert all(event["port_id"] > 0 for event in taken)

    def test_only_selected_groups_are_reported(self, namespace: Namespace) -> None:
        async def scenario() -> list[dict[str, Any]]:
            async with watching(namespace, groups="destroy") as rules:
                create(namespace, udp(1))
                delete(namespace, udp(1))
                return await rules.take(lambda taken: len(taken) == 1)

        assert [event["type"] for event in asyncio.run(scenario())] == ["destroy"]

    def test_changed_entry_that_matches_is_new(self, namespace: Namespace) -> None:
        """The source reports a flow as new if its mark changes to the one in the match."""

        async def scenario() -> list[dict[str, Any]]:
            async with watching(namespace, match={"mark": 9}) as rules:
                create(namespace, udp(1, mark=5))
                with namespace.entered(), Table() as table:
                    table.update({**udp(1), "mark": 9})
                return await rules.take(lambda taken: len(taken) == 1)

        (event,) = asyncio.run(scenario())
        assert (event["type"], event["by_update"]) == ("new", True)

    def test_existing_entries(self, namespace: Namespace) -> None:
        create(namespace, *(udp(number) for number in range(1, 200)))

        async def scenario() -> list[dict[str, Any]]:
            async with watching(namespace, existing=True, match={"source_port": "1-150"}) as rules:
                return await rules.take(lambda taken: len(taken) == 150)

        taken = asyncio.run(scenario())
        assert len({event["entry"]["original"]["source_port"] for event in taken}) == 150
        assert {(event["type"], event["missed"]) for event in taken} == {("new", True)}

    def test_expectations(self, namespace: Namespace) -> None:
        features.needs("ftp")
        master = creation(
            from_document(samples.flow("ipv4", "tcp", 40000, 21, helper="ftp", tcp={"state": "established"}))
        )
        expected = expectation.from_document(
            {
                "master": samples.flow("ipv4", "tcp", 40000, 21)["original"] | {"protocol": "tcp"},
                "tuple": {
                    "protocol": "tcp",
                    "source": "198.51.100.2",
                    "destination": "192.0.2.1",
                    "destination_port": 40001,
                },
            }
        )

        async def scenario() -> list[dict[str, Any]]:
            async with watching(namespace, groups=["expectation_new", "expectation_destroy"]) as rules:
                create(namespace, master)
                with namespace.entered(), Table() as table:
                    expectation.create(table, expected)
                    expectation.delete(table, expected)
                return await rules.take(lambda taken: len(taken) == 2)

        taken = asyncio.run(scenario())
        assert [event["type"] for event in taken] == ["expectation_new", "expectation_destroy"]
        assert taken[0]["expectation"]["tuple"]["destination_port"] == 40001

    def test_counts(self, namespace: Namespace) -> None:
        async def scenario() -> list[dict[str, Any]]:
            aggregate = {"window": 3, "by": ["destination_port"]}
            async with watching(namespace, groups=["new", "destroy"], aggregate=aggregate) as rules:
                create(namespace, *(udp(number, 53) for number in range(1, 31)), udp(31, 54))
                delete(namespace, *(udp(number, 53) for number in range(1, 11)))
                await rules.take(lambda taken: events_counted(taken) == 41)
                create(namespace, udp(1, 53))
                return await rules.take(lambda taken: events_counted(taken) == 42)

        with clock.Standstills() as standstills:
            for _turn in range(TURNS):
                began = time.monotonic()
                taken = asyncio.run(scenario())
                if not standstills.seconds(began, time.monotonic()):
                    break
                namespace.conntrack("-F")  # a window may have ended in between
        assert [(event["by"]["destination_port"], event["counts"]) for event in taken] == [
            (53, {"new": 30, "update": 0, "destroy": 10}),
            (54, {"new": 1, "update": 0, "destroy": 0}),
            (53, {"new": 1, "update": 0, "destroy": 0}),
        ]

    def test_use_of_the_table_crosses_both_thresholds(self, namespace: Namespace) -> None:
        most = int(namespace.sysctl("nf_conntrack_max"))
        percent = 100 * 1000 / most

        async def scenario() -> list[dict[str, Any]]:
            threshold = {"percent": percent, "below": percent / 2, "interval": 0.1}
            async with watching(namespace, groups=[], threshold=threshold) as rules:
                await asyncio.to_thread(flood, namespace, 990)
                await asyncio.sleep(0.3)
                assert rules.queue.empty()
                create(namespace, *(udp(number, 99) for number in range(20)))
                await rules.take(lambda taken: len(taken) == 1)
                delete(namespace, *(udp(number, 99) for number in range(20)))
                await asyncio.sleep(0.3)
                assert rules.queue.empty(), "there is no event between the two percentages"
                namespace.conntrack("-F")
                return await rules.take(lambda taken: len(taken) == 2)

        above, below = asyncio.run(scenario())
        assert (above["crossed"], above["max"], below["crossed"]) == ("above", most, "below")
        assert 1000 <= above["count"] <= 1010, "the source may count while entries are created"
        assert below["count"] <= 500

    def test_use_of_snat_ports_crosses_both_thresholds(self, namespace: Namespace) -> None:
        rule = "meta l4proto udp snat to 198.51.100.1:1024-1033"
        namespace.nft(f"table ip nat {{ chain postrouting {{ type nat hook postrouting priority srcnat\n{rule}\n}}\n}}")

        async def scenario() -> list[dict[str, Any]]:
            threshold = {"percent": 80, "below": 50, "interval": 0.1}
            async with watching(namespace, groups=[], snat_ports=threshold) as rules:
                namespace.conntrack("-R", "-", input=nat_commands(range(7)))
                await asyncio.sleep(0.3)
                assert rules.queue.empty()
                namespace.conntrack("-R", "-", input=nat_commands(range(7, 9)))
                await rules.take(lambda taken: len(taken) == 1)
                namespace.conntrack("-F")
                return await rules.take(lambda taken: len(taken) == 2)

        above, below = asyncio.run(scenario())
        shared = {"address": "198.51.100.1", "destination": "203.0.113.9", "destination_port": 53, "protocol": "udp"}
        shared |= {"type": "snat_ports", "zone": 0, "limit": 10, "percent": 80.0, "below": 50.0}
        assert (above["crossed"], below["crossed"]) == ("above", "below")
        assert above["used"] in (8, 9), "the source may count while entries are created"
        assert above["sources"] == [{"address": "10.1.0.2", "ports": above["used"]}]
        for event in (above, below):
            assert {key: event[key] for key in shared} == shared
        assert (below["used"], below["usage_percent"], below["sources"]) == (0, 0.0, [])


def nat_commands(numbers: Iterable[int]) -> str:
    """Return commands that create flows of one client, each with a SNAT port of its own."""
    return "".join(
        f"-A -t 600 -u SEEN_REPLY -p udp -s 10.1.0.2 -d 203.0.113.9 --sport {4000 + number} --dport 53 "
        f"-n 198.51.100.1:{1024 + number}\n"
        for number in numbers
    )


class TestChanges:
    def test_changes_are_counted_without_events_of_entries(self, namespace: Namespace, ip: str) -> None:
        """The source reads no table, and subscribes to no events of entries."""

        async def scenario() -> list[dict[str, Any]]:
            async with watching(namespace, groups=[], changes={"window": 1}) as rules:
                assert [mask for mask in namespace.subscriptions() if mask] == [1 << NFNLGRP_NFTABLES - 1]
                create(namespace, udp(1))
                await asyncio.to_thread(namespace.firewall.track)
                commands = "".join(f"address add 10.1.0.{number}/32 dev lo\n" for number in range(1, 11))
                await asyncio.to_thread(batch, namespace, ip, commands)
                await rules.take(lambda taken: changes_in(taken, "address") == 10)
                await asyncio.to_thread(batch, namespace, ip, "route add 192.0.2.0/24 dev lo\nrule add table 5\n")
                return await rules.take(lambda taken: changes_in(taken, "rule") == 1)

        taken = asyncio.run(scenario())
        assert {(event["type"], event["window"], event["overrun"]) for event in taken} == {("change", 1, False)}
        assert 1 <= changes_in(taken, "ruleset") <= 3, "the table, its chain and the rule"
        assert [changes_in(taken, kind) for kind in ("route", "link")] == [1, 0]
        assert len(taken) < 10

    def test_a_constant_stream_is_reported(self, namespace: Namespace, ip: str) -> None:
        """The source reports an event while a constant stream of changes continues. No window has two events."""
        window, made = 0.1, 0

        async def stream() -> None:
            nonlocal made
            while True:
                await asyncio.to_thread(batch, namespace, ip, "rule add table 5\nrule delete table 5\n")
                made += 2

        async def scenario() -> list[dict[str, Any]]:
            async with watching(namespace, groups=[], changes={"kinds": "rule", "window": window}) as rules:
                changes = asyncio.create_task(stream())
                async with asyncio.timeout(SOON):
                    while len(rules.taken) < 3:
                        rules.taken.append(await rules.queue.get())
                changes.cancel()
                return rules.taken

        began = time.monotonic()
        taken = asyncio.run(scenario())
        assert 3 * window <= time.monotonic() - began
        assert 3 <= changes_in(taken, "rule") <= made + 2

    def test_an_overrun_is_a_change_of_every_kind(self, namespace: Namespace, ip: str) -> None:
        async def scenario() -> list[dict[str, Any]]:
            options = {"groups": [], "changes": {"kinds": ["rule", "link"], "window": 0.1}, "receive_buffer": 1}
            async with watching(namespace, **options) as rules:
                for _time in range(50):
                    commands = "rule add table 5\nrule delete table 5\n" * 200
                    await asyncio.to_thread(batch, namespace, ip, commands)
                    await rules.take(lambda taken: changes_in(taken, "rule") > 0)
                    if any(event["overrun"] for event in rules.taken):
                        break
                return rules.taken

        taken = asyncio.run(scenario())
        assert any(event["overrun"] for event in taken)
        assert changes_in(taken, "link") > 0


def events_counted(aggregates: list[dict[str, Any]]) -> int:
    return sum(sum(event["counts"].values()) for event in aggregates)


def changes_in(events: list[dict[str, Any]], kind: str) -> int:
    return sum(event["counts"][kind] for event in events)


def batch(namespace: Namespace, ip: str, commands: str) -> None:
    namespace.run([ip, "-batch", "-"], input=commands)


class TestErrors:
    def error_of(self, **args: Any) -> str:
        async def scenario() -> None:
            await runpy.run_path(str(SOURCE))["main"](asyncio.Queue(1), args)

        with pytest.raises(Exception) as caught:  # noqa: PT011 - of the source's own copy of the client
            asyncio.run(asyncio.wait_for(scenario(), SOON))
        return str(caught.value)

    def test_missing_namespace(self, root: None) -> None:
        assert "cannot enter /run/netns/nowhere: No such file" in self.error_of(netns="nowhere")

    def test_events_are_off(self, namespace: Namespace) -> None:
        namespace.sysctl("nf_conntrack_events", 0)
        assert "nf_conntrack_events=1" in self.error_of(netns=namespace.path)

    def test_timestamps_are_off(self, namespace: Namespace) -> None:
        namespace.sysctl("nf_conntrack_timestamp", 0)
        found = self.error_of(netns=namespace.path, match={"age_above": 60})
        assert "match: requires timestamps, which is off" in found

    def test_thread_of_the_rules_keeps_its_namespace(self, namespace: Namespace) -> None:
        """The actions that ansible-rulebook runs stay in its own network namespace."""
        before = os.stat("/proc/thread-self/ns/net").st_ino

        async def scenario() -> int:
            async with watching(namespace):
                return os.stat("/proc/thread-self/ns/net").st_ino

        assert asyncio.run(scenario()) == before
