# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a path to anything but a file fails at once; a FIFO without a writer would otherwise block the task."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.file import Snapshot
from ansible_collections.netops.conntrack.plugins.module_utils._source.file import SourceFault, read
from ansible_collections.netops.conntrack.plugins.module_utils.client import input_file
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import ConntrackError, InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import namespace

pytestmark = pytest.mark.portability


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(path))


def device(path: Path) -> None:
    """Create a device without an end, such as /dev/zero."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a device")
    os.mknod(str(path), stat.S_IFCHR | 0o666, os.makedev(1, 5))


SPECIAL = [
    pytest.param(os.mkfifo, "it is a FIFO, not a regular file", id="fifo"),
    pytest.param(socket_at, "it is a socket, not a regular file", id="socket"),
    pytest.param(device, "it is a character device, not a regular file", id="device"),
    pytest.param(os.mkdir, "Is a directory", id="directory"),
]
Make = Callable[[Path], None]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "input"
    assert not [one for one in os.scandir("/proc/self/fd") if _target(one) == str(tmp_path / "input")]


def _target(descriptor: Any) -> str:
    try:
        return os.readlink(descriptor.path)
    except OSError:
        return ""


@pytest.mark.parametrize(("make", "message"), SPECIAL)
@pytest.mark.parametrize("linked", [False, True])
def test_only_regular_files_are_opened(path: Path, tmp_path: Path, make: Make, message: str, linked: bool) -> None:
    make(path)
    if linked:
        (tmp_path / "link").symlink_to(path)
    name = str(tmp_path / "link") if linked else str(path)
    for opener in (input_file.descriptor, input_file.binary):
        with pytest.raises(OSError, match=message):
            opener(name)


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (LabelMap.read, InvalidValue),
        (read, SourceFault),
        (Snapshot, InvalidValue),
        (namespace.enter_named, ConntrackError),
    ],
    ids=["label_map", "src", "path", "netns"],
)
@pytest.mark.parametrize(("make", "message"), SPECIAL)
def test_every_option_for_a_file_refuses_special_files(
    path: Path, make: Make, message: str, use: Any, error: Any
) -> None:
    make(path)
    with pytest.raises(error, match=message) as refused:
        use(str(path))
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_fifo_that_replaces_a_checked_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.touch()
    stats = os.stat

    def replaced(*arguments: Any, **more: Any) -> os.stat_result:
        found = stats(*arguments, **more)
        path.unlink()
        os.mkfifo(str(path))
        return found

    monkeypatch.setattr(os, "stat", replaced)
    with pytest.raises(OSError, match="it is a FIFO"):
        input_file.descriptor(str(path))


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_invalid_file_name_is_refused(name: str) -> None:
    with pytest.raises(OSError, match="no path can contain such characters"):
        input_file.descriptor(name)


def test_link_in_a_folder_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"content")
    (tmp_path / "link").symlink_to("input")
    folder = os.open(str(tmp_path), os.O_RDONLY)
    try:
        with input_file.binary("input", folder) as file:
            assert file.read() == b"content"
        with pytest.raises(OSError, match="it is a symbolic link"):
            input_file.binary("link", folder)
    finally:
        os.close(folder)


def test_size_of_a_file_is_limited(path: Path) -> None:
    path.write_bytes(b"x" * (1 << 20) + b"\r\ny")
    with input_file.binary(str(path)) as file:
        assert len(input_file.content(file, 1 << 21)) == (1 << 20) + 3
    with input_file.binary(str(path)) as file, pytest.raises(OSError, match="it has more than 1 MiB"):
        input_file.content(file, 1 << 20)
