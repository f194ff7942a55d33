# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test that the process enters the requested namespace; otherwise it would read and change the wrong table."""

from __future__ import annotations

import errno
import os
import sys
import threading

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import ConntrackError
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import namespace

pytestmark = pytest.mark.portability


@pytest.mark.parametrize(
    ("name", "path"),
    [("blue", "/run/netns/blue"), ("/proc/7/ns/net", "/proc/7/ns/net"), ("./ns", "./ns")],
)
def test_a_namespace_has_a_name_or_a_path(name: str, path: str) -> None:
    assert namespace.path_of(name) == path


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
def test_current_namespace_is_identified() -> None:
    there = os.stat("/proc/self/ns/net")
    assert namespace.current() == (there.st_dev, there.st_ino)


def test_missing_namespace_raises_its_errno() -> None:
    with pytest.raises(OSError, match="No such file") as error:
        namespace.enter("/nowhere/net")
    assert error.value.errno == errno.ENOENT


def open_files() -> set[str]:
    """Return the names of the open files; earlier tests can leave files that Python closes at any moment."""
    with os.scandir("/proc/self/fd") as found:
        return {os.readlink(entry.path) for entry in found}


def test_file_that_is_not_a_namespace_is_refused_and_closed(tmp_path: object) -> None:
    file = os.path.join(str(tmp_path), "net")
    with open(file, "w", encoding="ascii"):
        pass
    with pytest.raises(OSError, match=r"Invalid argument|not permitted"):
        namespace.enter(file)
    assert file not in open_files()


def test_missing_ctypes_is_reported_before_python_3_12(monkeypatch: pytest.MonkeyPatch) -> None:
    """On OpenWrt, for example, ctypes is a separate package."""
    monkeypatch.setitem(sys.modules, "ctypes", None)
    monkeypatch.delattr(os, "setns", raising=False)
    with pytest.raises(ConntrackError, match=r"^netns: this Python cannot change network namespaces: .* ctypes"):
        namespace.enter_named("/proc/self/ns/net")


def test_functions_of_python_are_used_without_ctypes(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[int, ...]] = []
    monkeypatch.setitem(sys.modules, "ctypes", None)
    monkeypatch.setattr(os, "unshare", lambda *arguments: called.append(arguments), raising=False)
    namespace.leave_for_a_new_one()
    assert called == [(namespace.CLONE_NEWNET,)]


def test_work_runs_in_a_thread_that_ends_afterwards() -> None:
    """A namespace belongs to a thread; a thread that remained would run later work in the wrong namespace."""
    before = threading.enumerate()
    thread = namespace.run_in_thread(threading.current_thread)
    assert thread is not threading.current_thread()
    assert threading.enumerate() == before


def test_exception_in_the_thread_is_raised_in_the_caller() -> None:
    def fail() -> None:
        raise ValueError("no such namespace")

    with pytest.raises(ValueError, match="no such namespace"):
        namespace.run_in_thread(fail)
