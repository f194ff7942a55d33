# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a table is saved completely; if that fails, the previous snapshot must remain unchanged."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._snapshot import save as saving
from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.file import CannotWrite, Snapshot
from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.save import save
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import ConntrackError
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import EVERYTHING
from ansible_collections.netops.conntrack.tests.unit.plugins.module_utils._snapshot.test_restore import (
    declared,
    emptied,
    saved,
)
from ansible_collections.netops.conntrack.tests.unit.support.declarations import filled
from ansible_collections.netops.conntrack.tests.unit.support.fake_kernel import Fault


@pytest.fixture
def path(tmp_path: Any) -> str:
    return str(tmp_path / "snapshot")


def test_save_is_a_change_and_its_diff_shows_the_replaced_snapshot(path: str, tmp_path: Any) -> None:
    new = str(tmp_path / "new")
    first = saved(filled([declared(1)]), new)
    second = saved(filled([declared(1), declared(2)]), new)
    assert (first["changed"], second["changed"]) == (True, True)
    assert (first["diff"]["before"], second["diff"]["before"]) == ("", first["diff"]["after"])
    assert second["diff"]["after"].startswith("2 entries of ")
    assert len(second["checksum"]) == 64


def test_check_mode_writes_nothing(tmp_path: Any) -> None:
    family = [declared(1, helper="ftp"), declared(2, master={"protocol": "tcp", **declared(1)["original"]})]
    result = saved(filled(family), str(tmp_path / "new"), check=True)
    assert (result["changed"], result["snapshot"]["entries"], result["checksum"]) == (True, 2, "")
    assert not os.listdir(str(tmp_path))


def test_failed_dump_keeps_the_old_snapshot(path: str) -> None:
    kernel = filled([declared(1)])
    saved(kernel, path)
    with open(path, "rb") as file:
        before = file.read()
    for number in range(2):
        kernel.forget()
        kernel.faults = {number: Fault(errno.ENOBUFS, lost=True)}
        with pytest.raises(ConntrackError), kernel.table() as table:
            save(table, path, EVERYTHING, LabelMap(), False)
        with open(path, "rb") as file:
            assert file.read() == before
    assert not [name for name in os.listdir(os.path.dirname(path)) if name.startswith(".")]


class Disk(io.BytesIO):
    """A file on a disk with room for `room` bytes."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.mark.parametrize("room", [0, 1000], ids=["at once", "when they are read"])
def test_full_disk_is_reported_with_one_sentence(room: int, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk can also become full when the entries that wait for their masters are written."""
    child = {"master": {"protocol": "tcp", **declared(1)["original"]}}
    kernel = filled([declared(1), *(declared(port, **child) for port in range(2, 7))])
    saved(emptied(kernel), path)
    with open(path, "rb") as file:
        before = file.read()
    file_on_it = io.TextIOWrapper(io.BufferedRandom(Disk(room)), encoding="ascii")  # type: ignore[arg-type]
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *_how, **_more: file_on_it)
    monkeypatch.setattr(saving, "_HELD", 1)
    with pytest.raises(CannotWrite, match="^/.*/snapshot cannot be written: No space left on device$"):
        saved(kernel, path)
    with open(path, "rb") as file:
        assert file.read() == before
    assert not [name for name in os.listdir(os.path.dirname(path)) if name.startswith(".")]


def test_host_and_label_names_can_contain_any_bytes(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host name can contain any bytes, and a label file can have any encoding; the snapshot must be readable."""

    class Odd:
        nodename, release = os.fsdecode(b"gw\n\xff"), "6.1"

    kernel = filled([declared(1)])
    monkeypatch.setattr(os, "uname", Odd)
    with kernel.table() as table:
        save(table, path, EVERYTHING, LabelMap({"voip": 5, os.fsdecode(b"\xfc"): 6, "x" * 300: 7}), False)
    with Snapshot(path) as made:
        assert (made.header.host, made.header.labels, made.header.entries) == ("gw??", {"voip": 5}, 1)
