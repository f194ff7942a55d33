# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that settings survive a reboot and that no file of the administrator is overwritten."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._reconcile import sysctl_files
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.sysctl_files import (
    CannotPersist,
    assigned,
    listed,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue

pytestmark = pytest.mark.portability

WANTED = {"net.netfilter.nf_conntrack_max": 1000, "net.netfilter.nf_conntrack_acct": 1}


def test_a_new_file() -> None:
    edit = assigned("", WANTED)
    assert edit.after.splitlines()[1:] == [
        "net.netfilter.nf_conntrack_max = 1000",
        "net.netfilter.nf_conntrack_acct = 1",
    ]
    assert edit.after.startswith("# ")
    assert edit.changes == [
        {"key": "net.netfilter.nf_conntrack_max", "before": None, "after": "1000"},
        {"key": "net.netfilter.nf_conntrack_acct", "before": None, "after": "1"},
    ]
    assert assigned(edit.after, WANTED).after == edit.after
    assert assigned(edit.after, WANTED).changes == []


def test_only_the_lines_of_the_settings_are_changed() -> None:
    text = (
        "# kept: net.netfilter.nf_conntrack_acct = 0\n"
        "; kept\n\n"
        "net.netfilter.nf_conntrack_max=5 \n"
        "  -net/netfilter/nf_conntrack_acct =0\n"
        "net.netfilter.nf_conntrack_max_more = 5\n"
        "vm.swappiness = 10"
    )
    edit = assigned(text, {**WANTED, "net.netfilter.nf_conntrack_events": 2})
    assert edit.after == (
        "# kept: net.netfilter.nf_conntrack_acct = 0\n"
        "; kept\n\n"
        "net.netfilter.nf_conntrack_max = 1000\n"
        "  -net/netfilter/nf_conntrack_acct = 1\n"
        "net.netfilter.nf_conntrack_max_more = 5\n"
        "vm.swappiness = 10\n"
        "net.netfilter.nf_conntrack_events = 2\n"
    )
    assert [(change["before"], change["after"]) for change in edit.changes] == [("5", "1000"), ("0", "1"), (None, "2")]


def test_last_of_several_lines_is_the_effective_one() -> None:
    text = "net.nf_conntrack_max = 1000\nnet.netfilter.nf_conntrack_max = 5\n"
    edit = assigned(text, {"net.netfilter.nf_conntrack_max": 1000})
    assert edit.changes == [{"key": "net.netfilter.nf_conntrack_max", "before": "5", "after": "1000"}]
    assert edit.after == "net.nf_conntrack_max = 1000\nnet.netfilter.nf_conntrack_max = 1000\n"


def test_an_earlier_line_with_another_value_is_a_change() -> None:
    text = "net.nf_conntrack_max = 5\nnet.netfilter.nf_conntrack_max = 1000\n"
    edit = assigned(text, {"net.netfilter.nf_conntrack_max": 1000})
    assert edit.changes == [{"key": "net.netfilter.nf_conntrack_max", "before": "5", "after": "1000"}]
    assert edit.after == "net.nf_conntrack_max = 1000\nnet.netfilter.nf_conntrack_max = 1000\n"


def test_the_module_is_listed_once() -> None:
    edit = listed("")
    assert edit.after.splitlines()[-1] == "nf_conntrack"
    assert listed(edit.after).changes == []
    assert listed("# nf_conntrack\nloop").after == "# nf_conntrack\nloop\nnf_conntrack\n"
    assert listed("nf-conntrack\n").changes == []


def test_plan_after_a_write_is_empty(tmp_path: Path) -> None:
    wanted = {"nf_conntrack_max": 1000}
    edits = sysctl_files.plan(wanted, str(tmp_path))
    assert [os.path.relpath(edit.path, str(tmp_path)) for edit in edits] == [
        "sysctl.d/90-conntrack.conf",
        "modules-load.d/conntrack.conf",
    ]
    assert list(tmp_path.iterdir()) == [], "planning writes nothing"
    for edit in edits:
        sysctl_files.write(edit)
    assert sysctl_files.plan(wanted, str(tmp_path)) == []
    sysctl = tmp_path / "sysctl.d/90-conntrack.conf"
    assert sysctl.read_text() == edits[0].after
    assert sysctl.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in sysctl.parent.iterdir()] == [sysctl.name], "no temporary file is left"


