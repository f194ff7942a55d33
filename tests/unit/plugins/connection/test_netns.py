# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test the connection plugin without a namespace: the commands that it starts, and its error messages."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible.playbook.play_context import PlayContext

from ansible_collections.netops.conntrack.plugins.connection import netns

Connect = Callable[..., netns.Connection]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Connect:
    """Return a function that creates a connection. Names of namespaces are files in the folder "names"."""
    (tmp_path / "names").mkdir()
    monkeypatch.setattr(netns, "NAMES", str(tmp_path / "names"))

    def connection(**options: str) -> netns.Connection:
        options = {"nsenter": "nsenter", "pipelining": "", **options}
        monkeypatch.setattr(netns.Connection, "get_option", lambda self, name: options[name])
        return netns.Connection(PlayContext())

    return connection


@pytest.fixture
def enter(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that writes a shell script in place of nsenter."""

    def program(lines: str) -> str:
        path = tmp_path / "enter"
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o700)
        return str(path)

    return program


def refusal(connection: netns.Connection) -> str:
    with pytest.raises(AnsibleConnectionFailure) as failure:
        connection.exec_command("true")
    return str(failure.value)


def test_every_command_runs_through_nsenter(connect: Connect, enter: Callable[[str], str]) -> None:
    """Quotes, dollar signs and newlines of the command arrive unchanged."""
    program = enter('[ "$1 $2 $3" = "--blue --net=/proc/self/ns/net --" ] && shift 3 && exec "$@"')
    connection = connect(netns="/proc/self/ns/net", nsenter=f"{program} --blue")
    command = """printf '%s\n' "it's" "\\$HOME" 'two
lines'; cat; exit 3"""
    assert connection.exec_command(command, in_data=b"input") == (3, b"it's\n$HOME\ntwo\nlines\ninput", b"")


def test_files_are_on_the_controller(connect: Connect, enter: Callable[[str], str], tmp_path: Path) -> None:
    connection = connect(netns="/proc/self/ns/net", nsenter=enter("exit 0"))
    (tmp_path / "one").write_text("text")
    connection.put_file(str(tmp_path / "one"), str(tmp_path / "two"))
    connection.fetch_file(str(tmp_path / "two"), str(tmp_path / "three"))
    assert (tmp_path / "three").read_text() == "text"


def test_name_is_resolved_in_the_folder_of_ip_netns(
    connect: Connect, enter: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "names/blue").touch()
    connection = connect(netns="blue", nsenter=enter('echo "$1" >&2; [ "$3" = true ]'))
    assert connection.exec_command("")[2].decode().strip() == f"--net={tmp_path}/names/blue"


def test_missing_name_is_reported_with_the_existing_names(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "names/red").touch()
    (tmp_path / "names/green").touch()
    assert "create it with 'ip netns add blue', or name one of green, red." in refusal(connect(netns="blue"))


def test_missing_folder_of_names(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "names").rmdir()
    assert refusal(connect(netns="blue")).endswith("create it with 'ip netns add blue'.")


def test_ended_process(connect: Connect) -> None:
    assert "name the namespace of a process that is running" in refusal(connect(netns="/proc/0/ns/net"))


@pytest.mark.parametrize("name", ["", "some/where", "../run"])
def test_neither_name_nor_path(connect: Connect, name: str) -> None:
    assert "set ansible_netns_name" in refusal(connect(netns=name))


def test_a_missing_program(connect: Connect) -> None:
    text = refusal(connect(netns="/proc/self/ns/net", nsenter="/nowhere/nsenter"))
    assert "'/nowhere/nsenter' cannot be run" in text
    assert "install util-linux" in text


def test_file_that_is_not_a_namespace(connect: Connect, enter: Callable[[str], str], tmp_path: Path) -> None:
    program = enter("echo 'nsenter: reassociate to namespace: Invalid argument' >&2; exit 1")
    file = tmp_path / "file"
    file.touch()
    assert f"{file} is not a network namespace" in refusal(connect(netns=str(file), nsenter=program))


def test_fifo_is_refused_without_waiting(connect: Connect, enter: Callable[[str], str], tmp_path: Path) -> None:
    fifo = tmp_path / "names/blue"
    os.mkfifo(fifo)
    text = refusal(connect(netns="blue", nsenter=enter(f"touch {tmp_path}/started")))
    assert text == f"{fifo} is not a regular file, so it is not a network namespace: set ansible_netns_name to one."
    assert not (tmp_path / "started").exists()


def test_missing_permission(connect: Connect, enter: Callable[[str], str]) -> None:
    program = enter("echo 'nsenter: cannot open: Permission denied' >&2; exit 1")
    text = refusal(connect(netns="/proc/self/ns/net", nsenter=program))
    assert "Permission denied" in text
    assert "run Ansible as root" in text


def test_program_that_fails_without_output(connect: Connect, enter: Callable[[str], str]) -> None:
    assert "ended with status 7" in refusal(connect(netns="/proc/self/ns/net", nsenter=enter("exit 7")))
