# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the event source on several network namespaces of the running kernel."""

from __future__ import annotations

import asyncio
import json
import runpy
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests import clock
from tests.fleet.test_event_source import SOURCE, create, delete, udp, watching
from tests.lab import Machine, Namespace

#: Prints the events of all namespaces of a machine, one a line.
PROGRAM = """
import asyncio, json, runpy, sys

class Printer:
    async def put(self, event):
        print(json.dumps(event), flush=True)

asyncio.run(runpy.run_path(sys.argv[1])["main"](Printer(), {"netns": "all", "groups": ["new"], "existing": True}))
"""


@pytest.fixture
def other(root: None) -> Iterator[Namespace]:
    with Namespace("other") as namespace:
        yield namespace


def brief(event: dict[str, Any]) -> tuple[str, str, int]:
    return event["netns"], event["type"], event["entry"]["original"]["source_port"]


def test_events_contain_their_namespace(namespace: Namespace, other: Namespace) -> None:
    async def scenario() -> list[dict[str, Any]]:
        async with watching(namespace, netns=[namespace.path, other.path]) as rules:
            create(namespace, udp(1))
            create(other, udp(2))
            await rules.take(lambda taken: len(taken) >= 2)
            delete(other, udp(2))
            return await rules.take(lambda taken: len(taken) >= 3)

    found = sorted(map(brief, asyncio.run(scenario())))
    assert found == sorted([(namespace.path, "new", 1), (other.path, "new", 2), (other.path, "destroy", 2)])


class Source:
    """The modules of the event source, which finds only the given namespaces on this machine, and searches often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        library = runpy.run_path(str(SOURCE))["library"]
        self._host: ModuleType = library("module_utils.client.host.namespaces")
        places = library("plugin_utils._event_source.namespaces")
        self.found: list[Any] = []
        monkeypatch.setattr(places, "find_all", lambda: (list(self.found), None))
        monkeypatch.setattr(places, "INTERVAL", 0.05)

    def add(self, namespace: Namespace) -> None:
        self.found += self._host.find([namespace.path])


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    return Source(monkeypatch)


def test_new_namespaces_are_watched_and_removed_ones_released(
    source: Source, namespace: Namespace, other: Namespace
) -> None:
    """A socket keeps its namespace alive, with its links and addresses."""

    async def scenario() -> list[dict[str, Any]]:
        source.add(namespace)
        async with watching(namespace, netns="all", existing=True) as rules:
            source.add(other)
            await asyncio.to_thread(other.wait_for_subscriber)
            create(other, udp(2))
            await rules.take(lambda taken: len(taken) >= 1)
            del source.found[1]
            await asyncio.to_thread(clock.wait_until, lambda: not any(other.subscriptions()))
            create(namespace, udp(1))
            return await rules.take(lambda taken: len(taken) >= 2)

    found = list(map(brief, asyncio.run(scenario())))
    assert found == [(other.path, "new", 2), (namespace.path, "new", 1)]


def test_namespace_without_events_is_reported_once(source: Source, namespace: Namespace, other: Namespace) -> None:
    async def scenario() -> list[dict[str, Any]]:
        source.add(namespace)
        async with watching(namespace, netns="all") as rules:
            source.add(other)
            await rules.take(lambda taken: len(taken) >= 1)
            create(namespace, udp(1))
            return await rules.take(lambda taken: len(taken) >= 2)

    other.sysctl("nf_conntrack_events", 0)
    error, event = asyncio.run(scenario())
    assert (error["type"], error["netns"]) == ("namespace_error", other.path)
    assert error["msg"].startswith("the kernel sends no events here")
    assert brief(event) == (namespace.path, "new", 1)


def test_namespace_without_events_is_an_error_at_the_start(namespace: Namespace, other: Namespace) -> None:
    async def scenario() -> None:
        main = runpy.run_path(str(SOURCE))["main"]
        await main(asyncio.Queue(), {"netns": [namespace.path, other.path]})

    other.sysctl("nf_conntrack_events", 0)
    with pytest.raises(Exception, match=f"^netns: {other.path}: the kernel sends no events here"):
        asyncio.run(scenario())
    assert not any(namespace.subscriptions())


def test_all_namespaces_of_a_machine(namespace: Namespace, other: Namespace) -> None:
    create(namespace, udp(1))
    create(other, udp(2))
    with Machine(namespace, {"blue": other}) as machine:
        command = machine.command([sys.executable, "-c", PROGRAM, str(SOURCE)])
        process = namespace.start(command)
        assert process.stdout is not None
        found = [json.loads(process.stdout.readline()) for _event in range(2)]
        create(other, udp(3))
        found.append(json.loads(process.stdout.readline()))
    assert sorted(map(brief, found)) == [("/proc/1/ns/net", "new", 1), ("blue", "new", 2), ("blue", "new", 3)]