def test_owner_mode_and_link_are_kept(tmp_path: Path) -> None:
    (tmp_path / "sysctl.d").mkdir()
    target = tmp_path / "sysctl.d/elsewhere"
    target.write_bytes(b"# \xff\r\n")
    target.chmod(0o640)
    link = tmp_path / "sysctl.d/90-conntrack.conf"
    link.symlink_to("../sysctl.d/elsewhere")
    for edit in sysctl_files.plan({"nf_conntrack_max": 1}, str(tmp_path)):
        sysctl_files.write(edit)
    assert link.is_symlink()
    assert target.read_bytes() == b"# \xff\r\nnet.netfilter.nf_conntrack_max = 1\n"
    assert target.stat().st_mode & 0o777 == 0o640


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "sysctl.d"
    folder.mkdir()
    old = folder / "90-conntrack.conf"
    old.write_text("old\n")
    (edit, _rest) = sysctl_files.plan({"nf_conntrack_max": 1}, str(tmp_path))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotPersist, match="90-conntrack.conf: cannot be written: No space left on device"):
        sysctl_files.write(edit)
    assert old.read_text() == "old\n"
    assert list(folder.iterdir()) == [old]


def test_directory_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sysctl.d/90-conntrack.conf").mkdir(parents=True)
    with pytest.raises(CannotPersist, match=r"90-conntrack.conf: cannot be read: Is a directory$"):
        sysctl_files.plan({"nf_conntrack_max": 1}, str(tmp_path))


def test_masked_file_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A symbolic link to a device masks a file; a write through the link would replace the device with a file."""
    monkeypatch.setattr(sysctl_files, "DIRECTORY", str(tmp_path))  # a directory in which links can be followed
    folder = tmp_path / "sysctl.d"
    folder.mkdir()
    device = tmp_path / "device"
    os.mkfifo(device)
    (folder / "90-conntrack.conf").symlink_to(device)
    with pytest.raises(CannotPersist, match="cannot be read: it is a FIFO, not a regular file"):
        sysctl_files.plan({"nf_conntrack_max": 1}, str(tmp_path))
    with pytest.raises(CannotPersist, match="cannot be written: it is a FIFO, not a regular file"):
        sysctl_files.write(sysctl_files.assigned("", WANTED)._replace(directory=str(tmp_path)))
    assert device.is_fifo()


FILES = (sysctl_files.SYSCTL_FILE, sysctl_files.MODULES_FILE)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("of", ["file", "directory"])
@pytest.mark.parametrize("there", [True, False])
def test_link_out_of_a_container_is_refused(tmp_path: Path, file: str, absolute: bool, of: str, there: bool) -> None:
    """The container's root user could otherwise read, change or create a file of the host."""
    host, etc = tmp_path / "host", tmp_path / "container/etc"
    host.mkdir()
    etc.mkdir(parents=True)
    link = etc / file if of == "file" else (etc / file).parent
    link.parent.mkdir(exist_ok=True)
    target = host / Path(file).name
    if there:
        target.write_text("secret\n")
    to = target if of == "file" else host
    link.symlink_to(to if absolute else os.path.relpath(to, link.parent))
    before = sorted(host.iterdir())

    edit = (sysctl_files.assigned("", WANTED) if file == FILES[0] else sysctl_files.listed(""))._replace(
        directory=str(etc)
    )
    for call in (lambda: sysctl_files.plan({"nf_conntrack_max": 1}, str(etc)), lambda: sysctl_files.write(edit)):
        with pytest.raises(CannotPersist, match=f"symbolic link .*out of {etc}") as refused:
            call()
        assert "secret" not in str(refused.value)
    assert sorted(host.iterdir()) == before
    assert not there or target.read_text() == "secret\n"


