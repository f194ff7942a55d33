# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a file is replaced in the directory that was checked; otherwise another user could redirect the write."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils import _atomic_file
from ansible_collections.netops.conntrack.plugins.module_utils._atomic_file import Place, Replacement

pytestmark = pytest.mark.portability

OTHER = 54321


@pytest.fixture(params=["unnamed", "named", "no proc"])
def folder(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory on a system with O_TMPFILE, without it, and without a way to name such a file."""
    if request.param == "named":
        monkeypatch.setattr(_atomic_file, "_UNNAMED", 0)
    if request.param == "no proc":
        monkeypatch.setattr(_atomic_file, "_link_to", lambda descriptor: f"/nonexistent/{descriptor}")
    return tmp_path


@pytest.fixture
def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")


def replace(path: Path, content: bytes = b"new") -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Place(str(path)) as place, Replacement(place) as new:
        new.file.write(content)
        new.commit()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("length", [1, 243, 244, 250, 255])
@pytest.mark.parametrize("there", [False, True])
def test_file_with_a_name_of_any_length_is_replaced(folder: Path, length: int, there: bool) -> None:
    path = folder / ("x" * length)
    if there:
        path.write_bytes(b"old")
    replace(path)
    assert path.read_bytes() == b"new"
    assert os.listdir(str(folder)) == [path.name]


def test_a_name_that_is_too_long(folder: Path) -> None:
    with pytest.raises(OSError, match="File name too long"):
        replace(folder / ("x" * 256))


def test_without_a_commit_nothing_is_changed(folder: Path) -> None:
    (folder / "file").write_bytes(b"old")
    with Place(str(folder / "file")) as place, Replacement(place) as new:
        new.file.write(b"new")
    assert (folder / "file").read_bytes() == b"old"
    assert os.listdir(str(folder)) == ["file"]


def test_file_is_replaced_without_support_for_unnamed_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def without(path: Any, flags: int, *arguments: Any, **more: Any) -> int:
        if flags & _atomic_file._UNNAMED == _atomic_file._UNNAMED != 0:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return opened(path, flags, *arguments, **more)

    monkeypatch.setattr(os, "open", without)
    replace(folder / "file")
    assert os.listdir(str(folder)) == ["file"]


def test_file_created_during_the_write_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Place(str(folder / "file")) as place, Replacement(place) as new:
        new.file.write(b"new")
        monkeypatch.setattr(place, "status", (folder / "file").touch)  # returns None, as for an absent file
        new.commit()
    assert (folder / "file").read_bytes() == b"new"
    assert os.listdir(str(folder)) == ["file"]


# resolution of paths


def test_paths_are_resolved_as_by_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    (tmp_path / "a/b/back").symlink_to(tmp_path / "link/../../a")
    monkeypatch.chdir(tmp_path / "a/b")
    for path in ("file", "./file", "../../link/file", "../b//file", "back/b/file", f"{tmp_path}/link/back/b/file"):
        with Place(path) as place:
            assert place.status() is None
            replace(Path(path))
            there = place.status()
            assert there is not None
            assert os.path.samestat(there, os.stat(path))
        os.unlink(path)
    assert sorted(os.listdir(".")) == ["back"]


@pytest.mark.parametrize("path", ["", "file/", "file/.", "file/..", "/", "."])
def test_path_of_a_directory_is_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(IsADirectoryError, match="it names a directory"):
        Place(path)


def test_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        Place(str(tmp_path / "a"))


def test_links_in_proc_are_resolved_by_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of such a link can be wrong: /proc/PID/root of a container reads as the host's own root."""
    monkeypatch.chdir(tmp_path)
    readlink = os.readlink

    def elsewhere(path: Any, **more: Any) -> str:
        return "/" if path == "cwd" else readlink(path, **more)

    monkeypatch.setattr(os, "readlink", elsewhere)
    replace(Path(f"/proc/{os.getpid()}/cwd/file"))
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("of", ["file", "folder"])
def test_the_link_of_another_user_is_not_followed(tmp_path: Path, as_root: None, of: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_bytes(b"old")
    link, path = (tmp_path / "link", tmp_path / "link") if of == "file" else (tmp_path / "link", tmp_path / "link/file")
    link.symlink_to("real/file" if of == "file" else "real")
    replace(path, b"own")
    os.lchown(str(link), OTHER, OTHER)
    with pytest.raises(OSError, match="the symbolic link link belongs to another user"):
        replace(path)
    assert (tmp_path / "real/file").read_bytes() == b"own"


@pytest.mark.parametrize("mode", [0o1777, 0o777, 0o1703])
def test_link_in_a_directory_writable_by_others_is_not_followed(tmp_path: Path, mode: int) -> None:
    (tmp_path / "file").write_bytes(b"old")
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(mode)
    (public / "link").symlink_to("../file")
    with pytest.raises(OSError, match="the symbolic link link is in a directory where other users may write"):
        replace(public / "link")
    replace(public / "file")  # this path is not a link
    assert (tmp_path / "file").read_bytes() == b"old"


def test_link_in_the_directory_of_another_user_is_not_followed(tmp_path: Path, as_root: None) -> None:
    (tmp_path / "file").write_bytes(b"old")
    home = tmp_path / "home"
    home.mkdir()
    (home / "link").symlink_to("../file")
    os.chown(str(home), OTHER, OTHER)
    with pytest.raises(OSError, match="is in a directory where other users may write"):
        replace(home / "link")


def test_unprivileged_user_follows_only_own_links_and_those_of_root(
    tmp_path: Path, as_root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, owner in (("own", OTHER), ("roots", 0), ("anothers", OTHER + 1)):
        os.symlink("file", name)
        os.lchown(name, owner, owner)
    os.chown(".", OTHER, OTHER)
    os.seteuid(OTHER)
    try:
        replace(Path("own"), b"own")
        replace(Path("roots"), b"roots")
        with pytest.raises(OSError, match="belongs to another user"):
            replace(Path("anothers"))
    finally:
        os.seteuid(0)
    assert (tmp_path / "file").read_bytes() == b"roots"
    assert (tmp_path / "file").stat().st_uid == OTHER


def test_link_that_the_kernel_refuses_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount with nosymfollow returns such an error. Each error except ENOENT makes the write fail."""
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    stats = os.stat

    def refused(path: Any, **more: Any) -> os.stat_result:
        if path == str(tmp_path / "link"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return stats(path, **more)

    monkeypatch.setattr(os, "stat", refused)
    with pytest.raises(PermissionError):
        replace(tmp_path / "link")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_file_is_replaced_in_the_directory_that_was_checked(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with Place(str(tmp_path / "a/file")) as place, Replacement(place) as new:
        (tmp_path / "a").rename(tmp_path / "old")
        (tmp_path / "a").symlink_to("b")
        new.commit()
    assert os.listdir(str(tmp_path / "b")) == []
    assert os.listdir(str(tmp_path / "old")) == ["file"]


# paths beneath a folder


@pytest.mark.parametrize("to", ["..", "../outside", "sub/../../outside", "/", "up", "sub/up/../../outside"])
def test_link_out_of_the_root_is_refused(tmp_path: Path, to: str) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (root / "up").symlink_to("..")
    (root / "sub/up").symlink_to("..")
    (root / "link").symlink_to(to)
    with pytest.raises(OSError, match=f"symbolic link.* out of {root}"):
        Place("link/file", beneath=str(root), make=0o755)
    assert os.listdir(str(tmp_path / "outside")) == []


def test_moved_folder_does_not_lead_out_of_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moved folder has another parent."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    (root / "link").symlink_to("sub/../file")
    opened = os.open

    def moving(path: Any, *arguments: Any, **more: Any) -> int:
        descriptor = opened(path, *arguments, **more)
        if path == "sub":
            (root / "sub").rename(outside / "sub")
        return descriptor

    monkeypatch.setattr(os, "open", moving)
    with Place("link", beneath=str(root)) as place, Replacement(place) as new:
        new.commit()
    assert sorted(os.listdir(str(root))) == ["file", "link"]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    with Place("a/b/file", beneath=str(tmp_path), make=0o750) as place, Replacement(place) as new:
        new.commit()
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) & ~0o750 == 0
    with pytest.raises(FileNotFoundError):
        Place(str(tmp_path / "c/file"))
