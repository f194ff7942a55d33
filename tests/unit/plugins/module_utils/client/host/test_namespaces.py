# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test that each namespace is found once and entered once; otherwise a flush would count or remove entries twice."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import ConntrackError, InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import namespace, namespaces
from ansible_collections.netops.conntrack.plugins.module_utils.client.host.namespaces import (
    HostNamespace,
    find,
    find_all,
    names_in,
    processes_of,
)

pytestmark = pytest.mark.portability


class Host:
    """Folders like /run/netns and /proc, in which ordinary files stand for namespaces."""

    def __init__(self, folder: Path) -> None:
        self.names, self.proc, self._files = folder / "netns", folder / "proc", folder / "files"
        for each in (self.names, self.proc, self._files):
            each.mkdir()

    def file(self, title: str) -> Path:
        file = self._files / title
        file.touch()
        return file

    def name(self, name: str, title: str) -> None:
        os.link(self.file(title), self.names / name)

    def process(self, pid: int, title: str, comm: str = "sh") -> None:
        folder = self.proc / str(pid) / "ns"
        folder.mkdir(parents=True)
        os.link(self.file(title), folder / "net")
        (folder.parent / "comm").write_text(f"{comm}\n")

    def all(self) -> list[HostNamespace]:
        found, unreadable = find_all(str(self.names), str(self.proc))
        assert unreadable is None
        return found


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path)
    found = os.stat(host.file("own"))
    monkeypatch.setattr(namespace, "current", lambda: (found.st_dev, found.st_ino))
    return host


def test_the_own_namespace_is_first_then_names_then_processes(host: Host) -> None:
    for pid, title in ((100, "b"), (9, "a"), (1, "own"), (101, "a"), (12, "blue")):
        host.process(pid, title)
    host.name("red", "red")
    host.name("blue", "blue")
    (host.proc / "sys").mkdir()
    assert [(each.netns.replace(str(host.proc), ""), each.pids) for each in host.all()] == [
        ("/1/ns/net", (1,)),
        ("blue", (12,)),
        ("red", ()),
        ("/9/ns/net", (9, 101)),
        ("/100/ns/net", (100,)),
    ]


def test_names_and_processes_of_one_namespace_are_combined(host: Host) -> None:
    host.process(1, "own")
    host.name("b", "own")
    host.name("a", "own")
    (one,) = host.all()
    assert (one.netns, one.pids) == ("a", (1,))
    assert [os.path.relpath(path, host.names) for path in one.paths] == ["a", "b", "../proc/1/ns/net"]


def test_namespace_of_the_task_is_always_included(host: Host) -> None:
    (one,) = host.all()
    assert (one.netns, one.paths) == ("/proc/thread-self/ns/net",) * 1 + (("/proc/thread-self/ns/net",),)


def test_name_without_a_namespace_is_omitted(host: Host, tmp_path: Path) -> None:
    """`ip netns add` creates an ordinary file, and mounts the namespace on it."""
    host.process(1, "own")
    (host.names / "gone").symlink_to(tmp_path / "nowhere")
    (host.names / "not-yet").symlink_to("/proc/self/status")
    assert [each.pids for each in host.all()] == [(1,)]


def test_processes_that_hide_their_namespace_are_reported(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for pid in (1, 2, 3, 4):
        host.process(pid, "own")
    stat = os.stat

    def refuse(path: str, *arguments: object, **options: object) -> os.stat_result:
        if str(path).startswith(str(host.proc)) and "/1/" not in str(path):
            code = errno.EACCES if "/4/" not in str(path) else errno.ENOENT
            raise OSError(code, os.strerror(code))
        return stat(path)

    monkeypatch.setattr(os, "stat", refuse)
    found, unreadable = find_all(str(host.names), str(host.proc))
    assert [each.pids for each in found] == [(1,)]
    assert str(unreadable) == (
        f"cannot identify the network namespaces of 2 processes, such as {host.proc}/2/ns/net: Permission denied; run "
        "as root on the host itself (become: true)"
    )


def test_missing_proc_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace, "current", lambda: None)
    with pytest.raises(ConntrackError, match="^netns: all requires /proc"):
        find_all()