def test_link_within_a_container_is_followed(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    (etc / "real").mkdir(parents=True)
    (etc / "sysctl.d").symlink_to("real")
    (etc / "real/90-conntrack.conf").symlink_to("../real/./file")
    for edit in sysctl_files.plan({"nf_conntrack_max": 1}, str(etc)):
        sysctl_files.write(edit)
    assert "nf_conntrack_max = 1" in (etc / "real/file").read_text()


def test_overriding_files_outside_of_a_container_are_not_read(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    (etc / "sysctl.d").mkdir(parents=True)
    (tmp_path / "host").write_text("net.netfilter.nf_conntrack_max = 7\n")
    (etc / "sysctl.d/95-late.conf").symlink_to(tmp_path / "host")
    os.mkfifo(etc / "sysctl.conf")
    assert sysctl_files.overriding({"nf_conntrack_max": 1}, str(etc)) == []


def test_huge_file_of_a_container_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sysctl.d").mkdir()
    for name in ("90-conntrack.conf", "95-late.conf"):
        (tmp_path / "sysctl.d" / name).touch()
        os.truncate(str(tmp_path / "sysctl.d" / name), 1 << 40)
    with pytest.raises(CannotPersist, match="90-conntrack.conf: cannot be read: it has more than 1 MiB"):
        sysctl_files.plan({"nf_conntrack_max": 1}, str(tmp_path))
    assert sysctl_files.overriding({"nf_conntrack_max": 1}, str(tmp_path)) == []


@pytest.mark.parametrize("slash", ["", "/", "//"])
def test_a_directory_that_is_a_link_is_refused(tmp_path: Path, slash: str) -> None:
    """The root user of a container could have created the link."""
    (tmp_path / "host").mkdir()
    link = tmp_path / "etc"
    link.symlink_to(tmp_path / "host")
    with pytest.raises(InvalidValue, match=r"persist_in: .*etc/* is a symbolic link; write the path"):
        sysctl_files.check_directory(f"{link}{slash}")
    with pytest.raises(CannotPersist):
        sysctl_files.write(sysctl_files.assigned("", WANTED)._replace(directory=f"{link}{slash}"))
    assert not list((tmp_path / "host").iterdir())


def test_only_files_that_are_read_later_override_a_setting(tmp_path: Path) -> None:
    folder = tmp_path / "sysctl.d"
    folder.mkdir()
    (tmp_path / "sysctl.conf").write_text("net.nf_conntrack_max = 7\nnet.netfilter.nf_conntrack_acct = 1\n")
    (folder / "99-sysctl.conf").symlink_to("../sysctl.conf")
    (folder / "10-early.conf").write_text("net.netfilter.nf_conntrack_max = 5\n")
    (folder / "95-late.conf").write_text("net.netfilter.nf_conntrack_max = 5\nnet.netfilter.nf_conntrack_max = 6\n")
    wanted = {"nf_conntrack_max": 1000, "nf_conntrack_acct": 1}
    found = sysctl_files.overriding(wanted, str(tmp_path))
    assert len(found) == 2
    assert f"{folder}/95-late.conf sets net.netfilter.nf_conntrack_max to 6, and is read after" in found[0]
    assert f"{tmp_path}/sysctl.conf sets net.netfilter.nf_conntrack_max to 7" in found[1]
    assert sysctl_files.overriding({"nf_conntrack_acct": 1}, str(tmp_path)) == []


def test_later_files_of_other_directories_override_a_setting(tmp_path: Path) -> None:
    """In a root file system, sysctl.d is also in run, usr/local/lib and usr/lib. A file hides others with its name."""
    etc = tmp_path / "etc"
    folders = [etc / "sysctl.d", *(tmp_path / name / "sysctl.d" for name in ("run", "usr/local/lib", "usr/lib"))]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / f"95-own{number}.conf").write_text(f"net.netfilter.nf_conntrack_max = {number}\n")
        (folder / "96-common.conf").write_text(f"net.netfilter.nf_conntrack_acct = {number}\n")
    (folders[3] / "97-hidden.conf").write_text("net.netfilter.nf_conntrack_acct = 9\n")
    (folders[0] / "97-hidden.conf").symlink_to("/dev/null")
    found = sysctl_files.overriding({"nf_conntrack_max": 3, "nf_conntrack_acct": 1}, str(etc))
    assert [sentence.partition(" sets ")[0] for sentence in found] == [
        *(str(folder / f"95-own{number}.conf") for number, folder in enumerate(folders[:3])),
        str(folders[0] / "96-common.conf"),
    ]
    assert found[0].endswith("; remove that line")
    assert found[1].endswith(f"; copy it to {etc}/sysctl.d, without that line")


def test_persist_is_refused_outside_of_the_initial_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def different(one: str, other: str) -> bool:
        return False

    def forbidden(one: str, other: str) -> bool:
        raise PermissionError(13, "Permission denied")

    for comparison in (different, forbidden):
        monkeypatch.setattr(os.path, "samefile", comparison)
        with pytest.raises(InvalidValue, match="persist: .* not the namespace of process 1.*persist_in"):
            sysctl_files.check_directory("/etc/")
        sysctl_files.check_directory(str(tmp_path))
    monkeypatch.setattr(os.path, "samefile", lambda one, other: True)
    sysctl_files.check_directory("/etc")
    with pytest.raises(InvalidValue, match="persist_in: .*/none is not a directory"):
        sysctl_files.check_directory(str(tmp_path / "none"))
