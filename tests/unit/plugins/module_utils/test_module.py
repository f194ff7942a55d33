# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the behaviour that all modules share: no negative limits, and one error message for each failure."""

from __future__ import annotations

import importlib
from typing import Any, Dict

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils import _module
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import CannotReconcile
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import (
    ConntrackError,
    InvalidDocument,
    InvalidValue,
    PartialFailure,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import namespace

Document = Dict[str, Any]

NOTHING = {"operation": "unchanged", "before": {}, "changes": []}


class Ended(Exception):
    """The result that ends a module."""


class FakeModule:
    """The part of AnsibleModule that the code under test uses."""

    def __init__(self, **params: Any) -> None:
        self.params: Document = {"match": "everything", "except": "nothing", **params}
        self.check_mode = False
        self._warnings: list[str] = []

    def warn(self, warning: str) -> None:
        self._warnings.append(warning)

    def exit_json(self, **result: Any) -> None:
        self._end(False, result)

    def fail_json(self, **result: Any) -> None:
        self._end(True, result)

    def _end(self, failed: bool, result: Document) -> None:
        assert "warnings" not in result, "deprecated since ansible-core 2.19"
        warnings = {"warnings": self._warnings} if self._warnings else {}
        raise Ended({"failed": failed, **result, **warnings})


def run(task: Any, in_each: Any = None, **params: Any) -> Document:
    """Return the result of a module with this task."""
    with pytest.raises(Ended) as ended:
        _module.run(FakeModule(**params), task, NOTHING, in_each=in_each)  # type: ignore[arg-type]
    result: Document = ended.value.args[0]
    return result


def raising(error: Exception) -> Any:
    def task(module: Any) -> None:
        raise error

    return task


# results


def test_result_is_returned_unchanged() -> None:
    assert run(lambda module: {"changed": True}) == {"failed": False, "changed": True}


def test_failure_by_an_invalid_value_has_all_keys() -> None:
    result = run(raising(InvalidValue("mark", "is too wide; write 32 bits")))
    assert result == {
        "failed": True,
        "changed": False,
        "msg": "mark: is too wide; write 32 bits. Nothing was changed.",
        **NOTHING,
    }


def test_each_error_of_a_document_is_a_line() -> None:
    result = run(raising(InvalidDocument("2 errors:\n- a: \x1b\n- b: " + "x" * 5000)))
    lines = result["msg"].split("\n")
    assert (lines[0], lines[1], lines[3:]) == ("2 errors:", "- a: \\x1b", ["Nothing was changed."])


@pytest.mark.parametrize(
    ("name", "task"), [("info", "read"), ("facts", "read"), ("wait", "look_until"), ("flush", "remove")]
)
def test_only_changing_modules_report_that_nothing_was_changed(monkeypatch: Any, name: str, task: str) -> None:
    module = importlib.import_module(f"ansible_collections.netops.conntrack.plugins.modules.conntrack_{name}")
    monkeypatch.setattr(module, "AnsibleModule", lambda **_options: FakeModule())
    monkeypatch.setattr(module, task, raising(InvalidValue("mark", "is too wide")))
    with pytest.raises(Ended) as ended:
        module.main()
    nothing = " Nothing was changed." if name == "flush" else ""
    assert ended.value.args[0]["msg"] == f"mark: is too wide.{nothing}"


@pytest.mark.parametrize("text", ["x" * 100_000, "\x1b[2J", "\ud800"], ids=["long", "escapes", "half"])
def test_message_is_printable_and_short(text: str) -> None:
    for error in (InvalidValue(text, f"no such key {text}"), ConntrackError(text), CannotReconcile(text)):
        message = run(raising(error))["msg"]
        assert message.isprintable()
        assert len(message) <= 2000
    (warning,) = run(lambda module: {"warnings": [text]})["warnings"]
    assert warning.isprintable()
    assert len(warning) <= 2000


def test_partial_failure_reports_the_changes() -> None:
    error = CannotReconcile("refused", "updated")
    error.result = {"changed": True, "operation": "updated"}
    result = run(raising(error))
    assert result == {"failed": True, "msg": "refused", **NOTHING, "changed": True, "operation": "updated"}


def test_own_errors_fail_the_task_and_other_errors_are_raised() -> None:
    unchanged = {"failed": True, "changed": False, **NOTHING}
    assert run(raising(ConntrackError("load the module"))) == {"msg": "load the module", **unchanged}
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError()))


