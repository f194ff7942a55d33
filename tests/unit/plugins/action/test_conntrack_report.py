# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin writes report files, supports check mode, and refuses wrong options."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ansible_collections.netops.conntrack.plugins.action import conntrack_report as subject
from ansible_collections.netops.conntrack.plugins.modules import conntrack_report as documented

Document = dict[str, Any]

HOSTS: Document = {
    "gw-a": {"ansible_facts": {"conntrack": {"count": 91, "max": 100, "statistics": {"total": {"drop": 3}}}}},
    "gw-b": {"unreachable": True, "msg": "timed out"},
}


def run(check_mode: bool = False, **options: Any) -> Document:
    """Return the result of the task with these options."""
    task = SimpleNamespace(args=options, async_val=0, check_mode=check_mode, diff=True)
    arguments: list[Any] = [task, SimpleNamespace(_shell=SimpleNamespace(tmpdir=None)), None, None, None]
    result: Document = subject.ActionModule(*arguments).run(task_vars={})
    json.dumps(result)
    return result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


FILES = {"path": "out/page.html", "json_path": "out/page.json", "junit_path": "junit.xml"}


def test_files_are_written_once_and_reported(folder: Path) -> None:
    first = run(hosts=HOSTS, **FILES)
    assert (first["changed"], first.get("failed", False)) == (True, False)
    assert first["files"] == [{"path": str(folder / path), "changed": True} for path in FILES.values()]
    assert first["summary"] == {
        "hosts": 2,
        "with_facts": 1,
        "without_facts": 1,
        "by_level": {"critical": 2, "warning": 0, "notice": 0, "quiet": 0},
    }
    assert [host["host"] for host in first["attention"]] == ["gw-a", "gw-b"]
    assert json.loads((folder / "out/page.json").read_text())["hosts"][0]["figures"]["usage_percent"] == 91
    assert 'href="./page.json"' in (folder / "out/page.html").read_text()
    assert "testcase" in (folder / "junit.xml").read_text()

    before = {path: (folder / path).stat().st_mtime_ns for path in FILES.values()}
    again = run(hosts=HOSTS, **FILES)
    assert not again["changed"]
    assert again["diff"] == []
    assert {path: (folder / path).stat().st_mtime_ns for path in FILES.values()} == before
    assert sorted(path.name for path in folder.rglob("*")) == ["junit.xml", "out", "page.html", "page.json"]


def test_only_different_files_are_written(folder: Path) -> None:
    run(hosts=HOSTS, **FILES)
    (folder / "junit.xml").write_text("mine")
    result = run(hosts=HOSTS, **FILES)
    assert [file["changed"] for file in result["files"]] == [False, False, True]
    assert [one["after_header"] for one in result["diff"]] == [str(folder / "junit.xml")]
    assert result["diff"][0]["before"].startswith("4 bytes, sha256 ")


def test_check_mode_writes_nothing_and_returns_the_same_result(folder: Path) -> None:
    predicted = run(check_mode=True, hosts=HOSTS, **FILES)
    assert list(folder.iterdir()) == []
    assert predicted == run(hosts=HOSTS, **FILES)
    assert not run(check_mode=True, hosts=HOSTS, **FILES)["changed"]


@pytest.mark.parametrize("check_mode", [False, True])
def test_threshold_fails_the_task_after_the_files_are_written(folder: Path, check_mode: bool) -> None:
    limits = {"usage_percent_above": "90", "drop_above": 3}
    result = run(check_mode, hosts=HOSTS, fail_when=limits, **FILES)
    assert result["failed"]
    assert result["changed"]
    assert result["msg"].replace("\u202f", " ") == (
        "Thresholds exceeded: usage_percent_above (limit 90.0 %), 91.0 % on gw-a; "
        "hosts_without_facts_above (limit 0), 1."
    )
    assert [one["host"] for one in result["exceeded"]] == ["gw-a", None]
    assert (folder / "junit.xml").exists() == (not check_mode)


def test_message_has_enough_digits_to_distinguish_the_limit(folder: Path) -> None:
    hosts = {"gw": {"ansible_facts": {"conntrack": {"count": 9003, "max": 10000}}}}
    result = run(hosts=hosts, fail_when={"usage_percent_above": 90}, path="page.html")
    reason = "Threshold exceeded: usage_percent_above (limit 90.00 %), 90.03 % on gw."
    assert result["msg"].replace("\u202f", " ") == reason


def test_message_contains_the_first_of_many_thresholds(folder: Path) -> None:
    hosts = {f"gw-{place:03}": HOSTS["gw-a"] for place in range(300)}
    result = run(hosts=hosts, fail_when={"drop_above": 0}, path="page.html")
    assert result["msg"].endswith("(limit 0), 3 on gw-004; 295 more.")
    assert (len(result["exceeded"]), len(result["attention"])) == (100, 100)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"path": "page.html"}, "missing required arguments: hosts"),
        ({"hosts": HOSTS}, "one of the following is required: path, json_path, junit_path"),
        ({"hosts": HOSTS, "path": "page.html", "junit_path": ""}, "junit_path: is empty; write the path of a file"),
        ({"hosts": [1], "path": "page.html"}, "'hosts'"),
        ({"hosts": HOSTS, "path": "page.html", "jsonpath": "x"}, "jsonpath: no such key (did you mean json_path?)"),
        (
            {"hosts": HOSTS, "path": "page.html", "fail_when": {"usage_percent": 1}},
            "fail_when.usage_percent: no such key (did you mean usage_percent_above?)",
        ),
        (
            {"hosts": HOSTS, "path": "page.html", "fail_when": "x=1"},
            "fail_when.x: no such key; write one of chain_toolong_above",
        ),
        ({"hosts": HOSTS, "path": "page.html", "fail_when": [1]}, "fail_when: is not a dictionary; write names"),
        ({"hosts": HOSTS, "path": "page.html", "fail_when": {"drop_above": "nan"}}, "fail_when.drop_above: nan is no"),
        (
            {"hosts": HOSTS, "path": "page.html", "gathered": "today"},
            "gathered: 'today' is not a time; write one such as",
        ),
        ({"hosts": HOSTS, "path": "page.html", "json_path": "./page.html"}, "two of them are one file"),
    ],
)
def test_invalid_options_are_refused_and_nothing_is_written(folder: Path, options: Document, reason: str) -> None:
    result = run(**options)
    assert result["failed"]
    assert reason in result["msg"]
    assert result.items() >= subject.NOTHING_DONE.items()
    assert list(folder.iterdir()) == []