def test_a_list_has_each_namespace_once_under_its_first_name(host: Host) -> None:
    host.process(7, "red")
    host.name("blue", "blue")
    host.name("red", "red")
    wanted = [str(host.names / name) for name in ("red", "blue", "red")]
    found = find([*wanted, f"{host.proc}/7/ns/net"], str(host.proc))
    assert [(each.netns, each.pids) for each in found] == [(wanted[0], (7,)), (wanted[1], ())]
    assert [len(each.paths) for each in found] == [3, 1]


@pytest.mark.parametrize("wanted", ["/nowhere/net", "nul\0"])
def test_list_with_a_missing_namespace_is_refused(host: Host, wanted: str) -> None:
    with pytest.raises(InvalidValue, match="^netns: cannot enter .*; name a namespace under /run/netns or a path"):
        find([str(host.file("red")), wanted], str(host.proc))


def test_first_processes_are_listed(host: Host) -> None:
    for pid in range(1, 6):
        host.process(pid, "own", f"worker{pid}")
    (one,) = host.all()
    (host.proc / "2/comm").unlink()  # it has ended
    (host.proc / "3/comm").write_bytes(b"\xff\n")
    assert processes_of(one, str(host.proc)) == [
        {"pid": 1, "name": "worker1"},
        {"pid": 3, "name": "\\xff"},
        {"pid": 4, "name": "worker4"},
    ]


def test_missing_folder_has_no_names(tmp_path: Path) -> None:
    assert names_in(str(tmp_path / "nowhere")) == []


# visits


class Thread:
    """The namespaces that a thread enters."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refused: Path | None = None) -> None:
        self.entered: list[int] = []
        self._refused = refused and refused.stat().st_ino
        monkeypatch.setattr(namespace, "enter_descriptor", self._enter)
        monkeypatch.setattr(namespaces, "_OWN", os.devnull)

    def _enter(self, descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        if inode == self._refused:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        self.entered.append(inode)


def inode(path: str | Path) -> int:
    return os.stat(path).st_ino


def test_each_namespace_is_entered_in_turn_and_the_first_one_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    thread = Thread(monkeypatch)
    host.process(1, "own")
    host.process(2, "red")
    host.name("blue", "blue")
    seen = [(one.netns, error, thread.entered[-1]) for one, error in namespaces.visit(host.all())]
    inodes = [inode(host.file(title)) for title in ("own", "blue", "red")]
    assert seen == [(each.netns, None, number) for each, number in zip(host.all(), inodes)]
    assert thread.entered == [*inodes, inode(os.devnull)]


def test_the_thread_returns_if_a_visit_fails(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    thread = Thread(monkeypatch)
    host.process(1, "own")
    visits = namespaces.visit(host.all())
    next(visits)
    visits.close()  # type: ignore[attr-defined]
    assert thread.entered[-1] == inode(os.devnull)


def test_ended_namespace_is_omitted(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another namespace may have its name or its process ID by then. One of its processes may still run."""
    thread = Thread(monkeypatch)
    for name in ("gone", "replaced", "stays"):
        host.name(name, name)
    host.process(5, "stays")
    found = host.all()
    (host.names / "gone").unlink()
    (host.names / "replaced").unlink()
    host.name("replaced", "other")
    (host.names / "stays").unlink()
    assert [(one.netns, error) for one, error in namespaces.visit(found[1:])] == [("stays", None)]
    assert thread.entered == [inode(host.file("stays")), inode(os.devnull)]


def test_a_namespace_that_cannot_be_entered_has_an_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.process(1, "own")
    host.name("blue", "blue")
    host.name("red", "red")
    Thread(monkeypatch, refused=host.file("blue"))
    found = [(one.netns, error and error.errno) for one, error in namespaces.visit(host.all()[1:])]
    assert found == [("blue", errno.EPERM), ("red", None)]