# options


def test_options_of_the_policy_have_safe_defaults() -> None:
    defaults = {name: option["default"] for name, option in _module.PRESENT.items()}
    assert defaults == {"state": "present", "on_existing": "update", "replace": False, "timeout_min": 0}


def test_limits_are_not_negative() -> None:
    _module.check_numbers(FakeModule(limit=1, top=0), "limit", "top")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="top: -1 is negative"):
        _module.check_numbers(FakeModule(top=-1), "top")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="top: 4294967296 is out of range; write a number from 0 to 4294967295"):
        _module.check_numbers(FakeModule(top=1 << 32), "top")  # type: ignore[arg-type]
    for number in (1 << 20000, -1 << 20000):
        with pytest.raises(InvalidValue, match="top: an integer of 2000[01] bits is"):
            _module.check_numbers(FakeModule(top=number), "top")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="top: is null"):
        _module.check_numbers(FakeModule(top=None), "top")  # type: ignore[arg-type]


# namespace


@pytest.mark.parametrize(
    ("name", "path"),
    [("blue", "/run/netns/blue"), ("/proc/7/ns/net", "/proc/7/ns/net"), ("./ns", "./ns")],
)
def test_a_namespace_has_a_name_or_a_path_and_is_entered_first(monkeypatch: Any, name: str, path: str) -> None:
    entered: list[str] = []
    monkeypatch.setattr(namespace, "enter", entered.append)
    assert run(lambda module: {"seen": list(entered)}, netns=name)["seen"] == [path]


def test_no_namespace_is_entered_without_netns(monkeypatch: Any) -> None:
    monkeypatch.setattr(namespace, "enter", lambda path: pytest.fail("entered"))
    assert run(lambda module: {}, netns=None) == {"failed": False}


def test_empty_netns_is_refused() -> None:
    """A flush of a tenant's table would otherwise remove the entries of the gateway."""
    result = run(lambda module: pytest.fail("ran in the wrong namespace"), netns="")
    assert result["failed"]
    assert result["msg"].startswith("netns: is empty")


def test_missing_namespace_is_reported_with_one_sentence() -> None:
    result = run(lambda module: pytest.fail("ran outside"), netns="/nowhere/net")
    assert result["failed"]
    assert "netns: cannot enter /nowhere/net: No such file or directory; name a namespace" in result["msg"]


def in_each(module: FakeModule, task: Any) -> Document:
    """Return the namespaces that the task would run in."""
    return {"several": module.params["netns"]}


@pytest.mark.parametrize("netns", ["all", ["blue"], ["blue", "/proc/7/ns/net"]])
def test_all_and_a_list_are_several_namespaces(netns: Any) -> None:
    result = run(lambda module: pytest.fail("ran in one"), in_each, netns=netns)
    assert result == {"failed": False, "several": netns}


@pytest.mark.parametrize(("netns", "path"), [("blue", "/run/netns/blue"), ("./all", "./all"), (7, "/run/netns/7")])
def test_a_string_is_one_namespace(monkeypatch: Any, netns: Any, path: str) -> None:
    entered: list[str] = []
    monkeypatch.setattr(namespace, "enter", entered.append)
    assert run(lambda module: {"seen": entered}, lambda *_: pytest.fail("ran in each"), netns=netns)["seen"] == [path]


@pytest.mark.parametrize("netns", [[], {}, True, 1.5, ["blue", 7], ["blue", ""], ["all"], ["blue", None]])
def test_invalid_netns_is_refused(netns: Any) -> None:
    result = run(lambda module: pytest.fail("ran"), in_each, netns=netns)
    assert result["msg"] == (
        f"netns: {netns!r} names no namespaces; write a name, a path, a list of names and paths, or all. "
        "Nothing was changed."
    )


def test_failure_in_several_namespaces_returns_only_sums_besides_them() -> None:
    def in_each(_module: Any, _task: Any) -> None:
        raise PartialFailure("red failed", {"namespaces": [{"netns": "red"}]})

    nothing = {"flushed": 0, "entries": [], "method": "delete"}
    with pytest.raises(Ended) as ended:
        _module.run(FakeModule(netns="all"), lambda module: {}, nothing, in_each=in_each)  # type: ignore[arg-type]
    assert ended.value.args[0] == {
        "failed": True,
        "changed": False,
        "msg": "red failed",
        "flushed": 0,
        "namespaces": [{"netns": "red"}],
    }