def test_error_names_a_file_that_cannot_be_written(folder: Path) -> None:
    (folder / "file").touch()
    result = run(hosts=HOSTS, path="page.html", json_path="file/page.json")
    assert result["failed"]
    assert result["msg"] == f"{folder}/file/page.json: Not a directory. Nothing was written."

    (folder / "locked").symlink_to("/proc/self/nonesuch")
    result = run(hosts=HOSTS, path="page.html", json_path="locked/page.json")
    assert result["msg"].startswith(f"{folder}/locked")
    assert result["msg"].endswith("The result lists the files that were written.")
    assert result["files"] == [{"path": f"{folder}/page.html", "changed": True}]

    (folder / "page.xml").mkdir()
    result = run(hosts=HOSTS, path="page.html", json_path="page.json", junit_path="page.xml")
    assert result["msg"] == f"{folder}/page.xml: Is a directory. Nothing was written."
    assert set(subject.NOTHING_DONE) < set(result)


def test_the_page_can_be_left_out(folder: Path) -> None:
    result = run(hosts=HOSTS, json_path="page.json", junit_path="page.xml")
    assert [file["path"] for file in result["files"]] == [f"{folder}/page.json", f"{folder}/page.xml"]
    assert sorted(path.name for path in folder.iterdir()) == ["page.json", "page.xml"]


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(path))


def device(path: Path) -> None:
    """Create a device that accepts any data, like /dev/null."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a device")
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


@pytest.mark.parametrize("option", FILES)
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        pytest.param(os.mkfifo, "a FIFO", id="fifo"),
        pytest.param(socket_at, "a socket", id="socket"),
        pytest.param(device, "a character device", id="device"),
    ],
)
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("check_mode", [False, True])
def test_only_regular_files_are_replaced(
    folder: Path, option: str, make: Callable[[Path], None], kind: str, linked: bool, check_mode: bool
) -> None:
    """Otherwise the plugin would replace a device by a file, or wait for the reader of a FIFO."""
    make(folder / "special")
    before = (folder / "special").stat()
    if linked:
        (folder / "link").symlink_to("special")
    path = "link" if linked else "special"
    result = run(check_mode, hosts=HOSTS, **{**FILES, option: path})
    assert result["failed"]
    assert result["msg"] == f"{folder}/{path}: it is {kind}, not a regular file. Nothing was written."
    assert os.path.samestat((folder / "special").stat(), before)
    assert sorted(path.name for path in folder.iterdir()) == ["link", "special"][not linked :]


def test_path_with_a_trailing_slash_is_refused(folder: Path) -> None:
    (folder / "hosts").write_text("mine")
    result = run(hosts=HOSTS, path="hosts/")
    assert result["msg"] == f"{folder}/hosts/: it names a directory. Nothing was written."
    assert (folder / "hosts").read_text() == "mine"
    result = run(hosts=HOSTS, path="new/")
    assert result["msg"] == f"{folder}/new/: it names a directory. Nothing was written."


def test_two_links_to_one_file_are_refused(folder: Path) -> None:
    (folder / "page.json").symlink_to("page.html")
    result = run(hosts=HOSTS, path="page.html", json_path="page.json")
    assert "two of them are one file" in result["msg"]
    assert not (folder / "page.html").exists()


def test_modes_of_existing_and_new_files(folder: Path) -> None:
    mask = os.umask(0o027)
    try:
        run(hosts=HOSTS, path="page.html")
        assert stat.S_IMODE((folder / "page.html").stat().st_mode) == 0o640
        (folder / "page.html").write_text("mine")
        (folder / "page.html").chmod(0o604)
        run(hosts=HOSTS, path="page.html")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((folder / "page.html").stat().st_mode) == 0o604


def test_page_does_not_link_a_json_file_in_another_folder(folder: Path) -> None:
    run(hosts=HOSTS, path="page.html", json_path="other/page.json")
    assert "page.json" not in (folder / "page.html").read_text()


def test_options_agree_with_the_documentation() -> None:
    """Users can use exactly the documented options."""

    def types(options: Document) -> Document:
        return {
            name: (option["type"], option.get("required", False), option.get("default"))
            for name, option in options.items()
        }

    written = yaml.safe_load(documented.DOCUMENTATION)["options"]
    assert types(subject.OPTIONS) == types(written)
    assert types(subject.OPTIONS["fail_when"]["options"]) == types(written["fail_when"]["suboptions"])
    returned = yaml.safe_load(documented.RETURN)
    assert set(returned) == set(subject.NOTHING_DONE) - {"changed"}
