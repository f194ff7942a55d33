# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a reboot does not bring back is found out at the worst moment; what is overwritten was somebody's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils import persistence
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.persistence import CannotPersist, assigned, listed

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


def test_only_its_own_lines_are_touched() -> None:
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


def test_the_last_of_several_lines_counts() -> None:
    text = "net.nf_conntrack_max = 1000\nnet.netfilter.nf_conntrack_max = 5\n"
    edit = assigned(text, {"net.netfilter.nf_conntrack_max": 1000})
    assert edit.changes == [{"key": "net.netfilter.nf_conntrack_max", "before": "5", "after": "1000"}]
    assert edit.after == "net.nf_conntrack_max = 1000\nnet.netfilter.nf_conntrack_max = 1000\n"


def test_the_module_is_listed_once() -> None:
    edit = listed("")
    assert edit.after.splitlines()[-1] == "nf_conntrack"
    assert listed(edit.after).changes == []
    assert listed("# nf_conntrack\nloop").after == "# nf_conntrack\nloop\nnf_conntrack\n"
    assert listed("nf-conntrack\n").changes == []


def test_writing_and_planning_again(tmp_path: Path) -> None:
    wanted = {"nf_conntrack_max": 1000}
    edits = persistence.plan(wanted, str(tmp_path))
    assert [os.path.relpath(edit.path, str(tmp_path)) for edit in edits] == [
        "sysctl.d/90-conntrack.conf",
        "modules-load.d/conntrack.conf",
    ]
    assert list(tmp_path.iterdir()) == [], "planning writes nothing"
    for edit in edits:
        persistence.write(edit)
    assert persistence.plan(wanted, str(tmp_path)) == []
    sysctl = tmp_path / "sysctl.d/90-conntrack.conf"
    assert sysctl.read_text() == edits[0].after
    assert sysctl.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in sysctl.parent.iterdir()] == [sysctl.name], "no temporary file is left"


def test_owner_mode_and_link_stay(tmp_path: Path) -> None:
    (tmp_path / "sysctl.d").mkdir()
    target = tmp_path / "elsewhere.conf"
    target.write_bytes(b"# \xff\r\n")
    target.chmod(0o640)
    link = tmp_path / "sysctl.d/90-conntrack.conf"
    link.symlink_to(target)
    for edit in persistence.plan({"nf_conntrack_max": 1}, str(tmp_path)):
        persistence.write(edit)
    assert link.is_symlink()
    assert target.read_bytes() == b"# \xff\r\nnet.netfilter.nf_conntrack_max = 1\n"
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "sysctl.d"
    folder.mkdir()
    old = folder / "90-conntrack.conf"
    old.write_text("old\n")
    (edit, _rest) = persistence.plan({"nf_conntrack_max": 1}, str(tmp_path))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotPersist, match="90-conntrack.conf: cannot be written: No space left on device"):
        persistence.write(edit)
    assert old.read_text() == "old\n"
    assert list(folder.iterdir()) == [old]


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "sysctl.d/90-conntrack.conf").mkdir(parents=True)
    with pytest.raises(CannotPersist, match="is no file"):
        persistence.plan({"nf_conntrack_max": 1}, str(tmp_path))


def test_a_masked_file_is_left_masked(tmp_path: Path) -> None:
    """A link to /dev/null masks a file; following it would put a file in the place of the device."""
    folder = tmp_path / "sysctl.d"
    folder.mkdir()
    (folder / "90-conntrack.conf").symlink_to("/dev/null")
    with pytest.raises(CannotPersist, match="is no file but leads to /dev/null"):
        persistence.plan({"nf_conntrack_max": 1}, str(tmp_path))
    assert not Path("/dev/null").is_file()


def test_what_is_read_later_wins(tmp_path: Path) -> None:
    folder = tmp_path / "sysctl.d"
    folder.mkdir()
    (tmp_path / "sysctl.conf").write_text("net.nf_conntrack_max = 7\nnet.netfilter.nf_conntrack_acct = 1\n")
    (folder / "99-sysctl.conf").symlink_to("../sysctl.conf")
    (folder / "10-early.conf").write_text("net.netfilter.nf_conntrack_max = 5\n")
    (folder / "95-late.conf").write_text("net.netfilter.nf_conntrack_max = 5\nnet.netfilter.nf_conntrack_max = 6\n")
    wanted = {"nf_conntrack_max": 1000, "nf_conntrack_acct": 1}
    found = persistence.overriding(wanted, str(tmp_path))
    assert len(found) == 2
    assert f"{folder}/95-late.conf sets net.netfilter.nf_conntrack_max to 6, and is read after" in found[0]
    assert f"{tmp_path}/sysctl.conf sets net.netfilter.nf_conntrack_max to 7" in found[1]
    assert persistence.overriding({"nf_conntrack_acct": 1}, str(tmp_path)) == []


def test_not_for_another_namespace_than_the_boots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def different(one: str, other: str) -> bool:
        return False

    def forbidden(one: str, other: str) -> bool:
        raise PermissionError(13, "Permission denied")

    for says in (different, forbidden):
        monkeypatch.setattr(os.path, "samefile", says)
        with pytest.raises(InvalidValue, match="persist: .* not that of process 1.*persist_in"):
            persistence.check_directory("/etc/")
        persistence.check_directory(str(tmp_path))
    monkeypatch.setattr(os.path, "samefile", lambda one, other: True)
    persistence.check_directory("/etc")
    with pytest.raises(InvalidValue, match="persist_in: .*/none is no directory"):
        persistence.check_directory(str(tmp_path / "none"))
