# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin waits in turns, returns one result, keeps the timeout, and shows its progress."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.action import conntrack_wait

Document = dict[str, Any]

#: Seconds that the start and the end of a module take.
OVERHEAD = 0.5


class Host:
    """A host that runs a fake module: `counts` are the numbers of matches at the ends of turns; the goal is 0."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *counts: int, **options: Any) -> None:
        self.now = 100.0
        self.counts = list(counts)
        self.last = 1000
        self.turns: list[Document] = []
        self.shown: list[str] = []
        self.ends: Document = {}
        self.ended = 0
        task = {"args": {"match": {"port": 22}}, "async_val": 0, "check_mode": False, "no_log": False, **options}
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/tmp/x"))
        arguments: list[Any] = [SimpleNamespace(**task), connection, None, None, None]
        self.action = conntrack_wait.ActionModule(*arguments)
        monkeypatch.setattr(self.action, "_execute_module", self.execute)
        monkeypatch.setattr(self.action, "_remove_tmp_path", lambda path: self.ends.update(removed=path))
        monkeypatch.setattr(conntrack_wait, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(conntrack_wait, "display", SimpleNamespace(display=self.display))

    def display(self, line: str, stderr: bool) -> None:
        assert stderr
        self.shown.append(line)

    def execute(self, module_name: str, task_vars: Any, module_args: Any = None, wrap_async: bool = False) -> Document:
        assert module_name == "netops.conntrack.conntrack_wait"
        arguments = self.action._task.args if module_args is None else module_args
        self.turns.append({"arguments": copy.deepcopy(arguments), "async": wrap_async})
        timeout = arguments.get("timeout", 300)
        before, self.last = self.last, self.counts.pop(0)
        reached = self.last == 0
        elapsed = 0.25 if reached else timeout
        self.now += (elapsed if module_args else 0) + OVERHEAD
        return {
            "failed": not reached,
            "initial": before,
            "remaining": self.last,
            "ended": self.ended,
            "elapsed": elapsed,
            "reached": reached,
            "timed_out": not reached,
            "invocation": {"module_args": dict(arguments)},
        }

    def run(self) -> Document:
        result: Document = self.action.run(task_vars={"inventory_hostname": "gw1"})
        return result

    @property
    def lengths(self) -> list[float]:
        return [turn["arguments"]["timeout"] for turn in self.turns]


def test_turns_are_combined_into_one_result(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, 900, 700, 200, 100, 40, 0)
    done = host.run()
    assert (done["failed"], done["initial"], done["remaining"]) == (False, 1000, 0)
    assert done["elapsed"] == 5 + 15 + 30 + 60 + 60 + 5 * OVERHEAD + 0.25
    assert done["invocation"]["module_args"]["timeout"] == 300
    assert host.lengths == [5, 15, 30, 60, 60, 60]
    assert all(turn["arguments"]["match"] == {"port": 22} for turn in host.turns)
    assert host.ends == {"removed": "/tmp/x"}


def test_progress_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, 900, 900, 900, 1, 2, 0)
    host.run()
    assert host.shown == [
        f"[gw1] conntrack_wait: {line}"
        for line in (
            "900 entries match after 5 s (target: at most 0), falling by 20 per second, about 45 s left",
            "900 entries match after 20 s (target: at most 0), unchanged for 15 s",
            "900 entries match after 51 s (target: at most 0), unchanged for 45 s",
            "1 entry matches after 112 s (target: at most 0), falling by 15 per second, about 1 s left",
            "2 entries match after 172 s (target: at most 0), rising by 1 per minute",
        )
    ]


def test_entries_that_ended_in_one_turn_count_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, 1, 1, 0, args={"match": {"port": 22}, "min_count": "10"})
    host.last, host.ended = 1, 3
    done = host.run()
    assert [turn["arguments"]["min_count"] for turn in host.turns] == ["10", 7, 4]
    assert (done["ended"], done["remaining"]) == (9, 0)
    assert done["invocation"]["module_args"]["min_count"] == 10
    assert [line.partition("(")[2] for line in host.shown] == [
        "target: at least 10), rising by 36 per minute, about 10 s left",
        "target: at least 10), rising by 12 per minute, about 15 s left",
    ]


def test_short_wait_shows_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, 0)
    assert host.run()["elapsed"] == 0.25
    assert host.shown == []
    host = Host(monkeypatch, 700, 0, no_log=True)
    host.run()
    assert host.shown == []


@pytest.mark.parametrize(("timeout", "lengths"), [(22, [5, 15, 1]), (5, [5]), ("5.2", [5]), (0, [0])])
def test_turns_together_do_not_exceed_the_timeout(
    monkeypatch: pytest.MonkeyPatch, timeout: Any, lengths: list[float]
) -> None:
    host = Host(monkeypatch, 5, 4, 3, 2, args={"match": {"port": 22}, "timeout": timeout})
    done = host.run()
    assert host.lengths == lengths
    assert (done["failed"], done["timed_out"], done["initial"]) == (True, True, 1000)
    assert done["elapsed"] <= float(timeout)
    assert len(host.shown) == len(lengths) - 1
    assert host.action._task.args["timeout"] == timeout


@pytest.mark.parametrize("timeout", ["soon", None, -1, True, "nan", "inf", [3]])
def test_invalid_timeout_is_passed_to_the_module(monkeypatch: pytest.MonkeyPatch, timeout: Any) -> None:
    host = Host(monkeypatch, 0, args={"match": {"port": 22}, "timeout": timeout})
    host.run()
    assert [turn["arguments"] for turn in host.turns] == [{"match": {"port": 22}, "timeout": timeout}]


@pytest.mark.parametrize(("timeout", "sent"), [(10**400, "inf"), (-(10**5000), "-inf")], ids=["long", "negative"])
def test_timeout_too_large_for_a_float_is_passed_as_infinity(
    monkeypatch: pytest.MonkeyPatch, timeout: int, sent: str
) -> None:
    """The conversion of such an integer to a float would end Ansible with a traceback."""
    host = Host(monkeypatch, 0, args={"match": {"port": 22}, "timeout": timeout})
    host.run()
    assert [turn["arguments"] for turn in host.turns] == [{"match": {"port": 22}, "timeout": sent}]


@pytest.mark.parametrize("options", [{"async_val": 900}, {"check_mode": True}])
def test_async_and_check_mode_use_one_turn(monkeypatch: pytest.MonkeyPatch, options: Document) -> None:
    """An asynchronous module requires its files until it ends."""
    host = Host(monkeypatch, 700, **options)
    host.run()
    asynchronous = "async_val" in options
    assert host.turns == [{"arguments": {"match": {"port": 22}}, "async": asynchronous}]
    assert ("removed" in host.ends) == (not asynchronous)
    assert host.shown == []


def test_failed_module_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for broken in ({"failed": True, "msg": "MODULE FAILURE"}, {"failed": True, "elapsed": 0, "timed_out": False}):
        host = Host(monkeypatch)
        monkeypatch.setattr(host.action, "_execute_module", lambda broken=broken, **_options: {"initial": 0, **broken})
        assert host.run().items() >= broken.items()


def test_progress_messages() -> None:
    message = conntrack_wait.progress(10, 40, 15.2, 15, {"min_count": "100"})
    assert message == "40 entries match after 15 s (target: at least 100), rising by 120 per minute, about 30 s left"
    assert conntrack_wait.progress(40, 40, 15, 15, {"min_count": 100}).endswith(", unchanged for 15 s")
    assert conntrack_wait.progress(20000, 19700, 15, 60, {"max_count": 100}).endswith(
        ", falling by 300 per minute, about 65 min left"
    )
    assert [conntrack_wait.duration(left) for left in (0.2, 119.2, 120, 7199, 7200, 90000)] == [
        *("1 s", "120 s", "2 min", "120 min", "2 h", "25 h"),
    ]
