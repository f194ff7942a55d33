# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes in the thread and the queue of the event source: their windows, and the end of the source."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
from collections import deque
from collections.abc import Collection, Iterator
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import Unavailable
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate.changes import Change
from ansible_collections.netops.conntrack.plugins.plugin_utils._event_source import loop
from ansible_collections.netops.conntrack.plugins.plugin_utils._event_source.run import run

SOON = 300.0


class Source:
    """A subscription behind a pipe."""

    def __init__(self) -> None:
        self._read, self._written = os.pipe()
        self.kinds: Collection[str] = ()
        self.receive_buffer = 0
        self.is_open = False
        self.waiting: deque[Change] = deque()

    @contextlib.contextmanager
    def subscribed(self, kinds: Collection[str], receive_buffer: int) -> Iterator[list[Source]]:
        self.kinds, self.receive_buffer, self.is_open = kinds, receive_buffer, True
        try:
            yield [self]
        finally:
            self.is_open = False

    def add(self, *changes: Change) -> None:
        for change in changes:
            self.waiting.append(change)
            os.write(self._written, b"!")

    def fileno(self) -> int:
        return self._read

    def receive(self, most: int) -> list[Change]:
        taken: list[Change] = []
        while self.waiting and len(taken) < most:
            taken.append(self.waiting.popleft())
            os.read(self._read, 1)
        return taken

    def close(self) -> None:
        os.close(self._read)
        os.close(self._written)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    """The subscription that the event source opens. It may open nothing else."""

    def nothing(*_arguments: Any) -> Any:
        raise AssertionError("the source must not read the table here")

    source = Source()
    monkeypatch.setattr(loop, "subscribed", source.subscribed)
    monkeypatch.setattr(loop, "_PATIENCE", 3600.0)  # a change must wake the loop
    for name in ("FollowerStream", "SubscriptionStream", "Table"):
        monkeypatch.setattr(loop, name, nothing)
    yield source
    source.close()


@contextlib.asynccontextmanager
async def running(queue: asyncio.Queue[Any], **changes: Any) -> Any:
    task = asyncio.create_task(run(queue, {"groups": [], "changes": changes, "receive_buffer": 4096}))
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("conntrack")]


async def event_of(queue: asyncio.Queue[Any]) -> Any:
    return await asyncio.wait_for(queue.get(), SOON)


def test_one_event_for_a_window(source: Source) -> None:
    async def scenario() -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue(1)
        source.add(Change("route"), Change("route"), Change("ruleset"))
        async with running(queue, kinds=["route", "ruleset"], window=0.1):
            event = await event_of(queue)
            assert (event["type"], event["overrun"]) == ("change", False)
            assert event["counts"] == {"ruleset": 1, "address": 0, "route": 2, "rule": 0, "link": 0}
            source.add(Change("route", lost=True), Change("ruleset", lost=True))
            assert (await event_of(queue))["overrun"] is True
            assert (source.kinds, source.receive_buffer) == (("route", "ruleset"), 4096)
            assert source.is_open
        assert not source.is_open
        assert queue.empty()

    asyncio.run(scenario())


class BusyQueue(asyncio.Queue[Any]):
    """A queue of rules that are busy with an event. It counts the events that were offered."""

    offered = 0

    async def put(self, event: Any) -> None:
        self.offered += 1
        await super().put(event)


def test_changes_wait_while_rules_are_busy(source: Source) -> None:
    """All changes during a long action arrive with one event, and none is lost."""

    async def scenario() -> None:
        queue = BusyQueue(1)
        async with running(queue, window=0.1):
            for number in (1, 2):  # the second event does not fit into the queue
                source.add(Change("route"))
                while queue.offered < number:
                    await asyncio.sleep(0.001)
            for _number in range(30):
                source.add(Change("route"))
            assert [(await event_of(queue))["counts"]["route"] for _event in range(3)] == [1, 1, 30]
            assert queue.offered == 3

    asyncio.run(asyncio.wait_for(scenario(), SOON))


def test_cancelled_during_a_window(source: Source) -> None:
    async def scenario() -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue(1)
        async with running(queue, window=3600):
            source.add(Change("link"))
            while source.waiting:
                await asyncio.sleep(0.001)
        assert queue.empty()
        assert not source.is_open

    asyncio.run(asyncio.wait_for(scenario(), SOON))


def test_a_kernel_without_nf_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    def subscribed(*_arguments: Any) -> None:
        raise Unavailable("reading the ruleset", errno.EINVAL, hint="The kernel has no nf_tables: load it")

    monkeypatch.setattr(loop, "subscribed", subscribed)
    with pytest.raises(Unavailable, match=r"load it, or leave ruleset out of changes\.kinds$"):
        asyncio.run(run(asyncio.Queue(1), {"groups": [], "changes": {}}))
